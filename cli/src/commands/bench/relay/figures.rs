//! What was measured, and how it is told: medians, ratios, goals, tables, JSON. Measures nothing, but asks the machine what it is.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::instance::Instance;
use super::super::process::Effort;
use super::super::programs;
use super::super::report::median;
use super::pgbench::{Load, Run};
use super::strace::{Calls, Kind};
use super::ways::Way;
use crate::args::{BenchRelayArgs, QueryMode, RelayTable};
use crate::bootstrap;
use crate::text_table::{Align, layout, markdown};
use crate::units::Bytes;

/// COPY through the gateway, relative to none.
const COPY_GOAL: f64 = 0.95;

/// One run, and what the process between did for its late transactions, those after all logins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub run: Run,
    pub effort: Option<Effort>,
}

/// All runs of one mode and number of clients.
pub struct Cell {
    pub load: Load,
    jobs: u32,
    /// By way, in the order of [`Way::ALL`].
    samples: [Vec<Sample>; 3],
}

impl Cell {
    pub fn new(load: Load, jobs: u32) -> Cell {
        Cell { load, jobs, samples: Default::default() }
    }

    pub fn add(&mut self, way: Way, sample: Sample) {
        self.samples[way as usize].push(sample);
    }

    fn of(&self, way: Way) -> &[Sample] {
        &self.samples[way as usize]
    }

    fn median(&self, way: Way, figure: fn(&Run) -> f64) -> f64 {
        median(&self.of(way).iter().map(|sample| figure(&sample.run)).collect::<Vec<_>>())
    }

    fn tps(&self, way: Way) -> f64 {
        self.median(way, |run| run.tps)
    }

    fn p50(&self, way: Way) -> f64 {
        self.median(way, |run| run.p50_ms)
    }

    fn p99(&self, way: Way) -> f64 {
        self.median(way, |run| run.p99_ms)
    }

    fn connect_ms(&self, way: Way) -> f64 {
        self.median(way, |run| run.connect_ms)
    }

    /// Of all rounds together: the clock behind it is coarse. `None` where nobody stands between.
    fn per_statement(&self, way: Way, figure: fn(&Effort) -> f64) -> Option<f64> {
        let seen =
            || self.of(way).iter().filter_map(|sample| Some((sample.run.late, sample.effort.as_ref()?)));
        let statements: u64 = seen().map(|(late, _)| late).sum();
        let total: f64 = seen().map(|(_, effort)| figure(effort)).sum();
        (statements > 0).then(|| total / statements as f64)
    }

    fn name(&self) -> String {
        format!("{}, {} clients", self.load.mode.name(), self.load.clients)
    }
}

fn cpu_us(effort: &Effort) -> f64 {
    effort.cpu.as_secs_f64() * 1e6
}

fn waits(effort: &Effort) -> f64 {
    effort.waits as f64
}

fn preempted(effort: &Effort) -> f64 {
    effort.preempted as f64
}

/// All runs of COPY in one format.
pub struct Copied {
    pub format: &'static str,
    bytes: u64,
    seconds: [Vec<f64>; 3],
    efforts: [Vec<Option<Effort>>; 3],
}

impl Copied {
    pub fn new(format: &'static str, bytes: u64) -> Copied {
        Copied { format, bytes, seconds: Default::default(), efforts: Default::default() }
    }

    pub fn add(&mut self, way: Way, took: std::time::Duration, effort: Option<Effort>) {
        self.seconds[way as usize].push(took.as_secs_f64());
        self.efforts[way as usize].push(effort);
    }

    fn seconds(&self, way: Way) -> f64 {
        median(&self.seconds[way as usize])
    }

    /// How fast, relative to the direct way: 1 is as fast.
    fn speed(&self, way: Way) -> f64 {
        self.seconds(Way::Direct) / self.seconds(way).max(1e-9)
    }

