//! `watershed difftest`: a few thousand random statements, asked of PostgreSQL and of the gateway while rows move, give the same bytes; where
//! texts have another order than the lake's too.

use std::process::Command;

fn difftest(arguments: &[&str]) {
    // PostgreSQL's own user must pass through.
    let dir = tempfile::Builder::new()
        .prefix("watershed-test-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in("/tmp")
        .expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_watershed"))
        .arg("difftest")
        .args(arguments)
        .arg("--dir")
        .arg(dir.path().join("work"))
        .current_dir(dir.path())
        .output()
        .expect("watershed runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("equal answers"), "{said}");
}

#[test]
fn random_statements_are_answered_alike() {
    difftest(&["--seed", "2026", "--queries", "3000", "--least-lake", "5"]);
}

#[test]
fn and_where_texts_are_sorted_by_language() {
    difftest(&["--seed", "1962", "--queries", "800", "--icu-locale", "en-US"]);
}

#[test]
fn and_over_flight() {
    difftest(&["--seed", "1959", "--queries", "1000", "--flight", "--least-lake", "30"]);
}
