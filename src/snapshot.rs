//! One generation at run time: built whole from a [`Config`], swapped whole, never changed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::model::{Config, Edge, Listener, Proxy, ProxyCredential, TargetHost};
use crate::observe::traffic::Traffic;
use crate::request::credential::Keyring;
use crate::request::guesses::Guesses;
use crate::request::rate_limit::{Limiter, Limiters};
use crate::response::budget::Budget;
use crate::tls::ServerTls;
use crate::upstream::dns::{Name, Resolver};
use crate::upstream::peer::Peers;

/// What lives across generations: a reload forgets no count, no answer of a name server, no byte that is held.
pub struct Lasting {
    pub limiters: Limiters,
    pub guesses: Guesses,
    pub resolver: Arc<Resolver>,
    pub held: Arc<Budget>,
}

/// Everything a request needs to know, as of one moment.
pub struct Snapshot {
    /// Counts up from 1 with every reload that was taken.
    pub generation: u64,
    pub edge: Arc<Edge>,
    pub listeners: Arc<Listeners>,
    proxies: HashMap<Box<[u8]>, Arc<Entry>, ahash::RandomState>,
}

/// One proxy, with all that can be prepared for its requests.
pub struct Entry {
    pub proxy: Arc<Proxy>,
    pub keyring: Keyring,
    pub peers: Peers,
    /// The target's name to resolve; `None` where the target is an address.
    pub name: Option<Arc<Name>>,
    /// What has gone through since the start.
    pub traffic: Arc<Traffic>,
    /// One per proxy credential, ordered by the credential's place in memory, which is the same for all of its proxies.
    limiters: Box<[(usize, Arc<Limiter>)]>,
}

impl Snapshot {
    /// Builds the generation of `config` that follows `before`, with the state that it inherits from `lasting`.
    pub fn build(config: Config, before: Option<&Self>, lasting: &Lasting) -> Self {
        lasting.held.resize(config.edge.held_responses_memory);
        let listeners = Listeners::new(&config.edge, before.map(|before| &*before.listeners));
        let proxies = config
            .proxies
            .into_iter()
            .map(|proxy| {
                let entry = Entry::new(proxy, before, &config.edge, lasting);
                (entry.proxy.id.as_bytes().into(), Arc::new(entry))
            })
            .collect();
        let generation = before.map_or(1, |before| before.generation + 1);
        Self { generation, edge: config.edge, listeners: Arc::new(listeners), proxies }
    }

    /// All proxies, in no order.
    pub fn proxies(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.proxies.values()
    }

    /// The proxy of this id, active or not.
    pub fn proxy(&self, id: &[u8]) -> Option<&Arc<Entry>> {
        self.proxies.get(id)
    }

    /// How many proxies there are.
    pub fn len(&self) -> usize {
        self.proxies.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.proxies.is_empty()
    }
}

/// Where clients connect, with the TLS that is spoken there.
pub struct Listeners(Vec<(Listener, Option<Arc<ServerTls>>)>);

impl Listeners {
    fn new(edge: &Edge, before: Option<&Self>) -> Self {
        let with_tls = |listener: &Listener| {
            let before = before.and_then(|before| before.of(&listener.address)?.1);
            let tls = listener.tls.as_ref().map(|tls| ServerTls::build(tls, before));
            (listener.clone(), tls)
        };
        Self(edge.listeners.iter().map(with_tls).collect())
    }

    /// The listener that a connection to `local` came in by, and its TLS.
    pub fn of(&self, local: &SocketAddr) -> Option<(&Listener, Option<&Arc<ServerTls>>)> {
        self.iter().find(|(listener, _)| {
            let (address, any) = (listener.address, listener.address.ip().is_unspecified());
            address.port() == local.port()
                && (address.ip() == local.ip() || any && address.is_ipv4() == local.is_ipv4())
        })
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&Listener, Option<&Arc<ServerTls>>)> {
        self.0.iter().map(|(listener, tls)| (listener, tls.as_ref()))
    }
}

impl Entry {
    fn new(proxy: Arc<Proxy>, before: Option<&Snapshot>, edge: &Edge, lasting: &Lasting) -> Self {
        let before = before.and_then(|before| before.proxy(proxy.id.as_bytes()));
        let name = match &proxy.target.host {
            TargetHost::Address(_) => None,
            TargetHost::Name(name) => Some(lasting.resolver.name(name, edge.dns.max_stale)),
        };
        let limiter = |credential: &Arc<ProxyCredential>| (place(credential), lasting.limiters.limiter(&credential.id));
        let mut limiters: Box<[_]> = proxy.proxy_credentials.iter().map(limiter).collect();
        limiters.sort_unstable_by_key(|(place, _)| *place);
        Self {
            keyring: Keyring::new(&proxy.proxy_credentials),
            peers: Peers::new(&proxy.target, &proxy.target_credential, edge.pool.idle_timeout),
            name,
            traffic: before.map(|before| Arc::clone(&before.traffic)).unwrap_or_default(),
            limiters,
            proxy,
        }
    }

    /// The limiter of one of this proxy's credentials.
    pub fn limiter(&self, credential: &Arc<ProxyCredential>) -> &Arc<Limiter> {
        let found = self.limiters.binary_search_by_key(&place(credential), |(place, _)| *place);
        &self.limiters[found.expect("a keyring holds only credentials of its own proxy")].1
    }
}

fn place(credential: &Arc<ProxyCredential>) -> usize {
    Arc::as_ptr(credential).addr()
}