    fn cpu_s(&self, way: Way) -> Option<f64> {
        let efforts: Option<Vec<Effort>> = self.efforts[way as usize].iter().copied().collect();
        Some(median(&efforts?.iter().map(|effort| effort.cpu.as_secs_f64()).collect::<Vec<_>>()))
    }
}

/// A run under strace.
pub struct Traced {
    pub way: Way,
    pub load: Load,
    pub statements: u64,
    pub calls: Calls,
}

/// Everything.
pub struct Outcome {
    /// Machine and versions, a line each.
    pub about: Vec<String>,
    pub route: String,
    pub modes: Vec<QueryMode>,
    pub clients: Vec<u32>,
    pub cells: Vec<Cell>,
    pub copied: Vec<Copied>,
    /// Bytes after a stage, by way.
    pub peaks: Vec<(&'static str, [Option<u64>; 3])>,
    pub traced: Vec<Traced>,
    /// Why system calls were not counted.
    pub untraced: Option<String>,
    asked: Value,
    copy_rows: u64,
}

impl Outcome {
    pub fn new(args: &BenchRelayArgs) -> Outcome {
        let mut modes: Vec<QueryMode> = Vec::new();
        for mode in &args.modes {
            if !modes.contains(mode) {
                modes.push(*mode);
            }
        }
        let mut clients = args.clients.clone();
        clients.sort_unstable();
        clients.dedup();
        Outcome {
            about: Vec::new(),
            route: String::new(),
            modes,
            clients,
            cells: Vec::new(),
            copied: Vec::new(),
            peaks: Vec::new(),
            traced: Vec::new(),
            untraced: None,
            asked: json!({
                "rows": args.rows, "copy_rows": args.copy_rows, "rounds": args.rounds, "seconds": args.seconds,
                "table": match args.table { RelayTable::Tiered => "tiered", RelayTable::Plain => "plain" },
            }),
            copy_rows: args.copy_rows,
        }
    }

    /// What is measured with what, on what.
    pub async fn describe(&mut self, instance: &Instance, pgbouncer: String) -> Result<()> {
        let mut admin = bootstrap::connect(&instance.admin_url).await?;
        let server: String = sqlx::query_scalar("SELECT pg_catalog.current_setting('server_version')")
            .fetch_one(&mut admin)
            .await?;
        let pgbench = programs::find(&instance.admin_url, "pgbench").await?;
        let pgbench = programs::version(&pgbench).await.unwrap_or_default();
        let build = if cfg!(debug_assertions) { "development build" } else { "release build" };
        let ours = env!("CARGO_PKG_VERSION");
        self.about = vec![
            machine(),
            format!("watershed {ours}, {build}; PostgreSQL {server}; {pgbouncer}; {pgbench}"),
            "clients: pgbench and psql by TCP over the loopback, SCRAM, no TLS, whichever way; PgBouncer and the gateway go on over the Unix socket".into(),
            "PgBouncer: session pooling, one process, its server connections opened before and kept, otherwise its defaults".into(),
        ];
        Ok(())
    }

