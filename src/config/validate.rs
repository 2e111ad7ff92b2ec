//! Links what the files say to each other: finds what an id means, applies accounts, plans and defaults, and builds the model.

use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;

use super::file::{Account, Defaults, Entry, Main, ProxyCredential, Written, WrittenLimit};
use super::model::{self, Billing, Config, Injection, Proof, RateLimit, Scope, Target, TargetCredential};
use super::problem::{Problem, closest, quoted};

/// Guessing compares with every id there is; after a few the reader knows what is going on.
const GUESSES: usize = 100;

/// One file of the configuration.
pub(super) struct File<'a> {
    pub name: &'a Arc<str>,
    pub written: &'a Written,
}

/// A problem and the position of its file.
pub(super) type Placed = (usize, Problem);

/// The model of what `files` say together, where nothing is wrong with it. Unless they are `complete`, an id that none of
/// them declares may well stand in one that could not be read, and is no problem of its own.
pub(super) fn link(main: &Main, files: &[File<'_>], complete: bool) -> Result<Config, Vec<Placed>> {
    let mut linker = Linker { files, complete, problems: Vec::new(), guesses: GUESSES };
    let accounts = linker.index("accounts", |written| &written.accounts);
    let targets = linker.index("targets", |written| &written.targets);
    let target_credentials = linker.index("target_credentials", |written| &written.target_credentials);
    let proxy_credentials = linker.proxy_credentials(&accounts, main.defaults);
    let proxies = linker.proxies(main.defaults, &targets, &target_credentials, &proxy_credentials);
    match &main.edge {
        Some(edge) if linker.problems.is_empty() => Ok(Config { edge: Arc::clone(edge), proxies }),
        _ => Err(linker.problems),
    }
}

/// What the ids of one list stand for, and where. `None`: something else is wrong with the entry.
type Index<'a, T> = AHashMap<&'a str, (Place, Option<T>)>;

struct Linker<'a> {
    files: &'a [File<'a>],
    complete: bool,
    problems: Vec<Placed>,
    guesses: usize,
}

/// An entry of a list of a file.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    list: &'static str,
    index: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list, self.index)
    }
}

impl<'a> Linker<'a> {
    /// The entries of one list of all files, by id.
    fn index<T>(&mut self, list: &'static str, entries: fn(&Written) -> &Vec<Entry<T>>) -> Index<'a, &'a T> {
        let mut index = self.empty_index(entries);
        for (place, entry) in self.entries(list, entries) {
            self.claim(&mut index, place, &entry.id, entry.item.as_ref());
        }
        index
    }

