//! The access log: one JSON line a request, formatted on the request's own thread, written by another one.
//!
//! Between the two is a bounded buffer, and the writer lets it fill for a moment: waking it for each line would cost a
//! request more than the line does. When it does not keep up (a slow disk, a pipe that nobody reads), lines are dropped and
//! counted: a log never slows a request.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::record::Record;
use crate::config::model;
use crate::request::query;

/// Bytes of lines that may wait. At 500 bytes a line: 8,000 lines.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(20);
/// What an emptied buffer keeps of its memory.
const KEPT: usize = 256 * 1024;
/// Characters of a client's text that a line keeps.
const LONGEST_TEXT: usize = 2048;
/// Query keys that a line keeps.
const MOST_KEYS: usize = 32;
/// How long leaving waits for the last lines.
const FAREWELL: Duration = Duration::from_secs(2);

thread_local! {
    static COMPOSER: RefCell<Composer> = RefCell::default();
}

/// Takes lines, from any thread, without waiting.
pub struct AccessLog {
    region: Box<str>,
    queue: Option<Arc<Queue>>,
    dropped: IntCounter,
}

/// What goes from the requests to the writer.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Told when something waits that did not before.
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    count: u64,
    /// The file is to be opened anew.
    reopen: bool,
    ended: bool,
}

/// The thread behind an [`AccessLog`].
pub struct Writer(Option<JoinHandle<()>>);

impl AccessLog {
    /// Opens the log.
    ///
    /// # Errors
    /// When the file cannot be opened, or a thread not be started.
    pub fn start(region: &str, place: &model::AccessLog, dropped: IntCounter) -> io::Result<(Arc<Self>, Writer)> {
        let sink = match place {
            model::AccessLog::Off => None,
            model::AccessLog::Stdout => Some(Sink::Stdout),
            model::AccessLog::File(path) => {
                let file = open(path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
                Some(Sink::File(file, path.clone()))
            }
        };
        let region = region.into();
        let Some(sink) = sink else {
            return Ok((Arc::new(Self { region, queue: None, dropped }), Writer(None)));
        };
        let queue = Arc::<Queue>::default();
        let (taken, lost) = (Arc::clone(&queue), dropped.clone());
        let thread =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(sink, &taken, &lost))?;
        Ok((Arc::new(Self { region, queue: Some(queue), dropped }), Writer(Some(thread))))
    }

    /// Whether lines go anywhere: who asks first saves composing them.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Writes `record`, or drops it where too much waits.
    pub fn write(&self, record: &Record<'_>) {
        let Some(queue) = &self.queue else { return };
        let taken = COMPOSER
            .with_borrow_mut(|composer| composer.compose(&self.region, record).is_ok_and(|line| queue.take(line)));
        if !taken {
            self.dropped.inc();
        }
    }

