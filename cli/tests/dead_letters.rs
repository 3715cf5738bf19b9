//! `watershed dead-letters` as its users meet it: through the program, beside a running `up`.

mod support;

use support::instance::{Instance, Options, argument, shown};
use support::wire::Client;

/// Runs the command with no input; gives its exit code and what it printed.
fn letters(instance: &Instance, arguments: &[&str]) -> (i32, String) {
    let mut all = vec!["dead-letters"];
    all.extend_from_slice(arguments);
    let output = instance.output(&all);
    (output.status.code().unwrap_or(-1), shown(&output))
}

#[test]
fn letters_are_listed_shown_replayed_and_dropped() {
    let instance = Instance::start(Options::on_demand());
    assert_eq!(letters(&instance, &["list"]).0, 0);
    assert!(letters(&instance, &["list"]).1.contains("no dead letters"));
    let file = instance.file(
        "mixed.ndjson",
        "{\"ts\":1,\"message\":\"fine\"}\n{\"when\":1709251200000,\"message\":\"no time\"}\n{\"ts\":\"soon\"}\n{\"ts\":1,\"message\":\"a\\u0000b\"}\nnot json\n",
    );
    let load = instance.output(&["load", "logs", argument(&file)]);
    assert_eq!(load.status.code(), Some(1), "{}", shown(&load));

    let (code, text) = letters(&instance, &["list", "--table", "logs"]);
    assert_eq!(code, 0, "{text}");
    for part in
        ["id  received", "public.logs", "mixed.ndjson, line 2", "waiting", "no event time", "4 letters"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let (code, text) = letters(&instance, &["list", "--stage", "map", "--since", "1h", "--limit", "1"]);
    assert!(code == 0 && text.contains("2 letters") && text.contains("1 shown"), "{text}");
    assert!(letters(&instance, &["list", "--since", "2999-01-01"]).1.contains("no dead letters"));
    let (_, text) = letters(&instance, &["list", "--json"]);
    let objects: Vec<serde_json::Value> =
        text.lines().filter(|l| l.starts_with('{')).map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(objects.len(), 4);
    let id = |what: &str| {
        let found = objects.iter().find(|o| o["reason"].as_str().is_some_and(|r| r.contains(what)));
        found.unwrap_or_else(|| panic!("{what} in {text}"))["id"].to_string()
    };

    // The reason, where, and the record with the place marked.
    let (code, text) = letters(&instance, &["show", &id("ISO 8601")]);
    assert!(
        code == 0 && text.contains("position   line 3") && text.contains(">   \"ts\": \"soon\""),
        "{text}"
    );
    let (_, text) = letters(&instance, &["show", &id("NUL")]);
    assert!(text.contains("now        would fail") && text.contains("^^^^^^"), "{text}");
    let raw = instance.output(&["dead-letters", "show", "--raw", &id("NUL")]);
    assert_eq!(raw.stdout, b"{\"ts\":1,\"message\":\"a\\u0000b\"}");
    let (code, text) = letters(&instance, &["show", "999"]);
    assert!(code == 2 && text.contains("there is no dead letter 999"), "{text}");

    // Nothing named is not everything.
    assert_eq!(letters(&instance, &["replay"]).0, 2);
    assert_eq!(letters(&instance, &["drop", "--yes"]).0, 2);
    // As it is, all fail again; exit code 1 says so.
    let (code, text) = letters(&instance, &["replay", "--all"]);
    assert!(code == 1 && text.contains("0 of 4 letters replayed as 0 rows; 4 failed again"), "{text}");
    assert!(letters(&instance, &["list"]).1.contains("failed again"));
    // With a mapping, one becomes a row; first only as if.
    let settings = instance.file(
        "mapped.toml",
        "[[tables]]\ntable = \"public.logs\"\n[tables.mapping.columns.ts]\nfrom = [\"when\", \"ts\"]\ntime = \"ms\"\n",
    );
    let replay = ["replay", "--table", "logs", "--config", argument(&settings)];
    let mut direct = Client::connect(&instance.direct());
    let rows = "SELECT count(*) FROM logs WHERE ts = '2024-03-01 00:00:00+00' AND message = 'no time'";
    let (code, text) = letters(&instance, &[&replay[..], &["--dry-run"]].concat());
    assert!(
        code == 1 && text.contains("1 of 4 letters would be replayed as 1 rows; 3 would fail again"),
        "{text}"
    );
    assert_eq!(direct.value(rows), "0");
    let (code, text) = letters(&instance, &replay);
    assert!(code == 1 && text.contains("1 of 4 letters replayed as 1 rows"), "{text}");
    assert_eq!(direct.value(rows), "1");
    let (code, text) = letters(&instance, &replay);
    assert!(code == 1 && text.contains("0 of 3 letters"), "{text}");
    assert_eq!(direct.value(rows), "1");
    assert!(letters(&instance, &["show", &id("no event time")]).1.contains("replayed   "));

    // The row reaches the lake as any other, and both stores agree.
    instance.archive();
    instance.run(&["verify"]);

    // Dropping asks, and without a terminal wants to be told.
    let (code, text) = letters(&instance, &["drop", "--replayed"]);
    assert!(code == 2 && text.contains("--yes"), "{text}");
    assert!(letters(&instance, &["drop", "--replayed", "--yes"]).1.contains("1 letters dropped"));
    assert!(letters(&instance, &["drop", &id("NUL"), "--yes"]).1.contains("1 letters dropped"));
    assert!(letters(&instance, &["list", "--all"]).1.contains("2 letters"));
    assert!(letters(&instance, &["drop", "--all", "--yes"]).1.contains("2 letters dropped"));
    assert!(letters(&instance, &["drop", "--all", "--yes"]).1.contains("no such"));

    // A settings file that cannot be is named as the fault.
    let wrong =
        instance.file("wrong.toml", "[[tables]]\ntable = \"logs\"\nmapping.columns.ts.form = \"x\"\n");
    let (code, text) = letters(&instance, &["replay", "--all", "--config", argument(&wrong)]);
    assert!(code == 2 && text.contains("wrong.toml is wrong"), "{text}");
}
