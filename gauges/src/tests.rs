use super::*;

/// The lines of one name, from a registry of its own.
fn rendered(fill: impl FnOnce(&Registry)) -> String {
    let registry = Registry::default();
    fill(&registry);
    registry.render()
}

fn count(registry: &Registry, name: &'static str, labels: Labels<'_>, n: u64) {
    match registry.cell(name, labels, "counter", || Cell::Counter(Counter(Arc::default()))) {
        Some(Cell::Counter(c)) => c.add(n),
        _ => panic!("not a counter"),
    }
}

#[test]
fn counters_with_labels_in_any_order_are_one_series() {
    let text = rendered(|r| {
        r.help.lock().insert("rows_total", "Rows\nof \\ tables.");
        count(r, "rows_total", &[("table", "logs"), ("source", "http")], 2);
        count(r, "rows_total", &[("source", "http"), ("table", "logs")], 3);
        count(r, "plain_total", &[], 1);
    });
    assert_eq!(
        text,
        "# TYPE plain_total counter\nplain_total 1\n# HELP rows_total Rows\\nof \\\\ tables.\n\
         # TYPE rows_total counter\nrows_total{source=\"http\",table=\"logs\"} 5\n"
    );
}

#[test]
fn label_values_are_escaped_and_cut() {
    let long = "é".repeat(MAX_VALUE);
    let text = rendered(|r| {
        count(r, "a_total", &[("t", "a\"b\\c\nd")], 1);
        count(r, "b_total", &[("t", &long)], 1);
    });
    assert!(text.contains("a_total{t=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
    assert!(text.contains(&format!("b_total{{t=\"{}\"}} 1\n", "é".repeat(MAX_VALUE / 2))), "{text}");
}

#[test]
fn too_many_series_are_counted_together() {
    let text = rendered(|r| {
        for i in 0..MAX_SERIES + 40 {
            count(r, "wide_total", &[("t", &i.to_string())], 1);
        }
        count(r, "wide_total", &[("t", "0")], 1);
    });
    assert!(text.contains("wide_total{t=\"other\"} 40\n"), "{text}");
    assert!(text.contains("wide_total{t=\"0\"} 2\n"));
    assert_eq!(text.lines().filter(|l| l.starts_with("wide_total")).count(), MAX_SERIES + 1);
}

#[test]
fn a_histogram_adds_up() {
    let h = Histogram(Buckets::new(BUCKETS));
    for seconds in [0.0004, 0.001, 0.02, 0.7, 1000.0] {
        h.observe(seconds);
    }
    let text = rendered(|r| {
        r.cell("t_seconds", &[("k", "v")], "histogram", || Cell::Histogram(h.clone()));
    });
    assert!(text.contains("t_seconds_bucket{k=\"v\",le=\"0.001\"} 2\n"), "{text}");
    assert!(text.contains("t_seconds_bucket{k=\"v\",le=\"0.025\"} 3\n"), "{text}");
    assert!(text.contains("t_seconds_bucket{k=\"v\",le=\"1\"} 4\n"), "{text}");
    assert!(text.contains("t_seconds_bucket{k=\"v\",le=\"300\"} 4\n"), "{text}");
    assert!(text.contains("t_seconds_bucket{k=\"v\",le=\"+Inf\"} 5\n"), "{text}");
    assert!(text.contains("t_seconds_count{k=\"v\"} 5\n"), "{text}");
    let sum = text.lines().find_map(|l| l.strip_prefix("t_seconds_sum{k=\"v\"} ")).unwrap();
    assert!((sum.parse::<f64>().unwrap() - 1000.7214).abs() < 1e-9, "{sum}");
}

#[test]
fn a_name_keeps_its_kind() {
    counter("kind_total", &[]).add(4);
    gauge("kind_total", &[]).set(9.0);
    counter("kind_total", &[]).add(1);
    assert!(render().contains("\nkind_total 5\n"));
}

#[test]
fn a_removed_series_is_gone() {
    gauge("gone", &[("p", "1")]).set(f64::INFINITY);
    gauge("gone", &[("p", "2")]).set(0.5);
    assert!(render().contains("gone{p=\"1\"} +Inf\ngone{p=\"2\"} 0.5\n"));
    remove("gone", &[("p", "1")]);
    assert!(!render().contains("gone{p=\"1\"}"));
}

#[test]
fn the_process_is_described() {
    let text = render();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} is missing in {text}")).parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 100_000.0);
    assert!(value("process_resident_memory_peak_bytes") >= value("process_resident_memory_bytes"));
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_start_time_seconds") > 1.6e9);
}

/// The same figures as rows: of a histogram its number and its sum.
#[test]
fn samples_say_what_the_page_says() {
    let registry = Registry::default();
    count(&registry, "rows_total", &[("table", "logs")], 7);
    if let Some(Cell::Histogram(h)) = registry.cell("took_seconds", &[], "histogram", || Cell::Histogram(Histogram(Buckets::new(&[0.1, 1.0])))) {
        h.observe(0.1);
        h.observe(5.0);
    }
    let samples = registry.samples();
    let told: Vec<(&str, f64)> = samples.iter().map(|s| (s.name.as_str(), s.value)).collect();
    assert_eq!(told, [("rows_total", 7.0), ("took_seconds_count", 2.0), ("took_seconds_sum", 5.1)]);
    assert_eq!(samples[0].labels, [("table", "logs".to_owned())]);
    let page = registry.render();
    // A bound belongs to its bucket.
    assert!(page.contains("took_seconds_bucket{le=\"0.1\"} 1\ntook_seconds_bucket{le=\"1\"} 1\ntook_seconds_bucket{le=\"+Inf\"} 2\n"), "{page}");
}

#[test]
fn collectors_are_asked_before_the_page() {
    collector("test", || {
        gauge("test_collected", &[]).set(3.0);
        total("test_collected_total", &[]).set(4.0);
    });
    let page = render();
    assert!(page.contains("# TYPE test_collected gauge\ntest_collected 3\n"), "{page}");
    assert!(page.contains("# TYPE test_collected_total counter\ntest_collected_total 4\n"), "{page}");
    assert!(samples().iter().any(|s| s.name == "test_collected_total" && s.kind == "counter" && s.value == 4.0));
}
