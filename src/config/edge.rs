//! The main file: the daemon itself, and what holds where proxies say nothing else.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::file::{BASIC_PER_MINUTE, Defaults, Include, Main, TEAM_PER_MINUTE};
use super::lists::{LONGEST_TIMEOUT, RESPONSES};
use super::model::{AccessLog, ClientLimits, Dns, Edge, Listener, Pool, Shutdown};
use super::node::{Fields, Node};
use super::tls;

/// The keys of the main file.
pub(super) const KEYS: [&str; 19] = [
    "region",
    "threads",
    "listeners",
    "trusted_proxies",
    "admin",
    "include",
    "allow_private_targets",
    "defaults",
    "held_responses_memory",
    "limits",
    "shutdown",
    "pool",
    "dns",
    "access_log",
    "accounts",
    "proxy_credentials",
    "target_credentials",
    "targets",
    "proxies",
];

pub(super) const LISTENER_KEYS: [&str; 4] = ["address", "http2", "proxy_protocol", "tls"];
pub(super) const ADMIN_KEYS: [&str; 2] = ["address", "hosts"];
pub(super) const SHUTDOWN_KEYS: [&str; 2] = ["lead", "drain"];
pub(super) const POOL_KEYS: [&str; 2] = ["idle_timeout", "max_idle"];
pub(super) const DNS_KEYS: [&str; 2] = ["servers", "max_stale"];
pub(super) const ACCESS_LOG_KEYS: [&str; 1] = ["path"];

pub(super) const DEFAULTS_KEYS: [&str; 7] =
    ["plan", "timeout", "connect_timeout", "max_response_body", "max_request_body", "response", "stream_idle_timeout"];

pub(super) const LIMITS_KEYS: [&str; 12] = [
    "header_timeout",
    "keepalive_timeout",
    "body_timeout",
    "write_timeout",
    "requests_per_connection",
    "max_header_bytes",
    "max_headers",
    "max_requests_in_flight",
    "max_connections",
    "max_connections_per_client",
    "invalid_credentials_per_minute",
    "http2_max_streams",
];

pub(super) const LIMITS: ClientLimits = ClientLimits {
    header_timeout: Duration::from_secs(30),
    keepalive_timeout: Duration::from_secs(75),
    body_timeout: Duration::from_secs(30),
    write_timeout: Duration::from_secs(30),
    requests_per_connection: 10_000,
    max_header_bytes: 64 << 10,
    max_headers: 128,
    max_requests_in_flight: 10_000,
    max_connections: 20_000,
    max_connections_per_client: 1_000,
    invalid_credentials_per_minute: 100,
    http2_max_streams: 100,
};

/// `drain`: the longest that a target may take, and a little for its answer.
pub(super) const SHUTDOWN: Shutdown = Shutdown { lead: Duration::ZERO, drain: Duration::from_secs(75) };
pub(super) const POOL: Pool = Pool { idle_timeout: Duration::from_secs(50), max_idle: 4_096 };
pub(super) const MAX_STALE: Duration = Duration::from_secs(300);
pub(super) const HELD_RESPONSES_MEMORY: u64 = 512 << 20;

/// `limits.max_header_bytes`: below, ordinary browsers are refused; above, one client may take a worker's memory.
pub(super) const HEADER_BYTES: RangeInclusive<usize> = 1 << 10..=1 << 20;

/// Whoever waits longer for a daemon to go has killed it by then.
pub(super) const LONGEST_SHUTDOWN: Duration = Duration::from_secs(600);

/// Less would cut requests of ordinary length.
pub(super) const SHORTEST_DRAIN: Duration = Duration::from_secs(1);

pub(super) fn main(fields: &Fields<'_>) -> Main {
    let include = fields.optional("include", |node| {
        let name = node.text()?.to_owned();
        Some(Include { folder: node.source.resolve(&name), name })
    });
    let defaults = fields.or("defaults", Defaults::default(), defaults);
    let edge = edge(fields).filter(|_| defaults.is_some() && include.is_some());
    Main { edge: edge.map(Arc::new), defaults: defaults.unwrap_or_default(), include: include.flatten() }
}

