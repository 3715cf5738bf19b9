// node-postgres: the contract, named prepared statements, cursors (portals in portions), binary, notifications, cancelling, COPY refused.

'use strict';
const fs = require('fs');
const path = require('path');
const { Client, Pool, types } = require('pg');
const Cursor = require('pg-cursor');

const [key, mark] = process.argv.slice(2);
const OWN = `SELECT count(*) AS ${mark}, sum(n), min(note) FROM journal WHERE who = $1`;
const JOURNAL = 'INSERT INTO journal (who, n, note) VALUES ($1, $2, $3)';
const HEAVY = 'SELECT ' + Array.from({ length: 60 }, (_, n) => `count(*) FILTER (WHERE a / (a + ${n + 1}.7) > 0.3)`).join(', ') + `, count(*) AS ${mark} FROM heavy`;

const parsers = { int4: Number, int8: String, text: String, null: () => null, uuid: String, ts: (text) => new Date(text) };
const cases = fs.readFileSync(path.join(__dirname, 'statements.tsv'), 'utf8').split('\n').filter((line) => line && !line.startsWith('#')).map((line) => {
  const [name, , sql, ...values] = line.split('\t');
  return { name, sql: sql.replace('MARK', mark), values: values.map((v) => parsers[v.slice(0, v.indexOf('='))](v.slice(v.indexOf('=') + 1))) };
});

function say(name, ...values) {
  const text = values.map((v) => JSON.stringify(v, (_, x) => (x && x.type === 'Buffer' ? Buffer.from(x.data).toString('hex') : x)));
  console.log(`${name}: ${text.join(' ')}`.replaceAll(key, 'KEY'));
}

function rows(name, result) {
  const fields = result.fields.map((f) => [f.name, f.tableID > 0, f.columnID, f.dataTypeID, f.dataTypeSize, f.dataTypeModifier, f.format]);
  say(name, result.command, result.rowCount, fields);
  for (const row of result.rows) say(name, row);
}

async function error(name, promise) {
  try {
    await promise;
    say(name, 'no error');
  } catch (e) {
    say(name, e.code, e.severity, e.message, e.detail, e.hint, e.position, e.where, e.table, e.column, e.constraint);
  }
}

async function connect(settings = {}) {
  const client = new Client(settings);
  await client.connect();
  return client;
}

async function contract() {
  const c = await connect();
  for (const it of cases) rows(it.name, await c.query(it.sql, it.values));
  for (let n = 0; n < 4; n++) for (const it of cases) rows(`named ${it.name}`, await c.query({ name: it.name, text: it.sql, values: it.values }));
  for (const it of cases) if (!it.values.length) rows(`simple ${it.name}`, await c.query(it.sql));
  for (const it of cases) if (it.name !== 'join') rows(`binary ${it.name}`, await c.query({ text: it.sql, values: it.values, binary: true, rowMode: 'array', types: { getTypeParser: () => (v) => (Buffer.isBuffer(v) ? v.toString('hex') : v) } }));
  // All at once: the driver queues them.
  for (const [n, r] of (await Promise.all(cases.map((it) => c.query(it.sql, it.values)))).entries()) rows(`queued ${n}`, r);
  for (const r of await c.query('SELECT 1 AS a; SELECT count(*) FROM samples; SELECT level, count(*) FROM logs GROUP BY level ORDER BY level')) rows('several', r);
  await c.end();
}

async function pipelines() {
  const c = new Client({ pipelining: true });
  await c.connect();
  for (const [n, r] of (await Promise.all(cases.map((it) => c.query(it.sql, it.values)))).entries()) rows(`pipelined ${n}`, r);
  const [a, b, d] = await Promise.allSettled([c.query(`SELECT count(*) AS ${mark} FROM samples`), c.query('SELECT 1 / $1::int4', [0]), c.query(`SELECT count(*) AS ${mark} FROM logs`)]);
  say('pipelined error', a.status, b.reason && b.reason.code, d.status);
  await c.end();
}

async function transactions() {
  const c = await connect();
  await c.query('BEGIN');
  rows('nothing yet', await c.query(OWN, [key]));
  for (let n = 0; n < 5; n++) await c.query(JOURNAL, [key, n, `note ${n}`]);
  rows('own rows', await c.query(OWN, [key]));
  await c.query('SAVEPOINT a');
  await c.query(JOURNAL, [key, 100, 'a']);
  rows('in a savepoint', await c.query(OWN, [key]));
  await c.query('ROLLBACK TO a');
  rows('after its rollback', await c.query(OWN, [key]));
  await c.query('COMMIT');
  rows('committed', await c.query(OWN, [key]));
  await c.query('BEGIN');
  await c.query(JOURNAL, [key, 1000, 'gone']);
  await error('in a transaction', c.query('SELECT count(*) FROM samples WHERE nothing = $1', [1]));
  await error('aborted', c.query(OWN, [key]));
  await c.query('ROLLBACK');
  rows('rolled back', await c.query(OWN, [key]));
  for (const level of ['REPEATABLE READ', 'SERIALIZABLE', 'READ COMMITTED']) {
    await c.query(`BEGIN ISOLATION LEVEL ${level} READ ONLY`);
    rows(level, await c.query("SELECT current_setting('transaction_isolation'), count(*) FROM samples"));
    await error('read only', c.query(JOURNAL, [key, 1, 'x']));
    await c.query('ROLLBACK');
  }
  await c.end();
}

