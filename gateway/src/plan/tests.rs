//! Analysis and plan against a real PostgreSQL: each statement's own tree, analyzed, planned and executed over the same rows, must give the very
//! frames that PostgreSQL gives, in text and in binary, under several time zones; and what is not proven must be refused for the right reason.

pub(crate) mod pg;
mod ordered;
mod relations;
mod statements;

use super::*;
use crate::analyze::floats::Source;
use crate::analyze::{self, Catalog, Settings, Verdict, VirtualTable, analyze};
use crate::engine::{Engine, EngineConfig, EngineError};
use bytes::BytesMut;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use lake::pgcopy::CopyDecoder;
use lake::spec::{Column as SpecColumn, TableSpec};
use pg::{Answer, Client, ServerError};
use pgexact::encode::{Format, RowEncoder, Target};
use std::result::Result;
use std::sync::OnceLock;
use tokio_util::sync::CancellationToken;

const SCHEMA: &str = include_str!("tests/schema.sql");

const PRINT: &str =
    "SET client_min_messages = log; SET debug_print_rewritten = on; SET debug_pretty_print = off";
const QUIET: &str = "SET client_min_messages = notice; SET debug_print_rewritten = off";

fn text(value: &Option<Vec<u8>>) -> String {
    String::from_utf8(value.clone().expect("a value")).expect("text")
}

fn spec(client: &mut Client, name: &str) -> TableSpec {
    let rows = client
        .query(&format!(
            "SELECT c.oid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
             WHERE c.relname = '{name}' AND a.attnum > 0 ORDER BY a.attnum"
        ))
        .expect("columns")
        .rows;
    let rows: Vec<_> = rows.iter().map(|r| Answer::values(r)).collect();
    let number = |v: &Option<Vec<u8>>| text(v).parse::<i64>().expect("a number");
    let columns: Vec<_> = rows
        .iter()
        .map(|r| SpecColumn {
            attnum: number(&r[1]) as i16,
            name: text(&r[2]),
            lake_name: format!("{}_in_lake", text(&r[2])),
            type_oid: number(&r[3]) as u32,
            typmod: number(&r[4]) as i32,
            collation: number(&r[5]) as u32,
            not_null: false,
            ty: ColType::from_pg(number(&r[3]) as u32, number(&r[4]) as i32).expect("a type that is kept"),
        })
        .collect();
    TableSpec {
        relid: number(&rows[0][0]) as u32,
        schema: "public".into(),
        name: name.into(),
        event_time: columns.iter().find(|c| c.name == "ts").expect("an event time").attnum,
        columns,
        lake_path: format!("public.{name}"),
        schema_epoch: 1,
        lineage: "1/1".into(),
        min_archive: 0,
        floor_us: None,
        keys: Vec::new(),
        warned_us: None,
        lake_floor_us: None,
    }
}

fn oids(client: &mut Client, sql: &str) -> std::collections::HashSet<u32> {
    let rows = client.query(sql).expect("oids").rows;
    rows.iter().map(|r| text(&Answer::values(r)[0]).parse().expect("an oid")).collect()
}

/// The ranks that PostgreSQL gives texts, asked as the session asks.
fn ranks(client: &mut Client, collation: u32, texts: &[&str]) -> Vec<i64> {
    let name = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname) FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace";
    let name = client.query(&format!("{name} WHERE c.oid = {collation}")).expect("a name").rows;
    let sql = crate::session::probe::ranks_sql(&text(&Answer::values(&name[0])[0]));
    let quoted = |t: &&str| format!("\"{}\"", t.replace('\\', "\\\\").replace('"', "\\\""));
    let array = format!("{{{}}}", texts.iter().map(quoted).collect::<Vec<_>>().join(","));
    let row = client.execute(&sql, &[1009], &[Some(&array)], false).expect("ranks").rows.remove(0);
    let values = Answer::values(&row);
    assert_eq!(text(&values[1]), collation.to_string());
    ranks::numbers(text(&values[0]).as_bytes()).expect("numbers")
}

fn virtual_table(client: &mut Client, function: &str) -> (u32, VirtualTable) {
    let described = client.describe(&format!("SELECT * FROM {function}()"), &[]).expect("described");
    let oid = client.query(&format!("SELECT '{function}'::regproc::oid")).expect("oid").rows;
    let columns = described.fields.iter().map(|(name, type_oid, _)| (name.clone(), *type_oid)).collect();
    (text(&Answer::values(&oid[0])[0]).parse().expect("oid"), VirtualTable { name: function.into(), columns })
}