fn edge(fields: &Fields<'_>) -> Option<Edge> {
    let region = fields.required("region", "write the name of this region, like `us-east-1`", region);
    let threads = fields.or("threads", 0, |node| node.number(0, 1024));
    let advice = "write `[{ address: \"127.0.0.1:8080\" }]`";
    let trusted_proxies = fields.or("trusted_proxies", Vec::new(), |node| node.items(network));
    // Where the list itself is wrong, it may well be meant to name someone.
    let trusting = trusted_proxies.as_ref().is_none_or(|networks| !networks.is_empty());
    let listeners = fields.required("listeners", advice, |node| listeners(node, trusting));
    let admin = fields.optional("admin", |node| {
        let fields = node.fields(&ADMIN_KEYS)?;
        let address = fields.required("address", "write one like `127.0.0.1:9091`", socket_address);
        let hosts = fields.or("hosts", Vec::new(), |node| node.items(|node| Some(Box::from(node.text()?))));
        Some((address?, hosts?))
    });
    let allow_private_targets = fields.or("allow_private_targets", false, Node::flag);
    let held_responses_memory = fields.or("held_responses_memory", HELD_RESPONSES_MEMORY, Node::size);
    let limits = limits(fields.get("limits"));
    let shutdown = shutdown(fields.get("shutdown"));
    let pool = pool(fields.get("pool"));
    let dns = dns(fields.get("dns"));
    let access_log = fields.or("access_log", AccessLog::Stdout, access_log);
    let (listeners, admin) = (listeners?, admin?);
    let (admin, admin_hosts) = admin.unzip();
    if let Some(address) = admin.filter(|admin| listeners.iter().any(|listener| listener.address == *admin)) {
        let message = format!("`{address}` is the address of a listener too; write another, like `127.0.0.1:9091`");
        return fields.get("admin")?.problem(message);
    }
    Some(Edge {
        region: region?,
        threads: match threads? {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        },
        listeners,
        trusted_proxies: trusted_proxies?,
        admin,
        admin_hosts: admin_hosts.unwrap_or_default(),
        allow_private_targets: allow_private_targets?,
        held_responses_memory: held_responses_memory?,
        limits: limits?,
        shutdown: shutdown?,
        pool: pool?,
        dns: dns?,
        access_log: access_log?,
    })
}

/// A token of RFC 9110 (5.6.2): it goes into `Via` and `Proxy-Status`.
fn region(node: Node<'_>) -> Option<Box<str>> {
    let region = node.text()?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if region.bytes().all(token) {
        Some(region.into())
    } else {
        node.wrong("does not go into a header; write letters, digits and `-`, like `us-east-1`")
    }
}

fn listeners(node: Node<'_>, trusting: bool) -> Option<Vec<Listener>> {
    let mut addresses = Vec::new();
    let listeners = node.items(|node| {
        let listener = listener(node, trusting)?;
        if addresses.contains(&listener.address) {
            return node.problem(format!(
                "`{}` is the address of an earlier listener too; remove one of them",
                listener.address
            ));
        }
        addresses.push(listener.address);
        Some(listener)
    })?;
    if listeners.is_empty() {
        return node.problem("is an empty list, so nobody could connect; write `[{ address: \"127.0.0.1:8080\" }]`");
    }
    Some(listeners)
}

fn listener(node: Node<'_>, trusting: bool) -> Option<Listener> {
    let fields = node.fields(&LISTENER_KEYS)?;
    let address = fields.required("address", "write one like `127.0.0.1:8080`", socket_address);
    let http2_cleartext = fields.or("http2", false, |node| node.choice(&[("cleartext", true)]));
    let proxy_protocol = fields.or("proxy_protocol", false, |node| proxy_protocol(node, trusting));
    let tls = fields.optional("tls", tls::listener);
    if fields.has("tls") && fields.has("http2") {
        return node
            .problem("gives both `tls` and `http2`; remove `http2` (with TLS, clients choose HTTP/2 by themselves)");
    }
    Some(Listener { address: address?, http2_cleartext: http2_cleartext?, proxy_protocol: proxy_protocol?, tls: tls? })
}

