//! The configuration as the program needs it: parsed, checked, linked. Nothing here is left to validate.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use jsonwebtoken::{Algorithm, DecodingKey};
use regex::bytes::Regex;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::secret::Digest;

/// One whole configuration.
pub struct Config {
    /// What `edge.yaml` says of the daemon itself.
    pub edge: Arc<Edge>,
    /// Every proxy, in the order of the files.
    pub proxies: Vec<Arc<Proxy>>,
}

/// The daemon: where it listens, whom it trusts, what it allows.
pub struct Edge {
    /// The region's name: in logs, in `Via` and in `Proxy-Status`. A token of RFC 9110.
    pub region: Box<str>,
    /// Worker threads, at least 1 (`0` in the file is resolved to the number of cores).
    pub threads: usize,
    /// Where clients connect. Not empty.
    pub listeners: Vec<Listener>,
    /// Peers whose `X-Forwarded-For` is believed and appended to.
    pub trusted_proxies: Vec<IpNet>,
    /// Where operators look. `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Names that the operators' listener answers to, beside addresses and `localhost`.
    pub admin_hosts: Vec<Box<str>>,
    /// Whether a target may resolve to loopback, private, link-local or metadata addresses.
    pub allow_private_targets: bool,
    /// Bytes that all held responses together may take.
    pub held_responses_memory: u64,
    /// What one client may take of the daemon.
    pub limits: ClientLimits,
    /// How the daemon goes.
    pub shutdown: Shutdown,
    /// How target connections are kept.
    pub pool: Pool,
    /// How names of targets are resolved.
    pub dns: Dns,
    /// Where the access log goes.
    pub access_log: AccessLog,
}

impl Edge {
    /// Whether `peer` is a proxy whose word about its client is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

/// One address that clients connect to.
#[derive(Clone)]
pub struct Listener {
    /// The address; its port is never 0.
    pub address: SocketAddr,
    /// Whether HTTP/2 with prior knowledge is taken on this plain-text listener (`http2: cleartext`).
    pub http2_cleartext: bool,
    /// Whether every connection begins with a PROXY protocol header, from a trusted proxy (`proxy_protocol: true`).
    pub proxy_protocol: bool,
    /// Certificates, when the listener speaks TLS.
    pub tls: Option<Arc<ListenerTls>>,
}

/// Certificates of a TLS listener: chosen by SNI, the first one is the default.
pub struct ListenerTls {
    /// Not empty.
    pub certificates: Vec<ListenerCertificate>,
    /// Roots of the certificates that clients must show. `None`: they show none.
    pub client_ca: Option<Arc<[CertificateDer<'static>]>>,
    /// Changes whenever any certificate here changes.
    pub fingerprint: u64,
}

/// A certificate of a listener with its key, checked to belong together.
#[derive(Clone)]
pub struct ListenerCertificate {
    /// The chain's file, as configured.
    pub file: Box<str>,
    pub key: Arc<CertifiedKey>,
}

/// What one client may take.
pub struct ClientLimits {
    /// The whole request header must arrive within this time. Also bounds the wait for the first one.
    pub header_timeout: Duration,
    /// How long an idle connection is kept between two requests.
    pub keepalive_timeout: Duration,
    /// Longest silence while a request body is being sent; then 408.
    pub body_timeout: Duration,
    /// Longest wait for a client to take a piece of an answer.
    pub write_timeout: Duration,
    /// Requests on one connection before it is closed.
    pub requests_per_connection: u32,
    /// Bytes of all header fields together.
    pub max_header_bytes: usize,
    /// Number of header fields.
    pub max_headers: usize,
    /// Requests under way at once in the whole daemon; one more gets 503.
    pub max_requests_in_flight: usize,
    /// Connections of clients at once; one more is closed.
    pub max_connections: usize,
    /// Connections of one address (of one /64 in IPv6) at once; trusted proxies have no such limit. 0: any number.
    pub max_connections_per_client: usize,
    /// Invalid credentials that one address may show within a minute before all of its requests are refused until the
    /// minute is over. 0: any number.
    pub invalid_credentials_per_minute: u32,
    /// Concurrent streams of one HTTP/2 connection.
    pub http2_max_streams: u32,
}

/// How the daemon goes when it is asked to (TERM).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shutdown {
    /// How long it goes on accepting connections while `/readyz` says 503 already: load balancers need to notice. At most 10 min.
    pub lead: Duration,
    /// How long requests under way may take after that. From 1 s to 10 min.
    pub drain: Duration,
}

/// How target connections are kept.
pub struct Pool {
    /// How long an idle connection to a target is kept. Below the targets' own idle time, or a POST meets a dead connection.
    pub idle_timeout: Duration,
    /// Idle connections kept in all.
    pub max_idle: usize,
}

/// How target names are resolved.
pub struct Dns {
    /// Name servers; empty: those of the system.
    pub servers: Vec<SocketAddr>,
    /// How long the last good answer is used beyond its TTL when no new one can be had.
    pub max_stale: Duration,
}

/// Where access-log lines go.
#[derive(Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, opened for appending.
    File(PathBuf),
}