/// A connection to the server of these tests.
pub(crate) fn client() -> Client {
    world().cluster.connect()
}

struct World {
    cluster: &'static pg::Cluster,
    catalog: Catalog,
    zoo: u32,
    functions: Vec<(u32, VirtualTable)>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let cluster = pg::cluster(SCHEMA);
        let mut client = cluster.connect();
        let zoo = spec(&mut client, "zoo");
        let (secret, ant) = (spec(&mut client, "secret"), spec(&mut client, "ant"));
        let functions =
            vec![virtual_table(&mut client, "virtual_queries"), virtual_table(&mut client, "virtual_stats")];
        let relid = zoo.relid;
        let catalog = Catalog {
            tiered: [zoo, secret, ant].into_iter().map(|s| (s.relid, Arc::new(s))).collect(),
            virtual_functions: functions.iter().map(|(oid, t)| (*oid, Arc::new(t.clone()))).collect(),
            default_collation_is_c: true,
            default_letters: analyze::Letters::Usual,
            deterministic: oids(&mut client, "SELECT oid FROM pg_collation WHERE collisdeterministic"),
            functions: Default::default(),
            major: 15,
        };
        World { cluster, catalog, zoo: relid, functions }
    })
}

fn relation(client: &mut Client, relid: u32) -> String {
    let rows = client.query(&format!("SELECT {relid}::regclass")).expect("a name").rows;
    text(&Answer::values(&rows[0])[0])
}

/// The rows of a SELECT as batches of the given columns, cut into several partitions of several batches.
fn provider(client: &mut Client, sql: &str, columns: &[(String, ColType)]) -> Arc<dyn TableProvider> {
    let schema: SchemaRef = Arc::new(Schema::new(
        columns.iter().map(|(n, ty)| Field::new(n, ty.arrow(), true)).collect::<Vec<_>>(),
    ));
    let types: Vec<ColType> = columns.iter().map(|(_, ty)| *ty).collect();
    let mut batches: Vec<RecordBatch> = Vec::new();
    if columns.is_empty() {
        let rows = client.query(&format!("SELECT count(*) FROM ({sql}) x")).expect("count").rows;
        let rows = text(&Answer::values(&rows[0])[0]).parse().expect("a number");
        let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        batches.push(RecordBatch::try_new_with_options(schema.clone(), vec![], &options).expect("a batch"));
    } else {
        let copied = client.query(&format!("COPY ({sql}) TO STDOUT (FORMAT binary)")).expect("rows").copied;
        let mut decoder = CopyDecoder::new(&types, schema.clone(), 300).expect("a decoder");
        decoder.push(&copied).expect("decodes");
        while let Some(batch) = decoder.next_batch() {
            batches.push(batch);
        }
        batches.extend(decoder.finish().expect("ends"));
    }
    let mut partitions = vec![Vec::new(), Vec::new(), Vec::new()];
    for (index, batch) in batches.into_iter().enumerate() {
        partitions[index % 3].push(batch);
    }
    Arc::new(MemTable::try_new(schema, partitions).expect("a table"))
}

struct Case {
    sql: &'static str,
    params: &'static [(u32, Option<&'static str>)],
}

/// What the session says a statement is.
fn described(client: &mut Client, case: &Case) -> Result<Answer, ServerError> {
    let types: Vec<u32> = case.params.iter().map(|p| p.0).collect();
    client.query(PRINT).expect("settings");
    let answer = client.describe(case.sql, &types);
    client.query(QUIET).expect("settings");
    answer
}

fn verdict(answer: &Answer, zone: &str) -> Verdict {
    assert_eq!(answer.trees.len(), 1);
    let fields: Vec<_> = answer
        .fields
        .iter()
        .map(|(name, type_oid, typmod)| analyze::Field {
            name: name.clone(),
            type_oid: *type_oid,
            typmod: *typmod,
        })
        .collect();
    analyze(&answer.trees[0], &world().catalog, &Settings { timezone: zone.into() }, &fields)
}

