//! The probe's messages and what is read from their answers: PostgreSQL's own settings, analyzed tree,
//! privileges and constant values, on the client's own connection (ARCHITECTURE.md, "A query's life").
//! Pure except for the buffers it writes. ✗ sockets, deciding.
//!
//! Every helper is Closed, Parsed and Bound anew under a reserved name, because clients share the name space;
//! everything is qualified, because clients own the search path.

use lake::boundary::Boundary;
use lake::spec::{PRESENT, TableSpec};
use lake::types::{self, ColType};

use crate::analyze::Right;
use crate::wire::message::{self, ErrorReport, Fields};
use bytes::BytesMut;

/// Reserved names. Clients must not use names that begin like this.
pub const HELPER: &[u8] = b"_watershed_helper";
/// The reserved statement and portal of a simple Query under probe.
pub const SIMPLE: &[u8] = b"_watershed_query";
/// The reserved statement for the inner statement of an EXPLAIN.
pub const EXPLAINED: &[u8] = b"_watershed_explained";
/// The reserved statement behind portals that PostgreSQL could not answer.
pub const STANDIN: &[u8] = b"_watershed_standin";

/// What such a portal does if it is executed after all, by SQL: FETCH.
pub const STANDIN_SQL: &str = "SELECT watershed_control.fail('0A000', \
 'this portal is answered by the gateway: FETCH through SQL cannot read it')";

/// What the context of an error names that came while PostgreSQL was at one of these.
pub const OUR_CONTEXTS: [&str; 3] = ["watershed_control.hush(", "watershed_control.current_lineage()", "SQL function \"fits\""];

/// Reads the settings and turns tree printing on; `$1` is the secret of `hush`.
/// The columns come in the order of [`Settings`].
const ON: &str = "SELECT \
 pg_catalog.current_setting('client_min_messages'),\
 pg_catalog.current_setting('log_min_messages'),\
 pg_catalog.current_setting('debug_print_rewritten'),\
 pg_catalog.current_setting('TimeZone'),\
 pg_catalog.current_setting('DateStyle'),\
 pg_catalog.current_setting('IntervalStyle'),\
 pg_catalog.current_setting('extra_float_digits'),\
 pg_catalog.current_setting('bytea_output'),\
 pg_catalog.current_setting('client_encoding'),\
 pg_catalog.current_setting('transform_null_equals'),\
 pg_catalog.current_setting('transaction_isolation'),\
 pg_catalog.current_setting('watershed.route', true),\
 pg_catalog.current_setting('statement_timeout'),\
 current_user,\
 pg_catalog.current_setting('is_superuser'),\
 pg_catalog.set_config('watershed.p_client', pg_catalog.current_setting('client_min_messages'), true),\
 pg_catalog.set_config('watershed.p_print', pg_catalog.current_setting('debug_print_rewritten'), true),\
 pg_catalog.set_config('watershed.p_pretty', pg_catalog.current_setting('debug_pretty_print'), true),\
 watershed_control.hush($1, 'fatal'),\
 pg_catalog.set_config('debug_pretty_print', 'off', true),\
 pg_catalog.set_config('debug_print_rewritten', 'on', true),\
 pg_catalog.set_config('client_min_messages', 'log', true),\
 pg_catalog.current_setting('watershed.compare_sample', true),\
 pg_catalog.current_setting('watershed.log_plan', true),\
 pg_catalog.pg_current_snapshot()::pg_catalog.text";

/// Puts the settings back; `$2` is the session's own log_min_messages. The last column is when the prepared
/// statement `$3` was prepared, to tell later (in whatever zone and style) whether the name still stands for it, and how often it was planned or its plan taken.
const OFF: &str = "SELECT \
 pg_catalog.set_config('client_min_messages', pg_catalog.current_setting('watershed.p_client'), true),\
 pg_catalog.set_config('debug_print_rewritten', pg_catalog.current_setting('watershed.p_print'), true),\
 pg_catalog.set_config('debug_pretty_print', pg_catalog.current_setting('watershed.p_pretty'), true),\
 watershed_control.hush($1, $2),\
 (SELECT (pg_catalog.date_part('epoch', s.prepare_time) OPERATOR(pg_catalog.*) 1000000::pg_catalog.float8)::pg_catalog.int8::pg_catalog.text OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) \
   (s.generic_plans OPERATOR(pg_catalog.+) s.custom_plans)::pg_catalog.text FROM pg_catalog.pg_prepared_statements s \
   WHERE s.name OPERATOR(pg_catalog.=) $3 AND NOT s.from_sql)";

