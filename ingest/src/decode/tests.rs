use proptest::prelude::*;

use super::*;

fn get<'r>(record: &'r Record<'_>, name: &str) -> Option<&'r Value<'r>> {
    // Lifetimes of records are covariant: shortening is all that happens here.
    record.iter().rev().find(|f| f.name == name).map(|f| &f.value)
}

fn shown(record: &Record<'_>, name: &str) -> String {
    match get(record, name) {
        None => "-".into(),
        Some(Value::Time(us)) => {
            let mut out = Vec::new();
            time::write(&mut out, *us, b' ');
            String::from_utf8(out).unwrap()
        }
        Some(v) => {
            let mut out = Vec::new();
            json::write_value(&mut out, v);
            String::from_utf8(out).unwrap()
        }
    }
}

#[test]
fn combined() {
    let line = r#"83.149.9.216 - frank [17/May/2015:10:05:03 +0200] "GET /presentations/x.png?a=1 HTTP/1.1" 404 203023 "http://example.com/" "Mozilla/5.0 (\"x\")" 0.012"#;
    let r = web::decode(line).unwrap();
    for (name, want) in [
        (EVENT_TIME, "2015-05-17 08:05:03"),
        ("level", r#""WARN""#),
        ("service", r#""presentations""#),
        ("host", r#""83.149.9.216""#),
        ("message", r#""GET /presentations/x.png?a=1 HTTP/1.1""#),
        ("method", r#""GET""#),
        ("path", r#""/presentations/x.png?a=1""#),
        ("protocol", r#""HTTP/1.1""#),
        ("status", "404"),
        ("bytes", "203023"),
        ("referrer", r#""http://example.com/""#),
        ("user_agent", r#""Mozilla/5.0 (\\\"x\\\")""#),
        ("user", r#""frank""#),
        ("ident", "-"),
        ("extra", r#""0.012""#),
    ] {
        assert_eq!(shown(&r, name), want, "{name}");
    }
}

#[test]
fn web_variants() {
    let common = web::decode(r#"::1 - - [01/Jan/2024:00:00:00 +0000] "HEAD / HTTP/1.0" 200 -"#).unwrap();
    assert_eq!((shown(&common, "service"), shown(&common, "bytes")), (r#""web""#.into(), "-".into()));
    let vhost = web::decode(
        r#"shop.example:443 10.0.0.1 - - [01/Jan/2024:00:00:00 +0000] "GET /cart HTTP/2.0" 500 12 "-" "-""#,
    )
    .unwrap();
    assert_eq!(
        (shown(&vhost, "service"), shown(&vhost, "host"), shown(&vhost, "vhost"), shown(&vhost, "level")),
        (r#""cart""#.into(), r#""10.0.0.1""#.into(), r#""shop.example:443""#.into(), r#""ERROR""#.into())
    );
    // No request at all, and bytes that no browser sends.
    let none = web::decode(r#"10.0.0.1 - - [01/Jan/2024:00:00:00 +0000] "-" 408 0 "-" "-""#).unwrap();
    assert_eq!((shown(&none, "message"), shown(&none, "method")), (r#""-""#.into(), "-".into()));
    let binary = web::decode(r#"10.0.0.1 - - [01/Jan/2024:00:00:00 +0000] "\x16\x03\x01" 400 226"#).unwrap();
    assert_eq!((shown(&binary, "path"), shown(&binary, "service")), ("-".into(), r#""web""#.into()));
    // The agent of this one was cut off by the client.
    let cut = web::decode(r#"46.118.127.106 - - [20/May/2015:12:05:17 +0000] "GET /scripts/x.py HTTP/1.1" 200 235 "-" "Mozilla/5.0 (compatible"#).unwrap();
    assert_eq!(shown(&cut, "user_agent"), r#""Mozilla/5.0 (compatible""#);
}

#[test]
fn services() {
    for (target, vhost, want) in [
        ("/presentations/x", None, "presentations"),
        ("/kibana", None, "kibana"),
        ("/favicon.ico", None, "web"),
        ("/favicon.ico", Some("example.org:80"), "example.org"),
        ("/?flav=rss20", None, "web"),
        ("//wp-admin/setup.php", None, "wp-admin"),
        ("http://proxied.example/a/b", None, "a"),
        ("http://proxied.example", None, "proxied.example"),
        ("*", None, "web"),
        ("", None, "web"),
        ("/v1.2/items", None, "v1.2"),
    ] {
        assert_eq!(web::service(target, vhost), want, "{target}");
    }
    assert_eq!(web::service(&format!("/{}/x", "a".repeat(65)), None), "web");
}

#[test]
fn what_is_no_access_log() {
    for line in [
        "",
        "hello",
        r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /"#,
        r#"1.2.3.4 - - [17/Mai/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#,
        r#"1.2.3.4 - - [31/Feb/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#,
        r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 20 1"#,
        r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 99999999999999999999"#,
        r#"1.2.3.4 [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#,
    ] {
        assert!(web::decode(line).is_err(), "{line}");
    }
}

#[test]
fn bsd_syslog() {
    let mut years = Years::starting(2015);
    let r = syslog::decode(
        "Mar 27 13:06:56 ip-10-77 sshd[1291]: Failed password for root from 1.2.3.4",
        &mut years,
    )
    .unwrap();
    for (name, want) in [
        (EVENT_TIME, "2015-03-27 13:06:56"),
        ("level", r#""WARN""#),
        ("service", r#""sshd""#),
        ("host", r#""ip-10-77""#),
        ("message", r#""Failed password for root from 1.2.3.4""#),
        ("pid", "1291"),
    ] {
        assert_eq!(shown(&r, name), want, "{name}");
    }
    let r = syslog::decode("Apr  1 00:00:00 h last message repeated 2 times", &mut years).unwrap();
    assert_eq!(
        (shown(&r, "service"), shown(&r, "message")),
        ("-".into(), r#""last message repeated 2 times""#.into())
    );
    let r = syslog::decode("<38>Apr  1 00:00:01 h sudo:   bob : TTY=pts/0", &mut years).unwrap();
    assert_eq!(
        (shown(&r, "facility"), shown(&r, "severity"), shown(&r, "level")),
        (r#""auth""#.into(), r#""info""#.into(), r#""INFO""#.into())
    );
    assert_eq!(shown(&r, "message"), r#""  bob : TTY=pts/0""#);
    let r = syslog::decode("2024-01-01T00:00:00.123456+01:00 h kernel: [ 1.0] segfault at 0", &mut years)
        .unwrap();
    assert_eq!(
        (shown(&r, EVENT_TIME), shown(&r, "level")),
        ("2023-12-31 23:00:00.123456".into(), r#""ERROR""#.into())
    );
    for bad in [
        "",
        "Mar 27",
        "Mar 32 13:06:56 h x: y",
        "Foo 27 13:06:56 h x: y",
        "Mar 27 13:06:56 h",
        "no syslog at all",
    ] {
        assert!(syslog::decode(bad, &mut years).is_err(), "{bad:?}");
    }
}

#[test]
fn rfc_5424() {
    let mut years = Years::starting(2015);
    let r = syslog::decode(
        r#"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog 77 ID47 [ex@32473 iut="3" s="a\"b\]"][x@1] An event"#,
        &mut years,
    )
    .unwrap();
    for (name, want) in [
        (EVENT_TIME, "2003-10-11 22:14:15.003000"),
        ("level", r#""INFO""#),
        ("service", r#""evntslog""#),
        ("facility", r#""local4""#),
        ("msgid", r#""ID47""#),
        ("structured_data", r#"{"ex@32473":{"iut":"3","s":"a\"b]"},"x@1":{}}"#),
        ("message", r#""An event""#),
    ] {
        assert_eq!(shown(&r, name), want, "{name}");
    }
    assert!(syslog::decode("<34>1 2003-10-11T22:14:15.003Z h a - - [broken", &mut years).is_err());
}

#[test]
fn years_roll_over() {
    let mut years = Years::starting(2023);
    let mut at = |m, d| {
        let us = years.place(m, d, (12, 0, 0, 0)).unwrap();
        let (y, mm, dd) = time::civil_from_days(us.div_euclid(time::DAY));
        assert_eq!((mm, dd), (m, d));
        y
    };
    // Forward, a straggler, over the year's end, a straggler back over it, a leap day, a long gap.
    assert_eq!(
        [at(10, 1), at(9, 29), at(12, 31), at(1, 1), at(12, 31), at(1, 2), at(2, 29), at(11, 1), at(3, 1)],
        [2023, 2023, 2023, 2024, 2023, 2024, 2024, 2024, 2025]
    );
}

#[test]
fn the_first_year_follows_from_the_file_time() {
    let mut finder = syslog::YearFinder::default();
    for line in [
        "Nov 30 10:00:00 h a: b",
        "Dec 31 23:59:59 h a: b",
        "Jan  1 00:00:01 h a: b",
        "garbage",
        "Feb  2 00:00:00 h a: b",
    ] {
        finder.line(line.as_bytes());
    }
    let at = |y, m, d| time::days_from_civil(y, m, d) * time::DAY;
    assert_eq!(finder.first_year(at(2024, 2, 3)), 2023);
    assert_eq!(finder.first_year(at(2024, 1, 15)), 2022);
    assert_eq!(finder.first_year(at(2024, 12, 1)), 2023);
    assert_eq!(syslog::YearFinder::default().first_year(at(2024, 12, 1)), 2024);
}

#[test]
fn json_objects() {
    let r = json::decode(r#"{"a":1.10,"b":"x\u00e9","c":null,"d":{"e":[1, 2]},"a":2e400}"#).unwrap();
    assert_eq!(
        (shown(&r, "a"), shown(&r, "b"), shown(&r, "c"), shown(&r, "d")),
        ("2e400".into(), r#""x\u00e9""#.into(), "null".into(), r#"{"e":[1, 2]}"#.into())
    );
    for (bad, why) in [
        ("[1]", "not a JSON object"),
        ("3", "not a JSON object"),
        ("{", "EOF"),
        (r#"{"a":1} x"#, "trailing characters"),
        (r#"{"a":"\u0000"}"#, "NUL"),
        (r#"{"\u0000":1}"#, "NUL"),
        (r#"{"a":"\ud800"}"#, "surrogate"),
        (r#"{"a":["\ude00"]}"#, "surrogate"),
        (r#"{"a":NaN}"#, "expected value"),
        ("{\"a\":\"\n\"}", "control character"),
    ] {
        let got = json::decode(bad).unwrap_err();
        assert!(got.contains(why), "{bad}: {got}");
    }
    assert!(json::decode(r#"{"a":"\ud83d\ude00 \\u0000"}"#).is_ok());
}

#[test]
fn csv_cells() {
    let header = Header::parse("\u{feff}ts, level,\"a \"\"b\"\"\"", b',').unwrap();
    assert_eq!(header.names, ["ts", "level", "a \"b\""]);
    let r = csv::decode("2024-01-01,,\"\"", &header).unwrap();
    assert_eq!(r[1].value, Value::Null);
    assert_eq!(r[2].value, Value::Text("".into()));
    let r = csv::decode("x,\"a,\"\"b\"\"\nc\",y\"z", &header).unwrap();
    assert_eq!(r[1].value, Value::Text("a,\"b\"\nc".into()));
    assert_eq!(r[2].value, Value::Text("y\"z".into()));
    for bad in ["a,b", "a,b,c,d", "\"a\"x,b,c", "\"a,b,c"] {
        assert!(csv::decode(bad, &header).is_err(), "{bad}");
    }
    assert!(Header::parse("a,a", b',').is_err());
    assert!(Header::parse("a,,b", b',').is_err());
    for (line, want) in [("a,b;c,d", b','), ("a;b", b';'), ("a\tb", b'\t'), ("a|b|c,d", b'|'), ("a", b',')] {
        assert_eq!(csv::guess_delimiter(line), want, "{line}");
    }
}

#[test]
fn detection() {
    let knows = |n: &str| ["ts", "level", "message", "timestamp"].contains(&n);
    let d = |s: &str| detect::detect(s.as_bytes(), true, &knows);
    assert_eq!(d("{\"a\":1}\n"), Some(Format::Ndjson));
    assert_eq!(d(" [ {\"a\":1}]"), Some(Format::JsonArray));
    assert_eq!(d("1.2.3.4 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1\n"), Some(Format::Web));
    assert_eq!(d("Mar 27 13:06:56 h sshd[1]: x\n"), Some(Format::Syslog));
    assert_eq!(d("TS;Level;whatever\n2024-01-01;INFO;x\n"), Some(Format::Csv));
    assert_eq!(d("what is this\nnobody knows\n"), None);
    assert_eq!(d(""), None);
    assert_eq!(d("oops\n{\"a\":1}\n{\"a\":2}\n"), Some(Format::Ndjson));
}

#[test]
fn formats_by_name() {
    for f in [Format::Web, Format::Ndjson, Format::JsonArray, Format::Csv, Format::Syslog] {
        assert_eq!(f.name().parse::<Format>().unwrap(), f);
    }
    assert!("xml".parse::<Format>().is_err());
}

proptest! {
    #[test]
    fn no_decoder_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let header = Header { names: vec!["a".into(), "b".into()], delimiter: b',' };
        for mut d in [Decoder::Web, Decoder::Json, Decoder::Csv(header), Decoder::Syslog(Years::starting(2024))] {
            let _ = d.decode(&bytes);
        }
        let _ = detect::detect(&bytes, false, &|_| true);
        let mut finder = syslog::YearFinder::default();
        finder.line(&bytes);
        finder.first_year(0);
    }

    #[test]
    fn no_decoder_panics_near_its_format(
        a in r#"[0-9a-z .:-]{0,12}( -){0,3} ?\[?[0-9]{0,2}/?[A-Z][a-z]{2}/[0-9]{4}:[0-9]{2}:[0-9]{2}:[0-9]{2} [+-]?[0-9]{0,4}\]? ?"?[ -~é]{0,20}"?( [0-9-]{0,4}){0,3}( "[ -~]{0,6}"?){0,3}"#,
        b in r#"(<[0-9]{0,4}>)?1? ?[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}[ .0-9:]{0,4}[a-zé\[\]:= "]{0,30}"#,
        c in r#"<[0-9]{1,3}>1 2024-0[0-9]-[0-9]{2}T00:00:00Z [a-z-]{0,3} [a-z-] [0-9-] [a-z-] (\[[a-z]{0,2}( [a-z]="[a-z\\\]"]{0,4}"?)?\]?)?[a-z -]{0,9}"#,
        d in r#"\{("[a-z\\u0d89]{0,8}":("[a-zA-Z\\u0d89]{0,12}"|[0-9.eE-]{0,9}|\[|\{|null),?){0,4}\}?"#,
    ) {
        let mut years = Years::starting(2024);
        let _ = web::decode(&a);
        let _ = syslog::decode(&b, &mut years);
        let _ = syslog::decode(&c, &mut years);
        let _ = json::decode(&d);
    }

    #[test]
    fn csv_cells_come_back(cells in proptest::collection::vec("[a-z,\"\n ]{0,6}", 1..5)) {
        let header = Header { names: (0..cells.len()).map(|i| format!("c{i}")).collect(), delimiter: b',' };
        let line: Vec<String> = cells.iter().map(|c| format!("\"{}\"", c.replace('"', "\"\""))).collect();
        let line = line.join(",");
        let r = csv::decode(&line, &header).unwrap();
        for (f, c) in r.iter().zip(&cells) {
            prop_assert_eq!(&f.value, &Value::Text(c.as_str().into()));
        }
    }

    #[test]
    fn json_strings_come_back(s in any::<String>()) {
        let mut out = Vec::new();
        json::write_string(&mut out, &s);
        let back: String = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(back, s);
    }
}
