// The page: logs in, listens, keeps what it heard within bounds, and has it drawn. Everything that comes from the server is a text.

const KEPT = 3000, SHOWN = 60, HISTORY = 10 * 60_000;
const by = (id) => document.getElementById(id);

let csrf = null, source = null, waiting = false;
let statements = [], state = {}, fresh = new Set(), history = [];

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

async function send(path, body) {
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers: { "content-type": "application/json", ...(csrf ? { "x-watershed-csrf": csrf } : {}) },
    body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "same-origin",
    cache: "no-store",
  });
  let told = {};
  try { told = await answer.json(); } catch { told = { error: `the answer cannot be read (${answer.status})` }; }
  if (answer.status === 401 || answer.status === 410) leave(told.error);
  return { ok: answer.ok, status: answer.status, told };
}

// ---- coming and going

async function begin() {
  const { ok, told } = await send("/status/session");
  if (ok) enter(told);
}

function enter(told) {
  csrf = told.csrf;
  by("user").textContent = told.user;
  by("entrance").hidden = true;
  by("board").hidden = false;
  by("who").hidden = false;
  listen();
}

function leave(why) {
  if (source) source.close();
  source = null;
  csrf = null;
  statements = []; state = {}; history = []; fresh.clear();
  by("answer").replaceChildren();
  by("board").hidden = true;
  by("who").hidden = true;
  by("entrance").hidden = false;
  by("connection").textContent = "not logged in";
  if (why && why !== "log in") complain(why);
}

function complain(why) {
  by("login-error").textContent = why;
  by("login-error").hidden = !why;
}

by("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  complain("");
  const { ok, told } = await send("/status/login", { user: by("login-user").value, password: by("login-password").value });
  by("login-password").value = "";
  if (ok) enter(told); else complain(told.error);
});

by("logout").addEventListener("click", async () => {
  await send("/status/logout", {});
  leave("");
});

function listen() {
  if (source) source.close();
  source = new EventSource("/status/events");
  by("connection").textContent = "connecting …";
  source.addEventListener("statements", (event) => {
    by("connection").textContent = `live · ${clock(Date.now())}`;
    hear(JSON.parse(event.data));
  });
  source.addEventListener("state", (event) => {
    state = JSON.parse(event.data);
    remember();
    draw();
  });
  source.addEventListener("trouble", (event) => {
    by("connection").textContent = `trouble: ${JSON.parse(event.data).message}`;
  });
  source.addEventListener("ended", (event) => {
    leave(JSON.parse(event.data).message || "the session has ended; log in again");
  });
  source.addEventListener("error", () => {
    by("connection").textContent = "connection lost; trying again …";
    // Closed for good: the server has said no.
    if (source && source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(async () => { if (csrf && (await send("/status/session")).ok) listen(); }, 2000);
    }
  });
}

// ---- what was heard

const number = (text) => (text === null || text === undefined ? null : Number(text));
const time = (text) => (text ? Date.parse(text.replace(" ", "T").replace(/\+00$/, "Z")) : NaN);

function hear(rows) {
  const first = statements.length === 0;
  const known = new Set(statements.slice(-600).map((s) => s.id));
  for (const row of rows) {
    const id = number(row.id);
    if (known.has(id)) continue;
    statements.push({ ...row, id, at: time(row.started_at), us: number(row.total_us) });
    if (!first) fresh.add(id);
  }
  if (statements.length > KEPT) statements = statements.slice(-KEPT);
  draw();
}

function part(name) {
  return Array.isArray(state[name]) ? state[name] : [];
}

function figures() {
  return part("metrics").map((m) => ({ name: m.name, labels: JSON.parse(m.labels), value: Number(m.value) }));
}

function sum(all, name, where = () => true) {
  const found = all.filter((f) => f.name === name && where(f.labels));
  return found.length === 0 ? null : found.reduce((total, f) => total + f.value, 0);
}