/// What the session was like before its first probe.
pub const SESSION: &str =
    "SELECT pg_catalog.current_setting('log_min_messages'), pg_catalog.current_setting('client_min_messages')";

/// Of relation `$1`: its present name, the present names of its columns `$2` in the order asked, whether the
/// current user may read all of them and columns `$3` (which find the tail), whether row security is active for it, and the present name of
/// column `$4` (the event time).
const FACTS: &str = "SELECT \
 (SELECT pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
   WHERE c.oid OPERATOR(pg_catalog.=) $1),\
 (SELECT coalesce(pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY w.i), '') \
    FROM pg_catalog.unnest($2) WITH ORDINALITY w(n, i) JOIN pg_catalog.pg_attribute a \
      ON a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.=) w.n),\
 pg_catalog.cardinality(pg_catalog.array_cat($2, $3)) OPERATOR(pg_catalog.>) 0 AND NOT EXISTS (SELECT FROM \
    pg_catalog.unnest(pg_catalog.array_cat($2, $3)) w(n) WHERE pg_catalog.has_column_privilege($1, w.n, 'SELECT') IS NOT TRUE),\
 pg_catalog.row_security_active($1),\
 (SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a \
   WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.=) $4)";

/// The settings that [`ON`] reads, as PostgreSQL prints them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    pub client_min_messages: String,
    pub log_min_messages: String,
    pub debug_print_rewritten: String,
    pub timezone: String,
    pub datestyle: String,
    pub intervalstyle: String,
    pub extra_float_digits: String,
    pub bytea_output: String,
    pub client_encoding: String,
    pub transform_null_equals: String,
    pub transaction_isolation: String,
    pub route: String,
    pub statement_timeout: String,
    pub current_user: String,
    pub is_superuser: bool,
    /// The trees stay out of the server log.
    pub hushed: bool,
    /// The part of the statements answered by the lake that PostgreSQL is to answer as well.
    pub compare_sample: String,
    /// Whether the lake's plan is kept with the statement's record.
    pub log_plan: String,
    /// What was visible just before the statement was bound.
    pub snapshot: String,
}

impl Settings {
    /// From the row of [`ON`].
    pub fn read(row: &[Option<Vec<u8>>]) -> Option<Settings> {
        let text = |i: usize| -> Option<String> {
            Some(match row.get(i)? {
                None => String::new(),
                Some(v) => String::from_utf8(v.clone()).ok()?,
            })
        };
        Some(Settings {
            client_min_messages: text(0)?,
            log_min_messages: text(1)?,
            debug_print_rewritten: text(2)?,
            timezone: text(3)?,
            datestyle: text(4)?,
            intervalstyle: text(5)?,
            extra_float_digits: text(6)?,
            bytea_output: text(7)?,
            client_encoding: text(8)?,
            transform_null_equals: text(9)?,
            transaction_isolation: text(10)?,
            route: text(11)?,
            statement_timeout: text(12)?,
            current_user: text(13)?,
            is_superuser: text(14)? == "on",
            hushed: text(18)? == "t",
            compare_sample: text(22)?,
            log_plan: text(23)?,
            snapshot: text(24)?,
        })
    }

    /// `watershed.log_plan`, in PostgreSQL's words for yes and no.
    pub fn logs_plan(&self) -> Result<bool, ErrorReport> {
        match self.log_plan.trim().to_ascii_lowercase().as_str() {
            "" | "off" | "false" | "no" | "0" => Ok(false),
            "on" | "true" | "yes" | "1" => Ok(true),
            _ => Err(ErrorReport::error("22023", format!("invalid value for parameter \"watershed.log_plan\": \"{}\"", self.log_plan))
                .hint("on: watershed.queries keeps the plan of each answer of the lake; off.")),
        }
    }

