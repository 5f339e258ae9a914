//! The few calls of librdkafka that the `rdkafka` crate does not offer; all `unsafe` of this crate is here.
//!
//! Records are taken many at a time through `rd_kafka_consume_batch_queue` (a third of the cost of one at a time), and
//! are read in librdkafka's own memory. Invariants: each message that librdkafka hands out is destroyed exactly once,
//! before the client that it came from; nothing borrowed from a message outlives it.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use sys::rd_kafka_resp_err_t as Code;

use crate::events::Consumer;

/// The records, ends of partitions and errors of one client.
pub(crate) struct Queue {
    raw: NonNull<sys::rd_kafka_queue_t>,
    /// Taken from librdkafka, not yet given out.
    waiting: VecDeque<NonNull<sys::rd_kafka_message_t>>,
    scratch: Vec<*mut sys::rd_kafka_message_t>,
    // Last: messages and queue are gone before the client may go.
    consumer: Arc<Consumer>,
}

// SAFETY: librdkafka's handles may be used from any thread, and a message belongs to who took it; nothing is tied to
// the thread that made it.
unsafe impl Send for Queue {}

impl Queue {
    /// The consumer queue of `consumer`; takes up to `n_max` messages in one call. None if the client has no group.
    pub(crate) fn new(consumer: &Arc<Consumer>, n_max: usize) -> Option<Queue> {
        // SAFETY: the client lives as long as the `Arc`, which the queue keeps.
        let raw = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Some(Queue {
            raw: NonNull::new(raw)?,
            waiting: VecDeque::with_capacity(n_max),
            scratch: vec![ptr::null_mut(); n_max],
            consumer: Arc::clone(consumer),
        })
    }

    /// Makes sure that [`Queue::next`] has something, waiting up to `timeout` for it. False if nothing came.
    ///
    /// librdkafka's call waits until its whole array is full: so what is there is taken without waiting, and only
    /// where nothing is there, one message is waited for.
    pub(crate) fn fill(&mut self, timeout: Duration) -> bool {
        if !self.waiting.is_empty() || self.take(Duration::ZERO, usize::MAX) > 0 {
            return true;
        }
        if timeout.is_zero() || self.take(timeout, 1) == 0 {
            return false;
        }
        self.take(Duration::ZERO, usize::MAX);
        true
    }

    fn take(&mut self, timeout: Duration, n_max: usize) -> usize {
        let n_max = n_max.min(self.scratch.len());
        // SAFETY: the queue is alive; `scratch` has room for `n_max` pointers, which librdkafka fills from the front.
        let n = unsafe {
            sys::rd_kafka_consume_batch_queue(self.raw.as_ptr(), millis(timeout), self.scratch.as_mut_ptr(), n_max)
        };
        let n = usize::try_from(n).unwrap_or(0);
        self.waiting.extend(self.scratch.iter().take(n).filter_map(|message| NonNull::new(*message)));
        n
    }

    /// The next message, in the order of its partition.
    pub(crate) fn next(&mut self) -> Option<Message<'_>> {
        let raw = self.waiting.pop_front()?;
        Some(Message { raw, queue: PhantomData })
    }

    /// The offset after the last record of a partition, as the last answer of its broker said; None before the first.
    pub(crate) fn high_watermark(&self, topic: &CStr, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (-1_i64, -1_i64);
        // SAFETY: the client is alive, `topic` ends with a zero, the two numbers live through the call.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        while self.next().is_some() {}
        // SAFETY: ours since `new`, and not used again.
        unsafe { sys::rd_kafka_queue_destroy(self.raw.as_ptr()) }
    }
}

/// A record, the end of a partition, or an error; destroyed when dropped.
pub(crate) struct Message<'a> {
    raw: NonNull<sys::rd_kafka_message_t>,
    queue: PhantomData<&'a mut Queue>,
}

