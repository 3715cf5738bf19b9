//! Where a record came from, as far as a mapping may ask for it and replay needs to know it. Knows no brokers.

/// A record of a topic. Everything is empty for records that came from elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// Name of the topic; empty if the record is of none.
    pub topic: &'a str,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset within the partition.
    pub offset: i64,
    /// The record's own timestamp, microseconds since 1970.
    pub timestamp: Option<i64>,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// Names and values, in order; a name may come again.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> Origin<'a> {
    /// A record of no topic.
    pub const NONE: Origin<'static> =
        Origin { topic: "", partition: 0, offset: 0, timestamp: None, key: None, headers: &[] };

    /// True if the record is of a topic.
    pub fn is_topic(&self) -> bool {
        !self.topic.is_empty()
    }

    /// The last header of a name, as Kafka's own clients have it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().rev().find(|(n, _)| *n == name).and_then(|(_, value)| *value)
    }

    /// `topic/partition/offset`.
    pub fn position(&self) -> Option<String> {
        self.is_topic().then(|| format!("{}/{}/{}", self.topic, self.partition, self.offset))
    }
}
