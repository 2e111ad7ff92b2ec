//! What `/status` and the page show: one look at the running daemon, as plain values.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Serialize;

use super::is_unmistakable;
use crate::config::model::{ProxyCredential, TargetHost};
use crate::observe::metrics::{Gauges, Metrics};
use crate::reload::{OutcomeStatus, Outcomes};
use crate::request::rate_limit::Clock;
use crate::snapshot::{Entry, Snapshot};
use crate::upstream::address;

/// Proxies that are shown, the busiest first. A region has a hundred thousand; nobody reads more than this.
const MOST_PROXIES: usize = 100;
/// Credentials of one proxy that are shown.
const MOST_CREDENTIALS: usize = 10;

/// Where the daemon can be looked into.
pub struct View {
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    pub metrics: Arc<Metrics>,
    pub gauges: Gauges,
    pub outcomes: Arc<Outcomes>,
    /// Set when the process is about to leave.
    pub leaving: Arc<AtomicBool>,
    pub started: Instant,
    /// Names that the listener answers to, beside its addresses.
    pub hosts: Vec<Box<str>>,
}

/// The daemon at one moment.
#[derive(Serialize)]
pub struct Status {
    pub version: &'static str,
    pub region: Box<str>,
    pub time: Timestamp,
    pub ready: bool,
    pub uptime_seconds: u64,
    pub generation: u64,
    pub requests_in_flight: usize,
    pub client_connections: usize,
    pub held_bytes: u64,
    pub held_bytes_limit: u64,
    pub listeners: Vec<ListenerStatus>,
    pub configuration: Vec<OutcomeStatus>,
    pub proxies_total: usize,
    /// The busiest, by requests since the start.
    pub proxies: Vec<ProxyStatus>,
    pub targets: Vec<TargetStatus>,
}

/// A listener.
#[derive(Serialize)]
pub struct ListenerStatus {
    pub address: String,
    pub tls: bool,
    pub http2: bool,
    pub proxy_protocol: bool,
    pub client_certificates: bool,
    pub certificates: Vec<CertificateStatus>,
}

/// A certificate of a listener.
#[derive(Serialize)]
pub struct CertificateStatus {
    pub file: Box<str>,
    pub expires: Option<Timestamp>,
    /// Negative: since how many days it has been expired.
    pub days_left: i64,
}

/// A proxy.
#[derive(Serialize)]
pub struct ProxyStatus {
    pub id: Box<str>,
    pub active: bool,
    pub target: Box<str>,
    pub requests: u64,
    pub refused: u64,
    pub failed: u64,
    /// Mean time of a request, in milliseconds.
    pub mean_ms: f64,
    /// The target's part of it.
    pub mean_target_ms: f64,
    pub last_request: Option<Timestamp>,
    pub last_failure: Option<FailureStatus>,
    pub credentials: Vec<CredentialStatus>,
}

/// The last time that a target failed.
#[derive(Serialize)]
pub struct FailureStatus {
    pub time: Timestamp,
    /// The error of RFC 9209.
    pub error: &'static str,
}

/// A credential's rate limit.
#[derive(Serialize)]
pub struct CredentialStatus {
    pub id: Box<str>,
    pub per_minute: u32,
    pub minute_left: u64,
    pub per_day: Option<u64>,
    pub day_left: Option<u64>,
}

/// A target of the shown proxies.
#[derive(Serialize)]
pub struct TargetStatus {
    pub id: Box<str>,
    pub host: String,
    pub tls: bool,
    pub addresses: Vec<IpAddr>,
    /// `ok`, `unresolved` (no address now), `stale` (name servers fail), `prohibited` (a private address), `unused`.
    pub health: &'static str,
}

impl View {
    /// Whether the listener answers to `host`.
    pub fn answers_to(&self, host: &str) -> bool {
        is_unmistakable(host) || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    /// One look.
    pub fn status(&self) -> Status {
        let snapshot = self.snapshots.load_full();
        let busiest = busiest(&snapshot);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            region: snapshot.edge.region.clone(),
            time: Timestamp::now(),
            ready: !self.leaving.load(Ordering::Relaxed),
            uptime_seconds: self.started.elapsed().as_secs(),
            generation: snapshot.generation,
            requests_in_flight: self.gauges.in_flight.load(Ordering::Relaxed),
            client_connections: self.gauges.connections.load(Ordering::Relaxed),
            held_bytes: self.gauges.held.taken(),
            held_bytes_limit: snapshot.edge.held_responses_memory,
            listeners: listeners(&snapshot),
            configuration: self.outcomes.recent(),
            proxies_total: snapshot.len(),
            targets: targets(&snapshot, &busiest),
            proxies: busiest.iter().map(|entry| proxy(entry)).collect(),
        }
    }
}

