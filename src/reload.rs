//! Configuration while serving: taken whole or not at all.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

use crate::config::model::Edge;
use crate::config::{Loaded, Loader, Problem, Problems};
use crate::observe::metrics::Metrics;
use crate::request::rate_limit::Clock;
use crate::snapshot::{Lasting, Snapshot};

/// How the last loads went, the newest first: for who looks after the log has scrolled by.
#[derive(Default)]
pub struct Outcomes(Mutex<VecDeque<OutcomeStatus>>);

/// Outcomes that are remembered.
const MOST_OUTCOMES: usize = 10;
/// Lines of one that are.
const MOST_NOTES: usize = 50;

impl Outcomes {
    fn add(&self, taken: bool, notes: impl Iterator<Item = String>) {
        let mut outcomes = self.0.lock();
        outcomes.push_front(OutcomeStatus { time: Timestamp::now(), taken, notes: notes.take(MOST_NOTES).collect() });
        outcomes.truncate(MOST_OUTCOMES);
    }

    /// All that are remembered.
    pub fn recent(&self) -> Vec<OutcomeStatus> {
        self.0.lock().iter().cloned().collect()
    }
}

/// How one load of the configuration went.
#[derive(Serialize, Clone)]
pub struct OutcomeStatus {
    pub time: Timestamp,
    pub taken: bool,
    /// Every problem where it was not taken; every warning where it was.
    pub notes: Vec<String>,
}

/// Loads the configuration again when asked to, and swaps the generation that requests see.
pub struct Reloader {
    loader: Loader,
    snapshots: Arc<ArcSwap<Snapshot>>,
    lasting: Arc<Lasting>,
    metrics: Arc<Metrics>,
    outcomes: Arc<Outcomes>,
}

impl Reloader {
    /// The first generation: nothing serves before it is there.
    ///
    /// # Errors
    /// Every problem of the configuration.
    pub fn start(mut loader: Loader) -> Result<(Loader, Loaded), Problems> {
        let loaded = loader.load()?;
        Ok((loader, loaded))
    }

    /// A reloader that goes on from the generation in `snapshots`.
    pub fn new(
        loader: Loader,
        snapshots: Arc<ArcSwap<Snapshot>>,
        lasting: Arc<Lasting>,
        metrics: Arc<Metrics>,
        warnings: &[Problem],
    ) -> Self {
        let outcomes = Arc::new(Outcomes::default());
        outcomes.add(true, warnings.iter().map(ToString::to_string));
        let this = Self { loader, snapshots, lasting, metrics, outcomes };
        this.tell(&this.snapshots.load());
        this
    }

    /// What lives across generations.
    pub fn lasting(&self) -> &Lasting {
        &self.lasting
    }

    /// How the last loads went.
    pub fn outcomes(&self) -> &Arc<Outcomes> {
        &self.outcomes
    }

    /// Tells the metrics which generation serves.
    fn tell(&self, snapshot: &Snapshot) {
        self.metrics.reloaded(snapshot.generation, snapshot.len());
        let listeners: Vec<_> = snapshot
            .listeners
            .iter()
            .filter_map(|(listener, tls)| Some((listener.address.to_string(), tls?)))
            .collect();
        self.metrics.certificates(listeners.iter().flat_map(|(listener, tls)| {
            tls.expiries.iter().map(|expiry| (listener.as_str(), &*expiry.certificate, expiry.at))
        }));
    }

    /// Loads, and swaps when there is no problem. Says in the log how it went.
    pub fn reload(&mut self) -> bool {
        let started = Instant::now();
        let loaded = match self.loader.load() {
            Ok(loaded) => loaded,
            Err(problems) => {
                for line in problems.to_string().lines() {
                    log::error!("{line}");
                }
                self.metrics.reload_failed();
                self.outcomes.add(false, problems.iter().map(ToString::to_string));
                log::error!("configuration not taken: generation {} serves on", self.snapshots.load().generation);
                return false;
            }
        };
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let running = self.snapshots.load();
        for key in needs_restart(&running.edge, &loaded.config.edge) {
            log::warn!("edge.yaml: {key}: the change takes effect with the next restart");
        }
        let next = Snapshot::build(loaded.config, Some(&running), &self.lasting);
        log::info!(
            "configuration taken: generation {}, {} proxies, {} fragments parsed, {} unchanged, {} ms",
            next.generation,
            next.len(),
            loaded.fragments_parsed,
            loaded.fragments_kept,
            started.elapsed().as_millis()
        );
        self.tell(&next);
        self.outcomes.add(true, loaded.warnings.iter().map(ToString::to_string));
        self.snapshots.store(Arc::new(next));
        self.lasting.resolver.forget_unused();
        self.lasting.limiters.retain_used(Clock::now());
        true
    }

    /// All files and folders whose change may change the configuration.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.loader.files()
    }
}

/// Folders to watch for the files: an editor that saves by renaming, and a secret that is rotated by a symbolic link,
/// both replace the file, so it is the folder that sees it.
pub fn folders<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = files
        .filter_map(|file| if file.is_dir() { Some(file) } else { file.parent() })
        .map(|folder| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
        .collect();
    folders.sort_unstable();
    folders.dedup();
    folders
}

/// Keys whose change a running daemon cannot follow.
fn needs_restart(running: &Edge, next: &Edge) -> Vec<&'static str> {
    // How a listener speaks follows at once; where it is does not.
    let listeners = |edge: &Edge| -> Vec<_> { edge.listeners.iter().map(|listener| listener.address).collect() };
    let limits = |edge: &Edge| {
        let limits = &edge.limits;
        (
            limits.header_timeout,
            limits.keepalive_timeout,
            limits.requests_per_connection,
            limits.http2_max_streams,
            limits.max_header_bytes,
        )
    };
    [
        ("threads", running.threads != next.threads),
        ("listeners", listeners(running) != listeners(next)),
        ("region", running.region != next.region),
        ("admin", (running.admin, &running.admin_hosts) != (next.admin, &next.admin_hosts)),
        ("limits", limits(running) != limits(next)),
        ("pool.max_idle", running.pool.max_idle != next.pool.max_idle),
        ("dns.servers", running.dns.servers != next.dns.servers),
        ("access_log", running.access_log != next.access_log),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}
