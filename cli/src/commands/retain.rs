//! `watershed retain [TABLE] [--plan]`

use anyhow::Result;
use ingest::retention::{Outcome, Report, retain};

use crate::args::RetainArgs;
use crate::console::say;
use crate::exit::Code;
use crate::text_table::grouped;
use crate::{config, discover, services};

pub async fn run(args: RetainArgs) -> Result<Code> {
    let stores = discover::stores(&args.target.running).await?;
    let file = args.config.as_deref();
    let mut settings = services::retention_config(&config::retention(file)?, &config::pressure(file)?, &stores);
    if let Some(notice) = args.notice {
        settings.notice = notice.0;
    }
    // A signal ends the process: each step is one transaction, and the next run goes on.
    let reports = retain(settings, args.target.table.as_deref(), args.plan).await?;
    let mut code = Code::Done;
    for report in &reports {
        for line in describe(report) {
            say(line);
        }
        if report.steps.iter().any(|s| matches!(s.outcome, Outcome::Blocked(_))) {
            code = Code::Found;
        }
    }
    Ok(code)
}

fn describe(report: &Report) -> Vec<String> {
    let days = |n: Option<i32>| n.map_or("everything".to_owned(), |n| format!("{n} days"));
    let since = |floor: &Option<String>| floor.clone().map_or("the beginning".to_owned(), |day| day);
    let mut lines = vec![format!(
        "{}: PostgreSQL keeps {} (has all since {}), the lake keeps {} (since {})",
        report.table,
        days(report.hot_days),
        since(&report.floor),
        days(report.lake_days),
        since(&report.lake_floor)
    )];
    if report.steps.is_empty() {
        lines.push("  nothing to do".into());
    }
    for step in &report.steps {
        let outcome = match &step.outcome {
            Outcome::Planned => "would be done".to_owned(),
            Outcome::Done { rows } => format!("done, {} rows", grouped(*rows)),
            Outcome::Blocked(why) => format!("not now: {why}"),
        };
        lines.push(format!("  {} (because: {}): {outcome}", step.what, step.why));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use ingest::retention::Taken;

    #[test]
    fn a_report_says_what_why_and_what_became_of_it() {
        let step = |outcome| Taken { what: "drop 2026-01-01 from PostgreSQL".into(), why: "PostgreSQL keeps 30 days".into(), outcome };
        let report = Report {
            table: "public.logs".into(),
            hot_days: Some(30),
            lake_days: None,
            floor: None,
            lake_floor: None,
            steps: vec![step(Outcome::Planned), step(Outcome::Blocked("nothing was archived yet".into()))],
        };
        let lines = describe(&report);
        assert!(lines[0].contains("30 days (has all since the beginning), the lake keeps everything"), "{}", lines[0]);
        assert!(lines[1].contains("because: PostgreSQL keeps 30 days") && lines[1].ends_with("would be done"));
        assert!(lines[2].ends_with("not now: nothing was archived yet"));
    }
}