/// The proxies with the most requests; those without any are not worth a line unless there are few proxies at all.
fn busiest(snapshot: &Snapshot) -> Vec<Arc<Entry>> {
    let few = snapshot.len() <= MOST_PROXIES;
    let mut busy: Vec<(u64, Arc<Entry>)> = snapshot
        .proxies()
        .map(|entry| (entry.traffic.requests(), entry))
        .filter(|(requests, _)| few || *requests > 0)
        .map(|(requests, entry)| (requests, Arc::clone(entry)))
        .collect();
    busy.sort_unstable_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.proxy.id.cmp(&y.proxy.id)));
    busy.truncate(MOST_PROXIES);
    busy.into_iter().map(|(_, entry)| entry).collect()
}

fn listeners(snapshot: &Snapshot) -> Vec<ListenerStatus> {
    let now = Timestamp::now().as_second();
    snapshot
        .listeners
        .iter()
        .map(|(listener, tls)| ListenerStatus {
            address: listener.address.to_string(),
            tls: tls.is_some(),
            http2: tls.is_some() || listener.http2_cleartext,
            proxy_protocol: listener.proxy_protocol,
            client_certificates: listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            certificates: tls
                .iter()
                .flat_map(|tls| &tls.expiries)
                .map(|expiry| CertificateStatus {
                    file: expiry.certificate.clone(),
                    expires: Timestamp::from_second(expiry.at).ok(),
                    days_left: (expiry.at - now).div_euclid(24 * 60 * 60),
                })
                .collect(),
        })
        .collect()
}

fn proxy(entry: &Entry) -> ProxyStatus {
    let traffic = entry.traffic.seen();
    let mean = |total: Duration, count: u64| {
        let mean = total.as_secs_f64() * 1e3 / count.max(1) as f64;
        (mean * 1e3).round() / 1e3
    };
    let time = |at: SystemTime| Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    ProxyStatus {
        id: entry.proxy.id.clone(),
        active: entry.proxy.active,
        target: entry.proxy.target.id.clone(),
        requests: traffic.requests,
        refused: traffic.refused,
        failed: traffic.failed,
        mean_ms: mean(traffic.duration, traffic.requests),
        mean_target_ms: mean(traffic.target_duration, traffic.forwarded),
        last_request: traffic.last_request.map(time),
        last_failure: traffic.last_failure.map(|(at, error)| FailureStatus { time: time(at), error }),
        credentials: entry
            .proxy
            .proxy_credentials
            .iter()
            .take(MOST_CREDENTIALS)
            .map(|credential| headroom(entry, credential))
            .collect(),
    }
}

fn headroom(entry: &Entry, credential: &Arc<ProxyCredential>) -> CredentialStatus {
    let limit = &credential.rate_limit;
    let left = entry.limiter(credential).budget(limit, Clock::now());
    CredentialStatus {
        id: credential.id.clone(),
        per_minute: limit.per_minute,
        minute_left: left.minute.requests,
        per_day: limit.per_day,
        day_left: left.day.map(|day| day.requests),
    }
}

fn targets(snapshot: &Snapshot, entries: &[Arc<Entry>]) -> Vec<TargetStatus> {
    let mut seen = HashSet::new();
    entries
        .iter()
        .filter(|entry| seen.insert(&entry.proxy.target.id))
        .map(|entry| {
            let target = &entry.proxy.target;
            let (host, addresses, resolved) = match (&target.host, &entry.name) {
                (TargetHost::Name(name), Some(known)) => {
                    let (addresses, state) = known.seen();
                    (name.to_string(), addresses, state)
                }
                (TargetHost::Name(name), None) => (name.to_string(), Vec::new(), "unused"),
                (TargetHost::Address(address), _) => (address.to_string(), vec![*address], "ok"),
            };
            let prohibited = !snapshot.edge.allow_private_targets
                && !addresses.is_empty()
                && !addresses.iter().any(|one| address::is_public(*one));
            TargetStatus {
                id: target.id.clone(),
                host: format!("{host}:{}", target.port),
                tls: target.tls.is_some(),
                addresses,
                health: if prohibited { "prohibited" } else { resolved },
            }
        })
        .collect()
}