// Counters become rates by what they were at the last look.
function remember() {
  const now = Date.now(), all = figures(), taken = new Map(), shipped = new Map(), tails = new Map();
  for (const figure of all) {
    if (figure.name === "watershed_ingest_rows_total") {
      const key = `${figure.labels.table} by ${figure.labels.source}`;
      taken.set(key, (taken.get(key) || 0) + figure.value);
    }
    // What came by SQL is not counted on its way in, but on its way to the lake.
    if (figure.name === "watershed_archiver_rows_total") shipped.set(`${figure.labels.table} to the lake`, figure.value);
    if (figure.name === "watershed_archiver_tail_rows") tails.set(figure.labels.table, figure.value);
  }
  history.push({ now, taken, shipped, tails });
  history = history.filter((h) => now - h.now <= HISTORY);
}

function rates(of) {
  const series = new Map();
  for (let n = 1; n < history.length; n += 1) {
    const before = history[n - 1], after = history[n], seconds = Math.max(0.5, (after.now - before.now) / 1000);
    for (const [name, value] of after[of]) {
      if (!series.has(name)) series.set(name, []);
      series.get(name).push([after.now, Math.max(0, value - (before[of].get(name) || 0)) / seconds]);
    }
  }
  return [...series].map(([name, points]) => ({ name, points })).sort((a, b) => a.name.localeCompare(b.name));
}

function tails() {
  const series = new Map();
  for (const look of history) {
    for (const [name, value] of look.tails) {
      if (!series.has(name)) series.set(name, []);
      series.get(name).push([look.now, value]);
    }
  }
  return [...series].map(([name, points]) => ({ name, points })).sort((a, b) => a.name.localeCompare(b.name));
}

// ---- drawing, at most once a frame

function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (by("board").hidden) return;
    const now = Date.now();
    drawTiles(now); drawProblems(); drawLive(); drawTimes(now); drawPairs(); drawIngest(now); drawTail(now); drawCoverage(now); drawFiles(); drawWrong();
  });
}

function drawTiles(now) {
  const recent = statements.filter((s) => now - s.at < 60_000);
  const of = (route) => recent.filter((s) => s.route === route && !s.sqlstate).map((s) => s.us).sort((a, b) => a - b);
  const [postgres, lake] = [of("postgres"), of("lake")];
  const all = figures();
  const lastRates = rates("taken").map((s) => s.points[s.points.length - 1]?.[1] ?? 0);
  const ages = part("tables").map((t) => number(t.boundary_age)).filter((age) => age !== null);
  const tiles = [
    [count(recent.length / 60), "statements a second"],
    [postgres.length ? duration(quantile(postgres, 0.5)) : "–", `median in PostgreSQL (${postgres.length})`],
    [lake.length ? duration(quantile(lake, 0.5)) : "–", `median in the lake (${lake.length})`],
    [count(recent.filter((s) => s.sqlstate).length), "errors in the last minute"],
    [lastRates.length ? count(lastRates.reduce((a, b) => a + b, 0)) : "–", "rows a second taken in"],
    [count(sum(all, "watershed_archiver_tail_rows")), "rows in the tail"],
    [ages.length ? period(Math.max(...ages)) : "–", "oldest boundary"],
    [`${count(sum(all, "watershed_sessions"))} / ${count(sum(all, "watershed_sessions_limit"))}`, "sessions"],
  ];
  by("tiles").replaceChildren(...tiles.map(([value, name]) => element("li", {}, element("b", {}, value), element("span", {}, name))));
}

const PROBLEMS = {
  postgres: "PostgreSQL does not answer.",
  disk: "A disk is nearly full: nothing more is taken in until there is room.",
  lineage: "The server is of another lineage than a table (a restore or a failover): `watershed rebase` brings them together.",
  long_writer: "A transaction has been writing for long: what it wrote stays out of the lake.",
  boundary: "Rows wait, and nothing was shipped to the lake for long.",
  lag: "A partition is far behind.",
  retention: "Old days do not leave: see the note of the table.",
};

function drawProblems() {
  const wrong = figures().filter((f) => f.name === "watershed_problem" && f.value > 0).map((f) => PROBLEMS[f.labels.problem] || f.labels.problem);
  by("problems").replaceChildren(...wrong.map((text) => element("li", {}, text)));
}

function badge(route) {
  const names = { postgres: "PostgreSQL", lake: "lake", virtual: "gateway" };
  return element("span", { class: `route ${names[route] ? route : ""}` }, names[route] || route);
}

