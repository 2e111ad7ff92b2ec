//! What has gone through one proxy since the start: for the status page, not for metrics, whose series must stay few.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::record::Record;

/// Counts of one proxy. Kept over reloads.
#[derive(Default)]
pub struct Traffic {
    requests: AtomicU64,
    forwarded: AtomicU64,
    refused: AtomicU64,
    /// Microseconds.
    duration: AtomicU64,
    /// Microseconds.
    target_duration: AtomicU64,
    /// Seconds since 1970; 0: never.
    last_request: AtomicU64,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<(SystemTime, &'static str)>,
}

/// What was counted, at one moment.
pub struct Seen {
    pub requests: u64,
    pub forwarded: u64,
    pub refused: u64,
    pub failed: u64,
    pub duration: Duration,
    pub target_duration: Duration,
    pub last_request: Option<SystemTime>,
    pub last_failure: Option<(SystemTime, &'static str)>,
}

impl Traffic {
    /// Counts a finished request.
    pub fn count(&self, record: &Record<'_>) {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.duration.fetch_add(micros(record.duration), Ordering::Relaxed);
        self.last_request
            .store(record.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(), Ordering::Relaxed);
        if let Some(target) = record.target_duration {
            self.forwarded.fetch_add(1, Ordering::Relaxed);
            self.target_duration.fetch_add(micros(target), Ordering::Relaxed);
        }
        match record.error {
            Some(error) if record.target_duration.is_some() => {
                let mut failures = self.failures.lock();
                failures.count += 1;
                failures.last = Some((record.time, error));
            }
            Some(_) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
            None => {}
        }
    }

    /// Requests since the start.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// All counts.
    pub fn seen(&self) -> Seen {
        let failures = self.failures.lock();
        let last_request = self.last_request.load(Ordering::Relaxed);
        Seen {
            requests: self.requests(),
            forwarded: self.forwarded.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            failed: failures.count,
            duration: Duration::from_micros(self.duration.load(Ordering::Relaxed)),
            target_duration: Duration::from_micros(self.target_duration.load(Ordering::Relaxed)),
            last_request: (last_request > 0).then(|| UNIX_EPOCH + Duration::from_secs(last_request)),
            last_failure: failures.last,
        }
    }
}
