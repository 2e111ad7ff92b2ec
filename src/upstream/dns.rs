//! Names of targets: resolved off the request path, refreshed by TTL, the last good answer kept for a bounded time.
//!
//! A name that is in use is looked up again shortly before its answer expires, by a task of its own; a request waits only
//! for a name's first answer. When name servers fail, the last good answer serves on for `dns.max_stale`, and no longer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::model::Dns;

/// Answers are used for at least this long, whatever their TTL: a TTL of 0 is no licence for a query per request.
const MIN_TTL: Duration = Duration::from_secs(1);
/// And for at most this long: a TTL of weeks is a mistake that nobody can take back.
const MAX_TTL: Duration = Duration::from_secs(3600);
/// One lookup, all retries to all servers included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);
/// A failed lookup is not repeated within this time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a request waits for a new answer while it has an old one that may still serve.
const STALE_PATIENCE: Duration = Duration::from_millis(300);

/// The name has no address that can be used now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unresolved;

/// Looks names up and remembers them over reloads.
pub struct Resolver {
    lookup: TokioResolver,
    names: Mutex<HashMap<Box<str>, Arc<Name>>>,
}

/// One name, shared by all targets that have it.
pub struct Name {
    name: Box<str>,
    /// In milliseconds; a reload may change it.
    max_stale: AtomicU64,
    answer: ArcSwapOption<Answer>,
    failed_at: Mutex<Option<Instant>>,
    /// Asked for since the last lookup.
    used: AtomicBool,
    /// Whether a task looks after this name.
    tended: AtomicBool,
    looked_up: Notify,
}

/// A name's addresses.
pub struct Answer {
    addresses: Box<[IpAddr]>,
    fresh_until: Instant,
    next: AtomicUsize,
}

impl Answer {
    /// The addresses, beginning with another one each time.
    pub fn rotated(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let start = self.next.fetch_add(1, Ordering::Relaxed) % self.addresses.len();
        let (before, from) = self.addresses.split_at(start);
        from.iter().chain(before).copied()
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now < self.fresh_until
    }
}

impl Resolver {
    /// A resolver that asks `dns.servers`, or those of the system.
    ///
    /// # Errors
    /// When the system's resolver configuration cannot be read.
    pub fn new(dns: &Dns) -> Result<Self, NetError> {
        let mut builder = if dns.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = dns.servers.iter().map(|server| name_server(*server)).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        tune(builder.options_mut());
        Ok(Self { lookup: builder.build()?, names: Mutex::default() })
    }

    /// The state of `name`: the one it already has, where it is known.
    pub fn name(&self, name: &str, max_stale: Duration) -> Arc<Name> {
        let mut names = self.names.lock();
        let max_stale = u64::try_from(max_stale.as_millis()).unwrap_or(u64::MAX);
        if let Some(known) = names.get(name) {
            known.max_stale.store(max_stale, Ordering::Relaxed);
            return Arc::clone(known);
        }
        let new = Arc::new(Name {
            name: name.into(),
            max_stale: AtomicU64::new(max_stale),
            answer: ArcSwapOption::empty(),
            failed_at: Mutex::new(None),
            used: AtomicBool::new(false),
            tended: AtomicBool::new(false),
            looked_up: Notify::new(),
        });
        names.insert(name.into(), Arc::clone(&new));
        new
    }

    /// Forgets names that no target has any more.
    pub fn forget_unused(&self) {
        self.names.lock().retain(|_, name| Arc::strong_count(name) > 1);
    }

    /// The addresses of `name`. Waits only where there is no answer yet or the one there is has expired; the caller bounds
    /// the wait.
    ///
    /// # Errors
    /// When there is no address, or no name server that says so.
    pub async fn addresses(self: &Arc<Self>, name: &Arc<Name>) -> Result<Arc<Answer>, Unresolved> {
        name.used.store(true, Ordering::SeqCst);
        if let Some(fresh) = name.fresh() {
            return Ok(fresh);
        }
        let wait = name.looked_up.notified();
        tokio::pin!(wait);
        wait.as_mut().enable();
        self.tend(name);
        match (name.stale(), name.failed_lately()) {
            (Some(stale), true) => return Ok(stale),
            (None, true) => return Err(Unresolved),
            (Some(_), false) => drop(tokio::time::timeout(STALE_PATIENCE, wait).await),
            (None, false) => wait.await,
        }
        name.fresh().or_else(|| name.stale()).ok_or(Unresolved)
    }

    /// Sees to it that a task looks after `name` while it is in use.
    fn tend(self: &Arc<Self>, name: &Arc<Name>) {
        if name.tended.swap(true, Ordering::SeqCst) {
            return;
        }
        let (resolver, name) = (Arc::clone(self), Arc::clone(name));
        tokio::spawn(async move {
            loop {
                name.used.store(false, Ordering::SeqCst);
                let pause = resolver.look_up(&name).await;
                name.looked_up.notify_waiters();
                tokio::time::sleep(pause).await;
                if !name.used.load(Ordering::SeqCst) {
                    name.tended.store(false, Ordering::SeqCst);
                    // A request that came in between saw a tended name and waits for this task.
                    if !name.used.load(Ordering::SeqCst) || name.tended.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
            }
        });
    }

    /// One lookup. Says when the next one is due.
    async fn look_up(&self, name: &Name) -> Duration {
        let outcome = tokio::time::timeout(LOOKUP_TIMEOUT, self.lookup.lookup_ip(&*name.name)).await;
        let now = Instant::now();
        let problem = match outcome {
            Ok(Ok(found)) => {
                let addresses: Box<[IpAddr]> = found.iter().collect();
                if !addresses.is_empty() {
                    let ttl = found.valid_until().saturating_duration_since(now).clamp(MIN_TTL, MAX_TTL);
                    let next = AtomicUsize::new(0);
                    name.answer.store(Some(Arc::new(Answer { addresses, fresh_until: now + ttl, next })));
                    *name.failed_at.lock() = None;
                    // A tenth early, so that nobody ever meets an expired answer of a name in use.
                    return ttl.mul_f32(0.9);
                }
                "no addresses".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        let first = name.failed_at.lock().replace(now).is_none();
        if first {
            log::warn!("target name {} cannot be resolved: {problem}", name.name);
        }
        RETRY_PAUSE
    }
}

impl Name {
    /// The addresses that are used now, and in which state they are: `ok`, `stale`, `unresolved` or `unused`.
    pub fn seen(&self) -> (Vec<IpAddr>, &'static str) {
        let addresses = |answer: &Answer| answer.addresses.to_vec();
        match (self.fresh(), self.stale(), self.failed_at.lock().is_some()) {
            (Some(fresh), ..) => (addresses(&fresh), "ok"),
            (None, Some(stale), true) => (addresses(&stale), "stale"),
            (None, Some(_), false) | (None, None, false) => (Vec::new(), "unused"),
            (None, None, true) => (Vec::new(), "unresolved"),
        }
    }

    fn fresh(&self) -> Option<Arc<Answer>> {
        self.answer.load_full().filter(|answer| answer.is_fresh(Instant::now()))
    }

    /// An expired answer within its grace.
    fn stale(&self) -> Option<Arc<Answer>> {
        let max_stale = Duration::from_millis(self.max_stale.load(Ordering::Relaxed));
        self.answer.load_full().filter(|answer| Instant::now() < answer.fresh_until + max_stale)
    }

    fn failed_lately(&self) -> bool {
        self.failed_at.lock().is_some_and(|at| at.elapsed() < RETRY_PAUSE)
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

fn tune(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Answers are remembered here, by name; a second cache below would only blur their age.
    options.cache_size = 0;
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
}