function drawLive() {
  if (by("pause").checked) return;
  const rows = statements.slice(-SHOWN).reverse().map((s) => {
    const why = s.error ? element("div", { class: "reason bad" }, `✕ ${s.sqlstate}: ${s.error}`) : element("div", { class: "reason" }, s.reasons || "handed on unseen");
    return element("tr", fresh.has(s.id) ? { class: "new" } : {},
      element("td", {}, clock(s.at)), element("td", {}, badge(s.route)),
      element("td", { class: "number" }, duration(s.us)), element("td", { class: "number" }, count(number(s.rows))),
      element("td", {}, element("div", { class: "sql", title: s.sql }, s.sql), why));
  });
  fresh.clear();
  by("live").tBodies[0].replaceChildren(...rows);
}

function drawTimes(now) {
  const of = (route) => statements.filter((s) => s.route === route && !s.sqlstate && now - s.at < HISTORY + 10_000);
  const both = [...of("postgres"), ...of("lake")].map((s) => Math.max(50, s.us));
  const low = 10 ** Math.floor(Math.log10(Math.min(100, ...both))), high = 10 ** Math.ceil(Math.log10(Math.max(1_000_000, ...both)));
  for (const route of ["postgres", "lake"]) distribution(by(`times-${route}`), of(route), route, now, [low, high]);
}

function drawPairs() {
  const found = new Map();
  for (const row of part("pairs")) {
    const one = found.get(row.fingerprint) || { sql: row.sample_sql, calls: 0 };
    one[row.route] = { p50: number(row.p50_us), p95: number(row.p95_us), calls: number(row.calls) };
    one.calls += number(row.calls);
    found.set(row.fingerprint, one);
  }
  const both = [...found.values()].filter((p) => p.postgres && p.lake).sort((a, b) => b.calls - a.calls).slice(0, 10);
  const host = by("pairs");
  if (both.length === 0) {
    host.replaceChildren(element("p", { class: "quiet" }, "No statement has run on both paths yet. “Compare both paths” below has one do so."));
    return;
  }
  const high = Math.max(...both.flatMap((p) => [p.postgres.p95, p.lake.p95]));
  const charts = both.map((p) => element("div", { class: "chart" }));
  host.replaceChildren(...both.map((p, n) => {
    const faster = p.postgres.p50 / Math.max(1, p.lake.p50);
    const words = faster >= 1 ? `the lake is ${faster.toFixed(1)} times as fast` : `PostgreSQL is ${(1 / faster).toFixed(1)} times as fast`;
    return element("div", { class: "pair" },
      element("div", {}, element("div", { class: "sql", title: p.sql }, p.sql), element("div", { class: "quiet" }, `${words} · ${count(p.postgres.calls)} and ${count(p.lake.calls)} calls`)),
      charts[n]);
  }));
  both.forEach((p, n) => pair(charts[n], p.postgres, p.lake, high));
}

function drawIngest(now) {
  lines(by("ingest"), [...rates("taken"), ...rates("shipped")].map((s) => ({ ...s, name: `${s.name}, rows/s` })), now, count);
  const behind = part("streams").filter((s) => (number(s.lag_records) || 0) > 0);
  const words = part("streams").length === 0 ? "No Kafka partition is read here." : behind.length === 0 ? "No partition is behind." : "";
  by("lag").replaceChildren(words ? element("p", { class: "quiet" }, words) : table(["Partition", "Behind", "Since", "State"],
    behind.map((s) => [`${s.topic}/${s.partition}`, `${count(number(s.lag_records))} records`, period(number(s.lag_seconds)), s.state])));
}

function drawTail(now) {
  lines(by("tail"), tails().map((s) => ({ ...s, name: `${s.name}, rows not yet in the lake` })), now, count);
  const rows = part("tables").map((t) => [t.table_name, t.boundary_age === null ? "nothing shipped yet" : `${period(number(t.boundary_age))} ago`, Number.isFinite(time(t.floor)) ? `from ${t.floor.slice(0, 10)} on` : "all rows"]);
  by("boundary").replaceChildren(table(["Table", "Last shipped to the lake", "PostgreSQL holds"], rows));
}

