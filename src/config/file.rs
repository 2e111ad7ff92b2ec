//! A configuration file as written: every value read and checked by itself, other entries referred to by their ids.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::model::{Billing, Edge, Proof, ResponseMode, Scope, Target, TargetCredential};

/// All that one file says.
#[derive(Default)]
pub(super) struct Written {
    /// What only the main file may say.
    pub main: Option<Main>,
    pub accounts: Vec<Entry<Account>>,
    pub proxy_credentials: Vec<Entry<ProxyCredential>>,
    pub target_credentials: Vec<Entry<Arc<TargetCredential>>>,
    pub targets: Vec<Entry<Arc<Target>>>,
    pub proxies: Vec<Entry<Proxy>>,
}

/// The main file, but for its lists.
pub(super) struct Main {
    /// `None`: something is wrong with it.
    pub edge: Option<Arc<Edge>>,
    pub defaults: Defaults,
    pub include: Option<Include>,
}

/// Where the fragments are.
pub(super) struct Include {
    /// As written.
    pub name: String,
    pub folder: PathBuf,
}

/// What holds for proxies and credentials that say nothing else.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    pub per_minute: u32,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub max_response_body: u64,
    pub max_request_body: u64,
    pub stream_idle_timeout: Duration,
    pub response: ResponseMode,
}

/// One entry of a list. Its id is known even where something else of it is wrong, so that references to it hold.
pub(super) struct Entry<T> {
    pub index: usize,
    pub id: Box<str>,
    pub item: Option<T>,
}

pub(super) struct Account {
    pub billing: Billing,
    pub rate_limit: WrittenLimit,
}

/// A limit of which parts may come from elsewhere.
#[derive(Clone, Copy, Default)]
pub(super) struct WrittenLimit {
    pub per_minute: Option<u32>,
    pub per_day: Option<u64>,
}

pub(super) struct ProxyCredential {
    pub account: Option<Box<str>>,
    pub active: bool,
    pub expires_at: Option<SystemTime>,
    pub rate_limit: WrittenLimit,
    pub proof: Proof,
    pub scope: Scope,
}

pub(super) struct Proxy {
    pub target: Box<str>,
    pub target_credential: Option<Box<str>>,
    pub proxy_credentials: Box<[Box<str>]>,
    pub active: bool,
    pub timeout: Option<Duration>,
    pub connect_timeout: Option<Duration>,
    pub max_response_body: Option<u64>,
    pub max_request_body: Option<u64>,
    pub stream_idle_timeout: Option<Duration>,
    pub response: Option<ResponseMode>,
    pub rate_limit_headers: bool,
    pub scope: Scope,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            per_minute: BASIC_PER_MINUTE,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            max_response_body: 6 << 20,
            max_request_body: 10 << 20,
            stream_idle_timeout: Duration::from_secs(60),
            response: ResponseMode::Held,
        }
    }
}

/// Requests per minute on the plan `basic`.
pub(super) const BASIC_PER_MINUTE: u32 = 100;

/// Requests per minute on the plan `team`.
pub(super) const TEAM_PER_MINUTE: u32 = 1_000;
