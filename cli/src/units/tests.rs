use super::*;

#[test]
fn sizes_read_and_print() {
    for (text, bytes, printed) in [
        ("0", 0, "0B"),
        ("1048576", 1 << 20, "1MiB"),
        ("64 MiB", 64 << 20, "64MiB"),
        ("1.5GiB", 3 << 29, "1.5GiB"),
        ("2gb", 2_000_000_000, "1.9GiB"),
    ] {
        let size: Bytes = text.parse().unwrap();
        assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{text}");
    }
    for wrong in ["", "MiB", "12 parsecs", "1.2.3", "-5", "99999999TiB"] {
        assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
    }
}

#[test]
fn durations_read_and_print() {
    for (text, ms, printed) in [
        ("250ms", 250, "250ms"),
        ("30s", 30_000, "30s"),
        ("90s", 90_000, "90s"),
        ("1.5m", 90_000, "90s"),
        ("2h", 7_200_000, "2h"),
    ] {
        let period: Period = text.parse().unwrap();
        assert_eq!((period.0.as_millis(), period.to_string().as_str()), (ms, printed), "{text}");
    }
    for wrong in ["", "30", "s", "5 fortnights", "1e9d"] {
        assert!(wrong.parse::<Period>().is_err(), "{wrong}");
    }
}