/// The frames that our path gives, or its error.
async fn ours(
    engine: &Arc<Engine>,
    client: &mut Client,
    case: &Case,
    analysis: &Analysis,
    answer: &Answer,
    zone: &str,
    format: Format,
) -> Result<Vec<Vec<u8>>, String> {
    let types: Vec<u32> = case.params.iter().map(|p| p.0).collect();
    let texts: Vec<Option<&str>> = case.params.iter().map(|p| p.1).collect();
    let wanted: Vec<(String, u32)> = analysis
        .params
        .iter()
        .map(|p| (format!("${}", p.number), p.type_oid))
        .chain(analysis.folds.iter().map(|f| (f.sql.clone(), f.type_oid)))
        .collect();
    let mut values = Vec::new();
    if !wanted.is_empty() {
        let list: Vec<&str> = wanted.iter().map(|(sql, _)| sql.as_str()).collect();
        let constants = format!("SELECT {}", list.join(", "));
        let row = client
            .execute(&constants, &types, &texts, true)
            .map_err(|e| format!("constants: {e:?}: {constants}"))?
            .rows
            .remove(0);
        for ((_, type_oid), bytes) in wanted.iter().zip(Answer::values(&row)) {
            values.push(Value::from_pg_binary(*type_oid, bytes.as_deref()).map_err(|e| e.to_string())?);
        }
    }
    let folded = values.split_off(analysis.params.len());
    let world = world();
    let mut providers: HashMap<u32, Arc<dyn TableProvider>> = HashMap::new();
    for used in &analysis.tables {
        let spec = &world.catalog.tiered[&used.relid];
        let columns: Vec<_> = used.attnums.iter().map(|n| spec.column(*n).expect("a column")).collect();
        let names: Vec<String> = columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
        let sql = format!("SELECT {} FROM {} ORDER BY id", names.join(", "), spec.name);
        let typed: Vec<_> = columns.iter().map(|c| (c.lake_name.clone(), c.ty)).collect();
        providers.insert(used.relid, provider(client, &sql, &typed));
    }
    for beside in &analysis.dimensions {
        let mut names = Vec::new();
        for (attnum, _) in &beside.columns {
            let sql = format!("SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = {} AND attnum = {attnum}", beside.relid);
            names.push(text(&Answer::values(&client.query(&sql).expect("a name").rows[0])[0]));
        }
        let sql = format!("SELECT {} FROM {}", names.join(", "), relation(client, beside.relid));
        let typed: Vec<_> =
            beside.columns.iter().map(|(n, ty)| (analyze::dimension::column_name(*n), *ty)).collect();
        providers.insert(beside.relid, provider(client, &sql, &typed));
    }
    if analysis.tables.is_empty() {
        for (oid, table) in &world.functions {
            let typed: Vec<_> = table
                .columns
                .iter()
                .map(|(n, oid)| (n.clone(), ColType::from_pg(*oid, -1).expect("a type")))
                .collect();
            providers.insert(*oid, provider(client, &format!("SELECT * FROM {}()", table.name), &typed));
        }
    }
    let zone = pgexact::Zone::parse(zone).expect("a zone");
    let mut inputs = PlanInputs { params: values, folded, zone: zone.clone(), providers, alone: false };
    let unplanned = |e: PlanError| match e {
        PlanError::Postgres { sqlstate, message } => format!("{sqlstate} {message}"),
        other => format!("plan: {other}"),
    };
    let planned = rows(analysis, &inputs).map_err(unplanned)?;
    let failed = |e: EngineError| match e {
        EngineError::Postgres { sqlstate, message } => format!("{sqlstate} {message}"),
        other => format!("engine: {other}"),
    };
    for plan in planned.first {
        let mut stream = engine.execute(plan, CancellationToken::new()).await.map_err(failed)?;
        while let Some(batch) = stream.next().await {
            batch.map_err(failed)?;
        }
    }
    let mut stream = engine.execute(planned.plan, CancellationToken::new()).await.map_err(failed)?;
    if let Some(end) = &analysis.arranged {
        assert!(super::plan(analysis, &inputs).is_err(), "rows that are not in their order");
        let mut rows = ranks::Rows::new(stream.schema());
        while let Some(batch) = stream.next().await {
            rows.push(batch.map_err(failed)?).map_err(unplanned)?;
        }
        let mut all = Vec::new();
        for one in &end.ranked {
            all.push(match rows.texts(one.output).map_err(unplanned)?.as_slice() {
                [] => Vec::new(),
                texts => ranks(client, one.collation, texts),
            });
        }
        inputs.providers = HashMap::from([(analyze::arranged::ROWS, rows.ranked(end, &all).map_err(unplanned)?)]);
        let plan = arranged(end, &inputs).map_err(unplanned)?;
        stream = engine.execute(plan, CancellationToken::new()).await.map_err(failed)?;
    }
    let targets: Vec<Target> =
        answer.fields.iter().map(|f| Target { type_oid: f.1, typmod: f.2, format }).collect();
    let encoder =
        RowEncoder::try_new(&targets, &stream.schema(), &zone).map_err(|e| format!("encode: {e}"))?;
    let mut frames = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        for row in 0..batch.num_rows() {
            let mut out = BytesMut::new();
            encoder.encode_batch(&batch, row, 1, &mut out).map_err(|e| format!("encode: {e}"))?;
            frames.push(out[5..].to_vec());
        }
    }
    Ok(frames)
}