    /// Why no lake answer can be written or trusted under these settings.
    pub fn objection(&self) -> Option<String> {
        if below_notice(&self.client_min_messages) {
            return Some(format!("client_min_messages is {}", self.client_min_messages));
        }
        if self.debug_print_rewritten != "off" {
            return Some("the client prints trees itself".into());
        }
        if self.client_encoding != "UTF8" {
            return Some(format!("client_encoding is {}", self.client_encoding));
        }
        if !self.datestyle.starts_with("ISO") {
            return Some(format!("DateStyle is {}", self.datestyle));
        }
        if self.intervalstyle != "postgres" {
            return Some(format!("IntervalStyle is {}", self.intervalstyle));
        }
        if self.extra_float_digits.parse::<i32>().is_ok_and(|d| d < 1) {
            return Some(format!("extra_float_digits is {}", self.extra_float_digits));
        }
        if self.bytea_output != "hex" {
            return Some(format!("bytea_output is {}", self.bytea_output));
        }
        if self.transform_null_equals != "off" {
            return Some("transform_null_equals is on".into());
        }
        match self.transaction_isolation.as_str() {
            "read committed" | "repeatable read" => None,
            "read uncommitted" => None,
            other => Some(format!("the transaction is {other}")),
        }
    }

    /// `statement_timeout` in milliseconds; `None` is no limit.
    pub fn timeout_ms(&self) -> Option<u64> {
        let t = self.statement_timeout.trim();
        let split = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
        let n: u64 = t[..split].parse().ok()?;
        let unit = match &t[split..] {
            "" | "ms" => 1,
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        (n > 0).then_some(n * unit)
    }
}

/// Runs one helper statement: Close, Parse, Bind, Execute, Close, with text results unless `binary`.
pub fn put_helper(out: &mut BytesMut, sql: &str, types: &[u32], params: &[Option<&[u8]>], binary: bool) {
    put_helper_formats(out, sql, types, &[], params, binary);
}

/// As [`put_helper`] with parameters in the client's own formats.
pub fn put_helper_formats(
    out: &mut BytesMut,
    sql: &str,
    types: &[u32],
    formats: &[i16],
    params: &[Option<&[u8]>],
    binary: bool,
) {
    message::put_close(out, b'P', HELPER);
    message::put_close(out, b'S', HELPER);
    message::put_parse(out, HELPER, sql.as_bytes(), types);
    message::put_bind(out, HELPER, HELPER, formats, params, if binary { &[1] } else { &[] });
    message::put_execute(out, HELPER, 0);
    // An open portal holds its snapshot and its relations.
    message::put_close(out, b'P', HELPER);
}

/// Asks for PostgreSQL's plan of a statement with its parameters: the first line, which has the cost of the whole.
pub fn put_explain(out: &mut BytesMut, sql: &str, types: &[u32], formats: &[i16], params: &[Option<&[u8]>]) {
    message::put_close(out, b'P', HELPER);
    message::put_close(out, b'S', HELPER);
    message::put_parse(out, HELPER, format!("EXPLAIN {sql}").as_bytes(), types);
    message::put_bind(out, HELPER, HELPER, formats, params, &[]);
    message::put_execute(out, HELPER, 1);
    message::put_close(out, b'P', HELPER);
}

const TEXT: u32 = 25;
const OID: u32 = 26;
const INT2: u32 = 21;
const INT2_ARRAY: u32 = 1005;
const TEXT_ARRAY: u32 = 1009;

/// Opens the bracket.
pub fn put_on(out: &mut BytesMut, secret: &str) {
    put_helper(out, ON, &[TEXT], &[Some(secret.as_bytes())], false);
}

/// Closes the bracket; `statement` is the name whose preparation time is asked.
pub fn put_off(out: &mut BytesMut, secret: &str, log_min_messages: &str, statement: &[u8]) {
    let params = [Some(secret.as_bytes()), Some(log_min_messages.as_bytes()), Some(statement)];
    put_helper(out, OFF, &[TEXT, TEXT, TEXT], &params, false);
}

/// Asks for the facts of a relation. `provenance` are the columns that find the tail.
pub fn put_facts(out: &mut BytesMut, relid: u32, attnums: &[i16], provenance: &[i16], event_time: i16) {
    let (relid, event_time) = (relid.to_string(), event_time.to_string());
    let array = |list: &[i16]| format!("{{{}}}", list.iter().map(i16::to_string).collect::<Vec<_>>().join(","));
    let (attnums, provenance) = (array(attnums), array(provenance));
    let params = [relid.as_bytes(), attnums.as_bytes(), provenance.as_bytes(), event_time.as_bytes()].map(Some);
    put_helper(out, FACTS, &[OID, INT2_ARRAY, INT2_ARRAY, INT2], &params, false);
}

/// Asks which of `rights` the roles do not have: kind and name of the first relation that may not be read as asked, else NULL; and whether
/// the current user may not execute one of `functions`, else NULL. What PostgreSQL checks when it begins to execute a statement.
pub fn put_rights(out: &mut BytesMut, rights: &[Right], functions: &[u32]) {
    let denied: Vec<String> = rights.iter().map(|r| format!("WHEN NOT ({}) THEN {}", allowed(r), r.relid)).collect();
    let which = if denied.is_empty() { "NULL".to_owned() } else { format!("CASE {} END", denied.join(" ")) };
    let sql = format!(
        "SELECT c.relkind::pg_catalog.text OPERATOR(pg_catalog.||) c.relname, \
         (SELECT 'denied'::pg_catalog.text FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS f(oid) \
          WHERE NOT pg_catalog.has_function_privilege(f.oid, 'EXECUTE') LIMIT 1) FROM (SELECT ({which})::pg_catalog.oid AS oid) d \
         LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.oid",
        functions.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    );
    put_helper(out, &sql, &[], &[], false);
}

/// The SQL condition under which `right` is given.
fn allowed(right: &Right) -> String {
    let role = match right.role {
        0 => String::new(),
        role => format!("{role}::pg_catalog.oid, "),
    };
    let relid = right.relid;
    let whole = format!("pg_catalog.has_table_privilege({role}{relid}::pg_catalog.oid, 'SELECT')");
    if right.attnums.is_empty() {
        return format!("{whole} OR pg_catalog.has_any_column_privilege({role}{relid}::pg_catalog.oid, 'SELECT')");
    }
    let column = |n: String| format!("pg_catalog.has_column_privilege({role}{relid}::pg_catalog.oid, {n}, 'SELECT')");
    let each: Vec<String> = right
        .attnums
        .iter()
        .map(|n| match n {
            0 => format!(
                "NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
                  WHERE a.attrelid OPERATOR(pg_catalog.=) {relid} AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped AND ({}) IS NOT TRUE)",
                column("a.attnum".into())
            ),
            n => column(format!("({n})::pg_catalog.int2")),
        })
        .collect();
    format!("{whole} OR ({})", each.join(" AND "))
}