/// A proxy: one `proxyId`, fully linked and with all defaults applied.
pub struct Proxy {
    pub id: Box<str>,
    pub active: bool,
    pub target: Arc<Target>,
    pub target_credential: Arc<TargetCredential>,
    /// Not empty.
    pub proxy_credentials: Box<[Arc<ProxyCredential>]>,
    /// Total time for the target's answer. At most 60 s.
    pub timeout: Duration,
    /// One TCP connect plus TLS handshake.
    pub connect_timeout: Duration,
    /// Bytes of response body that pass; one more does not.
    pub max_response_body: u64,
    /// Bytes of request body that pass; one more does not.
    pub max_request_body: u64,
    pub response: ResponseMode,
    /// Longest silence within a streamed response or a WebSocket tunnel.
    pub stream_idle_timeout: Duration,
    /// Whether admitted answers carry `RateLimit` and `RateLimit-Policy`.
    pub rate_limit_headers: bool,
    pub scope: Scope,
}

/// How a response of unknown length is passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseMode {
    /// Kept until it ends or exceeds the limit, then sent whole with its exact length.
    Held,
    /// Passed on as it comes, cut at the limit.
    Streamed,
}

/// Where a proxy forwards to.
pub struct Target {
    pub id: Box<str>,
    pub tls: Option<TargetTls>,
    pub host: TargetHost,
    pub port: u16,
    /// `Host` / `:authority`: with the port only where it is not the scheme's own.
    pub host_header: HeaderValue,
    /// Base path without a trailing slash: empty or `/...`.
    pub base_path: Box<str>,
    pub http: TargetHttp,
    pub scope: Scope,
}

/// A target's host: an address, or a name to resolve.
pub enum TargetHost {
    Address(IpAddr),
    /// Lower case, without a trailing dot.
    Name(Box<str>),
}

/// TLS towards a target. Certificates and host names are always verified.
pub struct TargetTls {
    /// Name sent as SNI and verified; for an address target, the address's text.
    pub server_name: Box<str>,
    /// Roots that replace the system's. `None`: the system's.
    pub ca: Option<Arc<[CertificateDer<'static>]>>,
    /// Certificate chain and key that the edge shows.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// Changes whenever `ca` or `client_certificate` change: keeps connections of different settings apart.
    pub fingerprint: u64,
}

/// A certificate chain with its key, checked to belong together.
pub struct ClientCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// HTTP version spoken to a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetHttp {
    /// HTTP/2 where ALPN agrees on it, HTTP/1.1 otherwise; HTTP/1.1 without TLS.
    Auto,
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    Http2,
}

/// What is put in the place of the client's credential.
pub struct TargetCredential {
    pub id: Box<str>,
    pub injection: Injection,
    /// Whether the target may send it back in the header of an answer.
    pub expose: bool,
    pub scope: Scope,
}

/// The parts of a request that carry a target credential. Values are marked sensitive.
#[derive(Default)]
pub struct Injection {
    /// Headers to set; whatever the client sent under these names is overwritten.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Query parameter to set.
    pub query: Option<QueryInjection>,
}

/// A credential in a query parameter.
pub struct QueryInjection {
    /// The name, decoded, to find what the client sent there.
    pub name: Box<str>,
    /// `name=value`, percent-encoded, ready to append.
    pub pair: crate::secret::Secret,
}

/// What a client proves itself with.
pub struct ProxyCredential {
    pub id: Box<str>,
    pub active: bool,
    pub expires_at: Option<SystemTime>,
    /// `active` where there is no account.
    pub billing: Billing,
    pub account: Option<Box<str>>,
    pub rate_limit: RateLimit,
    pub proof: Proof,
    pub scope: Scope,
}

/// How a client's credential is checked.
#[derive(Clone)]
pub enum Proof {
    ApiKey(Digest),
    Bearer(Digest),
    Basic {
        username: Box<str>,
        password: Digest,
    },
    /// A fixed token.
    Jwt(Digest),
    JwtVerify(Arc<JwtPolicy>),
}

/// Which tokens a `jwt_verify` credential accepts.
pub struct JwtPolicy {
    /// The pinned list, not empty. A token's own `alg` only selects from it.
    pub algorithms: Vec<Algorithm>,
    pub keys: Vec<JwtKey>,
    pub issuer: Option<String>,
    /// A token must name one of these. Empty: not checked.
    pub audience: Vec<String>,
    pub leeway: Duration,
}

/// A key and the algorithms that it may verify: those of its kind that the policy pins. An RSA key is never in a list with HS256.
pub struct JwtKey {
    pub kid: Option<String>,
    pub algorithms: Vec<Algorithm>,
    pub key: DecodingKey,
}

/// State of an account's billing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Billing {
    Active,
    LowBudget,
    Suspended,
}

/// What a credential may use up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// Requests in any 60-second interval; at least 1.
    pub per_minute: u32,
    /// Requests in a UTC day; at least 1.
    pub per_day: Option<u64>,
}

/// The rules of one scope. Cheap to clone.
#[derive(Clone, Default)]
pub struct Scope {
    /// What holds where no rule matches.
    pub default_effect: Effect,
    pub rules: Arc<[Rule]>,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Effect {
    #[default]
    Allow,
    Deny,
}

/// Matches when all that it names matches.
pub struct Rule {
    pub id: Box<str>,
    pub effect: Effect,
    /// Empty: any.
    pub methods: Box<[Method]>,
    /// On the decoded target path. `None`: any. Shared by all rules with the same pattern: a clone would have a cache of its
    /// own, of tens of kilobytes once it is used.
    pub path: Option<Arc<Regex>>,
    pub headers: Box<[Condition]>,
    pub query: Box<[Condition]>,
    pub claims: Box<[Condition]>,
}

/// A condition on a named value.
pub struct Condition {
    /// A header name is in lower case.
    pub name: Box<str>,
    pub expect: Expect,
}

/// What a named value must be.
pub enum Expect {
    Present,
    Absent,
    /// Present, with at least one value that matches.
    Value(Arc<Regex>),
}