fn readable(frame: &[u8]) -> String {
    Answer::values(frame)
        .iter()
        .map(|v| v.as_ref().map_or("NULL".into(), |b| String::from_utf8_lossy(b).into_owned()))
        .collect::<Vec<_>>()
        .join(" | ")
}

/// Runs a proven statement both ways; gives the difference, if any.
async fn compare(engine: &Arc<Engine>, client: &mut Client, case: &Case, zone: &str) -> Result<(), String> {
    let types: Vec<u32> = case.params.iter().map(|p| p.0).collect();
    let texts: Vec<Option<&str>> = case.params.iter().map(|p| p.1).collect();
    let answer = described(client, case).map_err(|e| format!("PostgreSQL refuses it: {e:?}"))?;
    let analysis = match verdict(&answer, zone) {
        Verdict::Lake(a) | Verdict::Virtual(a) => a,
        Verdict::Postgres(reasons) => return Err(format!("refused: {}", reasons.join("; "))),
    };
    for format in [Format::Text, Format::Binary] {
        client.query("BEGIN").expect("begin");
        let expected = client.execute(case.sql, &types, &texts, format == Format::Binary);
        let result = match expected {
            Ok(expected) => {
                let ours = ours(engine, client, case, &analysis, &answer, zone, format).await;
                ours.and_then(|mut got| {
                    let mut want = expected.rows;
                    if !case.sql.contains("ORDER BY") {
                        got.sort();
                        want.sort();
                    }
                    let at = (0..got.len().max(want.len())).find(|i| got.get(*i) != want.get(*i));
                    match at {
                        None => Ok(()),
                        Some(i) => Err(format!(
                            "row {i} of {} (ours {}) {format:?}:\n  want {:?}\n  got  {:?}",
                            want.len(),
                            got.len(),
                            want.get(i).map(|f| readable(f)),
                            got.get(i).map(|f| readable(f))
                        )),
                    }
                })
            }
            Err((sqlstate, message)) => {
                client.query("ROLLBACK; BEGIN").expect("begin");
                match ours(engine, client, case, &analysis, &answer, zone, format).await {
                    Ok(_) => Err(format!("PostgreSQL raises {sqlstate} {message}, ours answers")),
                    // Constants that PostgreSQL computes for us raise its own error.
                    Err(got) if got.contains(&sqlstate) && got.contains(&message) => Ok(()),
                    Err(got) => Err(format!("PostgreSQL raises {sqlstate} {message}, ours {got}")),
                }
            }
        };
        client.query("ROLLBACK").expect("rollback");
        result?;
    }
    Ok(())
}

fn engine() -> Arc<Engine> {
    Engine::new(EngineConfig { target_partitions: 3, ..EngineConfig::default() }).expect("an engine")
}

