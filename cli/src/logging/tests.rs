use super::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn an_event_is_one_line_whatever_a_client_puts_into_it() {
    assert_eq!(one_line(b"login refused user=a\nINFO forged\r\nb\n"), b"login refused user=a\\nINFO forged\\r\\nb\n");
    assert_eq!(one_line(b"whole\n"), b"whole\n");
    assert_eq!(one_line(b""), b"");
}

#[test]
fn a_bucket_fills_again() {
    let begin = Instant::now();
    let mut bucket = Bucket::new(begin);
    assert!((0..BURST as usize).all(|_| bucket.take(begin) == Some(0)));
    assert_eq!(bucket.take(begin), None);
    assert_eq!(bucket.take(begin), None);
    assert_eq!(bucket.take(begin + Duration::from_secs(1)), Some(2), "what was kept back is told with the next");
    let left = (0..100).filter(|_| bucket.take(begin + Duration::from_secs(1)).is_some()).count();
    assert_eq!(left, A_SECOND as usize - 1);
}

/// What the formats write, and that a place which says too much falls silent while others are heard.
#[test]
fn events_are_json_when_asked_and_limited_by_place() {
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::default();
    let writer = sink.clone();
    let layer = fmt::layer().json().flatten_event(true).with_writer(move || OneLine(writer.clone()));
    let subscriber = tracing_subscriber::registry().with(layer).with(Limited::default());
    tracing::subscriber::with_default(subscriber, || {
        for n in 0..500 {
            tracing::info!(n, user = "x\n\"forged\"", "login refused");
        }
        tracing::warn!("another place");
    });
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect(l)).collect();
    let many = lines.iter().filter(|l| l["message"] == "login refused").count();
    assert!((BURST as usize..500).contains(&many), "{many}");
    assert_eq!(lines[0]["user"], "x\n\"forged\"");
    assert_eq!(lines.last().unwrap()["message"], "another place");
}
