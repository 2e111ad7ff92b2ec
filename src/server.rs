//! The daemon: binds, serves, listens to signals and file changes, drains, ends.
//!
//! Pingora's server runs in a thread of its own. This one keeps the process: it decides when to reload and when to go.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora_core::services::Service;
use pingora_proxy::http_proxy;
use socket2::Socket;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::config::model::{Config, Edge};
use crate::config::{Loader, Problem, Problems};
use crate::listen::{self, Bound};
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::proxy::EdgeProxy;
use crate::proxy::connection::Gate;
use crate::reload::{Reloader, folders};
use crate::request::rate_limit::Limiters;
use crate::response::hold::Budget;
use crate::snapshot::{Lasting, Snapshot};
use crate::upstream::dns::Resolver;

/// An editor writes a file in several steps, and a deployment writes many files: wait for the last of them.
const SETTLE: Duration = Duration::from_millis(200);
/// Requests under way get this long after TERM: the longest that a target may take, and a little for its answer.
const DRAIN: Duration = Duration::from_secs(75);
/// How often a draining daemon looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Why the daemon could not serve.
#[derive(Debug)]
pub enum Unserved {
    /// The configuration does not hold.
    Config(Problems),
    /// Anything else; the text says what, and what to do.
    Other(String),
}

/// A daemon with its sockets bound, ready to serve.
pub struct Daemon {
    reloader: Reloader,
    snapshots: Arc<ArcSwap<Snapshot>>,
    lasting: Arc<Lasting>,
    metrics: Arc<Metrics>,
    sockets: Vec<(SocketAddr, Socket)>,
    more: Vec<AddService>,
    warnings: Vec<Problem>,
}

/// Adds a service to Pingora's server, in the thread that runs it.
type AddService = Box<dyn FnOnce(&mut Server) + Send>;

impl Daemon {
    /// Loads the configuration and binds its listeners.
    ///
    /// # Errors
    /// [`Unserved`]: with nothing bound and nothing started.
    pub fn prepare(loader: Loader) -> Result<Self, Unserved> {
        let (loader, loaded) = Reloader::start(loader).map_err(Unserved::Config)?;
        let lasting = Arc::new(lasting(&loaded.config)?);
        let sockets = bind_all(&loaded.config.edge)?;
        let snapshot = Snapshot::build(loaded.config, None, &lasting);
        let snapshots = Arc::new(ArcSwap::from_pointee(snapshot));
        let metrics = Arc::new(Metrics::new().map_err(|error| Unserved::Other(format!("metrics: {error}")))?);
        let reloader = Reloader::new(loader, Arc::clone(&snapshots), Arc::clone(&lasting), Arc::clone(&metrics));
        Ok(Self { reloader, snapshots, lasting, metrics, sockets, more: Vec::new(), warnings: loaded.warnings })
    }

    /// What is allowed in the configuration, but should be known.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Runs another service beside the proxy.
    #[must_use]
    pub fn with(mut self, service: impl Service + 'static) -> Self {
        self.more.push(Box::new(move |server| drop(server.add_service(service))));
        self
    }

    /// Serves until a signal ends it: TERM when nothing is in flight any more, INT at once.
    ///
    /// # Errors
    /// When a thread, a signal handler or Pingora's server cannot be started.
    pub fn serve(self) -> Result<(), Unserved> {
        let edge = Arc::clone(&self.snapshots.load().edge);
        let in_flight = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(AtomicUsize::new(0));
        let leaving = Arc::new(AtomicBool::new(false));
        let (access_log, writer) =
            AccessLog::start(&edge.region, &edge.access_log, self.metrics.access_log_dropped.clone())
                .map_err(|error| Unserved::Other(format!("cannot open the access log: {error}")))?;
        let proxy = EdgeProxy {
            snapshots: Arc::clone(&self.snapshots),
            lasting: Arc::clone(&self.lasting),
            in_flight: Arc::clone(&in_flight),
            leaving: Arc::clone(&leaving),
            metrics: Arc::clone(&self.metrics),
            access_log: Arc::clone(&access_log),
        };
        let conf = Arc::new(server_conf(&edge));
        let conf_edge = Arc::clone(&edge);
        let gate = Gate::new(http_proxy(&conf, proxy), Arc::clone(&self.snapshots), &edge, Arc::clone(&connections));
        let (stop, stopping) = watch::channel(None);
        let (sockets, more) = (self.sockets, self.more);
        let pingora = std::thread::Builder::new()
            .name("pingora".to_owned())
            .spawn(move || {
                let mut server = Server::new_with_opt_and_conf(None, server_conf(&conf_edge));
                server.add_service(Bound::new("edge", gate, sockets));
                for add in more {
                    add(&mut server);
                }
                server.bootstrap();
                server.run(RunArgs { shutdown_signal: Box::new(Stop(stopping)) });
            })
            .map_err(|error| Unserved::Other(format!("cannot start a thread: {error}")))?;
        log::info!(
            "region {}: serving {} proxies on {}",
            edge.region,
            self.snapshots.load().len(),
            edge.listeners.iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>().join(", ")
        );
        let control = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Unserved::Other(format!("cannot start a runtime: {error}")))?;
        control
            .block_on(attend(self.reloader, &stop, &connections, || pingora.is_finished()))
            .map_err(|error| Unserved::Other(format!("cannot listen to signals: {error}")))?;
        log::info!("{} requests in flight, leaving", in_flight.load(Ordering::Relaxed));
        access_log.end(writer);
        Ok(())
    }
}