    fn empty_index<T, U>(&self, entries: fn(&Written) -> &Vec<Entry<T>>) -> Index<'a, U> {
        AHashMap::with_capacity(self.files.iter().map(|file| entries(file.written).len()).sum())
    }

    fn entries<T: 'a>(
        &self,
        list: &'static str,
        entries: fn(&Written) -> &Vec<Entry<T>>,
    ) -> impl Iterator<Item = (Place, &'a Entry<T>)> + use<'a, T> {
        let files = self.files.iter().enumerate();
        files.flat_map(move |(file, source)| {
            entries(source.written).iter().map(move |entry| (Place { file, list, index: entry.index }, entry))
        })
    }

    /// Gives `id` to the entry at `place`, unless an earlier one has it.
    fn claim<T>(&mut self, index: &mut Index<'a, T>, place: Place, id: &'a str, item: Option<T>) {
        let Some((first, _)) = index.get(id) else {
            index.insert(id, (place, item));
            return;
        };
        let name = &self.files[first.file].name;
        let message = format!("{} is the id of `{first}` in {name} too; write another id", quoted(id));
        self.problem(place, "id", message);
    }

    fn problem(&mut self, place: Place, key: impl fmt::Display, message: String) {
        let file = Arc::clone(self.files[place.file].name);
        self.problems.push((place.file, Problem { file, path: format!("{place}.{key}"), message }));
    }

    /// What `id` stands for in `index`, whose entries are each `what`.
    fn resolve<T: Clone>(
        &mut self,
        index: &Index<'_, T>,
        id: &str,
        (what, list): (&str, &str),
        place: Place,
        key: impl fmt::Display,
    ) -> Option<T> {
        if let Some((_, found)) = index.get(id) {
            return found.clone();
        }
        if !self.complete {
            return None;
        }
        self.guesses = self.guesses.saturating_sub(1);
        let guess = if self.guesses > 0 { closest_id(id, index) } else { None };
        let advice = match guess {
            Some(guess) => format!("did you mean {}?", quoted(guess)),
            None => format!("add it to `{list}`, or write the id of one that is there"),
        };
        self.problem(place, key, format!("{} is not {what}; {advice}", quoted(id)));
        None
    }

    fn proxy_credentials(
        &mut self,
        accounts: &Index<'_, &Account>,
        defaults: Defaults,
    ) -> Index<'a, Arc<model::ProxyCredential>> {
        let mut index = self.empty_index(|written| &written.proxy_credentials);
        for (place, entry) in self.entries("proxy_credentials", |written| &written.proxy_credentials) {
            let credential = entry.item.as_ref().and_then(|written| {
                let account = match &written.account {
                    Some(id) => Some(self.resolve(accounts, id, ("an account", "accounts"), place, "account")?),
                    None => None,
                };
                Some(Arc::new(proxy_credential(&entry.id, written, account, defaults)))
            });
            self.claim(&mut index, place, &entry.id, credential);
        }
        index
    }

    fn proxies(
        &mut self,
        defaults: Defaults,
        targets: &Index<'_, &Arc<Target>>,
        target_credentials: &Index<'_, &Arc<TargetCredential>>,
        proxy_credentials: &Index<'_, Arc<model::ProxyCredential>>,
    ) -> Vec<Arc<model::Proxy>> {
        let (injection, scope) = (Injection::default(), Scope::default());
        let none = Arc::new(TargetCredential { id: "none".into(), injection, expose: false, scope });
        let mut ids = self.empty_index(|written| &written.proxies);
        let mut proxies = Vec::with_capacity(ids.capacity());
        for (place, entry) in self.entries("proxies", |written| &written.proxies) {
            self.claim(&mut ids, place, &entry.id, Some(()));
            let Some(written) = &entry.item else { continue };
            let target = self.resolve(targets, &written.target, ("a target", "targets"), place, "target");
            let target_credential = match &written.target_credential {
                Some(id) => {
                    let what = ("a target credential", "target_credentials");
                    self.resolve(target_credentials, id, what, place, "target_credential")
                }
                None => Some(&none),
            };
            let clients: Vec<_> = written
                .proxy_credentials
                .iter()
                .enumerate()
                .map(|(index, id)| {
                    let what = ("a proxy credential", "proxy_credentials");
                    self.resolve(proxy_credentials, id, what, place, format_args!("proxy_credentials[{index}]"))
                })
                .collect();
            self.tell_apart(place, &clients);
            let (Some(target), Some(target_credential)) = (target, target_credential) else { continue };
            proxies.push(Arc::new(model::Proxy {
                id: entry.id.clone(),
                active: written.active,
                target: Arc::clone(target),
                target_credential: Arc::clone(target_credential),
                proxy_credentials: clients.into_iter().flatten().collect(),
                timeout: written.timeout.unwrap_or(defaults.timeout),
                connect_timeout: written.connect_timeout.unwrap_or(defaults.connect_timeout),
                max_response_body: written.max_response_body.unwrap_or(defaults.max_response_body),
                max_request_body: written.max_request_body.unwrap_or(defaults.max_request_body),
                response: written.response.unwrap_or(defaults.response),
                stream_idle_timeout: written.stream_idle_timeout.unwrap_or(defaults.stream_idle_timeout),
                rate_limit_headers: written.rate_limit_headers,
                scope: written.scope.clone(),
            }));
        }
        proxies
    }

    /// Of two equal credentials the wrong one may be taken for the caller, with its account and its limits.
    fn tell_apart(&mut self, place: Place, clients: &[Option<Arc<model::ProxyCredential>>]) {
        if clients.len() < 2 {
            return;
        }
        let mut seen: AHashMap<(u8, u64), Vec<&model::ProxyCredential>> = AHashMap::new();
        for (index, client) in clients.iter().enumerate() {
            let Some(client) = client.as_deref() else { continue };
            let same = seen.entry(key_of(&client.proof)).or_default();
            if let Some(other) =
                same.iter().find(|other| std::ptr::eq(**other, client) || equal(&other.proof, &client.proof))
            {
                let message = if other.id == client.id {
                    format!("{} stands in this list twice; remove one of them", quoted(&client.id))
                } else {
                    let (one, other) = (quoted(&client.id), quoted(&other.id));
                    format!(
                        "{one} has the same type and secret as {other}; remove one of them, or give it another secret"
                    )
                };
                self.problem(place, format_args!("proxy_credentials[{index}]"), message);
            }
            same.push(client);
        }
    }
}

fn proxy_credential(
    id: &str,
    written: &ProxyCredential,
    account: Option<&Account>,
    defaults: Defaults,
) -> model::ProxyCredential {
    model::ProxyCredential {
        id: id.into(),
        active: written.active,
        expires_at: written.expires_at,
        billing: account.map_or(Billing::Active, |account| account.billing),
        account: written.account.clone(),
        rate_limit: rate_limit(written.rate_limit, account, defaults),
        proof: written.proof.clone(),
        scope: written.scope.clone(),
    }
}

/// A credential's own limit goes before its account's; without an account, the default plan holds.
pub(super) fn rate_limit(own: WrittenLimit, account: Option<&Account>, defaults: Defaults) -> RateLimit {
    let plan = account
        .map_or(WrittenLimit { per_minute: Some(defaults.per_minute), per_day: None }, |account| account.rate_limit);
    RateLimit {
        per_minute: own.per_minute.or(plan.per_minute).unwrap_or(defaults.per_minute),
        per_day: own.per_day.or(plan.per_day),
    }
}

fn closest_id<'i, T>(id: &str, index: &Index<'i, T>) -> Option<&'i str> {
    let mut ids: Vec<&str> = index.keys().copied().collect();
    ids.sort_unstable(); // of two that are as close, always the same
    closest(id, ids)
}

/// Equal for equal proofs, and seldom for others.
fn key_of(proof: &Proof) -> (u8, u64) {
    match proof {
        Proof::ApiKey(digest) => (0, digest.prefix()),
        Proof::Bearer(digest) => (1, digest.prefix()),
        Proof::Basic { password, .. } => (2, password.prefix()),
        Proof::Jwt(digest) => (3, digest.prefix()),
        Proof::JwtVerify(_) => (4, 0),
    }
}

fn equal(one: &Proof, other: &Proof) -> bool {
    match (one, other) {
        (Proof::ApiKey(one), Proof::ApiKey(other))
        | (Proof::Bearer(one), Proof::Bearer(other))
        | (Proof::Jwt(one), Proof::Jwt(other)) => one.matches(other),
        (Proof::Basic { username: one, password }, Proof::Basic { username: other, password: same }) => {
            one == other && password.matches(same)
        }
        _ => false,
    }
}
