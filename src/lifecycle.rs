//! From the first connection to the last: signals, file changes, the watchdog, and how the process leaves.
//!
//! HUP and changed files reload. TERM leaves: readiness goes first, then connections are closed with their next answer,
//! then nobody new is accepted, and the process ends the moment nobody is left. INT leaves at once. QUIT starts a successor
//! with this process's sockets, and leaves like TERM once it serves.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use socket2::Socket;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::handover::{Handover, Inherited};
use crate::listen;
use crate::observe::access_log::AccessLog;
use crate::reload::{Reloader, folders};
use crate::request::rate_limit::Clock;
use crate::snapshot::Snapshot;
use crate::systemd;

/// An editor writes a file in several steps, and a deployment writes many files: wait for the last of them.
const SETTLE: Duration = Duration::from_millis(100);
/// But not for ever, when something writes without pause.
const SETTLE_AT_MOST: Duration = Duration::from_secs(2);
/// After a handover both processes accept for this long, so that busy keep-alive connections are closed with an answer
/// rather than under a request.
const OVERLAP: Duration = Duration::from_secs(2);
/// From the last client that may begin to connect to the last that is accepted: its handshake takes a round trip.
const QUEUE: Duration = Duration::from_millis(100);
/// How often a leaving daemon looks whether it is done.
const LOOK: Duration = Duration::from_millis(10);
/// A worker runtime that does not get a beat done in this time is taken for stuck; the watchdog is told no more.
const PULSE_PATIENCE: Duration = Duration::from_secs(10);
/// How often the memory of silent clients is given back.
const SWEEP: Duration = Duration::from_secs(60);

/// How Pingora is told to stop.
#[derive(Clone, Copy)]
pub enum ShutdownKind {
    Graceful,
    Fast,
}

/// All that the daemon's life hangs on.
pub struct Life {
    pub reloader: Reloader,
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    pub access_log: Arc<AccessLog>,
    /// Everything that this process listens on.
    pub sockets: Vec<(SocketAddr, Socket)>,
    /// The predecessor that waits to be told to go.
    pub inherited: Option<Inherited>,
    pub leaving: Arc<AtomicBool>,
    /// Clients connected.
    pub connections: Arc<AtomicUsize>,
    /// Beats as long as the workers do.
    pub pulse: Arc<AtomicU64>,
    pub stop: watch::Sender<Option<ShutdownKind>>,
    pub server_ended: Box<dyn Fn() -> bool>,
}

/// Why the daemon leaves.
enum Leave {
    /// A successor serves already.
    Succeeded,
    Asked,
    AtOnce,
}

/// Lives until it is time to go.
///
/// # Errors
/// When signals cannot be listened to, or Pingora's server has ended by itself.
pub fn run(life: Life, control: Control) -> io::Result<()> {
    let Control { runtime, mut signals } = control;
    runtime.block_on(async {
        let (life, reason) = serve(life, &mut signals).await?;
        leave(life, &reason, &mut signals).await;
        Ok(())
    })
}

/// What listens to signals. Made before anything is bound: whoever can connect can be sure that a HUP does not kill.
pub struct Control {
    runtime: tokio::runtime::Runtime,
    signals: Signals,
}

impl Control {
    /// Listens to signals from here on.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _runtime = runtime.enter();
            Signals::new()?
        };
        Ok(Self { runtime, signals })
    }
}

async fn serve(mut life: Life, signals: &mut Signals) -> io::Result<(Life, Leave)> {
    let (changed, mut changes) = mpsc::channel(1);
    let mut files = Files::new(changed);
    files.watch(&life.reloader);
    let note = serving(&life);
    log::info!("{note}");
    systemd::ready(&note);
    if let Some(predecessor) = life.inherited.take() {
        predecessor.ready();
    }
    let mut watchdog = Watchdog::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut swept = Instant::now();
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => life.access_log.reopen(),
            Some(()) = changes.recv() => settle(&mut changes).await,
            _ = signals.terminate.recv() => return Ok((life, Leave::Asked)),
            _ = signals.interrupt.recv() => return Ok((life, Leave::AtOnce)),
            _ = signals.quit.recv() => {
                match succeed(&mut life, signals).await? {
                    Some(reason) => return Ok((life, reason)),
                    None => continue,
                }
            }
            _ = tick.tick() => {
                if (life.server_ended)() {
                    return Err(io::Error::other("the server ended by itself; its own log lines say why"));
                }
                watchdog.look(&life.pulse);
                if swept.elapsed() >= SWEEP {
                    swept = Instant::now();
                    life.reloader.lasting().limiters.retain_used(Clock::now());
                }
                continue;
            }
        }
        systemd::reloading();
        life = reload(life).await?;
        files.watch(&life.reloader);
        systemd::ready(&serving(&life));
    }
}

