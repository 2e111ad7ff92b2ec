//! The daemon: what is bound, built and started, in which order. How it lives on from there is in [`lifecycle`].
//!
//! [`lifecycle`]: crate::lifecycle

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora_core::services::Service;
use pingora_proxy::http_proxy;
use socket2::Socket;
use tokio::sync::watch;

use crate::admin::{Admin, View};
use crate::config::model::{Config, Edge};
use crate::config::{Loader, Problem, Problems};
use crate::handover::Inherited;
use crate::lifecycle::{self, Control, Life, ShutdownKind};
use crate::listen::{self, Bound};
use crate::observe::access_log::{AccessLog, Writer};
use crate::observe::metrics::{Gauges, Metrics};
use crate::proxy::EdgeProxy;
use crate::proxy::connection::Gate;
use crate::reload::Reloader;
use crate::request::guesses::Guesses;
use crate::request::rate_limit::Limiters;
use crate::response::budget::Budget;
use crate::snapshot::{Lasting, Snapshot};
use crate::upstream::dns::Resolver;

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
    access_log: (Arc<AccessLog>, Writer),
    clients: Vec<(SocketAddr, Socket)>,
    admin: Vec<(SocketAddr, Socket)>,
    inherited: Option<Inherited>,
    more: Vec<AddService>,
    warnings: Vec<Problem>,
    started: Instant,
    control: Control,
}

/// Adds a service to Pingora's server, in the thread that runs it.
type AddService = Box<dyn FnOnce(&mut Server) + Send>;