impl Message<'_> {
    fn get(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: alive until `drop`, and librdkafka does not write to a message that it has handed out.
        unsafe { self.raw.as_ref() }
    }

    /// None for a record. Else what this is instead, [`RDKafkaErrorCode::PartitionEOF`] among them.
    #[inline]
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        match self.get().err {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => None,
            code => Some(code.into()),
        }
    }

    /// librdkafka's words, for an error.
    pub(crate) fn error_text(&self) -> String {
        String::from_utf8_lossy(self.value().unwrap_or_default()).into_owned()
    }

    /// The partition; negative for an error that concerns none.
    #[inline]
    pub(crate) fn partition(&self) -> i32 {
        self.get().partition
    }

    /// The record's offset; of an end, the offset that the next record will get.
    #[inline]
    pub(crate) fn offset(&self) -> i64 {
        self.get().offset
    }

    #[inline]
    pub(crate) fn value(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka's pointer and length of the value, alive as long as the message.
        unsafe { bytes(self.get().payload, self.get().len) }
    }

    #[inline]
    pub(crate) fn key(&self) -> Option<&[u8]> {
        // SAFETY: as for the value.
        unsafe { bytes(self.get().key, self.get().key_len) }
    }

    /// The record's time, microseconds since 1970-01-01 UTC.
    pub(crate) fn timestamp_us(&self) -> Option<i64> {
        // SAFETY: the message is alive; the kind of timestamp may be left out.
        let ms = unsafe { sys::rd_kafka_message_timestamp(self.raw.as_ptr(), ptr::null_mut()) };
        (ms >= 0).then(|| ms.saturating_mul(1000))
    }

    /// Appends the headers. A name that is not UTF-8 is made so.
    pub(crate) fn headers<'m>(&'m self, out: &mut Vec<(&'m str, Option<&'m [u8]>)>) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the headers stay its property.
        let code = unsafe { sys::rd_kafka_message_headers(self.raw.as_ptr(), &raw mut headers) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        for idx in 0.. {
            let (mut name, mut value, mut len): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` is alive as long as the message; name and value point into it, and an index beyond
            // the last one is an answer, not an error.
            let (name, value) = unsafe {
                let code = sys::rd_kafka_header_get_all(headers, idx, &raw mut name, &raw mut value, &raw mut len);
                if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return;
                }
                (CStr::from_ptr(name), bytes(value, len))
            };
            out.push((name.to_str().unwrap_or("\u{fffd}"), value));
        }
    }
}

impl Drop for Message<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: taken from librdkafka, destroyed once, and not used again.
        unsafe { sys::rd_kafka_message_destroy(self.raw.as_ptr()) }
    }
}

/// # Safety
/// `data` is null or points at `len` bytes that live and stay unchanged for `'a`.
#[inline]
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// A queue of its own for a client's log lines: served by another thread than the records, and never by librdkafka
/// itself, which would print them.
pub(crate) struct LogQueue {
    raw: NonNull<sys::rd_kafka_queue_t>,
    consumer: Arc<Consumer>,
}

// SAFETY: librdkafka's queues may be used from any thread, and from several.
unsafe impl Send for LogQueue {}
// SAFETY: as above.
unsafe impl Sync for LogQueue {}

impl LogQueue {
    /// Leads the log lines of `consumer` here, from now on.
    pub(crate) fn new(consumer: &Arc<Consumer>) -> Option<LogQueue> {
        let client = consumer.client().native_ptr();
        // SAFETY: the client is alive as long as the `Arc`; librdkafka keeps its own count on the queue.
        let raw = unsafe { NonNull::new(sys::rd_kafka_queue_new(client))? };
        let queue = LogQueue { raw, consumer: Arc::clone(consumer) };
        // SAFETY: both are alive.
        let code = unsafe { sys::rd_kafka_set_log_queue(client, raw.as_ptr()) };
        (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(queue)
    }

    /// Waits up to `timeout` for a log line (or for [`LogQueue::wake`]) and shows it: level, facility, text.
    pub(crate) fn wait(&self, timeout: Duration, mut show: impl FnMut(RDKafkaLogLevel, &str, &str)) -> bool {
        // SAFETY: the queue is alive.
        let event = unsafe { sys::rd_kafka_queue_poll(self.raw.as_ptr(), millis(timeout)) };
        if event.is_null() {
            return false;
        }
        let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the event is alive until it is destroyed below; the texts belong to it and end with a zero.
        unsafe {
            if sys::rd_kafka_event_log(event, &raw mut facility, &raw mut text, &raw mut level) == 0 {
                let (facility, text) = (CStr::from_ptr(facility), CStr::from_ptr(text));
                show(level_of(level), facility.to_string_lossy().trim(), text.to_string_lossy().trim());
            }
            sys::rd_kafka_event_destroy(event);
        }
        true
    }

    /// Ends a [`LogQueue::wait`] that is going on, or the next one.
    pub(crate) fn wake(&self) {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_yield(self.raw.as_ptr()) }
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        // SAFETY: the client is alive; null leads the lines back to its main queue. Ours is then not used again.
        unsafe {
            sys::rd_kafka_set_log_queue(self.consumer.client().native_ptr(), ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.raw.as_ptr());
        }
    }
}

/// syslog's levels.
fn level_of(level: i32) -> RDKafkaLogLevel {
    match level {
        ..=0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    }
}

/// librdkafka counts whole milliseconds: a shorter wait is one, not none.
fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// A topic's name as librdkafka takes it. None if it holds a zero byte.
pub(crate) fn topic_name(topic: &str) -> Option<CString> {
    CString::new(topic).ok()
}
