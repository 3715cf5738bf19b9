use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[tokio::test]
async fn a_serving_task_that_ends_early_is_named() {
    let mut tasks = Tasks::new();
    tasks.serve("gateway", async { Ok::<(), String>(()) });
    let error = format!("{:#}", tasks.failure().await);
    assert!(error.starts_with("gateway stopped"), "{error}");
}

#[tokio::test]
async fn an_upkeep_task_is_started_again_and_given_up_at_last() {
    let mut tasks = Tasks { pause: Duration::from_millis(1), ..Tasks::new() };
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    tasks.keep_up("archiver", move || {
        let counted = counted.clone();
        async move {
            match counted.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("on purpose"),
                _ => Err::<(), _>("no lake"),
            }
        }
    });
    let error = format!("{:#}", tasks.failure().await);
    assert!(error.contains("archiver stopped") && error.contains("no lake"), "{error}");
    assert_eq!(tries.load(Ordering::SeqCst), MAX_FAILURES);
}

#[tokio::test]
async fn a_drain_waits_for_the_willing_and_ends_the_rest() {
    let mut tasks = Tasks::new();
    let stop = tasks.stop_token();
    tasks.serve("willing", async move {
        stop.cancelled().await;
        Ok::<(), String>(())
    });
    tasks.serve("stuck", std::future::pending::<Result<(), String>>());
    let start = Instant::now();
    tasks.drain(Duration::from_millis(50), &CancellationToken::new()).await;
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(tasks.set.is_empty());
}
