use super::send::Message;
use super::*;

#[test]
fn settings_have_defaults_and_refuse_unknown_names() {
    let read = |text: &str| serde_json::from_str::<Alerts>(text);
    assert_eq!(read("{}").unwrap(), Alerts::default());
    let alerts =
        read(r#"{"name": "slow", "table": "orders", "condition": "paid IS NULL", "from": "beginning"}"#);
    let forward = Forward::from(alerts.unwrap());
    assert_eq!(
        (forward.name.as_str(), forward.topic.as_str(), forward.from),
        ("slow", "alerts", Start::Beginning)
    );
    assert!(read(r#"{"conditon": "true"}"#).is_err());
    assert!(read(r#"{"from": "yesterday"}"#).is_err());
    let letters: Forward = serde_json::from_str::<DeadLetters>(r#"{"topic": "letters"}"#).unwrap().into();
    assert_eq!((letters.what, letters.from), (What::DeadLetters, Start::Now));
    assert!(serde_json::from_str::<DeadLetters>("{}").is_err());
}

#[test]
fn a_secret_is_not_printed() {
    let mut kafka = ClientConfig::new();
    kafka.set("sasl.password", "hush");
    let config = Config::new("postgres://u:hush@h/d", kafka, vec![Alerts::default().into()]);
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn sizes_count_everything() {
    let small = Message { key: None, payload: vec![1; 10], headers: Vec::new() };
    let large =
        Message { key: Some(vec![1; 100]), headers: vec![("a".into(), vec![1; 50])], ..small.clone() };
    assert!(large.size() >= small.size() + 150);
}
