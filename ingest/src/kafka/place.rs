//! What to do with a partition before reading it: a pure decision from what PostgreSQL holds of it and what the brokers
//! say of its log. Knows no connection.

/// What PostgreSQL holds of a partition's live stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Id of the topic that the stream reads, where the broker gave one.
    pub topic_id: Option<String>,
    /// The next offset to be read.
    pub next: i64,
    /// The end of the log as its owner last saw it.
    pub end_seen: Option<i64>,
}

/// What the brokers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Log {
    pub topic_id: Option<String>,
    /// The first offset that is there.
    pub low: i64,
    /// The offset after the last.
    pub high: i64,
    /// Where the log was cut, if the leader epochs show that it was and grew again since.
    pub cut: Option<i64>,
}

/// Offsets that will never be read: from, the first after them (None: not known), why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub from: i64,
    pub to: Option<i64>,
    pub reason: String,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The first sight of this partition: a stream that begins here.
    Begin { at: i64 },
    /// Go on at the position.
    Resume,
    /// Records were removed before they were read: go on after them.
    Skip(Gap),
    /// The log is another one now: end the stream, and begin one at `at`.
    Replace {
        reason: String,
        /// What the old stream lacks.
        lost: Gap,
        at: i64,
        /// What the new log lost before anyone read it.
        missing: Option<Gap>,
    },
}

/// Decides.
pub(super) fn decide(held: Option<&Held>, log: &Log) -> Step {
    // An empty log has low = high; a broker that answers nonsense must not move a position backwards.
    let low = log.low.max(0);
    let Some(held) = held else { return Step::Begin { at: low } };
    if let (Some(old), Some(new)) = (&held.topic_id, &log.topic_id)
        && old != new
    {
        let reason = format!("the topic was deleted and made anew: its id was {old} and is {new}");
        let lost = Gap {
            from: held.next,
            to: held.end_seen.filter(|end| *end > held.next),
            reason: "the topic was deleted; what it held beyond this offset was not read".to_owned(),
        };
        let missing = (low > 0).then(|| Gap { from: 0, to: Some(low), reason: removed() });
        return Step::Replace { reason, lost, at: low, missing };
    }
    let end = log.cut.map_or(log.high, |cut| cut.min(log.high));
    if held.next > end {
        let reason = format!("the log was cut: it ended at offset {end}, and {} had been read", held.next);
        let lost = Gap {
            from: end,
            to: Some(held.next),
            reason:
                "the log was cut here; the rows of these offsets stay, and the log has others in their place"
                    .to_owned(),
        };
        let at = end.max(low);
        let missing = (low > end).then(|| Gap { from: end, to: Some(low), reason: removed() });
        return Step::Replace { reason, lost, at, missing };
    }
    if held.next < low {
        return Step::Skip(Gap { from: held.next, to: Some(low), reason: removed() });
    }
    Step::Resume
}

fn removed() -> String {
    "removed from the log before it was read (retention or DeleteRecords)".to_owned()
}

