//! The access log: one JSON line a request, formatted on the request's own thread, written by another one.
//!
//! Between the two is a bounded queue. When the writer does not keep up (a slow disk, a pipe that nobody reads), lines are
//! dropped and counted: a log never slows a request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use prometheus::IntCounter;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::record::Record;
use crate::config::model;
use crate::request::query;

/// Lines that may wait. At 500 bytes a line: 4 MiB.
const QUEUE: usize = 8192;
/// Bytes written at once.
const BATCH: usize = 64 * 1024;
/// Characters of a client's text that a line keeps.
const LONGEST_TEXT: usize = 2048;
/// Query keys that a line keeps.
const MOST_KEYS: usize = 32;
/// How long leaving waits for the last lines.
const FAREWELL: Duration = Duration::from_secs(2);

/// Takes lines, from any thread, without waiting.
pub struct AccessLog {
    region: Box<str>,
    queue: Option<SyncSender<Message>>,
    /// Set when the file is to be opened anew. Not a message: a full queue would lose it.
    reopen: Arc<AtomicBool>,
    dropped: IntCounter,
}

enum Message {
    Line(Vec<u8>),
    /// Wakes the writer.
    Wake,
    End,
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
        let Some(sink) = sink else {
            return Ok((
                Arc::new(Self { region: region.into(), queue: None, reopen: Arc::default(), dropped }),
                Writer(None),
            ));
        };
        let (queue, lines) = sync_channel(QUEUE);
        let lost = dropped.clone();
        let reopen = Arc::<AtomicBool>::default();
        let asked = Arc::clone(&reopen);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(sink, &lines, &asked, &lost))?;
        Ok((Arc::new(Self { region: region.into(), queue: Some(queue), reopen, dropped }), Writer(Some(thread))))
    }

    /// Whether lines go anywhere: who asks first saves composing them.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Writes `record`, or drops it where the queue is full.
    pub fn write(&self, record: &Record<'_>) {
        let Some(queue) = &self.queue else { return };
        let mut line = Vec::with_capacity(768);
        let written = serde_json::to_writer(&mut line, &Line { region: &self.region, record }).is_ok();
        line.push(b'\n');
        if !written || queue.try_send(Message::Line(line)).is_err() {
            self.dropped.inc();
        }
    }

    /// Opens the file anew: it has been renamed by who rotates it.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(Message::Wake); // a full queue has a writer that is awake
        }
    }

    /// Writes what waits, for a moment.
    pub fn end(&self, writer: Writer) {
        let Some(queue) = &self.queue else { return };
        let deadline = SystemTime::now() + FAREWELL;
        while queue.try_send(Message::End).is_err() && SystemTime::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(thread) = writer.0 {
            while !thread.is_finished() && SystemTime::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
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
fn write_all(mut sink: Sink, lines: &Receiver<Message>, reopen: &AtomicBool, lost: &IntCounter) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut failing = false;
    loop {
        let mut next = match lines.recv_timeout(Duration::from_secs(60)) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut count = 0;
        let mut ended = false;
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.extend_from_slice(&line);
                    count += 1;
                }
                Message::Wake => {}
                Message::End => ended = true,
            }
            next = if ended || batch.len() >= BATCH { None } else { lines.try_recv().ok() };
        }
        match sink.write(&batch) {
            Ok(()) => failing = false,
            Err(error) => {
                lost.inc_by(count);
                if !failing {
                    log::error!("access log cannot be written: {error}; lines are dropped and counted");
                }
                failing = true;
            }
        }
        batch.clear();
        if reopen.swap(false, Ordering::AcqRel) {
            sink.reopen();
        }
        if ended {
            return;
        }
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
        let (queue, _nobody_reads) = sync_channel(1);
        let dropped = IntCounter::new("dropped", "dropped").expect("a valid name");
        let log =
            AccessLog { region: "test".into(), queue: Some(queue), reopen: Arc::default(), dropped: dropped.clone() };
        for _ in 0..3 {
            log.write(&record(b"", "/"));
        }
        assert_eq!(dropped.get(), 2);
    }
}