/// Asks for the name of a collation, if the user may use one there.
pub fn put_collation(out: &mut BytesMut, collation: u32) {
    let sql = "SELECT pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(c.collname) \
        FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.collnamespace \
        WHERE c.oid OPERATOR(pg_catalog.=) $1 AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')";
    put_helper(out, sql, &[OID], &[Some(collation.to_string().as_bytes())], false);
}

/// Asks for the ranks of texts under a collation, which equal ones share; `texts` is a text[] in binary. See [`ranks_sql`].
pub fn put_ranks(out: &mut BytesMut, collation: &str, texts: &[u8]) {
    put_helper_formats(out, &ranks_sql(collation), &[TEXT_ARRAY], &[1], &[Some(texts)], false);
}

/// The ranks of the elements of `$1` in their order, and the OID of the collation by which they were ranked.
pub fn ranks_sql(collation: &str) -> String {
    format!(
        "SELECT pg_catalog.array_agg(r.rank ORDER BY r.place), \
         pg_catalog.pg_collation_for(''::pg_catalog.text COLLATE {collation})::pg_catalog.regcollation::pg_catalog.oid \
         FROM (SELECT w.place, pg_catalog.dense_rank() OVER (ORDER BY w.value COLLATE {collation}) AS rank \
         FROM pg_catalog.unnest($1) WITH ORDINALITY w(value, place)) r"
    )
}

/// Binds a portal that exists for as long as the client's own would, and answers nothing.
pub fn put_standin(out: &mut BytesMut, portal: &[u8]) {
    message::put_close(out, b'S', STANDIN);
    message::put_parse(out, STANDIN, STANDIN_SQL.as_bytes(), &[]);
    message::put_bind(out, portal, STANDIN, &[], &[], &[]);
    message::put_close(out, b'S', STANDIN);
}

/// Makes PostgreSQL raise the error that ends the transaction.
pub fn put_fail(out: &mut BytesMut, sqlstate: &str, message: &str) {
    let sql = "SELECT watershed_control.fail($1, $2)";
    put_helper(out, sql, &[TEXT, TEXT], &[Some(sqlstate.as_bytes()), Some(message.as_bytes())], false);
}

/// What the facts helper answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Qualified and quoted.
    pub relation: String,
    /// Quoted, comma separated, in the order asked.
    pub columns: String,
    pub readable: bool,
    pub row_security: bool,
    /// The event time, quoted.
    pub event: String,
}