/// The offset at which the log was cut, from librdkafka's own sentence about it; it gives the number nowhere else.
pub(super) fn cut_in(text: &str) -> Option<i64> {
    if !text.contains("truncation") && !text.contains("No epoch found") {
        return None;
    }
    let rest = &text[text.find("end offset is ")? + "end offset is ".len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(id: Option<&str>, next: i64) -> Held {
        Held { topic_id: id.map(str::to_owned), next, end_seen: None }
    }

    fn log(id: Option<&str>, low: i64, high: i64) -> Log {
        Log { topic_id: id.map(str::to_owned), low, high, cut: None }
    }

    #[test]
    fn first_sight_begins_with_what_is_there_and_lacks_nothing() {
        assert_eq!(decide(None, &log(Some("a"), 7, 9)), Step::Begin { at: 7 });
        assert_eq!(decide(None, &log(None, 0, 0)), Step::Begin { at: 0 });
    }

    #[test]
    fn a_position_within_the_log_is_resumed() {
        for next in [3, 5, 9] {
            assert_eq!(decide(Some(&held(Some("a"), next)), &log(Some("a"), 3, 9)), Step::Resume);
        }
        // A broker that knows no ids, or one that learnt them since.
        assert_eq!(decide(Some(&held(None, 4)), &log(Some("a"), 3, 9)), Step::Resume);
        assert_eq!(decide(Some(&held(Some("a"), 4)), &log(None, 3, 9)), Step::Resume);
    }

    #[test]
    fn what_was_removed_unread_is_a_gap() {
        let Step::Skip(gap) = decide(Some(&held(Some("a"), 2)), &log(Some("a"), 5, 9)) else { panic!() };
        assert_eq!((gap.from, gap.to), (2, Some(5)));
        // All of it: the log is empty.
        let Step::Skip(gap) = decide(Some(&held(Some("a"), 2)), &log(Some("a"), 9, 9)) else { panic!() };
        assert_eq!((gap.from, gap.to), (2, Some(9)));
    }

    #[test]
    fn another_topic_under_the_name_is_another_stream() {
        let mut before = held(Some("a"), 5);
        let Step::Replace { lost, at, missing, .. } = decide(Some(&before), &log(Some("b"), 0, 100)) else {
            panic!("offset 5 of another topic is another record")
        };
        assert_eq!((lost.from, lost.to, at, missing), (5, None, 0, None));
        before.end_seen = Some(8);
        let Step::Replace { lost, at, missing, .. } = decide(Some(&before), &log(Some("b"), 3, 4)) else {
            panic!()
        };
        assert_eq!((lost.from, lost.to, at), (5, Some(8), 3));
        assert_eq!(missing.map(|g| (g.from, g.to)), Some((0, Some(3))));
    }

    #[test]
    fn a_log_that_was_cut_goes_on_as_another_stream_where_it_was_cut() {
        let Step::Replace { lost, at, .. } = decide(Some(&held(Some("a"), 10)), &log(Some("a"), 0, 6)) else {
            panic!()
        };
        assert_eq!((lost.from, lost.to, at), (6, Some(10), 6));
        // Cut and grown again beyond the position: only the epochs show it.
        let grown = Log { cut: Some(6), ..log(Some("a"), 0, 50) };
        let Step::Replace { lost, at, .. } = decide(Some(&held(Some("a"), 10)), &grown) else { panic!() };
        assert_eq!((lost.from, lost.to, at), (6, Some(10), 6));
    }

    #[test]
    fn the_cut_in_librdkafkas_words() {
        let text = "Partition log truncation detected at offset 10 (leader epoch 1): broker end offset is 6 (offset \
                    leader epoch 1). Reset to INVALID.: Local: Partition log truncation detected (broker 1)";
        assert_eq!(cut_in(text), Some(6));
        assert_eq!(cut_in("fetch failed due to requested offset not available on the broker"), None);
        assert_eq!(
            cut_in("No epoch found less or equal to x: broker end offset is -1 (offset leader epoch -1)"),
            None
        );
    }

    proptest! {
        /// Whatever the log looks like: reading goes on within it, and every offset between the position and the place
        /// where reading goes on is in a gap that is reported.
        #[test]
        fn nothing_is_skipped_in_silence(next in 0i64..20, low in 0i64..20, len in 0i64..20, same in any::<bool>(), cut in proptest::option::of(0i64..40)) {
            let log = Log { topic_id: Some(if same { "a" } else { "b" }.into()), low, high: low + len, cut };
            match decide(Some(&held(Some("a"), next)), &log) {
                Step::Begin { .. } => prop_assert!(false, "there is a stream"),
                Step::Resume => prop_assert!(same && next >= low && next <= log.high),
                Step::Skip(gap) => prop_assert!(same && gap.from == next && gap.to == Some(low) && next < low),
                Step::Replace { lost, at, missing, .. } => {
                    prop_assert!(at >= low && at <= log.high.max(low));
                    if same {
                        prop_assert_eq!(lost.to, Some(next));
                        prop_assert!(lost.from < next);
                        prop_assert_eq!(missing.map_or(lost.from, |g| g.to.unwrap()), at);
                    } else {
                        prop_assert_eq!(at, low);
                        prop_assert_eq!(missing.is_some(), low > 0);
                    }
                }
            }
        }
    }
}
