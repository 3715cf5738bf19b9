use super::*;

#[test]
fn the_pid_file_gives_pid_and_status() {
    let temp = tempfile::tempdir().unwrap();
    assert!(PidFile::read(temp.path()).is_none());
    fs::write(
        temp.path().join("postmaster.pid"),
        "4711\n/d/pg\n1700000000\n5433\n/d/sock\n127.0.0.1\n  123  4\nready   \n",
    )
    .unwrap();
    let file = PidFile::read(temp.path()).unwrap();
    assert_eq!((file.pid, file.status.as_str()), (4711, "ready"));
}

#[test]
fn a_pid_that_runs_elsewhere_is_not_our_server() {
    let temp = tempfile::tempdir().unwrap();
    assert!(!serves(std::process::id(), temp.path()));
    assert!(serves(std::process::id(), &std::env::current_dir().unwrap()));
}

#[test]
fn a_long_path_gets_a_short_socket_directory() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("x".repeat(120));
    fs::create_dir(&root).unwrap();
    let dir = make_socket_dir(&root, None).unwrap();
    assert!(dir.as_os_str().len() < 80, "{}", dir.display());
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(make_socket_dir(&root, None).unwrap(), dir);
    fs::remove_dir(&dir).unwrap();
    assert_eq!(make_socket_dir(temp.path(), None).unwrap(), temp.path().join("sock"));
}

#[test]
fn settings_follow_memory_and_quote_paths() {
    let settings = Settings {
        memory: 16 << 30,
        sessions: 100,
        shared_buffers: None,
        icu_locale: None,
        data_dir: "/it's here".into(),
        small_shm: true,
        lz4: true,
    };
    let text = settings.print(5433, Path::new("/d/sock"));
    for line in [
        "port = 5433\n",
        "shared_buffers = 2048MB\n",
        "max_connections = 150\n",
        "max_locks_per_transaction = 1024\n",
        "watershed.data_dir = '/it''s here'\n",
        "dynamic_shared_memory_type = 'mmap'\n",
        "fsync = on\n",
        "wal_compression = lz4\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let without = Settings { lz4: false, ..settings }.print(5433, Path::new("/d/sock"));
    assert!(without.contains("wal_compression = on\n"), "{without}");
}

#[test]
fn a_directory_without_a_cluster_is_not_touched() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(existing_major(&temp.path().join("pg")).unwrap(), None);
    assert!(existing_major(temp.path()).is_err());
}