    /// Opens the file anew: it has been renamed by who rotates it.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.waiting.lock().reopen = true;
            queue.filled.notify_one();
        }
    }

    /// Writes what waits, for a moment.
    pub fn end(&self, writer: Writer) {
        let Some(queue) = &self.queue else { return };
        queue.waiting.lock().ended = true;
        queue.filled.notify_one();
        let deadline = Instant::now() + FAREWELL;
        if let Some(thread) = writer.0 {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Queue {
    /// Whether there was room for `line`.
    fn take(&self, line: &[u8]) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.lines.len() + line.len() > MOST_WAITING {
            return false;
        }
        let first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        waiting.count += 1;
        drop(waiting);
        if first {
            self.filled.notify_one();
        }
        true
    }

    /// What the writer has to do next: waits for it, and for more of it. Leaves `spare` in the place of the lines.
    fn next(&self, spare: Vec<u8>) -> Waiting {
        let mut waiting = self.waiting.lock();
        self.filled.wait_while(&mut waiting, |waiting| waiting.lines.is_empty() && !waiting.reopen && !waiting.ended);
        // Nothing but the end hurries it: a reopened file has what was rotated meanwhile anyway.
        let gathered = Instant::now() + GATHER;
        while !waiting.ended && !self.filled.wait_until(&mut waiting, gathered).timed_out() {}
        let next = Waiting { lines: spare, count: 0, reopen: false, ended: waiting.ended };
        std::mem::replace(&mut waiting, next)
    }
}

enum Sink {
    Stdout,
    File(File, PathBuf),
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                // Nobody else prints: a write that blocks holds nobody up but this thread.
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file, _) => file.write_all(bytes),
        }
    }

    fn reopen(&mut self) {
        let Self::File(file, path) = self else { return };
        match open(path) {
            Ok(new) => *file = new,
            Err(error) => {
                log::error!("access log {} cannot be reopened: {error}; the old file goes on", path.display());
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes lines, many at a time where many wait.
fn write_all(mut sink: Sink, queue: &Queue, lost: &IntCounter) {
    let mut spare = Vec::new();
    let mut failing = false;
    loop {
        let Waiting { mut lines, count, reopen, ended } = queue.next(spare);
        match sink.write(&lines) {
            Ok(()) => failing = false,
            Err(error) => {
                lost.inc_by(count);
                if !failing {
                    log::error!("access log cannot be written: {error}; lines are dropped and counted");
                }
                failing = true;
            }
        }
        if reopen {
            sink.reopen();
        }
        if ended {
            return;
        }
        lines.clear();
        lines.shrink_to(KEPT);
        spare = lines;
    }
}

/// Composes lines. One for each thread: it keeps its memory, and what it wrote last of the time.
#[derive(Default)]
struct Composer {
    line: Vec<u8>,
    /// The second that `time` stands for, since 1970.
    second: i64,
    time: String,
}

impl Composer {
    /// The line of `record`, with its end, in the order of the fields in the documentation. The keys are plain ASCII; serde
    /// sees to the values.
    fn compose(&mut self, region: &str, record: &Record<'_>) -> serde_json::Result<&[u8]> {
        self.line.clear();
        self.line.shrink_to(LONGEST_TEXT * 4);
        self.line.extend_from_slice(b"{\"time\":\"");
        self.push_time(Timestamp::try_from(record.time).unwrap_or_default());
        self.line.push(b'"');
        self.push("request_id", record.request_id)?;
        self.push("region", region)?;
        self.push("proxy", record.proxy.as_deref().map(shortened))?;
        self.push("credential", record.credential)?;
        self.push("client", record.client.map(Address))?;
        self.push("method", shortened(record.method.as_str()))?;
        self.push("path", record.path.as_deref().map(shortened))?;
        self.push("query_keys", Keys(record.query))?;
        self.push("status", record.status)?;
        self.push("proxy_code", record.proxy_code)?;
        self.push("refusal", record.refusal)?;
        self.push("error", record.error)?;
        self.push_milliseconds("duration_ms", Some(record.duration))?;
        self.push_milliseconds("target_ms", record.target_duration)?;
        self.push("target", record.target.map(Address))?;
        self.push("reused", record.target.map(|_| record.reused))?;
        self.push("bytes_in", record.bytes_in)?;
        self.push("bytes_out", record.bytes_out)?;
        self.push("http", version(record.version))?;
        self.push("tls", record.tls)?;
        self.push("user_agent", record.user_agent.as_deref().map(shortened))?;
        self.push("traceparent", record.traceparent)?;
        self.line.extend_from_slice(b"}\n");
        Ok(&self.line)
    }

    fn push(&mut self, key: &str, value: impl Serialize) -> serde_json::Result<()> {
        self.line.extend_from_slice(b",\"");
        self.line.extend_from_slice(key.as_bytes());
        self.line.extend_from_slice(b"\":");
        serde_json::to_writer(&mut self.line, &value)
    }

    /// To the microsecond: more would pretend to what a shared machine cannot tell.
    fn push_milliseconds(&mut self, key: &str, duration: Option<Duration>) -> serde_json::Result<()> {
        let Some(micros) = duration.map(|duration| duration.as_micros()) else { return self.push(key, ()) };
        self.push(key, u64::try_from(micros / 1000).unwrap_or(u64::MAX))?;
        self.line.push(b'.');
        self.line.extend([100, 10, 1].map(|unit| b'0' + (micros / unit % 10) as u8));
        Ok(())
    }

    /// Milliseconds of UTC (RFC 3339). A calendar is consulted once a second.
    fn push_time(&mut self, now: Timestamp) {
        if self.second != now.as_second() || self.time.is_empty() {
            self.second = now.as_second();
            self.time = format!("{now:.3}");
        }
        let millisecond = now.subsec_millisecond().unsigned_abs();
        // `2026-11-24T08:00:00.000Z`
        self.line.extend_from_slice(&self.time.as_bytes()[..20]);
        self.line.extend([100, 10, 1].map(|unit| b'0' + (millisecond / unit % 10) as u8));
        self.line.push(b'Z');
    }
}

/// An address as text. That of IPv4 without the formatting machinery, which costs more than the rest of a line.
struct Address<T>(T);

impl Serialize for Address<IpAddr> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            IpAddr::V4(v4) => serializer.serialize_str(Dotted::new(v4, None).as_str()),
            v6 @ IpAddr::V6(_) => v6.serialize(serializer),
        }
    }
}

impl Serialize for Address<SocketAddr> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            SocketAddr::V4(v4) => serializer.serialize_str(Dotted::new(*v4.ip(), Some(v4.port())).as_str()),
            v6 @ SocketAddr::V6(_) => v6.serialize(serializer),
        }
    }
}

/// `192.0.2.1`, or `192.0.2.1:443`.
struct Dotted {
    text: [u8; 21],
    length: usize,
}

