use super::*;

fn merged(args: &UpArgs, file: &str) -> Result<Config> {
    Config::merge(args, parse_file(file).map_err(anyhow::Error::msg)?, 8 << 30)
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file =
        "[gateway]\nlisten = \"127.0.0.1:7000\"\nmemory_limit = \"1GiB\"\n[archiver]\ninterval = \"5s\"\n";
    let args = UpArgs { listen: "127.0.0.1:7001".parse().ok(), ..UpArgs::default() };
    let config = merged(&args, file).unwrap();
    assert_eq!(config.gateway.listen.port(), 7001);
    assert_eq!(config.gateway.memory_limit, 1 << 30);
    assert_eq!(config.archiver.interval, Duration::from_secs(5));
    assert_eq!(config.http.listen.port(), 8432);
    assert_eq!(merged(&UpArgs::default(), "").unwrap().gateway.memory_limit, 2 << 30);
}

#[test]
fn unknown_and_impossible_settings_are_refused() {
    for wrong in
        ["lisen = 1", "[gateway]\nport = 1", "[archiver]\ninterval = 30", "[compactor]\ninterval = \"1ms\"", "[retention]\nnotice = \"1s\""]
    {
        assert!(merged(&UpArgs::default(), wrong).is_err(), "{wrong}");
    }
}

/// The documented file names every setting with its default, so it must mean the same as no file.
#[test]
fn the_documented_file_holds_the_defaults() {
    let text = include_str!("../../../deploy/watershed.toml");
    assert_eq!(merged(&UpArgs::default(), text).unwrap(), merged(&UpArgs::default(), "").unwrap());
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("# set: ").unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    parse_file(&uncommented).unwrap();
}

