//! What librdkafka knows and the `rdkafka` crate does not show: the partition that an error or an end is about, the leader
//! epoch of a record, and topic ids. The only unsafe code of this crate; every pointer lives no longer than one function
//! or the value that owns it.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use sys::rd_kafka_resp_err_t as Code;

/// A topic and a partition of it.
pub(super) type Place = (String, i32);

/// The queue that a consumer's records and events come through. Polling it here takes the place of
/// [`BaseConsumer::poll`]; nobody may poll both.
pub(super) struct Queue<'a, C: ConsumerContext> {
    queue: *mut sys::rd_kafka_queue_t,
    // Keeps the client alive, and with it the queue.
    _consumer: &'a BaseConsumer<C>,
}

impl<'a, C: ConsumerContext> Queue<'a, C> {
    /// Of a consumer with a group; None if it has none.
    pub fn of(consumer: &'a BaseConsumer<C>) -> Option<Queue<'a, C>> {
        // SAFETY: the client is alive while `consumer` is borrowed; the call gives a reference of its own or null.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        (!queue.is_null()).then_some(Queue { queue, _consumer: consumer })
    }

    /// The next event, waiting at most `timeout` for it.
    pub fn poll(&self, timeout: Duration) -> Option<Polled> {
        let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is ours until drop; the event is given to us, and `Polled` destroys it once.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue, ms) };
        (!event.is_null()).then_some(Polled { event })
    }
}

impl<C: ConsumerContext> Drop for Queue<'_, C> {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that `of` took, once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) }
    }
}

/// An event that was taken off the queue.
pub(super) struct Polled {
    event: *mut sys::rd_kafka_event_t,
}

impl Drop for Polled {
    fn drop(&mut self) {
        // SAFETY: ours since `poll`; whatever `read` gave borrows from `self`.
        unsafe { sys::rd_kafka_event_destroy(self.event) }
    }
}

/// What an event says.
pub(super) enum Event<'a> {
    Record(Record<'a>),
    /// All there was before `offset` has been read.
    End {
        place: Place,
        offset: i64,
    },
    /// The partition gives no more records until it is assigned anew.
    Lost {
        place: Place,
        text: String,
    },
    /// Partitions given to us by the group: assign them.
    Assign(Vec<Place>),
    /// Partitions taken away by the group: unassign them.
    Revoke(Vec<Place>),
    /// A topic that is subscribed is not there (yet), or may not be read.
    Topic {
        topic: String,
        text: String,
    },
    /// The client is of no use any more.
    Fatal(String),
    /// Anything else that went wrong; librdkafka goes on by itself.
    Trouble(String),
    Nothing,
}

impl Polled {
    /// Reads it. Once only: a record is given by the first call.
    pub fn read(&mut self) -> Event<'_> {
        // SAFETY (all below): the event is alive while `self` is, the accessors borrow from it, and each is called for
        // the types of event that librdkafka documents it for.
        let kind = unsafe { sys::rd_kafka_event_type(self.event) };
        match kind {
            sys::RD_KAFKA_EVENT_FETCH => {
                // SAFETY: see above; the message belongs to the event.
                let message = unsafe { sys::rd_kafka_event_message_next(self.event).as_ref() };
                match message {
                    Some(message) if message.err == Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                        Event::Record(Record { message })
                    }
                    Some(message) => Event::Trouble(error_text(message.err)),
                    None => Event::Nothing,
                }
            }
            sys::RD_KAFKA_EVENT_REBALANCE => {
                // SAFETY: see above; the list belongs to the event.
                let (code, list) = unsafe {
                    (
                        sys::rd_kafka_event_error(self.event),
                        sys::rd_kafka_event_topic_partition_list(self.event).as_ref(),
                    )
                };
                let places = list.map_or_else(Vec::new, places);
                match code {
                    Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Event::Assign(places),
                    Code::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => Event::Revoke(places),
                    other => Event::Trouble(error_text(other)),
                }
            }
            sys::RD_KAFKA_EVENT_ERROR => self.error(),
            _ => Event::Nothing,
        }
    }

    fn error(&self) -> Event<'_> {
        // SAFETY: as in `read`.
        let (code, fatal, text) = unsafe {
            (
                sys::rd_kafka_event_error(self.event),
                sys::rd_kafka_event_error_is_fatal(self.event) != 0,
                string(sys::rd_kafka_event_error_string(self.event)),
            )
        };
        if fatal {
            return Event::Fatal(text);
        }
        // SAFETY: gives a value of our own or null; it is read and destroyed here.
        let found = unsafe {
            let part = sys::rd_kafka_event_topic_partition(self.event);
            part.as_ref().map(|p| {
                let found = ((string(p.topic), p.partition), p.offset);
                sys::rd_kafka_topic_partition_destroy(part);
                found
            })
        };
        match (code, found) {
            (Code::RD_KAFKA_RESP_ERR__PARTITION_EOF, Some((place, offset))) => Event::End { place, offset },
            (
                Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
                | Code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION
                | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
                Some((place, _)),
            ) => Event::Lost { place, text },
            (
                Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
                | Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
                | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
                | Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                found,
            ) => Event::Topic { topic: found.map(|f| f.0.0).unwrap_or_default(), text },
            _ => Event::Trouble(text),
        }
    }
}

