use super::*;

#[test]
fn pairs_survive_a_round_trip_through_a_shell_file() {
    let mut pairs = Pairs::default();
    pairs.set("PGHOST", "127.0.0.1");
    pairs.set("WATERSHED_LAKE", "file:///srv/it's here/lake/");
    pairs.set("EMPTY", "");
    let text = pairs.print("about this file");
    assert!(text.starts_with("# about this file\n"));
    assert_eq!(Pairs::parse(&text), pairs);
}

#[test]
fn a_directory_has_one_holder_who_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::at(&temp.path().join("d")).unwrap();
    dir.create().unwrap();
    assert_eq!(dir.holder(), None);
    let held = dir.hold().unwrap();
    let me = std::process::id().to_string();
    assert_eq!(dir.holder(), Some(me.clone()));
    let refused = dir.hold().unwrap_err().to_string();
    assert!(refused.contains(&format!("pid {me}")), "{refused}");
    drop(held);
    assert_eq!(dir.holder(), None);
    dir.hold().unwrap();
}

#[test]
fn private_files_are_private_and_replaced_whole() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("secrets");
    replace_private(&path, "A=1\n").unwrap();
    replace_private(&path, "A=2\n").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Pairs::read(&path).unwrap().unwrap().get("A"), Some("2"));
    assert_eq!(Pairs::read(&temp.path().join("none")).unwrap(), None);
}

#[test]
fn a_file_in_the_way_is_reported_with_advice() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    fs::write(&path, "").unwrap();
    let error = DataDir::at(&path).unwrap().create().unwrap_err().to_string();
    assert!(error.contains("--data-dir"), "{error}");
}
