//! The access log: one JSON line a request, formatted on the request's own thread, written by another one.
//!
//! Between the two is a bounded buffer, and the writer lets it fill for a moment: waking it for each line would cost a
//! request more than the line does. When it does not keep up (a slow disk, a pipe that nobody reads), lines are dropped and
//! counted: a log never slows a request.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

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
    /// Where a thread composes its lines.
    static COMPOSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
        let taken = COMPOSED.with_borrow_mut(|line| {
            line.clear();
            line.shrink_to(LONGEST_TEXT * 4);
            let composed = serde_json::to_writer(&mut *line, &Line { region: &self.region, record }).is_ok();
            line.push(b'\n');
            composed && queue.take(line)
        });
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

/// A line, in the order of the fields in the documentation.
struct Line<'a> {
    region: &'a str,
    record: &'a Record<'a>,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.record;
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("time", &format_args!("{:.3}", Timestamp::now()))?;
        line.serialize_entry("request_id", record.request_id)?;
        line.serialize_entry("region", self.region)?;
        line.serialize_entry("proxy", &record.proxy.as_deref().map(shortened))?;
        line.serialize_entry("credential", &record.credential)?;
        line.serialize_entry("client", &record.client)?;
        line.serialize_entry("method", shortened(record.method.as_str()))?;
        line.serialize_entry("path", &record.path.as_deref().map(shortened))?;
        line.serialize_entry("query_keys", &Keys(record.query))?;
        line.serialize_entry("status", &record.status)?;
        line.serialize_entry("proxy_code", &record.proxy_code)?;
        line.serialize_entry("refusal", &record.refusal)?;
        line.serialize_entry("error", &record.error)?;
        line.serialize_entry("duration_ms", &milliseconds(record.duration))?;
        line.serialize_entry("target_ms", &record.target_duration.map(milliseconds))?;
        line.serialize_entry("target", &record.target)?;
        line.serialize_entry("reused", &record.target.map(|_| record.reused))?;
        line.serialize_entry("bytes_in", &record.bytes_in)?;
        line.serialize_entry("bytes_out", &record.bytes_out)?;
        line.serialize_entry("http", version(record.version))?;
        line.serialize_entry("tls", &record.tls)?;
        line.serialize_entry("user_agent", &record.user_agent.as_deref().map(shortened))?;
        line.serialize_entry("traceparent", &record.traceparent)?;
        line.end()
    }
}

/// The decoded names in a query, in their order; values are nobody's business.
struct Keys<'a>(Option<&'a [u8]>);

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keys = query::pairs(self.0.unwrap_or_default())
            .filter(|(name, value)| !(name.is_empty() && value.is_empty()))
            .take(MOST_KEYS)
            .map(|(name, _)| shortened(&String::from_utf8_lossy(&name)).to_owned());
        serializer.collect_seq(keys)
    }
}

/// Microseconds would pretend to more than a shared machine can tell.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
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

    use http::{Method, Version};

    use super::*;

    fn record<'a>(query: &'a [u8], path: &'a str) -> Record<'a> {
        Record {
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
        let text = serde_json::to_string(&Line { region: "test", record }).expect("a record can be written");
        assert!(!text.contains('\n'));
        serde_json::from_str(&text).expect("a line is JSON")
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