#[tokio::test(flavor = "multi_thread")]
async fn proven_statements_answer_as_postgres_does() {
    let engine = engine();
    let mut client = world().cluster.connect();
    let mut failures = Vec::new();
    for zone in ["UTC", "America/New_York", "Asia/Kolkata"] {
        client.query(&format!("SET TimeZone = '{zone}'")).expect("zone");
        use statements::{COLLATED, FLOATS, FURTHER, MOMENTS, NUMBERS, PROVEN, SCALARS};
        for case in [PROVEN, SCALARS, MOMENTS, NUMBERS, FURTHER, COLLATED, FLOATS, relations::PROVEN, relations::RAISED, ordered::PROVEN].into_iter().flatten() {
            if let Err(difference) = compare(&engine, &mut client, case, zone).await {
                failures.push(format!("[{zone}] {}\n{difference}", case.sql));
            }
        }
    }
    assert!(statements::PROVEN.len() >= 60);
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_might_fail_in_postgres_is_given_back() {
    let engine = engine();
    let mut client = world().cluster.connect();
    for case in relations::GIVEN_BACK {
        let told = compare(&engine, &mut client, case, "UTC").await;
        // PostgreSQL answers, or raises the same.
        assert!(told.as_ref().err().is_none_or(|e| e == "22003 integer out of range"), "{}: {told:?}", case.sql);
        let answer = described(&mut client, case).expect(case.sql);
        let Verdict::Lake(analysis) = verdict(&answer, "UTC") else { panic!("{}: not proven", case.sql) };
        client.query("BEGIN").expect("begin");
        let ours = ours(&engine, &mut client, case, &analysis, &answer, "UTC", Format::Text).await;
        client.query("ROLLBACK").expect("rollback");
        assert_eq!(ours.expect_err(case.sql), "22003 integer out of range", "{}", case.sql);
    }
}

/// What a group collects, and what a window holds, is counted: a gateway with little memory gives the statement back instead of growing.
#[tokio::test(flavor = "multi_thread")]
async fn groups_that_outgrow_memory_are_given_back() {
    let little = EngineConfig { memory_limit_bytes: 3 << 20, target_partitions: 2, ..EngineConfig::default() };
    let engines = [Engine::new(little).expect("an engine"), engine()];
    let mut client = world().cluster.connect();
    for sql in [
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY z.i4) FROM zoo z CROSS JOIN ant a",
        "SELECT a.b, percentile_disc(0.5) WITHIN GROUP (ORDER BY z.t) FROM zoo z CROSS JOIN ant a GROUP BY a.b ORDER BY 1",
        "SELECT length(string_agg(z.t, ',' ORDER BY z.t)) FROM zoo z CROSS JOIN ant a",
        "SELECT max(x.c) FROM (SELECT count(*) OVER () AS c, count(z.u) OVER (PARTITION BY a.b) AS d FROM zoo z CROSS JOIN ant a) x WHERE x.d > 0",
    ] {
        let case = Case { sql, params: &[] };
        let bounded = compare(&engines[0], &mut client, &case, "UTC").await.expect_err(sql);
        assert!(bounded.starts_with("engine: ") && !bounded.contains("row "), "{bounded}");
        compare(&engines[1], &mut client, &case, "UTC").await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[test]
fn unproven_statements_name_their_reason() {
    let mut client = world().cluster.connect();
    let mut failures = Vec::new();
    for (sql, reason) in statements::REFUSED.iter().chain(relations::REFUSED).chain(ordered::REFUSED) {
        let answer = match described(&mut client, &Case { sql, params: &[] }) {
            Ok(answer) => answer,
            Err(e) => {
                failures.push(format!("{sql}\n  PostgreSQL refuses it: {e:?}"));
                continue;
            }
        };
        match verdict(&answer, "UTC") {
            Verdict::Postgres(reasons) if reasons.iter().any(|r| r.contains(reason)) => {}
            Verdict::Postgres(reasons) => failures.push(format!("{sql}\n  want {reason}\n  got {reasons:?}")),
            _ => failures.push(format!("{sql}\n  want {reason}, but it is proven")),
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn row_level_security_is_refused() {
    let mut client = world().cluster.connect();
    client.query("SET ROLE watcher").expect("role");
    let answer =
        described(&mut client, &Case { sql: "SELECT count(*) FROM secret", params: &[] }).expect("described");
    let Verdict::Postgres(reasons) = verdict(&answer, "UTC") else { panic!("proven") };
    assert!(reasons.iter().any(|r| r.contains("row-level security")), "{reasons:?}");
    let refused = |client: &mut Client, sql: &'static str| match verdict(&described(client, &Case { sql, params: &[] }).expect("described"), "UTC") {
        Verdict::Postgres(reasons) => reasons.join("; "),
        Verdict::Lake(a) | Verdict::Virtual(a) => panic!("{sql} is proven: {:?}", a.dimensions),
    };
    let beside = "SELECT count(*) FROM secret s JOIN owned o USING (g)";
    assert!(refused(&mut client, beside).contains("row-level security"));

    // PostgreSQL applies the policies of its own tables where it reads them; the tree tells that there are any.
    let secured = |client: &mut Client, sql| match verdict(&described(client, &Case { sql, params: &[] }).expect("described"), "UTC") {
        Verdict::Lake(a) => a.dimensions.iter().map(|d| d.secured).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let sql = "SELECT o.owner, count(*) FROM zoo z JOIN owned o USING (g) WHERE z.g IN (SELECT g FROM kinds) GROUP BY 1";
    assert_eq!(secured(&mut client, sql), [false, true]);
    client.query("RESET ROLE").expect("role");
    assert!(refused(&mut client, sql).contains("row-level security"), "who sees all may not always do so");
    let twice = "SELECT count(*) FROM zoo z JOIN owned o USING (g) JOIN owned_view v ON v.g = o.g";
    client.query("GRANT SELECT ON owned_view TO watcher; SET ROLE watcher").expect("role");
    assert!(refused(&mut client, twice).contains("not everywhere the same"), "the view's owner sees all");
    client.query("RESET ROLE").expect("role");
}

#[test]
fn the_row_description_must_be_the_trees() {
    let mut client = world().cluster.connect();
    let mut answer =
        described(&mut client, &Case { sql: "SELECT n, t FROM zoo", params: &[] }).expect("described");
    assert!(matches!(verdict(&answer, "UTC"), Verdict::Lake(_)));
    let whole = std::mem::take(&mut answer.fields);
    answer.fields = vec![whole[0].clone()];
    assert!(matches!(verdict(&answer, "UTC"), Verdict::Postgres(_)), "a column less");
    answer.fields = vec![whole[0].clone(), ("t".into(), 1043, -1)];
    assert!(matches!(verdict(&answer, "UTC"), Verdict::Postgres(_)), "another type");
    answer.fields = vec![("n".into(), 1700, -1), whole[1].clone()];
    assert!(matches!(verdict(&answer, "UTC"), Verdict::Postgres(_)), "another typmod");
    answer.fields = whole;
    assert!(matches!(
        analyze("(not a tree", &world().catalog, &Settings { timezone: "UTC".into() }, &[]),
        Verdict::Postgres(_)
    ));
    // A table whose columns have changed since the catalog was read.
    let mut spec = (*world().catalog.tiered[&world().zoo]).clone();
    spec.columns.retain(|c| c.name != "t");
    let catalog = Catalog {
        tiered: [(spec.relid, Arc::new(spec))].into(),
        default_collation_is_c: true,
        major: 15,
        ..Catalog::default()
    };
    let fields: Vec<_> = answer
        .fields
        .iter()
        .map(|f| analyze::Field { name: f.0.clone(), type_oid: f.1, typmod: f.2 })
        .collect();
    let Verdict::Postgres(reasons) =
        analyze(&answer.trees[0], &catalog, &Settings { timezone: "UTC".into() }, &fields)
    else {
        panic!("proven")
    };
    assert!(reasons[0].contains("does not know"), "{reasons:?}");
}

fn analysis(sql: &'static str) -> Analysis {
    let mut client = world().cluster.connect();
    let answer = described(&mut client, &Case { sql, params: &[] }).expect("described");
    match verdict(&answer, "UTC") {
        Verdict::Lake(a) | Verdict::Virtual(a) => a,
        Verdict::Postgres(reasons) => panic!("{sql}: {reasons:?}"),
    }
}

/// Statements of a size that PostgreSQL takes lightly are answered or refused; none may exhaust a stack.
/// On a thread like those that statements are planned on.
#[test]
fn long_and_deep_statements_do_no_harm() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(long_and_deep_statements());
    };
    let thread = std::thread::Builder::new().stack_size(crate::threads::STACK).spawn(run).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn long_and_deep_statements() {
    let engine = engine();
    let mut client = world().cluster.connect();
    let leak = |sql: String| -> &'static str { Box::leak(sql.into_boxed_str()) };
    let join =
        |n: usize, op: &str, item: &dyn Fn(usize) -> String| (0..n).map(item).collect::<Vec<_>>().join(op);
    let count = |condition: String| leak(format!("SELECT count(*) FROM zoo WHERE {condition}"));
    let mut answered = 0;
    for size in [20, 50, 140, 1000] {
        let statements = [
            count(join(size, " OR ", &|i| format!("i4 = {i} AND g <> {i}"))),
            count(join(size, " AND ", &|i| format!("(i4 <> {i} OR g = {i})"))),
            count(format!("id {} > 0", "+ 1 ".repeat(size))),
            count(format!("{} b", "NOT ".repeat(size))),
            count(format!("id IN ({})", join(size * 20, ", ", &|i| i.to_string()))),
            count(format!("t NOT IN ({})", join(size * 20, ", ", &|i| format!("'x{i}'")))),
            leak(format!(
                "SELECT {} FROM zoo",
                join(size, ", ", &|i| format!("count(*) FILTER (WHERE g = {i}), sum(i4 % {})", i + 1))
            )),
            leak(format!(
                "SELECT max(x) FROM (SELECT CASE {} END AS x FROM zoo) s",
                join(size, " ", &|i| format!("WHEN i4 = {i} THEN {i}"))
            )),
            leak(format!("SELECT max({}i4{}) FROM zoo", "coalesce(".repeat(size), ", 1)".repeat(size))),
            leak(format!("SELECT max({}i4{}) FROM zoo", "nullif(".repeat(size), ", 1)".repeat(size))),
            leak(format!(
                "SELECT max({}i4{}) FROM zoo",
                "CASE ".repeat(size),
                " WHEN 1 THEN 2 ELSE 3 END".repeat(size)
            )),
            leak(format!("SELECT count(*) FROM {}zoo{}", "(SELECT * FROM ".repeat(size), ") s".repeat(size))),
        ];
        for sql in statements {
            match compare(&engine, &mut client, &Case { sql, params: &[] }, "UTC").await {
                Ok(()) => answered += 1,
                Err(reason)
                    if reason.starts_with("refused: ") || reason.starts_with("PostgreSQL refuses it") => {}
                Err(other) => panic!("{}: {other}", &sql[..sql.len().min(120)]),
            }
        }
    }
    assert!(answered >= 20, "{answered}");
}

#[test]
fn only_the_columns_needed_are_used() {
    let world = world();
    let spec = &world.catalog.tiered[&world.zoo];
    let names = |sql| {
        let a = analysis(sql);
        let used = &a.tables[0].attnums;
        used.iter().map(|n| spec.column(*n).expect("a column").name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("SELECT count(*) FROM zoo"), "");
    assert_eq!(names("SELECT t, count(*) FILTER (WHERE b) FROM zoo WHERE g = 1 GROUP BY t"), "g b t");
    assert_eq!(names("SELECT kind FROM zoo_view"), "g");
    assert_eq!(names("SELECT rows FROM zoo_by_kind"), "g n");
    assert_eq!(names("SELECT id FROM (SELECT * FROM zoo ORDER BY ts LIMIT 5) s"), "id ts");
}

#[test]
fn floats_that_stand_for_others_name_their_columns() {
    let world = world();
    let spec = &world.catalog.tiered[&world.zoo];
    let plain = |sql| {
        let found = analysis(sql).plain;
        let name = |source: &Source| match source {
            Source::Column(relid, n) => (*relid == spec.relid).then(|| spec.column(*n).expect("a column").name.clone()),
            Source::Constant(_) => Some("a constant".to_owned()),
        };
        found.iter().map(name).collect::<Vec<_>>()
    };
    let f8 = [Some("f8".to_owned())];
    assert_eq!(plain("SELECT f8, count(*) FROM zoo GROUP BY f8"), f8);
    let both = [f8[0].clone(), Some("a constant".to_owned())];
    assert_eq!(plain("SELECT i4::float8, max(coalesce(f8, 3)) FROM zoo GROUP BY 1"), f8);
    assert_eq!(plain("SELECT DISTINCT x FROM (SELECT coalesce(f8, '3') AS x FROM zoo ORDER BY id LIMIT 9) s"), both);
    assert_eq!(plain("SELECT max(a.f8) FROM zoo a JOIN zoo b USING (id)"), f8);
    assert_eq!(plain("SELECT max(m) FROM (SELECT g, min(f8) AS m FROM zoo GROUP BY g) s"), f8);
    assert_eq!(plain("SELECT count(DISTINCT f8), count(*) FROM zoo WHERE f8 > 3"), []);
    assert_eq!(plain("SELECT f8 FROM zoo ORDER BY f8"), []);
    assert_eq!(plain("SELECT date_part('hour', ts), count(*) FROM zoo GROUP BY 1"), []);
}

/// What may be said of a constant when its value is there.
#[tokio::test(flavor = "multi_thread")]
async fn constants_that_are_not_plain_are_given_back() {
    let mut client = world().cluster.connect();
    let sql = "SELECT min(coalesce(f8, $1)) FROM zoo WHERE f8 > 3 AND f8 < 9";
    let engine = engine();
    for (value, says) in [("-0", Some("NaN or -0")), ("NaN", Some("NaN or -0")), ("0", None), ("-Infinity", None)] {
        let params: &'static [(u32, Option<&'static str>)] = Box::leak(Box::new([(701, Some(value))]));
        let outcome = compare(&engine, &mut client, &Case { sql, params }, "UTC").await;
        match says {
            None => outcome.unwrap_or_else(|e| panic!("{value}: {e}")),
            Some(says) => assert!(outcome.expect_err(value).contains(says)),
        }
    }
}

#[test]
fn shapes_and_event_time_bounds() {
    use crate::analyze::Shape::*;
    let shape = |sql| analysis(sql).shape;
    assert_eq!(shape("SELECT count(*) FROM zoo WHERE id = 5"), Aggregate);
    assert_eq!(shape("SELECT DISTINCT g FROM zoo"), Aggregate);
    assert_eq!(shape("SELECT t FROM zoo WHERE id = 5"), PointLookup);
    assert_eq!(shape("SELECT t FROM zoo ORDER BY ts DESC LIMIT 5"), OrderLimit);
    assert_eq!(shape("SELECT label FROM zoo_view WHERE kind > 3"), Scan);
    const DAY: i64 = 1_704_067_200_000_000; // 2024-01-01
    let from = |sql| analysis(sql).time_from_us;
    assert_eq!(from("SELECT count(*) FROM zoo"), None);
    assert_eq!(from("SELECT count(*) FROM zoo WHERE ts >= '2024-01-01 00:00+00'"), Some(DAY));
    assert_eq!(from("SELECT count(*) FROM zoo WHERE '2024-01-01 00:00+00' < ts AND g = 1"), Some(DAY + 1));
    assert_eq!(
        from("SELECT count(*) FROM zoo WHERE ts BETWEEN '2024-01-01 00:00+00' AND '2024-02-01 00:00+00'"),
        Some(DAY)
    );
    assert_eq!(from("SELECT count(*) FROM zoo WHERE ts >= '2024-01-01 00:00+00' OR g = 1"), None);
    assert_eq!(from("SELECT count(*) FROM zoo WHERE NOT ts < '2024-01-01 00:00+00'"), None);
    assert_eq!(from("SELECT count(*) FROM zoo_view WHERE at >= '2024-01-01 00:00+00'"), Some(DAY));
    assert_eq!(
        from("SELECT count(*) FROM (SELECT ts FROM zoo LIMIT 5) s WHERE ts >= '2024-01-01 00:00+00'"),
        None
    );
    assert_eq!(from("SELECT count(*) FROM zoo WHERE ts >= now()"), None, "known only when it runs");

    // Of several scans, every one must have a bound.
    let day = "'2024-01-01 00:00+00'";
    let joined = |on: &str| from(Box::leak(format!("SELECT count(*) FROM zoo a {on}").into_boxed_str()));
    assert_eq!(joined(&format!("JOIN ant b USING (g) WHERE a.ts >= {day}")), None);
    assert_eq!(joined(&format!("JOIN ant b USING (g) WHERE a.ts >= {day} AND b.ts > {day}")), Some(DAY));
    assert_eq!(joined(&format!("JOIN zoo b ON a.g = b.g AND b.ts > {day} AND a.ts >= {day}")), Some(DAY));
    assert_eq!(joined(&format!("LEFT JOIN ant b ON a.g = b.g AND b.ts > {day} WHERE a.ts >= {day}")), Some(DAY));
    assert_eq!(joined(&format!("LEFT JOIN ant b ON a.g = b.g AND a.ts > {day} WHERE b.ts >= {day}")), None);
    assert_eq!(joined(&format!("RIGHT JOIN ant b ON a.g = b.g AND a.ts > {day} WHERE b.ts >= {day}")), Some(DAY));
    assert_eq!(joined(&format!("FULL JOIN ant b ON a.g = b.g AND a.ts > {day} WHERE b.ts >= {day}")), None);
}

#[test]
fn folds_are_safe_from_any_search_path() {
    let sql = |statement| analysis(statement).folds.into_iter().map(|f| f.sql).collect::<Vec<_>>();
    assert_eq!(
        sql("SELECT count(*) FROM zoo WHERE ts > now() - interval '7 days' AND d = current_date"),
        [
            "(pg_catalog.\"now\"() OPERATOR(pg_catalog.-) '+0 mons +7 days +00:00:00.000000'::pg_catalog.\"interval\")",
            "CURRENT_DATE"
        ]
    );
    assert_eq!(
        sql("SELECT count(*) FROM zoo WHERE ts > date '2024-01-01'"),
        ["CAST('2024-01-01'::pg_catalog.\"date\" AS pg_catalog.\"timestamptz\")"]
    );
    assert_eq!(
        sql("SELECT count(*) FROM zoo WHERE ts > date_trunc('day', now()) AND ts > date_trunc('day', now())"),
        ["pg_catalog.\"date_trunc\"('day'::pg_catalog.\"text\", pg_catalog.\"now\"())"]
    );
    assert_eq!(
        sql("SELECT count(*) FROM zoo WHERE t = 'it''s' || E'\\\\'"),
        ["('it''s'::pg_catalog.\"text\" OPERATOR(pg_catalog.||) E'\\\\'::pg_catalog.\"text\")"]
    );
    assert_eq!(
        sql("SELECT count(*) FROM zoo WHERE g = 5 AND i8 > 5 AND n > 7"),
        [""; 0],
        "literals are widened here"
    );
}
