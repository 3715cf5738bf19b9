//! `watershed queries`: the gateway's own log of statements, asked for as any client would.

use anyhow::Result;

use crate::args::QueriesArgs;
use crate::console::say;
use crate::discover;
use crate::exit::Code;
use crate::text_table::{Align, layout, shorten};
use crate::wire_client::Client;

/// Characters of a statement shown on a line.
const SQL_WIDTH: usize = 70;

pub async fn run(args: QueriesArgs) -> Result<Code> {
    let mut client = Client::connect(&discover::gateway(&args.running).await?).await?;
    let (sql, heading): (String, &[(&str, Align)]) = if args.stats {
        (
            format!(
                "SELECT route, calls, rows, mean_us, p50_us, p95_us, p99_us, sample_sql FROM watershed.route_stats ORDER BY calls DESC LIMIT {}",
                args.limit
            ),
            &[
                ("route", Align::Left),
                ("calls", Align::Right),
                ("rows", Align::Right),
                ("mean ms", Align::Right),
                ("p50 ms", Align::Right),
                ("p95 ms", Align::Right),
                ("p99 ms", Align::Right),
                ("statement", Align::Left),
            ],
        )
    } else {
        (
            format!(
                "SELECT id, route, rows, total_us, sqlstate, reasons, sql FROM watershed.queries ORDER BY id DESC LIMIT {}",
                args.limit
            ),
            &[
                ("id", Align::Right),
                ("route", Align::Left),
                ("rows", Align::Right),
                ("ms", Align::Right),
                ("error", Align::Left),
                ("reasons", Align::Left),
                ("statement", Align::Left),
            ],
        )
    };
    let answer = client.simple(&sql).await?;
    let names = answer.column_names();
    let mut rows = Vec::with_capacity(answer.rows.len());
    for row in answer.text()? {
        let shown = row.into_iter().zip(&names).map(|(value, name)| {
            let value = value.unwrap_or_default();
            match name.as_str() {
                name if name.ends_with("_us") => milliseconds(&value),
                "sql" | "sample_sql" | "reasons" => shorten(value.trim(), SQL_WIDTH),
                _ => value,
            }
        });
        rows.push(shown.collect());
    }
    say(layout(heading, &rows).trim_end());
    Ok(Code::Done)
}

fn milliseconds(microseconds: &str) -> String {
    microseconds.parse::<f64>().map_or_else(|_| String::new(), |us| format!("{:.2}", us / 1000.0))
}
