use super::*;

#[tokio::test]
async fn the_thread_hands_back_its_result() {
    let stop = CancellationToken::new();
    let name =
        on_own_thread(1, stop.clone(), |_| async { Ok(std::thread::current().name().map(str::to_owned)) });
    assert_eq!(name.await.unwrap().as_deref(), Some("compactor"));
    let failed: Result<()> = on_own_thread(1, stop, |_| async { Err(Error::Cancelled) }).await;
    assert!(matches!(failed, Err(Error::Cancelled)));
}

#[tokio::test]
async fn dropping_the_future_stops_the_thread() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = on_own_thread(1, CancellationToken::new(), |stop| async move {
        stop.cancelled().await;
        let _ = sender.send(());
        Ok(())
    });
    tokio::select! {
        _ = work => panic!("it ended by itself"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    tokio::time::timeout(Duration::from_secs(10), receiver).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_unreachable_database_is_an_error_at_once_and_a_pause_in_the_loop() {
    let cfg = Config {
        database_url: "postgres://nobody@127.0.0.1:1/nothing".into(),
        interval: Duration::from_millis(10),
        ..Config::default()
    };
    assert!(matches!(compact_now(cfg.clone(), None).await, Err(Error::Postgres(_))));
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(cfg, stop.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!running.is_finished());
    stop.cancel();
    running.await.unwrap().unwrap();
}
