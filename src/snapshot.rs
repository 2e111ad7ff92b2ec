//! One generation at run time: built whole from a [`Config`], swapped whole, never changed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::{Config, Edge, Proxy, ProxyCredential, TargetHost};
use crate::request::credential::Keyring;
use crate::request::rate_limit::{Limiter, Limiters};
use crate::response::hold::Budget;
use crate::upstream::dns::{Name, Resolver};
use crate::upstream::peer::Peers;

/// What lives across generations: a reload forgets no count, no answer of a name server, no byte that is held.
pub struct Lasting {
    pub limiters: Limiters,
    pub resolver: Arc<Resolver>,
    pub held: Arc<Budget>,
}

/// Everything a request needs to know, as of one moment.
pub struct Snapshot {
    /// Counts up from 1 with every reload that was taken.
    pub generation: u64,
    pub edge: Arc<Edge>,
    proxies: HashMap<Box<[u8]>, Arc<Entry>, ahash::RandomState>,
}

/// One proxy, with all that can be prepared for its requests.
pub struct Entry {
    pub proxy: Arc<Proxy>,
    pub keyring: Keyring,
    pub peers: Peers,
    /// The target's name to resolve; `None` where the target is an address.
    pub name: Option<Arc<Name>>,
    /// One per proxy credential, ordered by the credential's place in memory, which is the same for all of its proxies.
    limiters: Box<[(usize, Arc<Limiter>)]>,
}

impl Snapshot {
    /// Builds the generation `generation` of `config`, with the state that it inherits from `lasting`.
    pub fn build(config: Config, generation: u64, lasting: &Lasting) -> Self {
        lasting.held.resize(config.edge.held_responses_memory);
        let proxies = config
            .proxies
            .into_iter()
            .map(|proxy| (proxy.id.as_bytes().into(), Arc::new(Entry::new(proxy, &config.edge, lasting))))
            .collect();
        Self { generation, edge: config.edge, proxies }
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

impl Entry {
    fn new(proxy: Arc<Proxy>, edge: &Edge, lasting: &Lasting) -> Self {
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