impl Daemon {
    /// Loads the configuration, and binds its listeners or takes them over from a predecessor.
    ///
    /// # Errors
    /// [`Unserved`]: with nothing bound and nothing started.
    pub fn prepare(loader: Loader) -> Result<Self, Unserved> {
        let started = Instant::now();
        let control = Control::new().map_err(|error| other("cannot listen to signals", &error))?;
        let mut inherited =
            Inherited::receive().map_err(|error| other("cannot take over from the predecessor", &error))?;
        let (loader, loaded) = Reloader::start(loader).map_err(Unserved::Config)?;
        let lasting = Arc::new(lasting(&loaded.config)?);
        let metrics = Arc::new(Metrics::new().map_err(|error| other("cannot set up metrics", &error))?);
        let edge = &loaded.config.edge;
        let access_log = AccessLog::start(&edge.region, &edge.access_log, metrics.access_log_dropped.clone())
            .map_err(|error| other("cannot open the access log", &error))?;
        let clients = bind_all(edge.listeners.iter().map(|listener| listener.address), inherited.as_mut())?;
        let admin = bind_all(edge.admin.iter().copied(), inherited.as_mut())?;
        let snapshots = Arc::new(ArcSwap::from_pointee(Snapshot::build(loaded.config, None, &lasting)));
        let reloader =
            Reloader::new(loader, Arc::clone(&snapshots), Arc::clone(&lasting), Arc::clone(&metrics), &loaded.warnings);
        Ok(Self {
            reloader,
            snapshots,
            lasting,
            metrics,
            access_log,
            clients,
            admin,
            inherited,
            more: Vec::new(),
            warnings: loaded.warnings,
            started,
            control,
        })
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

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// When a thread, a signal handler or Pingora's server cannot be started.
    pub fn serve(self) -> Result<(), Unserved> {
        let edge = Arc::clone(&self.snapshots.load().edge);
        let in_flight = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(AtomicUsize::new(0));
        let leaving = Arc::new(AtomicBool::new(false));
        let pulse = Arc::new(AtomicU64::new(0));
        let (access_log, writer) = self.access_log;
        // Kept to be handed to a successor: these stay open whatever Pingora does with its own.
        let sockets = duplicates(self.clients.iter().chain(&self.admin))
            .map_err(|error| other("cannot duplicate a socket", &error))?;

        let conf = Arc::new(server_conf(&edge));
        let proxy = EdgeProxy {
            snapshots: Arc::clone(&self.snapshots),
            lasting: Arc::clone(&self.lasting),
            in_flight: Arc::clone(&in_flight),
            leaving: Arc::clone(&leaving),
            metrics: Arc::clone(&self.metrics),
            access_log: Arc::clone(&access_log),
        };
        let gate = Gate::new(
            http_proxy(&conf, proxy),
            Arc::clone(&self.snapshots),
            &edge,
            Arc::clone(&connections),
            Arc::clone(&self.metrics),
        );
        let admin = Admin::new(View {
            snapshots: Arc::clone(&self.snapshots),
            metrics: self.metrics,
            gauges: Gauges {
                in_flight: Arc::clone(&in_flight),
                connections: Arc::clone(&connections),
                held: Arc::clone(&self.lasting.held),
            },
            outcomes: Arc::clone(self.reloader.outcomes()),
            leaving: Arc::clone(&leaving),
            started: self.started,
            hosts: edge.admin_hosts.clone(),
        });
        let reads_little = |address| {
            let listener = edge.listeners.iter().find(|listener| listener.address == address);
            listener.is_some_and(|listener| listener.tls.is_some() || listener.proxy_protocol)
        };
        let edge_service = Bound::new("edge", gate, self.clients, reads_little).with_pulse(Arc::clone(&pulse));
        let admin_service = Bound::new("admin", admin, self.admin, |_| false).threads(1);
        let (stop, stopping) = watch::channel(None);
        let (more, conf_edge) = (self.more, Arc::clone(&edge));
        let pingora = std::thread::Builder::new()
            .name("pingora".to_owned())
            .spawn(move || {
                let mut server = Server::new_with_opt_and_conf(None, server_conf(&conf_edge));
                server.add_service(edge_service);
                server.add_service(admin_service);
                for add in more {
                    add(&mut server);
                }
                server.bootstrap();
                server.run(RunArgs { shutdown_signal: Box::new(Stop(stopping)) });
            })
            .map_err(|error| other("cannot start a thread", &error))?;

        let life = Life {
            reloader: self.reloader,
            snapshots: self.snapshots,
            access_log: Arc::clone(&access_log),
            sockets,
            inherited: self.inherited,
            leaving,
            connections,
            pulse,
            stop,
            server_ended: Box::new(move || pingora.is_finished()),
        };
        let lived = lifecycle::run(life, self.control).map_err(|error| other("cannot go on", &error));
        log::info!("leaving with {} requests in flight", in_flight.load(Ordering::Relaxed));
        access_log.end(writer);
        lived
    }
}

/// Checks the configuration at `path` as [`Daemon::prepare`] would, and binds nothing.
///
/// # Errors
/// Every problem.
pub fn check(path: &Path) -> Result<(), Problems> {
    crate::config::load(path).map(drop)
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
        // One thread has nobody to take work from, and its scheduler is cheaper without the means for it.
        work_stealing: edge.threads > 1,
        // Per thread in Pingora, in all here.
        upstream_keepalive_pool_size: edge.pool.max_idle.div_ceil(edge.threads),
        // Longer than any drain: this process ends when it is done, not when Pingora's timer says so.
        grace_period_seconds: Some(24 * 60 * 60),
        graceful_shutdown_timeout_seconds: Some(1),
        // First attempt, other addresses, one connection that had died.
        max_retries: 8,
        ..ServerConf::default()
    }
}

fn lasting(config: &Config) -> Result<Lasting, Unserved> {
    let resolver = Resolver::new(&config.edge.dns)
        .map_err(|error| other("cannot read the system's resolver configuration", &error))?;
    Ok(Lasting {
        limiters: Limiters::default(),
        guesses: Guesses::default(),
        resolver: Arc::new(resolver),
        held: Arc::new(Budget::new(config.edge.held_responses_memory)),
    })
}

fn bind_all(
    addresses: impl Iterator<Item = SocketAddr>,
    mut inherited: Option<&mut Inherited>,
) -> Result<Vec<(SocketAddr, Socket)>, Unserved> {
    addresses
        .map(|address| {
            let handed = inherited.as_mut().and_then(|inherited| inherited.take(&address));
            let socket = handed.map_or_else(|| listen::bind(address), Ok);
            socket
                .map(|socket| (address, socket))
                .map_err(|error| other(&format!("cannot listen on {address}"), &error))
        })
        .collect()
}

fn duplicates<'a>(
    sockets: impl Iterator<Item = &'a (SocketAddr, Socket)>,
) -> std::io::Result<Vec<(SocketAddr, Socket)>> {
    sockets.map(|(address, socket)| Ok((*address, socket.try_clone()?))).collect()
}

fn other(what: &str, error: &dyn std::fmt::Display) -> Unserved {
    Unserved::Other(format!("{what}: {error}"))
}