/// A record as librdkafka holds it.
pub(super) struct Record<'a> {
    message: &'a sys::rd_kafka_message_t,
}

/// Bytes that a pointer and a length stand for; None where the pointer is null.
///
/// # Safety
/// The bytes must live as long as `'a`.
unsafe fn bytes<'a>(at: *const std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: not null; the rest is the caller's promise.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast::<u8>(), len) })
}

impl<'a> Record<'a> {
    pub fn topic(&self) -> &'a str {
        // SAFETY: a record from a consumer has a topic, whose name lives as long as the record.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) };
        // Kafka allows ASCII letters, digits, '.', '_' and '-' only.
        name.to_str().unwrap_or_default()
    }
    pub fn partition(&self) -> i32 {
        self.message.partition
    }
    pub fn offset(&self) -> i64 {
        self.message.offset
    }
    /// None for a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: the payload lives as long as the message.
        unsafe { bytes(self.message.payload, self.message.len) }
    }
    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the key lives as long as the message.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }
    /// Milliseconds since 1970; None where the record has none.
    pub fn timestamp(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; the type is written before the call returns.
        let at = unsafe { sys::rd_kafka_message_timestamp(self.message, &mut kind) };
        (at >= 0).then_some(at)
    }
    /// -1 where the broker gives none.
    pub fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is alive.
        unsafe { sys::rd_kafka_message_leader_epoch(self.message) }
    }
    /// Names and values in order; a null value is None.
    pub fn headers(&self) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        let mut all = Vec::new();
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive; the headers belong to it. Parsing them writes to the message, which nobody else
        // holds: the event that owns it is borrowed by `self`.
        let code = unsafe { sys::rd_kafka_message_headers(self.message, &mut headers) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return all;
        }
        loop {
            let (mut name, mut value, mut len) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: name and value live as long as the message.
            let found = unsafe {
                let code = sys::rd_kafka_header_get_all(headers, all.len(), &mut name, &mut value, &mut len);
                (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && !name.is_null())
                    .then(|| (CStr::from_ptr(name).to_bytes(), bytes(value, len)))
            };
            match found {
                Some(header) => all.push(header),
                None => return all,
            }
        }
    }
}

/// Text of a C string; empty for null.
///
/// # Safety
/// Null, or a string that ends in a NUL.
unsafe fn string(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
}

fn error_text(code: Code) -> String {
    // SAFETY: gives a static string for any code.
    unsafe { string(sys::rd_kafka_err2str(code)) }
}

fn places(list: &sys::rd_kafka_topic_partition_list_t) -> Vec<Place> {
    let count = usize::try_from(list.cnt).unwrap_or(0);
    // SAFETY: the list holds `cnt` elements, each with a topic's name.
    (0..count)
        .map(|i| unsafe { &*list.elems.add(i) })
        .map(|p| (unsafe { string(p.topic) }, p.partition))
        .collect()
}