async function errors() {
  const c = await connect();
  const notices = [];
  c.on('notice', (n) => notices.push([n.severity, n.code, n.message, n.hint]));
  await c.query("CREATE TEMP TABLE own (id int PRIMARY KEY, t text CHECK (t <> ''))");
  await c.query("INSERT INTO own VALUES (1, 'x')");
  for (const sql of ['SELECT count(*) FORM samples', 'SELECT nothing, count(*) FROM samples GROUP BY 1', 'SELECT count(*) FROM nothing_there',
    'SELECT sum(1 / (i4 - i4)) FROM samples', 'SELECT sum(i4 * 1000000) FROM samples', "INSERT INTO own VALUES (1, 'y')", "INSERT INTO own VALUES (2, '')",
    'INSERT INTO journal (who, n) VALUES (NULL, 1)', 'UPDATE journal SET n = 1', "SELECT count(*) FROM samples WHERE d = 'never'::text::date", 'COPY kinds FROM STDIN']) {
    await error(sql, c.query(sql));
    // This driver itself waits for ever after a COPY of a statement with parameters.
    if (!sql.startsWith('COPY')) await error(`extended ${sql}`, c.query({ text: sql, values: [], name: sql.slice(0, 40) }));
    rows('going on', await c.query(`SELECT count(*) AS ${mark} FROM samples`));
  }
  await error('parameter', c.query('SELECT count(*) FROM samples WHERE d = $1', ['never']));
  await error('wrong number', c.query('SELECT count(*) FROM samples WHERE id = $1', [1, 2]));
  rows('going on', await c.query(`SELECT count(*) AS ${mark} FROM samples WHERE id > $1`, [3]));
  await c.query("DO $$ BEGIN RAISE NOTICE 'seen' USING HINT = 'look'; END $$");
  say('notices', notices);
  await c.end();
}

async function cursors() {
  const c = await connect();
  for (const transaction of [false, true]) {
    if (transaction) await c.query('BEGIN');
    for (const [sql, values] of [
      [`SELECT id, kind, count(*) AS ${mark} FROM samples WHERE id <= $1 GROUP BY id, kind ORDER BY id`, [50]],
      ['SELECT id, kind, t FROM samples WHERE id <= $1 ORDER BY id', [50]],
    ]) {
      for (const size of [1, 7, 50, 51, 1000]) {
        const cursor = c.query(new Cursor(sql, values));
        let all = 0;
        for (let part = await cursor.read(size); part.length; part = await cursor.read(size)) {
          all += part.length;
          say(`portion of ${size}`, part.length, part[0], part[part.length - 1]);
        }
        say('in all', all);
        await cursor.close();
      }
      const early = c.query(new Cursor(sql, values, { rowMode: 'array' }));
      say('early', await early.read(3));
      await early.close();
      rows('after an early close', await c.query(`SELECT count(*) AS ${mark} FROM logs`));
    }
    await error('cursor of an error', c.query(new Cursor('SELECT count(*) FROM samples WHERE nothing = 1')).read(1));
    if (transaction) await c.query('ROLLBACK');
  }
  await c.end();
}

async function cancelled(name, sql) {
  const c = await connect();
  const canceller = await connect();
  let ended = false;
  const over = error(name, c.query(sql)).then(() => { ended = true; });
  // Until it has ended: the first request may come before it runs.
  while (!ended) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    if (ended) break;
    const request = new Client();
    await new Promise((resolve) => {
      const con = request.connection;
      con.on('connect', () => con.cancel(c.processID, c.secretKey));
      con.on('end', resolve);
      con.on('error', resolve);
      con.connect(Number(process.env.PGPORT), process.env.PGHOST);
    });
  }
  await over;
  await c.query('SELECT pg_sleep(0.2)').catch(() => {}); // a request was still on its way
  rows(`${name}, going on`, await c.query(`SELECT count(*) AS ${mark} FROM samples`));
  await c.end();
  await canceller.end();
}

async function notifications() {
  const c = await connect();
  const other = await connect();
  const heard = [];
  let wake = () => {};
  c.on('notification', (n) => {
    heard.push(n);
    wake();
  });
  await c.query(`LISTEN "${key}"`);
  for (const payload of ['first', 'second']) {
    const came = new Promise((resolve) => { wake = resolve; });
    await other.query('SELECT pg_notify($1, $2)', [key, payload]);
    rows('and a statement', await c.query(`SELECT count(*) AS ${mark} FROM samples`));
    if (!heard.length) await came;
    const n = heard.shift();
    say('notified', n.channel, n.payload, n.processId === other.processID);
  }
  await c.end();
  await other.end();
}

async function pools() {
  const pool = new Pool({ max: 3 });
  const all = await Promise.all(Array.from({ length: 12 }, (_, n) => pool.query(`SELECT count(*) AS ${mark}, max(id) FROM samples WHERE id < $1`, [n * 90])));
  for (const r of all) rows('pool', r);
  await pool.end();
  await error('timeout', new Client({ statement_timeout: 1000 }).connect().then(async () => {
    const c = await connect({ statement_timeout: 1000 });
    await c.query(HEAVY).finally(() => c.end());
  }));
}

(async () => {
  types.setTypeParser(1114, String);
  await contract();
  await pipelines();
  await transactions();
  await errors();
  await cursors();
  await notifications();
  await cancelled('cancelled in PostgreSQL', 'SELECT pg_sleep(300)');
  await cancelled('cancelled in the lake', HEAVY);
  await pools();
  console.log('done');
  process.exit(0);
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