/// Anyone could claim any address in a PROXY protocol header, so only trusted proxies may send one.
fn proxy_protocol(node: Node<'_>, trusting: bool) -> Option<bool> {
    match node.flag()? {
        true if !trusting => node.problem(
            "takes the word of `trusted_proxies`, which names nobody; write the networks of the load balancers there, like `[10.0.0.0/8]`",
        ),
        flag => Some(flag),
    }
}

fn socket_address(node: Node<'_>) -> Option<SocketAddr> {
    let advice = "is not an address with a port; write one like `127.0.0.1:8080` or `[::1]:8080`";
    let address: SocketAddr = node.parse(|text| text.parse().map_err(|_| advice.to_owned()))?;
    if address.port() == 0 {
        return node.wrong("leaves the port to chance; write one from 1 to 65535");
    }
    Some(address)
}

fn network(node: Node<'_>) -> Option<IpNet> {
    let advice = "is not a network; write one like `10.0.0.0/8`, or an address";
    let network: IpNet = node.parse(|text| {
        text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| advice.to_owned())
    })?;
    Some(network.trunc())
}

fn defaults(node: Node<'_>) -> Option<Defaults> {
    let own = Defaults::default();
    let fields = node.fields(&DEFAULTS_KEYS)?;
    let per_minute = fields.or("plan", own.per_minute, |node| {
        match node.choice(&[("basic", BASIC_PER_MINUTE), ("team", TEAM_PER_MINUTE), ("business", 0)])? {
            0 => node.problem("`business` has no limit of its own, only its accounts have; write `basic` or `team`"),
            per_minute => Some(per_minute),
        }
    });
    let timeout = fields.or("timeout", own.timeout, |node| node.duration_up_to(LONGEST_TIMEOUT));
    let connect_timeout =
        fields.or("connect_timeout", own.connect_timeout, |node| node.duration_up_to(LONGEST_TIMEOUT));
    let max_response_body = fields.or("max_response_body", own.max_response_body, Node::size);
    let max_request_body = fields.or("max_request_body", own.max_request_body, Node::size);
    let stream_idle_timeout = fields.or("stream_idle_timeout", own.stream_idle_timeout, Node::duration);
    let response = fields.or("response", own.response, |node| node.choice(&RESPONSES));
    Some(Defaults {
        per_minute: per_minute?,
        timeout: timeout?,
        connect_timeout: connect_timeout?,
        max_response_body: max_response_body?,
        max_request_body: max_request_body?,
        stream_idle_timeout: stream_idle_timeout?,
        response: response?,
    })
}

fn limits(node: Option<Node<'_>>) -> Option<ClientLimits> {
    let own = LIMITS;
    let Some(node) = node else { return Some(own) };
    let fields = node.fields(&LIMITS_KEYS)?;
    let header_timeout = fields.or("header_timeout", own.header_timeout, Node::duration);
    let keepalive_timeout = fields.or("keepalive_timeout", own.keepalive_timeout, Node::duration);
    let body_timeout = fields.or("body_timeout", own.body_timeout, Node::duration);
    let write_timeout = fields.or("write_timeout", own.write_timeout, Node::duration);
    let requests_per_connection =
        fields.or("requests_per_connection", own.requests_per_connection, |node| node.number(1, u32::MAX.into()));
    let max_header_bytes = fields.or("max_header_bytes", own.max_header_bytes, header_bytes);
    let max_headers = fields.or("max_headers", own.max_headers, |node| node.number(8, 1_000));
    let max_requests_in_flight =
        fields.or("max_requests_in_flight", own.max_requests_in_flight, |node| node.number(1, 10_000_000));
    let max_connections = fields.or("max_connections", own.max_connections, |node| node.number(1, 10_000_000));
    let max_connections_per_client =
        fields.or("max_connections_per_client", own.max_connections_per_client, |node| node.number(0, 10_000_000));
    let invalid_credentials_per_minute =
        fields
            .or("invalid_credentials_per_minute", own.invalid_credentials_per_minute, |node| node.number(0, 1_000_000));
    let http2_max_streams = fields.or("http2_max_streams", own.http2_max_streams, |node| node.number(1, 10_000));
    Some(ClientLimits {
        header_timeout: header_timeout?,
        keepalive_timeout: keepalive_timeout?,
        body_timeout: body_timeout?,
        write_timeout: write_timeout?,
        requests_per_connection: requests_per_connection?,
        max_header_bytes: max_header_bytes?,
        max_headers: max_headers?,
        max_requests_in_flight: max_requests_in_flight?,
        max_connections: max_connections?,
        max_connections_per_client: max_connections_per_client?,
        invalid_credentials_per_minute: invalid_credentials_per_minute?,
        http2_max_streams: http2_max_streams?,
    })
}

