//! Metrics for Prometheus. Labels are enums or numbers of a bounded set, never request text: what clients send cannot make
//! a new series.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::record::Record;
use crate::refusal::GRANTED_CODE;
use crate::response::budget::Budget;

/// From a refusal, which takes microseconds, to the longest timeout.
const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Around 50 microseconds, where the edge's own part of a request lies.
const OVERHEAD_BUCKETS: &[f64] =
    &[0.00001, 0.000025, 0.00005, 0.000075, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.01, 0.1, 1.0];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    /// Those of `requests` that most requests count in, by the places of their method and status: to find one by its labels
    /// takes several times as long as to count.
    granted: Box<[OnceLock<IntCounter>]>,
    duration: Histogram,
    target_duration: Histogram,
    overhead: Histogram,
    /// Exchanges with targets over connections that were new, and that were reused.
    reused: [IntCounter; 2],
    target_errors: IntCounterVec,
    /// Connections that were closed at once, by the limit that they would have exceeded.
    pub connections_refused: IntCounterVec,
    in_flight: IntGauge,
    connections: IntGauge,
    held: IntGauge,
    reload_successful: IntGauge,
    reload_success_time: IntGauge,
    generation: IntGauge,
    proxies: IntGauge,
    certificate_expiry: IntGaugeVec,
    /// Access-log lines that were dropped because the queue was full or the file could not be written.
    pub access_log_dropped: IntCounter,
}

/// What is counted elsewhere and read when the metrics are.
pub struct Gauges {
    pub in_flight: Arc<AtomicUsize>,
    pub connections: Arc<AtomicUsize>,
    pub held: Arc<Budget>,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// When two have the same name: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let target_connections = IntCounterVec::new(
            Opts::new(
                "requestrocket_target_connections_total",
                "Exchanges with targets by whether their connection was reused.",
            ),
            &["reused"],
        )?;
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("requestrocket_requests_total", "Requests that were answered, or whose client went away."),
                &["method", "status", "proxy_code", "refusal"],
            )?,
            duration: histogram(
                "requestrocket_request_duration_seconds",
                "Time from the request's header to the end of its answer.",
                DURATION_BUCKETS,
            )?,
            target_duration: histogram(
                "requestrocket_target_duration_seconds",
                "Time from going to the target, connecting included, to the end of its answer.",
                DURATION_BUCKETS,
            )?,
            overhead: histogram(
                "requestrocket_overhead_seconds",
                "Time that the edge adds: request duration less target duration, of forwarded requests.",
                OVERHEAD_BUCKETS,
            )?,
            target_errors: IntCounterVec::new(
                Opts::new(
                    "requestrocket_target_errors_total",
                    "Forwarded requests that the edge had to answer or cut, by the error of RFC 9209.",
                ),
                &["error"],
            )?,
            connections_refused: IntCounterVec::new(
                Opts::new(
                    "requestrocket_client_connections_refused_total",
                    "Connections that were closed at once, by the limit that they would have exceeded.",
                ),
                &["limit"],
            )?,
            in_flight: IntGauge::new("requestrocket_requests_in_flight", "Requests under way.")?,
            connections: IntGauge::new("requestrocket_client_connections", "Clients connected.")?,
            held: IntGauge::new("requestrocket_held_bytes", "Bytes of responses that are held until they end.")?,
            reload_successful: IntGauge::new(
                "requestrocket_config_last_reload_successful",
                "Whether the last load of the configuration was taken (1) or not (0).",
            )?,
            reload_success_time: IntGauge::new(
                "requestrocket_config_last_reload_success_timestamp_seconds",
                "When a configuration was last taken.",
            )?,
            generation: IntGauge::new("requestrocket_config_generation", "Configurations taken since the start.")?,
            proxies: IntGauge::new("requestrocket_proxies", "Proxies in the configuration.")?,
            certificate_expiry: IntGaugeVec::new(
                Opts::new(
                    "requestrocket_certificate_expiry_timestamp_seconds",
                    "When a listener's certificate expires.",
                ),
                &["listener", "certificate"],
            )?,
            access_log_dropped: IntCounter::new(
                "requestrocket_access_log_dropped_total",
                "Access-log lines that were lost: the queue was full, or the file could not be written.",
            )?,
            granted: (0..METHODS.len() * STATUSES.len()).map(|_| OnceLock::new()).collect(),
            reused: [target_connections.with_label_values(&["false"]), target_connections.with_label_values(&["true"])],
            registry,
        };
        let build =
            IntGaugeVec::new(Opts::new("requestrocket_build_info", "The version that runs; always 1."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        let all: Vec<Box<dyn Collector>> = vec![
            Box::new(metrics.requests.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.target_duration.clone()),
            Box::new(metrics.overhead.clone()),
            Box::new(target_connections),
            Box::new(metrics.target_errors.clone()),
            Box::new(metrics.connections_refused.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.held.clone()),
            Box::new(metrics.reload_successful.clone()),
            Box::new(metrics.reload_success_time.clone()),
            Box::new(metrics.generation.clone()),
            Box::new(metrics.proxies.clone()),
            Box::new(metrics.certificate_expiry.clone()),
            Box::new(metrics.access_log_dropped.clone()),
            Box::new(build),
            Box::new(process),
        ];
        all.into_iter().try_for_each(|collector| metrics.registry.register(collector))?;
        for limit in ["total", "client"] {
            metrics.connections_refused.with_label_values(&[limit]);
        }
        Ok(metrics)
    }

    /// Counts a finished request.
    pub fn observe(&self, record: &Record<'_>) {
        let (method, status) = (method_place(record.method), status_place(record.status));
        let counter = |proxy_code, refusal| {
            self.requests.with_label_values(&[METHODS[method], STATUSES[status].1, proxy_code, refusal])
        };
        match (record.proxy_code, record.refusal) {
            (Some(GRANTED_CODE), None) => {
                let place = method * STATUSES.len() + status;
                self.granted[place].get_or_init(|| counter(GRANTED_CODE, "none")).inc();
            }
            (code, refusal) => counter(code.unwrap_or("none"), refusal.unwrap_or("none")).inc(),
        }
        self.duration.observe(record.duration.as_secs_f64());
        let Some(target) = record.target_duration else { return };
        self.target_duration.observe(target.as_secs_f64());
        self.overhead.observe(record.overhead().as_secs_f64());
        if record.target.is_some() {
            self.reused[usize::from(record.reused)].inc();
        }
        if let Some(error) = record.error {
            self.target_errors.with_label_values(&[error]).inc();
        }
    }

    /// A configuration was taken.
    pub fn reloaded(&self, generation: u64, proxies: usize) {
        self.reload_successful.set(1);
        self.generation.set(signed(generation));
        self.proxies.set(signed(proxies as u64));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.reload_success_time.set(signed(now.as_secs()));
    }

    /// A configuration was not taken.
    pub fn reload_failed(&self) {
        self.reload_successful.set(0);
    }

    /// The certificates in use, with their expiry in seconds since 1970. Replaces those of before.
    pub fn certificates<'a>(&self, all: impl Iterator<Item = (&'a str, &'a str, i64)>) {
        self.certificate_expiry.reset();
        for (listener, certificate, expiry) in all {
            self.certificate_expiry.with_label_values(&[listener, certificate]).set(expiry);
        }
    }

    /// The text that Prometheus scrapes (exposition format 0.0.4).
    ///
    /// # Errors
    /// When a metric is inconsistent: a mistake in this file.
    pub fn text(&self, gauges: &Gauges) -> prometheus::Result<Vec<u8>> {
        self.in_flight.set(signed(gauges.in_flight.load(Ordering::Relaxed) as u64));
        self.connections.set(signed(gauges.connections.load(Ordering::Relaxed) as u64));
        self.held.set(signed(gauges.held.taken()));
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

fn histogram(name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Methods that are proxied; a client can invent any number of others.
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "OTHER"];

fn method_place(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::POST => 1,
        Method::PUT => 2,
        Method::PATCH => 3,
        Method::DELETE => 4,
        Method::OPTIONS => 5,
        Method::HEAD => 6,
        _ => METHODS.len() - 1,
    }
}

