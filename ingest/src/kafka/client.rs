//! How any client of the brokers is configured: the user's librdkafka properties over what suits us, and a few that are
//! not the user's to choose. Knows no topics; logs no values, for they may be secrets.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// Settings that suit us and that `properties` may override.
const DEFAULTS: [(&str, &str); 4] = [
    ("client.id", "watershed"),
    // An idle service must not be taken for a dead one by a firewall in between.
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "5000"),
];

/// What every client of ours begins with: the brokers and the properties, which are librdkafka's own names
/// (`security.protocol`, `sasl.*`, `ssl.*`, ...). Whoever takes it sets what its own kind of client needs afterwards.
pub fn client(brokers: &str, properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in DEFAULTS {
        config.set(name, value);
    }
    for (name, value) in properties {
        config.set(name, value);
    }
    config.set("bootstrap.servers", brokers);
    // librdkafka's own lines come through `tracing` by way of the context; more than warnings only where they are asked for.
    let asked = properties.contains_key("debug");
    config.set_log_level(if asked { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Warning });
    config
}

/// Properties that decide whether records are lost or doubled: the source sets them itself.
const FIXED: [(&str, &str); 6] = [
    // Partitions are taken up one by one, each when its position is known: the others go on meanwhile.
    ("partition.assignment.strategy", "cooperative-sticky"),
    // Positions live in PostgreSQL; what Kafka keeps is for lag tools.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // A position that the log does not have is a gap to be reported, never a silent jump.
    ("auto.offset.reset", "error"),
    // The end of a partition is where positions pass what gives no record: transaction markers, aborted records.
    ("enable.partition.eof", "true"),
    // Waiting for a topic that does not exist must not create it.
    ("allow.auto.create.topics", "false"),
];

/// Settings of the consumer that `properties` may override.
const CONSUMER: [(&str, &str); 7] = [
    ("isolation.level", "read_committed"),
    // The bound of what librdkafka holds ahead of us, for all partitions together.
    ("queued.max.messages.kbytes", "32768"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.wait.max.ms", "100"),
    // New partitions and topics are found within this time, without a restart.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("session.timeout.ms", "30000"),
];
/// How long the group waits for a member that does not come to a rebalance, while nobody reads (`max.poll.interval.ms`, which is also
/// the rebalance timeout). The polling thread blocks for seconds at most; but a client whose broker died in the middle of one rebalance
/// may miss the next, and must not hold up the others for librdkafka's five minutes.
const REBALANCE_MS: u64 = 60_000;

/// The configuration of the source's consumer.
///
/// # Errors
/// The name of a property that is not the user's to set.
pub(crate) fn consumer(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    group: &str,
) -> Result<ClientConfig, String> {
    if let Some((name, value)) =
        FIXED.iter().find(|(name, value)| properties.get(*name).is_some_and(|v| v != value))
    {
        return Err(format!(
            "the Kafka property {name} must be {value}: positions are kept in PostgreSQL, and partitions are taken up one by one"
        ));
    }
    let mut config = client(brokers, properties);
    for (name, value) in CONSUMER {
        if !properties.contains_key(name) {
            config.set(name, value);
        }
    }
    for (name, value) in FIXED {
        config.set(name, value);
    }
    if !properties.contains_key("max.poll.interval.ms") {
        // librdkafka refuses a session that lasts longer.
        let session = config.get("session.timeout.ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        config.set("max.poll.interval.ms", REBALANCE_MS.max(session).to_string());
    }
    config.set("group.id", group);
    // KIP-848: the broker's coordinator decides these, and librdkafka refuses a client that sets them.
    if properties.get("group.protocol").is_some_and(|p| p.eq_ignore_ascii_case("consumer")) {
        config.remove("partition.assignment.strategy");
        if !properties.contains_key("session.timeout.ms") {
            config.remove("session.timeout.ms");
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn properties_win_over_defaults_but_not_over_the_brokers() {
        let config =
            client("a:1,b:2", &properties(&[("client.id", "mine"), ("bootstrap.servers", "elsewhere:9")]));
        assert_eq!(config.get("client.id"), Some("mine"));
        assert_eq!(config.get("bootstrap.servers"), Some("a:1,b:2"));
    }

    #[test]
    fn what_decides_over_loss_is_fixed() {
        let config = consumer("a:1", &properties(&[("isolation.level", "read_uncommitted")]), "g").unwrap();
        assert_eq!(config.get("isolation.level"), Some("read_uncommitted"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        let refused = consumer("a:1", &properties(&[("auto.offset.reset", "latest")]), "g").unwrap_err();
        assert!(refused.contains("auto.offset.reset") && !refused.contains("latest"), "{refused}");
    }

    #[test]
    fn a_member_that_does_not_come_is_waited_for_shortly() {
        let interval = |given: &[(&str, &str)]| {
            let config = consumer("a:1", &properties(given), "g").unwrap();
            config.get("max.poll.interval.ms").map(str::to_owned)
        };
        assert_eq!(interval(&[]).as_deref(), Some("60000"));
        assert_eq!(interval(&[("session.timeout.ms", "90000")]).as_deref(), Some("90000"));
        assert_eq!(interval(&[("max.poll.interval.ms", "45000")]).as_deref(), Some("45000"));
    }

    #[test]
    fn the_new_group_protocol_takes_no_session_settings() {
        let config = consumer("a:1", &properties(&[("group.protocol", "consumer")]), "g").unwrap();
        assert_eq!(config.get("session.timeout.ms"), None);
        assert_eq!(config.get("partition.assignment.strategy"), None);
    }
}