#[test]
fn alerts_are_one_or_several() {
    let brokers = "[kafka]\nbrokers = \"b:9092\"\n";
    let of = |more: &str| merged(&UpArgs::default(), &format!("{brokers}{more}")).map(|c| c.kafka.forwards);
    assert_eq!(of("").unwrap(), []);
    let one = of("[kafka.alerts]\ntopic = \"t\"\n[kafka.dead_letters]\ntopic = \"d\"").unwrap();
    let names: Vec<(&str, &str)> = one.iter().map(|f| (f.name.as_str(), f.topic.as_str())).collect();
    assert_eq!(names, [("alerts", "t"), ("dead letters", "d")]);
    let two = of("[[kafka.alerts]]\n[[kafka.alerts]]\nname = \"b\"\ntable = \"events\"\ncondition = \"true\"").unwrap();
    assert_eq!((two.len(), two[1].name.as_str()), (2, "b"));
    for (wrong, says) in [
        ("[kafka.alerts]\nconditon = \"true\"", "conditon"),
        ("[[kafka.alerts]]\nfrom = \"yesterday\"", "yesterday"),
        ("[kafka]\nalerts = 5", "table of settings"),
        ("[kafka.dead_letters]", "topic"),
    ] {
        let error = merged(&UpArgs::default(), wrong).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let without = merged(&UpArgs::default(), "[kafka.alerts]").unwrap_err().to_string();
    assert!(without.contains("brokers"), "{without}");
    let secret = merged(&UpArgs::default(), &format!("{brokers}[kafka.properties]\n\"sasl.password\" = \"hush\"")).unwrap();
    assert!(!format!("{secret:?}").contains("hush"));
}

#[test]
fn the_lake_is_a_url_or_a_section() {
    let of = |file: &str| merged(&UpArgs::default(), file).map(|config| config.lake);
    assert_eq!(of("").unwrap(), Lake::default());
    let url = of("lake = \"hdfs://ns/watershed\"").unwrap();
    assert_eq!(url.url.unwrap().as_str(), "hdfs://ns/watershed");
    let section = "[lake]\nurl = \"s3://bucket/lake\"\ncache_size = \"64MiB\"\nread_timeout = \"2s\"\n\
        [lake.hadoop]\n\"dfs.replication\" = \"2\"\n[lake.s3]\nsecret_access_key = \"hush\"\nallow_http = true\n";
    let lake = of(section).unwrap();
    assert_eq!((lake.store.cache_bytes, lake.store.read_timeout), (64 << 20, Duration::from_secs(2)));
    assert_eq!(lake.store.s3.allow_http, Some(true));
    assert!(!format!("{lake:?}").contains("hush"));
    assert!(!format!("{:?}", parse_file(section).unwrap()).contains("hush"));
    let args = UpArgs { lake: "hdfs://other/lake".parse().ok(), hadoop_conf_dir: Some("/conf".into()), ..UpArgs::default() };
    let flags = merged(&args, section).unwrap().lake;
    assert_eq!(flags.url.unwrap().as_str(), "hdfs://other/lake");
    assert_eq!(flags.store.hadoop_conf_dir, Some("/conf".into()));
    for wrong in ["lake = \"nowhere\"", "lake = 1", "[lake]\nurl = 1", "[lake]\nread_timeout = \"1ms\"", "[lake.s3]\nsecret = \"x\""] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_compactor_takes_what_it_is_given() {
    let text = "[compactor]\nenabled = false\ngrace = \"10m\"\nmemory_limit = \"64MiB\"\nthreads = 3\ntarget_file_size = \"8MiB\"\n[gateway]\nlease_after = \"20s\"";
    let config = merged(&UpArgs::default(), text).unwrap();
    let wanted = Compactor {
        enabled: false,
        interval: Duration::from_secs(300),
        target_file_size: 8 << 20,
        grace: Duration::from_secs(600),
        memory_limit: Some(64 << 20),
        threads: Some(3),
    };
    assert_eq!((config.compactor, config.gateway.lease_after), (wanted, Duration::from_secs(20)));
    for wrong in [
        "[compactor]\nthreads = 0",
        "[compactor]\nmemory_limit = \"1MiB\"",
        "[compactor]\ngrace = \"1m\"",
        "[gateway]\nlease_after = \"31m\"",
    ] {
        assert!(merged(&UpArgs::default(), wrong).is_err(), "{wrong}");
    }
}

#[test]
fn tls_is_needed_where_others_can_listen() {
    let of = |listen: &str, more: &str| {
        let args = UpArgs { listen: listen.parse().ok(), ..UpArgs::default() };
        merged(&args, more).map(|config| config.gateway)
    };
    let tls = "[gateway.tls]\ncert = \"c\"\nkey = \"k\"\n";
    assert_eq!(of("127.0.0.1:1", "").unwrap().tls, None);
    assert!(of("[::1]:1", "").is_ok());
    for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
        let error = of(open, "").unwrap_err().to_string();
        assert!(error.contains("allow_plaintext"), "{error}");
        assert!(of(open, "[gateway]\nallow_plaintext = true").unwrap().tls.is_none());
        let with = of(open, tls).unwrap();
        assert!(!with.allow_plaintext && with.tls.is_some_and(|tls| tls.client_ca.is_none()));
    }
    let clients = of("127.0.0.1:1", &format!("{tls}client_ca = \"a\"\n")).unwrap().tls.unwrap();
    assert!(!clients.client_certificate_optional && clients.client_ca.is_some());
    for wrong in [
        "[gateway.tls]\ncert = \"c\"",
        "[gateway.tls]\nclient_ca = \"c\"",
        "[gateway.tls]\ncert = \"c\"\nkey = \"k\"\nclient_certificate = \"maybe\"",
        "[gateway]\nlogin_timeout = \"1ms\"",
        "[gateway]\nbusy_wait_us = 2000",
    ] {
        assert!(of("127.0.0.1:1", wrong).is_err(), "{wrong}");
    }
    let flags = UpArgs { tls_cert: Some("x".into()), ..UpArgs::default() };
    assert_eq!(merged(&flags, tls).unwrap().gateway.tls.unwrap().cert, PathBuf::from("x"));
    // Who connects how often matters where there are others.
    assert_eq!(of("127.0.0.1:1", "").unwrap().connection_rate, None);
    assert_eq!(of("0.0.0.0:1", tls).unwrap().connection_rate, Some(100));
    assert_eq!(of("0.0.0.0:1", &format!("[gateway]\nconnection_rate = 0\n{tls}")).unwrap().connection_rate, None);
    assert_eq!(of("127.0.0.1:1", "[gateway]\nconnection_rate = 5").unwrap().connection_rate, Some(5));
    assert!(of("127.0.0.1:1", "[gateway]\nbusy_wait_us = 0").unwrap().busy_wait.is_zero());
}