/// Statuses that are registered with IANA; a target can invent any number of others. In their order, with what stands for no
/// answer and for all others at the ends.
const STATUSES: [(u16, &str); 63] = [
    (0, "none"),
    (101, "101"),
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (203, "203"),
    (204, "204"),
    (205, "205"),
    (206, "206"),
    (207, "207"),
    (208, "208"),
    (226, "226"),
    (300, "300"),
    (301, "301"),
    (302, "302"),
    (303, "303"),
    (304, "304"),
    (305, "305"),
    (307, "307"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (402, "402"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (407, "407"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (411, "411"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (416, "416"),
    (417, "417"),
    (418, "418"),
    (421, "421"),
    (422, "422"),
    (423, "423"),
    (424, "424"),
    (425, "425"),
    (426, "426"),
    (428, "428"),
    (429, "429"),
    (431, "431"),
    (451, "451"),
    (499, "499"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (505, "505"),
    (506, "506"),
    (507, "507"),
    (508, "508"),
    (510, "510"),
    (511, "511"),
    (529, "529"),
    (u16::MAX, "other"),
];

fn status_place(status: Option<u16>) -> usize {
    let status = status.unwrap_or(STATUSES[0].0);
    STATUSES.binary_search_by_key(&status, |(known, _)| *known).unwrap_or(STATUSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_one_of_a_bounded_set() {
        for (status, label) in [(Some(200), "200"), (Some(529), "529"), (Some(299), "other"), (None, "none")] {
            assert_eq!(STATUSES[status_place(status)].1, label);
        }
        assert_eq!(METHODS[method_place(&Method::from_bytes(b"BREW").expect("a token"))], "OTHER");
        for (place, name) in METHODS.iter().enumerate() {
            assert_eq!(method_place(&name.parse().expect("a method")), place);
        }
        assert!(STATUSES.is_sorted());
    }

    #[test]
    fn the_text_holds_every_family_once() {
        let metrics = Metrics::new().expect("names differ");
        metrics.reloaded(3, 100);
        let gauges = Gauges { in_flight: Arc::default(), connections: Arc::default(), held: Arc::new(Budget::new(1)) };
        let text = String::from_utf8(metrics.text(&gauges).expect("consistent")).expect("ASCII");
        for line in ["requestrocket_config_generation 3", "requestrocket_proxies 100", "requestrocket_held_bytes 0"] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
