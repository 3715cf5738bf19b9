use super::*;

#[test]
fn secrets_are_made_once_and_read_back() {
    let temp = tempfile::tempdir().unwrap();
    let data = DataDir::at(temp.path()).unwrap();
    let mut made = Secrets::read_or_make(&data, &Lake::default()).unwrap();
    assert_eq!(made.port, None);
    made.port = Some(5433);
    made.write(&data, Some("127.0.0.1:8432")).unwrap();
    let read = Secrets::read_or_make(&data, &Lake::default()).unwrap();
    assert_eq!((read.port, &read.probe_secret), (Some(5433), &made.probe_secret));
    for (role, _) in LOGINS {
        assert_eq!(read.password(role), made.password(role));
        assert_eq!(read.password(role).len(), 32);
    }
    assert_eq!(read.url(OWNER, DATABASE), made.url(OWNER, DATABASE));
}

#[test]
fn a_cluster_without_its_secrets_is_not_locked_out_silently() {
    let temp = tempfile::tempdir().unwrap();
    let data = DataDir::at(temp.path()).unwrap();
    std::fs::create_dir(data.cluster()).unwrap();
    let error = Secrets::read_or_make(&data, &Lake::default()).unwrap_err().to_string();
    assert!(error.contains("secrets is missing"), "{error}");
}