impl Facts {
    /// From the row of the facts helper; `None` if the relation is gone.
    pub fn read(row: &[Option<Vec<u8>>]) -> Option<Facts> {
        let text = |i: usize| row.get(i)?.clone().and_then(|v| String::from_utf8(v).ok());
        Some(Facts {
            relation: text(0)?,
            columns: text(1)?,
            readable: text(2)? == "t",
            row_security: text(3)? != "f",
            event: text(4)?,
        })
    }

    /// The i-th of [`Facts::columns`], quoted as it stands there.
    pub fn column(&self, i: usize) -> Option<&str> {
        let mut quoted = false;
        let is_end = |c: char| {
            quoted ^= c == '"';
            c == ',' && !quoted
        };
        self.columns.split(is_end).nth(i).map(str::trim).filter(|name| !name.is_empty())
    }
}

/// The columns that find the tail, of a relation with these: `_xid`, and `_stream`, by which the tripwire is kept out.
pub fn provenance(spec: &TableSpec, with_event: bool) -> Vec<i16> {
    let number = |name| spec.index_of(name).map_or(0, |i| spec.columns[i].attnum);
    // 0, which nobody may read, stands for one that is not there.
    let mut all = vec![number(types::XID), number(types::STREAM)];
    all.extend(with_event.then_some(spec.event_time));
    all
}

/// The SELECT that reads fence and tail of one table, the `number`-th of its statement. `pinned` is the archive that the lake version holds and
/// its boundary, over `t._xid`; `None` while nothing is archived. `tests` are what rows must fulfil to matter, over `t` too. The lineage comes
/// back empty if the server is of another than the table, or does not know that archive: after a failover, a point-in-time recovery or a
/// restore, transaction numbers mean something else. NULLs of the types of `before` and `after` stand around the table's own columns, in the
/// place of other tables' columns.
pub fn tail_leg(
    number: usize,
    relid: u32,
    facts: &Facts,
    pinned: Option<(i64, &Boundary)>,
    tests: &[String],
    before: &[ColType],
    after: &[ColType],
) -> String {
    let predicate = pinned.map(|(_, boundary)| boundary.tail_predicate("t._xid"));
    // Rows that PostgreSQL no longer has are all below the boundary: the tripwire has nothing to say here.
    let all: Vec<&str> =
        [PRESENT].into_iter().chain(predicate.as_deref()).chain(tests.iter().map(String::as_str)).collect();
    let filter = format!(" WHERE {}", all.join(" AND "));
    // In sub-selects of their own, which are computed once and not for every row.
    let lineage = match pinned {
        None => "f.lineage".to_owned(),
        Some((archive, boundary)) => format!(
            "CASE WHEN (SELECT watershed_control.fits({relid}::pg_catalog.oid, {archive}, '{boundary}'::pg_catalog.text)) THEN f.lineage ELSE ''::pg_catalog.text END"
        ),
    };
    let columns = if facts.columns.is_empty() { String::new() } else { format!(", {}", facts.columns) };
    let (before, after) = (nulls(before), nulls(after));
    format!(
        "SELECT {number}::pg_catalog.int4, f.min_archive, f.schema_epoch, {lineage}, (SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text), \
         CASE WHEN pg_catalog.isfinite(f.floor) THEN pg_catalog.date_part('epoch', f.floor)::pg_catalog.int8 END, \
         CASE WHEN pg_catalog.isfinite(f.lake_floor) THEN pg_catalog.date_part('epoch', f.lake_floor)::pg_catalog.int8 END, t.* \
         FROM watershed_control.tables f LEFT JOIN (SELECT true{before}{columns}{after} FROM {rel} t{filter}) t ON true \
         WHERE f.relid OPERATOR(pg_catalog.=) {relid}::pg_catalog.oid",
        rel = facts.relation,
    )
}

/// The SELECT that reads a table which only PostgreSQL holds, beside [`tail_leg`]s: at most `rows` of its rows.
pub fn dimension_leg(
    number: usize,
    facts: &Facts,
    tests: &[String],
    rows: usize,
    before: &[ColType],
    after: &[ColType],
) -> String {
    let filter = if tests.is_empty() { String::new() } else { format!(" WHERE {}", tests.join(" AND ")) };
    let (before, after) = (nulls(before), nulls(after));
    format!(
        "(SELECT {number}::pg_catalog.int4, NULL::pg_catalog.int8, NULL::pg_catalog.int4, NULL::pg_catalog.text, NULL::pg_catalog.text, \
         NULL::pg_catalog.int8, NULL::pg_catalog.int8, true{before}, {columns}{after} FROM {relation} t{filter} LIMIT {rows})",
        columns = facts.columns,
        relation = facts.relation,
    )
}