/// Reloads on a thread that may block: a hundred thousand proxies take a moment.
async fn reload(life: Life) -> io::Result<Life> {
    let Life {
        mut reloader,
        snapshots,
        access_log,
        sockets,
        inherited,
        leaving,
        connections,
        pulse,
        stop,
        server_ended,
    } = life;
    let reloader = tokio::task::spawn_blocking(move || {
        reloader.reload();
        reloader
    })
    .await?;
    Ok(Life { reloader, snapshots, access_log, sockets, inherited, leaving, connections, pulse, stop, server_ended })
}

/// Waits until files have been quiet for a moment.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let quiet = async { while tokio::time::timeout(SETTLE, changes.recv()).await.is_ok_and(|more| more.is_some()) {} };
    let _ = tokio::time::timeout(SETTLE_AT_MOST, quiet).await; // something writes without pause: load what there is
}

/// Starts a successor. Why to leave now, if at all: it serves, or somebody has not waited for that.
async fn succeed(life: &mut Life, signals: &mut Signals) -> io::Result<Option<Leave>> {
    log::info!("starting a successor");
    systemd::status("starting a successor");
    let (handover, give_up) = Handover::new()?;
    let sockets = std::mem::take(&mut life.sockets);
    let mut starting = tokio::task::spawn_blocking(move || {
        let outcome = handover.run(&sockets);
        (sockets, outcome)
    });
    let asked = tokio::select! {
        biased;
        started = &mut starting => return Ok(settled(life, started?)),
        _ = signals.terminate.recv() => Leave::Asked,
        _ = signals.interrupt.recv() => Leave::AtOnce,
    };
    give_up.give_up();
    Ok(Some(settled(life, starting.await?).unwrap_or(asked)))
}

type Started = (Vec<(SocketAddr, Socket)>, io::Result<u32>);

/// Says how the start of a successor went.
fn settled(life: &mut Life, (sockets, outcome): Started) -> Option<Leave> {
    life.sockets = sockets;
    match outcome {
        Ok(pid) => {
            log::info!("process {pid} serves, leaving");
            systemd::succeeded_by(pid, &format!("process {pid} serves, successor of {}", std::process::id()));
            Some(Leave::Succeeded)
        }
        Err(error) => {
            log::error!("no successor: {error}; this process serves on");
            systemd::status(&format!("no successor: {error}; this process serves on"));
            None
        }
    }
}

async fn leave(mut life: Life, reason: &Leave, signals: &mut Signals) {
    if matches!(reason, Leave::AtOnce) {
        life.stop.send_replace(Some(ShutdownKind::Fast));
        return;
    }
    let succeeded = matches!(reason, Leave::Succeeded);
    // A successor has told the service manager about itself; what this process does is no news any more.
    if !succeeded {
        systemd::stopping("draining");
    }
    life.leaving.store(true, Ordering::Relaxed);
    let edge = Arc::clone(&life.snapshots.load().edge);
    let shutdown = &edge.shutdown;
    let lead = if succeeded { shutdown.lead.max(OVERLAP) } else { shutdown.lead };
    log::info!(
        "leaving: taking connections for {} s, then up to {} s for requests in flight",
        lead.as_secs(),
        shutdown.drain.as_secs()
    );
    let (sockets, connections) = (std::mem::take(&mut life.sockets), &life.connections);
    let drained = async {
        tokio::time::sleep(lead).await;
        // A successor serves whoever is queued. Without one nobody must be: closing the sockets resets them.
        if !succeeded {
            sockets.iter().for_each(|(_, socket)| listen::close_queue(socket));
            tokio::time::sleep(QUEUE).await;
        }
        // A listening socket that is open anywhere takes connections, whether anybody serves them or not.
        drop(sockets);
        life.stop.send_replace(Some(ShutdownKind::Graceful));
        drained(connections).await;
    };
    tokio::select! {
        _ = signals.interrupt.recv() => drop(life.stop.send_replace(Some(ShutdownKind::Fast))),
        () = tokio::time::sleep(lead + shutdown.drain) => log::warn!("{} clients are still connected, leaving all the same", life.connections.load(Ordering::Relaxed)),
        () = drained => {}
    }
}