/// Adds a partition to be read from `offset`; `epoch` is the leader epoch of the record before it (-1: not known), by
/// which librdkafka finds out whether the log was cut since.
pub(super) fn add_place(list: &mut TopicPartitionList, place: &Place, offset: i64, epoch: i32) {
    let topic = CString::new(place.0.as_str()).unwrap_or_default();
    // SAFETY: the list is alive and exclusively borrowed; librdkafka copies the name and gives the new element, which
    // stays in the list.
    unsafe {
        let part = sys::rd_kafka_topic_partition_list_add(list.ptr(), topic.as_ptr(), place.1);
        if !part.is_null() {
            (*part).offset = offset;
            sys::rd_kafka_topic_partition_set_leader_epoch(part, epoch);
        }
    }
}

/// The low and high watermark as the last fetch saw them, without asking anyone.
pub(super) fn cached_watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    place: &Place,
) -> Option<(i64, i64)> {
    let topic = CString::new(place.0.as_str()).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive; both numbers are written before the call returns.
    let code = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            place.1,
            &mut low,
            &mut high,
        )
    };
    (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
}

/// What the brokers say of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TopicState {
    /// There, with its id (base64); None from brokers that have no topic ids.
    Known(Option<String>),
    /// Not there.
    Missing,
    /// There may be one, but the brokers give no answer for it.
    Unclear(String),
}

/// Frees what librdkafka gave, in whichever way the function is left.
struct Freed<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Freed<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by librdkafka for us, with this function to free it, once.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// Asks a broker for these topics. Blocks up to `timeout`.
///
/// # Errors
/// Nobody answered.
pub(super) fn topic_states<C: ConsumerContext>(
    client: &Client<C>,
    broker: i32,
    topics: &[&str],
    timeout: Duration,
) -> Result<HashMap<String, TopicState>, String> {
    let names: Vec<CString> = topics.iter().filter_map(|t| CString::new(*t).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    let rk = client.native_ptr();
    // SAFETY: the client is alive while borrowed. Everything made here is freed by its guard, the event before the
    // queue it came from; names are copied by librdkafka. What is read from the event is copied before it goes.
    unsafe {
        let queue = Freed(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy);
        let options = Freed(
            sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        );
        let collection = Freed(
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            sys::rd_kafka_TopicCollection_destroy,
        );
        if queue.0.is_null() || options.0.is_null() || collection.0.is_null() {
            return Err("librdkafka has no memory".to_owned());
        }
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, ms, std::ptr::null_mut(), 0);
        // Else it is the controller that is waited for, and not every cluster names one.
        sys::rd_kafka_AdminOptions_set_broker(options.0, broker, std::ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(rk, collection.0, options.0, queue.0);
        let event =
            Freed(sys::rd_kafka_queue_poll(queue.0, ms.saturating_add(1000)), sys::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err("no broker answered in time".to_owned());
        }
        if sys::rd_kafka_event_error(event.0) != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(string(sys::rd_kafka_event_error_string(event.0)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err("an answer to another question".to_owned());
        }
        let mut count = 0;
        let found = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut states = HashMap::with_capacity(count);
        for i in 0..count {
            let topic = *found.add(i);
            let error = sys::rd_kafka_TopicDescription_error(topic);
            let code = if error.is_null() {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR
            } else {
                sys::rd_kafka_error_code(error)
            };
            let state = match code {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    let id = sys::rd_kafka_TopicDescription_topic_id(topic);
                    let zero = id.is_null()
                        || (sys::rd_kafka_Uuid_most_significant_bits(id) == 0
                            && sys::rd_kafka_Uuid_least_significant_bits(id) == 0);
                    TopicState::Known((!zero).then(|| string(sys::rd_kafka_Uuid_base64str(id))))
                }
                Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
                | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => TopicState::Missing,
                other => TopicState::Unclear(error_text(other)),
            };
            states.insert(string(sys::rd_kafka_TopicDescription_name(topic)), state);
        }
        Ok(states)
    }
}