/// The SELECT that counts how many functions of these versions are still there, and the current user's to call, beside [`tail_leg`]s. PostgreSQL
/// calls a function as it is now: where the snapshot is fixed and may be older, a row counts that nobody has begun to replace since (`xmax`).
pub fn functions_leg(number: usize, functions: &[(u32, String)], fixed: bool, columns: &[ColType]) -> String {
    let one = |(oid, version): &(u32, String)| {
        format!("(p.oid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid AND p.xmin::pg_catalog.text OPERATOR(pg_catalog.=) '{version}'::pg_catalog.text)")
    };
    let any: Vec<String> = functions.iter().map(one).collect();
    format!(
        "SELECT {number}::pg_catalog.int4, (SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc p WHERE ({any}){newest} \
         AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'::pg_catalog.text)), NULL::pg_catalog.int4, NULL::pg_catalog.text, NULL::pg_catalog.text, \
         NULL::pg_catalog.int8, NULL::pg_catalog.int8, NULL::pg_catalog.bool{columns}",
        any = any.join(" OR "),
        newest = if fixed { " AND p.xmax::pg_catalog.text OPERATOR(pg_catalog.=) '0'::pg_catalog.text" } else { "" },
        columns = nulls(columns),
    )
}

/// The one statement, and so the one snapshot, of several [`tail_leg`]s and [`dimension_leg`]s.
pub fn tails_sql(legs: &[String]) -> String {
    format!("COPY ({}) TO STDOUT (FORMAT BINARY)", legs.join(" UNION ALL "))
}

fn nulls(types: &[ColType]) -> String {
    let name = |ty: &ColType| pgtree::oid::type_name(ty.type_oid()).unwrap_or("text");
    types.iter().map(|ty| format!(", NULL::pg_catalog.\"{}\"", name(ty))).collect()
}

/// What the window between the opening helper and the client's ParseComplete or BindComplete held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Window {
    logs: usize,
    tree: Option<String>,
    genuine: bool,
    last_was_log: bool,
}

/// The outcome of a window.
#[derive(Debug, PartialEq, Eq)]
pub enum Trees {
    /// Nothing was printed: at Bind, the analysis made at Parse still holds.
    None,
    One(String),
    /// Something other than exactly one genuine tree: only PostgreSQL may answer.
    Doubtful,
}

impl Window {
    /// A NoticeResponse arrived in the window. Returns whether the client is to see it (severities below LOG
    /// were never sent at our level; LOG is ours).
    pub fn notice(&mut self, fields: &Fields<'_>) -> bool {
        if fields.text(b'V') != "LOG" {
            self.last_was_log = false;
            return true;
        }
        self.logs += 1;
        self.last_was_log = true;
        // Printed by elog_node_display() itself and not by code that ran inside something else: user code can
        // raise the same words, but neither these fields nor without a context.
        self.genuine = fields.text(b'M') == "rewritten parse tree:"
            && fields.text(b'F') == "print.c"
            && fields.text(b'R') == "elog_node_display"
            && fields.get(b'W').is_none();
        self.tree = fields.get(b'D').and_then(|d| String::from_utf8(d.to_vec()).ok());
        false
    }

    /// The window is closed.
    pub fn close(self) -> Trees {
        match (self.logs, self.genuine, self.last_was_log, self.tree) {
            (0, ..) => Trees::None,
            (1, true, true, Some(tree)) => Trees::One(tree),
            _ => Trees::Doubtful,
        }
    }
}

/// A client_min_messages at which the probe's own messages would be the client's.
pub fn below_notice(level: &str) -> bool {
    level == "log" || level.starts_with("debug")
}

/// Would a client at this client_min_messages see a notice of this severity?
pub fn visible_at(level: &str, severity: &str) -> bool {
    match severity {
        "NOTICE" => matches!(level, "notice" | "log") || level.starts_with("debug"),
        "WARNING" => level != "error",
        // INFO is always sent; LOG and DEBUG inside a window are the probe's.
        "INFO" => true,
        _ => false,
    }
}