impl Dotted {
    fn new(address: Ipv4Addr, port: Option<u16>) -> Self {
        let mut dotted = Self { text: [0; 21], length: 0 };
        for (at, octet) in address.octets().into_iter().enumerate() {
            if at > 0 {
                dotted.push(b'.');
            }
            dotted.push_number(octet.into());
        }
        if let Some(port) = port {
            dotted.push(b':');
            dotted.push_number(port);
        }
        dotted
    }

    fn push(&mut self, byte: u8) {
        self.text[self.length] = byte;
        self.length += 1;
    }

    fn push_number(&mut self, number: u16) {
        match number {
            0..10 => self.push(b'0' + number as u8),
            _ => {
                self.push_number(number / 10);
                self.push(b'0' + (number % 10) as u8);
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).expect("digits, dots and a colon")
    }
}

/// The decoded names in a query, in their order; values are nobody's business.
struct Keys<'a>(Option<&'a [u8]>);

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs =
            query::pairs(self.0.unwrap_or_default()).filter(|(name, value)| !(name.is_empty() && value.is_empty()));
        let mut keys = serializer.serialize_seq(None)?;
        for (name, _) in pairs.take(MOST_KEYS) {
            keys.serialize_element(shortened(&String::from_utf8_lossy(&name)))?;
        }
        keys.end()
    }
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_09 => "0.9",
        _ => "1.1",
    }
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use http::{Method, Version};

    use super::*;

    fn record<'a>(query: &'a [u8], path: &'a str) -> Record<'a> {
        Record {
            time: SystemTime::UNIX_EPOCH,
            request_id: "r1",
            traceparent: None,
            proxy: Some(Cow::Borrowed("users")),
            credential: Some("mobile"),
            client: Some(std::net::IpAddr::from([192, 0, 2, 1])),
            method: &Method::GET,
            path: Some(Cow::Borrowed(path)),
            query: Some(query),
            status: Some(200),
            proxy_code: Some("proxy-access-granted"),
            refusal: None,
            error: None,
            duration: Duration::from_micros(1234),
            target_duration: Some(Duration::from_micros(1000)),
            target: None,
            reused: false,
            bytes_in: 0,
            bytes_out: 12,
            version: Version::HTTP_11,
            tls: false,
            user_agent: Some(Cow::Borrowed("curl\" \n")),
        }
    }

    fn line(record: &Record<'_>) -> serde_json::Value {
        let mut composer = Composer::default();
        let line = composer.compose("test", record).expect("a record can be written");
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        serde_json::from_slice(line).expect("a line is JSON")
    }

    #[test]
    fn the_time_is_that_of_the_calendar_to_the_millisecond() {
        let mut composer = Composer::default();
        for nanosecond in
            [0, 999_999, 1_000_000, 1_795_507_200_123_456_789, 1_795_507_200_999_999_999, 1_795_507_201_000_000_000]
        {
            let time = Timestamp::from_nanosecond(nanosecond).expect("within the calendar");
            composer.line.clear();
            composer.push_time(time);
            let whole = Timestamp::from_millisecond((nanosecond / 1_000_000) as i64).expect("within the calendar");
            assert_eq!(String::from_utf8_lossy(&composer.line), format!("{whole:.3}"));
        }
    }

    #[test]
    fn an_address_is_what_it_is_elsewhere() {
        for text in ["0.0.0.0:0", "192.0.2.1:443", "255.255.255.255:65535", "10.20.30.40:10000", "[2001:db8::1]:80"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(serde_json::to_value(Address(address)).expect("text"), address.to_string());
            assert_eq!(serde_json::to_value(Address(address.ip())).expect("text"), address.ip().to_string());
        }
    }

    #[test]
    fn a_line_names_keys_and_never_values() {
        let line = line(&record(b"page=2&token=hunter2&&flag", "/a"));
        assert_eq!(line["query_keys"], serde_json::json!(["page", "token", "flag"]));
        assert!(!line.to_string().contains("hunter2"));
        assert_eq!(line["duration_ms"], 1.234);
        assert_eq!(line["user_agent"], "curl\" \n");
    }

    #[test]
    fn what_a_client_sends_is_shortened() {
        let long = format!("/{}", "ä".repeat(40_000));
        let line = line(&record(b"", &long));
        assert!(line["path"].as_str().is_some_and(|path| path.len() <= LONGEST_TEXT && path.starts_with("/ä")));
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let queue = Arc::<Queue>::default();
        queue.waiting.lock().lines = vec![b'\n'; MOST_WAITING - 1000];
        let dropped = IntCounter::new("dropped", "dropped").expect("a valid name");
        let log = AccessLog { region: "test".into(), queue: Some(Arc::clone(&queue)), dropped: dropped.clone() };
        for _ in 0..10 {
            log.write(&record(b"", "/"));
        }
        let written = queue.waiting.lock().count;
        assert!((1..=2).contains(&written), "{written} lines of some 400 bytes into 1,000");
        assert_eq!(dropped.get(), 10 - written);
    }
}
