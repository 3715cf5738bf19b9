use super::*;

fn installed(majors: &[u32]) -> Vec<Installation> {
    majors.iter().map(|major| Installation { bin: format!("/pg/{major}").into(), major: *major }).collect()
}

#[test]
fn versions_are_read() {
    assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
    assert_eq!(major_of("postgres (PostgreSQL) 19beta2"), Some(19));
    assert_eq!(major_of("something else 15"), None);
}

#[test]
fn the_newest_is_chosen_unless_a_cluster_wants_its_own() {
    assert_eq!(choose(installed(&[15, 17, 16]), None, None).unwrap().major, 17);
    assert_eq!(choose(installed(&[15, 17]), None, Some(15)).unwrap().major, 15);
    let missing = choose(installed(&[17]), None, Some(15)).unwrap_err().to_string();
    assert!(missing.contains("postgresql-15"), "{missing}");
}

#[test]
fn none_or_an_old_one_is_refused_with_advice() {
    let old = choose(installed(&[13]), None, None).unwrap_err().to_string();
    assert!(old.contains("PostgreSQL 13") && old.contains("apt-get install"), "{old}");
    let none = Installation::find(Some(Path::new("/nonexistent")), None).unwrap_err().to_string();
    assert!(none.contains("/nonexistent") && none.contains("--pg-bin"), "{none}");
}