function table(names, rows) {
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((value) =>
      value === null || value === undefined ? element("td", { class: "null" }, "NULL") : element("td", {}, value)))))));
}

function drawCoverage(now) {
  const tables = part("tables").map((t) => {
    const files = part("files").filter((f) => `${f.table_schema}.${f.table_name}` === t.table_name);
    const seen = files.map((f) => ({ from: time(f.first_event), to: time(f.last_event), title: `${f.day}: ${count(number(f.rows))} rows, ${size(number(f.bytes))}` }));
    const floor = time(t.floor), first = Math.min(...seen.map((f) => f.from).filter((f) => Number.isFinite(f)));
    const hotFrom = Number.isFinite(floor) ? floor : Number.isFinite(first) ? first : t.first_day ? Date.parse(t.first_day) : NaN;
    return { name: t.table_name, floor, hotFrom: Math.min(hotFrom, now), hotBytes: number(t.postgres_bytes) || 0, lateBytes: number(t.late_bytes) || 0, files: seen };
  });
  coverage(by("coverage"), tables, now);
}

function drawFiles() {
  const files = part("files").map((f) => ({ bytes: number(f.bytes), table: `${f.table_schema}.${f.table_name}`, title: `${f.table_schema}.${f.table_name} ${f.day}: ${count(number(f.rows))} rows, ${size(number(f.bytes))}` }));
  const jobs = part("compactions").filter((c) => c.outcome === "done");
  const most = Math.max(1, ...files.map((f) => f.bytes), ...jobs.flatMap((c) => [number(c.bytes_before) / Math.max(1, number(c.files_before)), number(c.bytes_after) / Math.max(1, number(c.files_after))]));
  // One scale for both drawings: the largest file is a square of 84 pixels.
  const scale = most / (84 * 84);
  const names = [...new Set(files.map((f) => f.table))];
  let { root, width } = drawing(by("files"), 60, `${files.length} files`);
  if (files.length === 0) root.append(label(width / 2, 30, "no files yet", { "text-anchor": "middle" }));
  let y = 0;
  for (const name of names) {
    const own = files.filter((f) => f.table === name);
    root.append(label(0, y + 12, `${name}: ${count(own.length)} files, ${size(own.reduce((all, f) => all + f.bytes, 0))}`, { class: "strong" }));
    y += 18 + squares(root, own, { x: 0, y: y + 18 }, width, scale, "after") + 10;
  }
  if (files.length > 0) resize(root, y);

  ({ root, width } = drawing(by("merged"), 60, `${jobs.length} compactions`));
  if (jobs.length === 0) root.append(label(width / 2, 30, "nothing was merged yet", { "text-anchor": "middle" }));
  y = 0;
  const half = (width - 24) / 2;
  for (const job of jobs.slice(0, 6)) {
    const split = (bytes, n, title) => Array.from({ length: n }, () => ({ bytes: bytes / Math.max(1, n), title }));
    const [before, after] = [number(job.files_before), number(job.files_after)];
    root.append(label(0, y + 12, `${job.table_name} ${job.day}: ${count(before)} files, ${size(number(job.bytes_before))} → ${count(after)}, ${size(number(job.bytes_after))}`, { class: "strong" }));
    const top = y + 18;
    const tall = Math.max(
      squares(root, split(number(job.bytes_before), before, "before"), { x: 0, y: top }, half, scale, "before"),
      squares(root, split(number(job.bytes_after), after, "after"), { x: half + 24, y: top }, half, scale, "after"));
    root.append(label(half + 4, top + Math.min(tall, 14), "→"));
    y = top + tall + 10;
  }
  if (jobs.length > 0) resize(root, y);
}

function resize(root, height) {
  const width = root.viewBox.baseVal.width;
  root.setAttribute("viewBox", `0 0 ${width} ${Math.ceil(height)}`);
  root.setAttribute("height", Math.ceil(height));
}