    /// Goals that the figures miss.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for cell in &self.cells {
            let (ours, theirs) = (cell.tps(Way::Gateway), cell.tps(Way::PgBouncer));
            if ours < theirs {
                missed.push(format!(
                    "{}: at least PgBouncer's throughput ({ours:.0}/s, {theirs:.0}/s)",
                    cell.name()
                ));
            }
            let (ours, theirs) = (cell.p99(Way::Gateway), cell.p99(Way::PgBouncer));
            if ours > theirs {
                missed
                    .push(format!("{}: at most PgBouncer's p99 ({ours:.3} ms, {theirs:.3} ms)", cell.name()));
            }
        }
        for copied in &self.copied {
            let speed = copied.speed(Way::Gateway);
            if speed < COPY_GOAL {
                missed.push(format!(
                    "COPY, {}: at least {COPY_GOAL} of the direct way ({speed:.2})",
                    copied.format
                ));
            }
        }
        missed
    }

    /// All tables, with their titles.
    pub fn text(&self, as_markdown: bool) -> String {
        let draw = if as_markdown { markdown } else { layout };
        let mut text = String::new();
        let mut add = |title: &str, table: String| {
            text.push_str(&format!("\n{title}\n{}{table}", if as_markdown { "\n" } else { "" }));
        };
        add("lookups, statements a second", self.throughput(draw));
        add("lookups, milliseconds", self.latency(draw));
        add(
            "lookups, what the process between does for a statement, and how long all clients take to log in",
            self.costs(draw),
        );
        if !self.copied.is_empty() {
            add(&format!("COPY of {} rows out", self.copy_rows), self.copies(draw));
        }
        if !self.traced.is_empty() {
            add("system calls a statement, counted by strace in slower runs of their own", self.calls(draw));
        }
        if let Some(why) = &self.untraced {
            text.push_str(&format!("\nsystem calls: not counted; {why}\n"));
        }
        text.push('\n');
        for (stage, peaks) in &self.peaks {
            let shown =
                |way: Way| peaks[way as usize].map_or_else(|| "-".into(), |bytes| Bytes(bytes).to_string());
            text.push_str(&format!(
                "peak memory after {stage}: PgBouncer {}, gateway (all of `watershed up`) {}\n",
                shown(Way::PgBouncer),
                shown(Way::Gateway)
            ));
        }
        text.push_str("allocations are not counted: the allocator is built without its statistics\n");
        text
    }

    fn throughput(&self, draw: Draw) -> String {
        let heading = [
            ("mode", Align::Left),
            ("clients", Align::Right),
            ("direct", Align::Right),
            ("PgBouncer", Align::Right),
            ("gateway", Align::Right),
            ("gateway/PgBouncer", Align::Right),
            ("gateway/direct", Align::Right),
            ("goal", Align::Left),
        ];
        let row = |cell: &Cell| {
            let [direct, pgbouncer, gateway] = Way::ALL.map(|way| cell.tps(way));
            let mut row = start(cell.load);
            row.extend([direct, pgbouncer, gateway].map(|tps| format!("{tps:.0}")));
            row.extend([ratio(gateway, pgbouncer), ratio(gateway, direct), goal(gateway >= pgbouncer)]);
            row
        };
        draw(&heading, &self.cells.iter().map(row).collect::<Vec<_>>())
    }

    fn latency(&self, draw: Draw) -> String {
        let heading = [
            ("mode", Align::Left),
            ("clients", Align::Right),
            ("p50 direct", Align::Right),
            ("PgBouncer", Align::Right),
            ("gateway", Align::Right),
            ("gateway/PgBouncer", Align::Right),
            ("gateway/direct", Align::Right),
            ("p99 direct", Align::Right),
            ("PgBouncer", Align::Right),
            ("gateway", Align::Right),
            ("gateway/PgBouncer", Align::Right),
            ("gateway/direct", Align::Right),
            ("goal", Align::Left),
        ];
        let row = |cell: &Cell| {
            let mut row = start(cell.load);
            let (p50, p99) = (Way::ALL.map(|way| cell.p50(way)), Way::ALL.map(|way| cell.p99(way)));
            for [direct, pgbouncer, gateway] in [p50, p99] {
                row.extend([direct, pgbouncer, gateway].map(|ms| format!("{ms:.3}")));
                row.extend([ratio(gateway, pgbouncer), ratio(gateway, direct)]);
            }
            row.push(goal(p99[Way::Gateway as usize] <= p99[Way::PgBouncer as usize]));
            row
        };
        draw(&heading, &self.cells.iter().map(row).collect::<Vec<_>>())
    }

    fn costs(&self, draw: Draw) -> String {
        let heading = [
            ("mode", Align::Left),
            ("clients", Align::Right),
            ("CPU us: PgBouncer", Align::Right),
            ("gateway", Align::Right),
            ("gateway/PgBouncer", Align::Right),
            ("waits: PgBouncer", Align::Right),
            ("gateway", Align::Right),
            ("preempted: PgBouncer", Align::Right),
            ("gateway", Align::Right),
            ("all log in, ms: direct", Align::Right),
            ("PgBouncer", Align::Right),
            ("gateway", Align::Right),
        ];
        let row = |cell: &Cell| {
            let both = |figure: fn(&Effort) -> f64| {
                [Way::PgBouncer, Way::Gateway].map(|way| cell.per_statement(way, figure))
            };
            let [theirs, ours] = both(cpu_us);
            let mut row = start(cell.load);
            row.extend([theirs, ours].map(|cpu| shown(cpu, 1)));
            row.push(theirs.zip(ours).map_or_else(|| "-".into(), |(theirs, ours)| ratio(ours, theirs)));
            row.extend(both(waits).map(|n| shown(n, 2)));
            row.extend(both(preempted).map(|n| shown(n, 3)));
            row.extend(Way::ALL.map(|way| format!("{:.1}", cell.connect_ms(way))));
            row
        };
        draw(&heading, &self.cells.iter().map(row).collect::<Vec<_>>())
    }

    fn copies(&self, draw: Draw) -> String {
        let heading = [
            ("format", Align::Left),
            ("MiB", Align::Right),
            ("direct s", Align::Right),
            ("PgBouncer s", Align::Right),
            ("gateway s", Align::Right),
            ("speed: PgBouncer/direct", Align::Right),
            ("gateway/direct", Align::Right),
            ("CPU s: PgBouncer", Align::Right),
            ("gateway", Align::Right),
            ("goal", Align::Left),
        ];
        let row = |copied: &Copied| {
            let mut row =
                vec![copied.format.to_owned(), format!("{:.1}", copied.bytes as f64 / f64::from(1 << 20))];
            row.extend(Way::ALL.map(|way| format!("{:.3}", copied.seconds(way))));
            row.extend([Way::PgBouncer, Way::Gateway].map(|way| format!("{:.2}", copied.speed(way))));
            row.extend([Way::PgBouncer, Way::Gateway].map(|way| shown(copied.cpu_s(way), 2)));
            row.push(goal(copied.speed(Way::Gateway) >= COPY_GOAL));
            row
        };
        draw(&heading, &self.copied.iter().map(row).collect::<Vec<_>>())
    }

    fn calls(&self, draw: Draw) -> String {
        let heading = [
            ("mode", Align::Left),
            ("clients", Align::Right),
            ("process", Align::Left),
            ("all", Align::Right),
            ("read", Align::Right),
            ("in vain", Align::Right),
            ("write", Align::Right),
            ("in vain", Align::Right),
            ("wait", Align::Right),
            ("futex", Align::Right),
            ("other", Align::Right),
        ];
        let row = |traced: &Traced| {
            let each = |count: u64| format!("{:.2}", count as f64 / traced.statements.max(1) as f64);
            let mut row = start(traced.load);
            row.extend([traced.way.name().to_owned(), each(traced.calls.all())]);
            for kind in [Kind::Read, Kind::Write] {
                let (count, failed) = traced.calls.of(kind);
                row.extend([each(count), each(failed)]);
            }
            row.extend([Kind::Wait, Kind::Futex, Kind::Other].map(|kind| each(traced.calls.of(kind).0)));
            row
        };
        draw(&heading, &self.traced.iter().map(row).collect::<Vec<_>>())
    }

    pub fn json(&self) -> Value {
        let effort = |effort: &Option<Effort>| {
            effort
                .map(|e| json!({ "cpu_s": e.cpu.as_secs_f64(), "waits": e.waits, "preempted": e.preempted }))
        };
        let by_way = |figures: &dyn Fn(Way) -> Value| -> Value {
            Way::ALL
                .iter()
                .map(|way| (way.name().to_lowercase(), figures(*way)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let cell = |cell: &Cell| {
            json!({
                "mode": cell.load.mode.name(), "clients": cell.load.clients, "jobs": cell.jobs,
                "ways": by_way(&|way| json!({
                    "tps": cell.tps(way), "p50_ms": cell.p50(way), "p99_ms": cell.p99(way), "connect_ms": cell.connect_ms(way),
                    "cpu_us_per_statement": cell.per_statement(way, cpu_us),
                    "waits_per_statement": cell.per_statement(way, waits),
                    "rounds": cell.of(way).iter().map(|s| json!({
                        "tps": s.run.tps, "transactions": s.run.transactions, "connect_ms": s.run.connect_ms, "with_effort": s.run.late, "p50_ms": s.run.p50_ms, "p99_ms": s.run.p99_ms,
                        "effort": effort(&s.effort),
                    })).collect::<Vec<_>>(),
                })),
            })
        };
        let copied = |copied: &Copied| {
            json!({
                "format": copied.format, "bytes": copied.bytes,
                "ways": by_way(&|way| json!({
                    "seconds": copied.seconds(way), "speed": copied.speed(way), "cpu_s": copied.cpu_s(way),
                    "rounds": copied.seconds[way as usize],
                })),
            })
        };
        let traced = |traced: &Traced| {
            json!({
                "way": traced.way.name().to_lowercase(), "mode": traced.load.mode.name(), "clients": traced.load.clients,
                "statements": traced.statements,
                "calls": traced.calls.0.iter()
                    .map(|(name, (count, failed))| (name.clone(), json!({ "count": count, "failed": failed })))
                    .collect::<serde_json::Map<_, _>>(),
            })
        };
        let peaks = self.peaks.iter().map(
            |(stage, peaks)| json!({ "after": stage, "ways": by_way(&|way| json!(peaks[way as usize])) }),
        );
        json!({
            "about": self.about, "asked": self.asked, "route": self.route,
            "lookups": self.cells.iter().map(cell).collect::<Vec<_>>(),
            "copy": self.copied.iter().map(copied).collect::<Vec<_>>(),
            "peak_bytes": peaks.collect::<Vec<_>>(),
            "system_calls": self.traced.iter().map(traced).collect::<Vec<_>>(),
            "system_calls_left_out": self.untraced,
            "missed": self.missed(),
        })
    }
}

/// How a table is drawn: aligned, or for a document.
type Draw = fn(&[(&str, Align)], &[Vec<String>]) -> String;

fn start(load: Load) -> Vec<String> {
    vec![load.mode.name().to_owned(), load.clients.to_string()]
}

fn ratio(over: f64, under: f64) -> String {
    if under > 0.0 { format!("{:.2}", over / under) } else { "-".into() }
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn goal(reached: bool) -> String {
    if reached { "reached" } else { "MISSED" }.into()
}

/// Processors, memory, kernel, and how busy it was before.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.trim().strip_prefix(':'));
    let memory = crate::config::machine_memory();
    let load: Vec<String> =
        read("/proc/loadavg").split_ascii_whitespace().take(1).map(str::to_owned).collect();
    format!(
        "{cores} processors ({}), {} MiB of memory, Linux {}, load average {} before",
        model.map_or("unknown", str::trim),
        memory >> 20,
        read("/proc/sys/kernel/osrelease").trim(),
        load.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn sample(tps: f64, p99_ms: f64, cpu_ms: Option<u64>) -> Sample {
        let effort = cpu_ms.map(|ms| Effort { cpu: Duration::from_millis(ms), waits: 2_000, preempted: 10 });
        Sample {
            run: Run { tps, transactions: 1_500, late: 1_000, connect_ms: 2.0, p50_ms: p99_ms / 2.0, p99_ms },
            effort,
        }
    }

    /// The gateway faster in the first cell and slower in the second; its p99 the other way round.
    fn outcome() -> Outcome {
        let mut cells = Vec::new();
        for (mode, ours, p99) in [(QueryMode::Simple, 1_100.0, 3.0), (QueryMode::Prepared, 900.0, 1.0)] {
            let mut cell = Cell::new(Load { mode, clients: 4 }, 2);
            for (way, tps, p99, cpu) in [
                (Way::Direct, 2_000.0, 1.0, None),
                (Way::PgBouncer, 1_000.0, 2.0, Some(20)),
                (Way::Gateway, ours, p99, Some(30)),
            ] {
                // The median is the middle one, whatever the others are.
                for tps in [tps, 0.0, 1e9] {
                    cell.add(way, sample(tps, p99, cpu));
                }
            }
            cells.push(cell);
        }
        let mut copied = Copied::new("text", 1 << 20);
        for (way, ms) in [(Way::Direct, 900), (Way::PgBouncer, 1_000), (Way::Gateway, 1_000)] {
            copied.add(way, Duration::from_millis(ms), None);
        }
        let calls =
            Calls(BTreeMap::from([("recvfrom".into(), (3_000, 1_000)), ("sendto".into(), (2_000, 0))]));
        let load = Load { mode: QueryMode::Simple, clients: 4 };
        Outcome {
            about: vec![],
            route: String::new(),
            modes: vec![QueryMode::Simple, QueryMode::Prepared],
            clients: vec![4],
            cells,
            copied: vec![copied],
            peaks: vec![("lookups", [None, Some(1 << 20), Some(2 << 20)])],
            traced: vec![Traced { way: Way::Gateway, load, statements: 1_000, calls }],
            untraced: None,
            asked: Value::Null,
            copy_rows: 10,
        }
    }

    #[test]
    fn goals_are_judged_by_medians() {
        assert_eq!(
            outcome().missed(),
            [
                "simple, 4 clients: at most PgBouncer's p99 (3.000 ms, 2.000 ms)",
                "prepared, 4 clients: at least PgBouncer's throughput (900/s, 1000/s)",
                "COPY, text: at least 0.95 of the direct way (0.90)",
            ]
        );
    }

    #[test]
    fn tables_hold_medians_ratios_and_costs() {
        let text = outcome().text(true);
        for line in [
            "| simple | 4 | 2000 | 1000 | 1100 | 1.10 | 0.55 | reached |",
            "| prepared | 4 | 2000 | 1000 | 900 | 0.90 | 0.45 | MISSED |",
            "| simple | 4 | 0.500 | 1.000 | 1.500 | 1.50 | 3.00 | 1.000 | 2.000 | 3.000 | 1.50 | 3.00 | MISSED |",
            "| simple | 4 | 20.0 | 30.0 | 1.50 | 2.00 | 2.00 | 0.010 | 0.010 | 2.0 | 2.0 | 2.0 |",
            "| text | 1.0 | 0.900 | 1.000 | 1.000 | 0.90 | 0.90 | - | - | MISSED |",
            "| simple | 4 | gateway | 5.00 | 3.00 | 1.00 | 2.00 | 0.00 | 0.00 | 0.00 | 0.00 |",
            "peak memory after lookups: PgBouncer 1MiB, gateway (all of `watershed up`) 2MiB",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        let aligned = outcome().text(false);
        assert!(aligned.contains("MISSED") && !aligned.contains('|'), "{aligned}");
    }

    #[test]
    fn every_round_is_in_the_json() {
        let json = outcome().json();
        assert_eq!(json["lookups"][0]["ways"]["gateway"]["rounds"].as_array().map(Vec::len), Some(3));
        assert_eq!(json["lookups"][0]["ways"]["direct"]["cpu_us_per_statement"], Value::Null);
        assert_eq!(json["system_calls"][0]["calls"]["recvfrom"]["failed"], 1_000);
    }
}