fn header_bytes(node: Node<'_>) -> Option<usize> {
    match usize::try_from(node.size()?) {
        Ok(bytes) if HEADER_BYTES.contains(&bytes) => Some(bytes),
        _ => node.wrong("is not possible here; write a size from `1KiB` to `1MiB`"),
    }
}

fn shutdown(node: Option<Node<'_>>) -> Option<Shutdown> {
    let own = SHUTDOWN;
    let Some(node) = node else { return Some(own) };
    let fields = node.fields(&SHUTDOWN_KEYS)?;
    let lead = fields.or("lead", own.lead, |node| node.duration_within(Duration::ZERO, LONGEST_SHUTDOWN));
    let drain = fields.or("drain", own.drain, |node| node.duration_within(SHORTEST_DRAIN, LONGEST_SHUTDOWN));
    Some(Shutdown { lead: lead?, drain: drain? })
}

fn pool(node: Option<Node<'_>>) -> Option<Pool> {
    let own = POOL;
    let Some(node) = node else { return Some(own) };
    let fields = node.fields(&POOL_KEYS)?;
    let idle_timeout = fields.or("idle_timeout", own.idle_timeout, Node::duration);
    let max_idle = fields.or("max_idle", own.max_idle, |node| node.number(1, 1_000_000));
    Some(Pool { idle_timeout: idle_timeout?, max_idle: max_idle? })
}

fn dns(node: Option<Node<'_>>) -> Option<Dns> {
    let own = Dns { servers: Vec::new(), max_stale: MAX_STALE };
    let Some(node) = node else { return Some(own) };
    let fields = node.fields(&DNS_KEYS)?;
    let servers = fields.or("servers", own.servers, |node| node.items(name_server));
    let max_stale = fields.or("max_stale", own.max_stale, Node::duration);
    Some(Dns { servers: servers?, max_stale: max_stale? })
}

fn name_server(node: Node<'_>) -> Option<SocketAddr> {
    let advice = "is not the address of a name server; write one like `127.0.0.1:53`";
    let address: SocketAddr = node.parse(|text| {
        let bare = |_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        text.parse().or_else(bare).map_err(|_| advice.to_owned())
    })?;
    if address.port() == 0 {
        return node.wrong("has no port; write one like `127.0.0.1:53`");
    }
    Some(address)
}

fn access_log(node: Node<'_>) -> Option<AccessLog> {
    let fields = node.fields(&ACCESS_LOG_KEYS)?;
    fields.required("path", "write `stdout`, `off`, or the name of a file", |node| {
        // YAML 1.1 takes `off` for a boolean, 1.2 for a text: whichever the file's author has in mind, it means the same.
        match node.parse(|text| Ok(text.to_owned()))?.as_str() {
            "off" | "false" => Some(AccessLog::Off),
            "stdout" => Some(AccessLog::Stdout),
            _ => Some(AccessLog::File(node.source.resolve(node.text()?))),
        }
    })
}