function drawWrong() {
  const found = [];
  for (const s of statements) {
    if (s.sqlstate) found.push([s.at, `error ${s.sqlstate}`, `${s.error || ""} — ${s.sql}`]);
    else if (s.fell_back === "t") found.push([s.at, "given back by the lake", `${s.reasons} — ${s.sql}`]);
  }
  for (const c of part("comparisons")) if (c.verdict === "different") found.push([time(c.compared_at), "answers differ", `${c.detail || ""} — ${c.sql}`]);
  for (const c of part("compactions")) if (c.outcome === "failed") found.push([time(c.finished_at), "compaction failed", `${c.table_name} ${c.day}: ${c.error || ""}`]);
  for (const l of part("letters")) found.push([time(l.last), "rejected records", `${l.records} × ${l.stage}: ${l.reason}`]);
  for (const t of part("tables")) if (t.retention_note) found.push([Date.now(), "retention waits", `${t.table_name}: ${t.retention_note}`]);
  found.sort((a, b) => b[0] - a[0]);
  const items = found.slice(0, 30).map(([at, kind, text]) => element("li", {}, element("span", { class: "when" }, clock(at)), " ", element("span", { class: "kind" }, `✕ ${kind}`), " ", element("span", {}, text)));
  by("wrong").replaceChildren(...(items.length ? items : [element("li", { class: "quiet" }, "Nothing.")]));
}

// ---- asking

function side(title, told) {
  const host = element("div", {}, title);
  const record = told.record || {};
  const facts = [`took ${duration(told.took_us)} here`];
  if (record.total_us) facts.push(`${duration(number(record.total_us))} in the gateway`, `plan ${duration(number(record.plan_us))}`, `tail ${duration(number(record.tail_us))}`);
  if (number(record.lake_files)) facts.push(`${record.lake_files} files, ${record.lake_row_groups} row groups, ${size(number(record.lake_bytes))}`);
  if (number(record.tail_rows)) facts.push(`${count(number(record.tail_rows))} rows of the tail`);
  host.append(element("p", { class: "quiet" }, record.route ? badge(record.route) : "", " ", facts.join(" · ")));
  if (record.reasons) host.append(element("p", { class: "quiet" }, record.reasons));
  if (told.error) {
    const { sqlstate, message, detail, hint } = told.error;
    host.append(element("p", { class: "bad" }, `✕ ${sqlstate ? `${sqlstate}: ` : ""}${message}`), ...[detail, hint].filter(Boolean).map((text) => element("p", { class: "quiet" }, text)));
    return host;
  }
  host.append(table(told.columns, told.rows), element("p", { class: "quiet" }, `${told.more ? "The first " : ""}${told.rows.length} ${told.rows.length === 1 ? "row" : "rows"}.`));
  if (told.lake_plan) host.append(element("details", {}, element("summary", {}, "The lake's plan, as it ran"), element("pre", {}, told.lake_plan)));
  if (told.plan.length) host.append(element("details", {}, element("summary", {}, told.lake_plan ? "PostgreSQL's plan, had it answered" : "Plan"), element("pre", {}, told.plan.join("\n"))));
  return host;
}

async function ask(path) {
  const buttons = [...by("box").querySelectorAll("button")];
  buttons.forEach((button) => { button.disabled = true; });
  by("busy").textContent = "running …";
  try {
    const { ok, told } = await send(path, { sql: by("sql").value });
    if (!ok) by("answer").replaceChildren(element("p", { class: "bad", role: "alert" }, told.error));
    else if (path.endsWith("compare")) {
      by("answer").replaceChildren(
        element("p", { class: "verdict", id: "verdict" }, told.verdict),
        element("div", { class: "sides" }, side(element("h3", {}, "PostgreSQL"), told.postgres), side(element("h3", {}, "Lake"), told.lake)));
    } else by("answer").replaceChildren(side("", told));
  } catch (error) {
    by("answer").replaceChildren(element("p", { class: "bad", role: "alert" }, `the gateway did not answer: ${error.message}`));
  } finally {
    by("busy").textContent = "";
    buttons.forEach((button) => { button.disabled = false; });
  }
}

by("box").addEventListener("submit", (event) => { event.preventDefault(); ask("/status/query"); });
by("compare").addEventListener("click", () => ask("/status/compare"));
addEventListener("resize", draw);
begin();