/// Listens to signals and file changes until it is time to go.
async fn attend(
    mut reloader: Reloader,
    stop: &watch::Sender<Option<ShutdownKind>>,
    connections: &AtomicUsize,
    server_ended: impl Fn() -> bool,
) -> io::Result<()> {
    let mut signals = Signals::new()?;
    let (changed, mut changes) = mpsc::channel(1);
    let mut watcher = watch_files(changed);
    let mut watched = Vec::new();
    watch_folders(watcher.as_mut(), &mut watched, &reloader);
    let mut health = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {}
            Some(()) = changes.recv() => {
                // Until it has been quiet for a moment.
                while tokio::time::timeout(SETTLE, changes.recv()).await.is_ok_and(|more| more.is_some()) {}
            }
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => {
                stop.send_replace(Some(ShutdownKind::Fast));
                return Ok(());
            }
            _ = health.tick() => {
                if server_ended() {
                    return Err(io::Error::other("the server ended by itself"));
                }
                continue;
            }
        }
        reloader = tokio::task::spawn_blocking(move || {
            reloader.reload();
            reloader
        })
        .await?;
        watch_folders(watcher.as_mut(), &mut watched, &reloader);
    }
    log::info!("draining: no new connections, up to {} s for requests in flight", DRAIN.as_secs());
    stop.send_replace(Some(ShutdownKind::Graceful));
    tokio::select! {
        _ = signals.interrupt.recv() => {}
        () = tokio::time::sleep(DRAIN) => log::warn!("still busy after {} s, leaving all the same", DRAIN.as_secs()),
        () = drained(connections) => {}
    }
    Ok(())
}

/// Waits until no client is connected: idle connections are closed by Pingora, busy ones when they are done.
async fn drained(connections: &AtomicUsize) {
    // Pingora's accept loops need a moment to see the signal.
    tokio::time::sleep(DRAIN_LOOK * 5).await;
    while connections.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Reports changes of files. Without it the daemon still reloads on HUP.
fn watch_files(changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event too: reacting to it would never end.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(()); // one that waits already is enough
        }
    });
    watcher.map_err(|error| log::warn!("files are not watched ({error}): send HUP to reload")).ok()
}

fn watch_folders(watcher: Option<&mut RecommendedWatcher>, watched: &mut Vec<std::path::PathBuf>, reloader: &Reloader) {
    let Some(watcher) = watcher else { return };
    let folders = folders(reloader.files());
    for gone in watched.iter().filter(|folder| !folders.contains(folder)) {
        let _ = watcher.unwatch(gone); // a folder that was removed is not watched any more
    }
    for new in folders.iter().filter(|folder| !watched.contains(folder)) {
        if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
            log::warn!("{} is not watched ({error}): send HUP to reload", new.display());
        }
    }
    *watched = folders;
}

/// How Pingora is told to stop.
#[derive(Clone, Copy)]
enum ShutdownKind {
    Graceful,
    Fast,
}

/// Pingora's own watch listens to the signals itself, and sleeps through its whole grace period whatever is left to do.
struct Stop(watch::Receiver<Option<ShutdownKind>>);

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let mut stop = self.0.clone();
        match stop.wait_for(Option::is_some).await.ok().and_then(|kind| *kind) {
            Some(ShutdownKind::Graceful) => ShutdownSignal::GracefulTerminate,
            Some(ShutdownKind::Fast) | None => ShutdownSignal::FastShutdown,
        }
    }
}

fn server_conf(edge: &Edge) -> ServerConf {
    ServerConf {
        threads: edge.threads,
        // Per thread in Pingora, in all here.
        upstream_keepalive_pool_size: edge.pool.max_idle.div_ceil(edge.threads),
        // Longer than any drain: this process ends when it is done, not when Pingora's timer says so.
        grace_period_seconds: Some(DRAIN.as_secs() + 60),
        graceful_shutdown_timeout_seconds: Some(1),
        // First attempt, other addresses, one connection that had died.
        max_retries: 8,
        ..ServerConf::default()
    }
}

fn lasting(config: &Config) -> Result<Lasting, Unserved> {
    let resolver = Resolver::new(&config.edge.dns)
        .map_err(|error| Unserved::Other(format!("cannot read the system's resolver configuration: {error}")))?;
    Ok(Lasting {
        limiters: Limiters::default(),
        resolver: Arc::new(resolver),
        held: Arc::new(Budget::new(config.edge.held_responses_memory)),
    })
}

fn bind_all(edge: &Edge) -> Result<Vec<(SocketAddr, Socket)>, Unserved> {
    edge.listeners
        .iter()
        .map(|listener| match listen::bind(listener.address) {
            Ok(socket) => Ok((listener.address, socket)),
            Err(error) => Err(Unserved::Other(format!("cannot listen on {}: {error}", listener.address))),
        })
        .collect()
}

/// Checks the configuration at `path` as [`Daemon::prepare`] would, and binds nothing.
///
/// # Errors
/// Every problem.
pub fn check(path: &Path) -> Result<(), Problems> {
    crate::config::load(path).map(drop)
}