/// Waits until no client is connected: idle connections are closed by Pingora, busy ones when they are done.
async fn drained(connections: &AtomicUsize) {
    while connections.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

fn serving(life: &Life) -> String {
    let snapshot = life.snapshots.load();
    let addresses: Vec<String> = snapshot.edge.listeners.iter().map(|listener| listener.address.to_string()).collect();
    format!(
        "region {}: serving {} proxies on {}, generation {}",
        snapshot.edge.region,
        snapshot.len(),
        addresses.join(", "),
        snapshot.generation
    )
}

/// Tells the service manager's watchdog that all is well, as long as it is.
struct Watchdog {
    every: Option<Duration>,
    last_beat: u64,
    beat_at: Instant,
    told_at: Instant,
}

impl Watchdog {
    fn new() -> Self {
        let now = Instant::now();
        // Twice as often as expected, as sd_watchdog_enabled(3) advises.
        Self { every: systemd::watchdog().map(|every| every / 2), last_beat: 0, beat_at: now, told_at: now }
    }

    fn look(&mut self, pulse: &AtomicU64) {
        let beat = pulse.load(Ordering::Relaxed);
        if beat != self.last_beat {
            (self.last_beat, self.beat_at) = (beat, Instant::now());
        }
        let stuck = self.beat_at.elapsed() > PULSE_PATIENCE;
        // This is called once a second: a shorter interval is told each time.
        if self.every.is_some_and(|every| self.told_at.elapsed() + Duration::from_secs(1) >= every) {
            if stuck {
                log::error!("the workers have been stuck for {} s", self.beat_at.elapsed().as_secs());
            } else {
                systemd::alive();
            }
            self.told_at = Instant::now();
        }
    }
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }
}

/// The files of the configuration, watched by their folders. Without a watcher the daemon still reloads on HUP.
struct Files {
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
    /// What the configuration consists of, for the watcher to tell it from its neighbours: a log in the same folder.
    relevant: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Files {
    fn new(changed: mpsc::Sender<()>) -> Self {
        let relevant = Arc::new(Mutex::new(HashSet::new()));
        let known = Arc::clone(&relevant);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files is an event too: reacting to it would never end.
            let changes = event.is_ok_and(|event| {
                let known = known.lock();
                !event.kind.is_access() && event.paths.iter().any(|path| concerns(&known, path))
            });
            if changes {
                let _ = changed.try_send(()); // one that waits already is enough
            }
        });
        let watcher = watcher.map_err(|error| log::warn!("files are not watched ({error}): send HUP to reload")).ok();
        Self { watcher, watched: Vec::new(), relevant }
    }

    fn watch(&mut self, reloader: &Reloader) {
        let Some(watcher) = &mut self.watcher else { return };
        let folders = folders(reloader.files());
        *self.relevant.lock() = reloader.files().map(real).collect();
        for gone in self.watched.iter().filter(|folder| !folders.contains(folder)) {
            let _ = watcher.unwatch(&real(gone)); // a folder that was removed is not watched any more
        }
        for new in folders.iter().filter(|folder| !self.watched.contains(folder)) {
            if let Err(error) = watcher.watch(&real(new), RecursiveMode::NonRecursive) {
                log::warn!("{} is not watched ({error}): send HUP to reload", new.display());
            }
        }
        self.watched = folders;
    }
}

/// Whether a change at `path` may change the configuration: one of its files, a fragment in its include folder, or a
/// symbolic link that stands for a whole folder of them (`..data`, by which Kubernetes swaps a volume).
fn concerns(relevant: &HashSet<PathBuf>, path: &Path) -> bool {
    let hidden_link = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
    let fragment = path.extension().is_some_and(|extension| extension == "yaml");
    let included = || path.parent().is_some_and(|folder| relevant.contains(folder));
    hidden_link || relevant.contains(path) || fragment && included()
}

/// The path by which the watcher reports: absolute, with the links of its folder resolved.
fn real(path: &(impl AsRef<Path> + ?Sized)) -> PathBuf {
    let path = path.as_ref();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}
