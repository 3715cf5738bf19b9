use super::*;

fn table(name: &str) -> Table {
    Table { name: name.into(), ..Table::default() }
}

fn said(read: Readings) -> Vec<(Kind, String)> {
    judge(&Ok(read), &State::Open, &Limits::default()).into_iter().map(|p| (p.kind, p.what)).collect()
}

#[test]
fn a_quiet_system_has_no_problems() {
    let idle = Table { boundary_age: Some(1e6), ..table("public.logs") };
    let busy = Table { boundary_age: Some(60.0), waits: true, ..table("public.events") };
    assert_eq!(said(Readings { tables: vec![idle, busy], writer: Some(5.0), ..Readings::default() }), []);
}

#[test]
fn each_kind_is_found_and_named() {
    let read = Readings {
        tables: vec![
            Table { other_lineage: true, ..table("public.logs") },
            Table { boundary_age: Some(7200.0), waits: true, ..table("public.events") },
            Table { retention_note: Some("a forward has not sent its rows".into()), ..table("public.orders") },
        ],
        partitions: vec![Partition { name: "logs.raw/3 of public.logs".into(), seconds: 400.0 }],
        writer: Some(1200.0),
    };
    let said = said(read);
    let kinds: Vec<Kind> = said.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Lineage, Kind::Writer, Kind::Boundary, Kind::Lag, Kind::Retention]);
    let words = ["public.logs", "1200 s", "public.events", "logs.raw/3", "public.orders"];
    for ((kind, what), word) in said.iter().zip(words) {
        assert!(what.contains(word), "{kind:?}: {what}");
    }
}

#[test]
fn what_cannot_be_asked_is_a_problem_and_a_full_disk_too() {
    let full = State::Closed { reason: "/data has 10 MiB left".into() };
    let problems = judge(&Err("connection refused".into()), &full, &Limits::default());
    let kinds: Vec<&str> = problems.iter().map(|p| p.kind.name()).collect();
    assert_eq!(kinds, ["postgres", "disk"]);
    assert!(problems[1].what.contains("10 MiB"));
}

/// The page of metrics follows what is set, and forgets nothing that is over.
#[test]
fn problems_are_on_the_page() {
    let health = Health::default();
    health.set(vec![Problem { kind: Kind::Lag, what: "x".into() }]);
    assert!(metrics::render().contains("watershed_problem{problem=\"lag\"} 1\n"));
    assert_eq!(health.clone().problems().len(), 1);
    health.set(Vec::new());
    let page = metrics::render();
    assert!(Kind::ALL.iter().all(|kind| page.contains(&format!("watershed_problem{{problem=\"{}\"}} 0\n", kind.name()))));
}
