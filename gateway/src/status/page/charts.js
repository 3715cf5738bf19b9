// Drawing: numbers in, SVG out. Knows nothing of where the numbers come from. Texts are only ever text nodes.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const child of children) node.append(child);
  return node;
}

function label(x, y, text, attributes = {}) {
  return svg("text", { x, y, ...attributes }, String(text));
}

// A drawing in its place, as wide as that, with words for who does not see it.
function drawing(host, height, about) {
  const width = Math.max(host.clientWidth, 240);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": about });
  host.replaceChildren(root);
  return { root, width, height };
}

function quantile(sorted, q) {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))];
}

function duration(us) {
  if (us === null || us === undefined || Number.isNaN(us)) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 10_000) return `${(us / 1000).toFixed(1)} ms`;
  if (us < 1_000_000) return `${Math.round(us / 1000)} ms`;
  if (us < 120_000_000) return `${(us / 1_000_000).toFixed(1)} s`;
  return `${Math.round(us / 60_000_000)} min`;
}

function period(seconds) {
  if (seconds === null || Number.isNaN(seconds)) return "–";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

function count(n) {
  if (n === null || Number.isNaN(n)) return "–";
  if (n >= 10_000_000) return `${(n / 1_000_000).toFixed(0)} M`;
  if (n >= 1_000_000) return `${(n / 1_000_000).toFixed(1)} M`;
  if (n >= 10_000) return `${(n / 1000).toFixed(0)} k`;
  return n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
}

function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

// Times of statements over the last minutes, a column for each step: percentiles on a logarithmic scale.
function distribution(host, points, kind, now, range) {
  const height = 190, left = 52, bottom = 18, top = 8, minutes = 10, step = 10_000;
  const { root, width } = drawing(host, height, `times of ${points.length} statements, ${kind}`);
  const columns = (minutes * 60_000) / step;
  const [low, high] = range;
  const y = (us) => top + (height - top - bottom) * (1 - (Math.log10(Math.max(us, low)) - Math.log10(low)) / (Math.log10(high) - Math.log10(low)));
  for (let us = low; us <= high; us *= 10) {
    root.append(svg("line", { class: "axis", x1: left, x2: width, y1: y(us), y2: y(us) }), label(left - 6, y(us) + 4, duration(us), { "text-anchor": "end" }));
  }
  const begin = (Math.floor(now / step) + 1) * step - minutes * 60_000;
  const x = (column) => left + ((width - left) * column) / columns;
  for (const minute of [10, 5, 0]) {
    const anchor = minute === 10 ? "start" : minute === 0 ? "end" : "middle";
    root.append(label(left + ((width - left) * (minutes - minute)) / minutes, height - 4, minute === 0 ? "now" : `${minute} min ago`, { "text-anchor": anchor }));
  }
  const buckets = new Map();
  for (const point of points) {
    const column = Math.floor((point.at - begin) / step);
    if (column < 0 || column >= columns) continue;
    if (!buckets.has(column)) buckets.set(column, []);
    buckets.get(column).push(point.us);
  }
  if (buckets.size === 0) root.append(label((left + width) / 2, height / 2, "no statements in the last ten minutes", { "text-anchor": "middle" }));
  const wide = Math.max(2, (width - left) / columns - 2);
  for (const [column, values] of buckets) {
    values.sort((a, b) => a - b);
    const [p10, p50, p90, most] = [0.1, 0.5, 0.9, 1].map((q) => quantile(values, q));
    root.append(
      svg("rect", { class: `band ${kind}`, x: x(column) + 1, width: wide, y: y(p90), height: Math.max(2, y(p10) - y(p90)) }),
      svg("line", { class: kind, x1: x(column) + 1, x2: x(column) + 1 + wide, y1: y(p50), y2: y(p50), "stroke-width": 2.5 }),
      kind === "lake"
        ? svg("rect", { class: kind, x: x(column) + 1 + wide / 2 - 2, y: y(most) - 2, width: 4, height: 4, transform: `rotate(45 ${x(column) + 1 + wide / 2} ${y(most)})` })
        : svg("circle", { class: kind, cx: x(column) + 1 + wide / 2, cy: y(most), r: 2.2 }));
  }
}

// Lines over time: [{ name, points: [[ms, value]] }], each with another dash, named above with its last value.
function lines(host, series, now, unit) {
  const shown = series.slice(0, 6);
  const left = 46, bottom = 18, top = 10 + 14 * shown.length, height = 120 + top, minutes = 10;
  const { root, width } = drawing(host, height, shown.map((s) => s.name).join(", ") || "nothing yet");
  const most = Math.max(1, ...shown.flatMap((s) => s.points.map((p) => p[1])));
  const scale = 10 ** Math.floor(Math.log10(most));
  const high = [1, 2, 5, 10].map((n) => n * scale).find((n) => n >= most);
  const x = (ms) => left + (width - left) * (1 - (now - ms) / (minutes * 60_000));
  const y = (value) => top + (height - top - bottom) * (1 - value / high);
  for (const value of [0, high / 2, high]) {
    root.append(svg("line", { class: "axis", x1: left, x2: width, y1: y(value), y2: y(value) }), label(left - 6, y(value) + 4, unit(value), { "text-anchor": "end" }));
  }
  root.append(label(left, height - 4, "10 min ago"), label(width, height - 4, "now", { "text-anchor": "end" }));
  shown.forEach((one, number) => {
    const kind = ["postgres", "lake", "plain"][number % 3] + ["", " second", " third"][number % 3];
    const seen = one.points.filter((p) => now - p[0] <= minutes * 60_000);
    const last = seen.length > 0 ? unit(seen[seen.length - 1][1]) : "nothing yet";
    root.append(
      svg("path", { class: `drawn ${kind}`, d: `M${left} ${8 + number * 14}h24` }),
      label(left + 30, 12 + number * 14, `${one.name}: ${last}`, { class: "strong" }));
    if (seen.length === 0) return;
    const path = seen.map((p, n) => `${n === 0 ? "M" : "L"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
    root.append(svg("path", { class: `drawn ${kind}`, d: path }));
  });
  if (shown.length === 0) root.append(label((left + width) / 2, height / 2, "nothing yet", { "text-anchor": "middle" }));
}

// Squares whose areas are as the bytes are, in rows; `scale` is bytes a square pixel. Returns the height that they took.
function squares(root, files, at, width, scale, kind, most = 400) {
  let x = at.x, y = at.y, row = 0;
  for (const file of files.slice(0, most)) {
    const side = Math.max(1.5, Math.sqrt(file.bytes / scale));
    if (x + side > at.x + width) { x = at.x; y += row + 2; row = 0; }
    root.append(svg("rect", { class: `file ${kind}`, x: x.toFixed(1), y: y.toFixed(1), width: side.toFixed(1), height: side.toFixed(1) }, svg("title", {}, file.title)));
    x += side + 2;
    row = Math.max(row, side);
  }
  return y + row - at.y;
}

// Two values on one scale, one above the other.
function pair(host, postgres, lake, high) {
  const height = 34, left = 78;
  const { root, width } = drawing(host, height, `PostgreSQL ${duration(postgres.p50)}, lake ${duration(lake.p50)}`);
  const space = width - left - 130;
  const x = (us) => Math.max(1, (space * Math.log10(1 + us / 100)) / Math.log10(1 + high / 100));
  [[postgres, "postgres", "PostgreSQL", 2], [lake, "lake", "lake", 19]].forEach(([side, kind, name, y]) => {
    root.append(
      label(left - 6, y + 10, name, { "text-anchor": "end" }),
      svg("rect", { class: `bar ${kind}`, x: left, y, width: x(side.p50), height: 12 }),
      svg("line", { class: kind, x1: left + x(side.p50), x2: left + x(side.p95), y1: y + 6, y2: y + 6 }),
      svg("line", { class: kind, x1: left + x(side.p95), x2: left + x(side.p95), y1: y + 2, y2: y + 10 }),
      label(left + x(side.p95) + 6, y + 10, `${duration(side.p50)} · 95 %: ${duration(side.p95)}`, { class: "strong" }));
  });
}

// For each table its days on one axis: what PostgreSQL holds above, the files of the lake below.
function coverage(host, tables, now) {
  const lane = 66, left = 40;
  const { root, width, height } = drawing(host, Math.max(40, tables.length * lane + 20), tables.map((t) => t.name).join(", ") || "no tables");
  if (tables.length === 0) { root.append(label(width / 2, 24, "no tables that you may read", { "text-anchor": "middle" })); return; }
  const times = tables.flatMap((t) => [t.hotFrom, ...t.files.flatMap((f) => [f.from, f.to])]).filter((t) => Number.isFinite(t));
  const begin = Math.min(now - 3_600_000, ...times), end = Math.max(now, ...times);
  const x = (ms) => left + ((width - left - 4) * (ms - begin)) / Math.max(1, end - begin);
  tables.forEach((table, number) => {
    const y = number * lane + 6;
    const holds = [`${size(table.hotBytes)} in PostgreSQL`, `${table.files.length} files in the lake`, table.lateBytes > 0 ? `${size(table.lateBytes)} late` : ""].filter(Boolean);
    root.append(label(0, y + 8, table.name, { class: "strong" }), label(width - 4, y + 8, holds.join(" · "), { "text-anchor": "end" }));
    root.append(label(left - 6, y + 25, "hot", { "text-anchor": "end" }), label(left - 6, y + 44, "lake", { "text-anchor": "end" }));
    root.append(svg("line", { class: "axis", x1: left, x2: width - 4, y1: y + 31, y2: y + 31 }));
    if (Number.isFinite(table.hotFrom)) {
      root.append(svg("rect", { class: "hot", x: x(table.hotFrom), width: Math.max(2, x(end) - x(table.hotFrom)), y: y + 14, height: 14 }, svg("title", {}, `PostgreSQL, ${size(table.hotBytes)}`)));
    }
    for (const file of table.files) {
      if (!Number.isFinite(file.from)) continue;
      root.append(svg("rect", { class: "cold", x: x(file.from).toFixed(1), width: Math.max(1.5, x(file.to) - x(file.from)).toFixed(1), y: y + 34, height: 14, "fill-opacity": 0.75 }, svg("title", {}, file.title)));
    }
    if (Number.isFinite(table.floor)) {
      root.append(svg("line", { class: "floor", x1: x(table.floor), x2: x(table.floor), y1: y + 11, y2: y + 52 }), label(x(table.floor) + 4, y + 58, "floor"));
      if (table.lateBytes > 0) {
        root.append(svg("rect", { class: "late", x: left + 1, width: Math.max(4, x(table.floor) - left - 2), y: y + 15, height: 12 }, svg("title", {}, `late rows, ${size(table.lateBytes)}`)));
      }
    }
  });
  for (const share of [0, 0.5, 1]) {
    const ms = begin + (end - begin) * share;
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const text = end - begin > 172_800_000 ? new Date(ms).toISOString().slice(0, 10) : new Date(ms).toISOString().slice(0, 16).replace("T", " ");
    root.append(label(x(ms), height - 4, text, { "text-anchor": anchor }));
  }
}
