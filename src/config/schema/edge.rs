//! The main file, described beside its reader in `config::edge`.

use std::time::Duration;

use serde_json::json;
use serde_yaml::Mapping;

use super::words::{duration, flag, form, network, one_of, scalar, size, socket_address, text, whole, words};
use super::{Key, Object, Shape, entries};
use crate::config::edge::{
    self, ACCESS_LOG_KEYS, ADMIN_KEYS, DEFAULTS_KEYS, DNS_KEYS, HELD_RESPONSES_MEMORY, LIMITS, LIMITS_KEYS,
    LISTENER_KEYS, LONGEST_SHUTDOWN, MAX_STALE, POOL, POOL_KEYS, SHORTEST_DRAIN, SHUTDOWN, SHUTDOWN_KEYS,
};
use crate::config::file::Defaults;
use crate::config::lists::{LONGEST_TIMEOUT, RESPONSES};
use crate::config::node::LONGEST_DURATION;
use crate::config::tls;
use crate::config::units::{show_duration, show_size};

/// The shortest duration that is any time at all.
const SHORTEST: Duration = Duration::from_millis(1);

pub(in crate::config) fn main() -> Object {
    let token = form("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "Write letters, digits and `-`, like `us-east-1`");
    let mut keys = vec![
        Key::new("region", token, "The region's name: in logs, and in the `Via` and `Proxy-Status` headers.")
            .required()
            .like(&json!(["us-east-1"])),
        Key::new("threads", whole(0, 1_024), "Worker threads; 0 is one per core. A change needs a restart.").or(0),
        Key::new(
            "listeners",
            Shape::some(Shape::Object(listener())),
            "Where clients connect. A change needs a restart.",
        )
        .required()
        .like(&json!([[{ "address": "127.0.0.1:8080" }]])),
        Key::new(
            "trusted_proxies",
            Shape::list(network()),
            "Networks or addresses of load balancers in front, whose `X-Forwarded-For` is believed and appended to.",
        )
        .or(Vec::<String>::new())
        .like(&json!([["10.0.0.0/8", "2001:db8::/32"]])),
        Key::new(
            "admin",
            Shape::Object(admin()),
            "Where operators look: /livez, /readyz, /metrics, /status. Default: nowhere.",
        ),
        Key::new("include", text(), "The folder of the fragments: its files `*.yaml`, sorted by name. Default: none.")
            .like(&json!(["proxies.d"])),
        Key::new(
            "allow_private_targets",
            flag(),
            "Whether the name of a target may lead to a loopback, private, link-local or metadata address.",
        )
        .or(false),
        Key::new(
            "defaults",
            Shape::Object(defaults()),
            "What holds for proxies, and credentials, that say nothing else.",
        )
        .or_empty(),
        Key::new(
            "held_responses_memory",
            size(),
            "Memory for all answers that are held at one time. When it is used up, requests get 503.",
        )
        .or(show_size(HELD_RESPONSES_MEMORY)),
        Key::new("limits", Shape::Object(limits()), "What one client may take.").or_empty(),
        Key::new("shutdown", Shape::Object(shutdown()), "How the daemon goes when it is told to with TERM.").or_empty(),
        Key::new("pool", Shape::Object(pool()), "Connections to targets that wait to be used again.").or_empty(),
        Key::new("dns", Shape::Object(dns()), "How the names of targets are resolved.").or_empty(),
        Key::new("access_log", Shape::Object(access_log()), "One line of JSON for each request.")
            .or(Mapping::from_iter([("path".into(), "stdout".into())])),
    ];
    keys.extend(entries::lists());
    Object::new("main", &edge::KEYS, keys).and(&json!({
        "if": {
            "required": ["listeners"],
            "properties": { "listeners": { "type": "array", "contains": {
                "type": "object", "required": ["proxy_protocol"], "properties": { "proxy_protocol": { "const": true } },
            } } },
        },
        "then": { "required": ["trusted_proxies"], "properties": { "trusted_proxies": { "minItems": 1 } } },
    }))
}

fn listener() -> Object {
    let keys = vec![
        Key::new("address", socket_address(true), "Address and port.")
            .required()
            .like(&json!(["127.0.0.1:8080", "[::1]:8080"])),
        Key::new(
            "http2",
            one_of(["cleartext"]),
            "`cleartext`: take HTTP/2 with prior knowledge too. With `tls`, clients choose HTTP/2 by themselves.",
        ),
        Key::new(
            "proxy_protocol",
            flag(),
            "Whether every connection begins with a PROXY protocol header, from one of `trusted_proxies`.",
        )
        .or(false),
        Key::new("tls", Shape::Object(listener_tls()), "Certificates, for HTTPS."),
    ];
    Object::new("listener", &LISTENER_KEYS, keys)
        .and(&json!({ "if": { "required": ["tls"] }, "then": { "properties": { "http2": false } } }))
}

fn listener_tls() -> Object {
    let certificates = Shape::some(Shape::Object(certificate()));
    let keys = vec![
        Key::new(
            "certificates",
            certificates,
            "Several: chosen by the name that the client asks for; the first is the default.",
        )
        .required(),
        Key::new(
            "client_ca",
            text(),
            "A PEM file with the CA of the certificates that all clients must show. Default: none is asked for.",
        ),
    ];
    Object::new("listenerTls", &tls::LISTENER_KEYS, keys)
}

/// A certificate and its key, of a listener or towards a target.
pub(super) fn certificate() -> Object {
    let keys = vec![
        Key::new("chain", text(), "A PEM file with the certificate and those between it and its root.")
            .required()
            .like(&json!(["edge.pem"])),
        Key::new("key", text(), "A PEM file with the private key.").required().like(&json!(["edge.key"])),
    ];
    Object::new("certificate", &tls::PAIR_KEYS, keys)
}

fn admin() -> Object {
    let about = "Address and port. Keep it off public addresses: nothing asks for a credential there.";
    let address = Key::new("address", socket_address(true), about).required().like(&json!(["127.0.0.1:9091"]));
    let about = "Names it answers to, beside addresses and `localhost`; requests that name another host are refused.";
    let hosts = Key::new("hosts", Shape::list(text()), about).or(super::value(&json!([])));
    Object::new("admin", &ADMIN_KEYS, vec![address, hosts])
}

fn defaults() -> Object {
    let own = Defaults::default();
    let response = RESPONSES.iter().find(|(_, mode)| *mode == own.response).expect("every mode has a word").0;
    let plan = "For credentials without an account: `basic` (100 requests a minute) or `team` (1,000).";
    let mut keys = vec![Key::new("plan", one_of(["basic", "team"]), plan).or("basic")];
    let defaults = [
        show_duration(own.timeout),
        show_duration(own.connect_timeout),
        show_size(own.max_response_body),
        show_size(own.max_request_body),
        response.to_owned(),
        show_duration(own.stream_idle_timeout),
    ];
    keys.extend(limits_of_proxy().into_iter().zip(defaults).map(|(key, default)| key.or(default)));
    Object::new("defaults", &DEFAULTS_KEYS, keys)
}

/// What `defaults` says for all proxies, and each proxy for itself.
pub(super) fn limits_of_proxy() -> Vec<Key> {
    let bounded = || duration(SHORTEST, LONGEST_TIMEOUT);
    vec![
        Key::new("timeout", bounded(), "The target's whole answer, from the last byte of the request on; at most 60s."),
        Key::new("connect_timeout", bounded(), "One TCP connect with its TLS handshake; at most 60s."),
        Key::new("max_response_body", size(), "Bytes of response body that pass; one more gets 413."),
        Key::new("max_request_body", size(), "Bytes of request body that pass; one more gets 413."),
        Key::new("response", words(&RESPONSES), "`held`: sent once it is whole; `streamed`: passed on as it comes."),
        Key::new("stream_idle_timeout", any_duration(), "Longest silence in a streamed answer or a WebSocket."),
    ]
}

fn any_duration() -> Shape {
    duration(SHORTEST, LONGEST_DURATION)
}

fn limits() -> Object {
    let time = |name, default, about| Key::new(name, any_duration(), about).or(show_duration(default));
    let keys = vec![
        time("header_timeout", LIMITS.header_timeout, "The whole request header, from the first byte on."),
        time(
            "keepalive_timeout",
            LIMITS.keepalive_timeout,
            "How long an idle connection is kept. Above the 60 s of common load balancers, who must close first.",
        ),
        time("body_timeout", LIMITS.body_timeout, "Longest silence within a request body; then 408."),
        time("write_timeout", LIMITS.write_timeout, "Longest wait for the client to take a piece of an answer."),
        Key::new(
            "requests_per_connection",
            whole(1, u32::MAX.into()),
            "Requests on one connection; then it is closed, and balanced anew.",
        )
        .or(LIMITS.requests_per_connection),
        Key::new("max_header_bytes", size(), "All header fields together; 1KiB to 1MiB.")
            .or(show_size(LIMITS.max_header_bytes as u64)),
        Key::new("max_headers", whole(8, 1_000), "Number of header fields.").or(LIMITS.max_headers as u64),
        Key::new(
            "max_requests_in_flight",
            whole(1, 10_000_000),
            "Requests under way at once in the whole daemon; one more gets 503.",
        )
        .or(LIMITS.max_requests_in_flight as u64),
        Key::new("max_connections", whole(1, 10_000_000), "Clients connected at once; one more is closed.")
            .or(LIMITS.max_connections as u64),
        Key::new(
            "max_connections_per_client",
            whole(0, 10_000_000),
            "Connections of one address (one /64 in IPv6) at once, trusted proxies excepted; one more is closed; 0: any number.",
        )
        .or(LIMITS.max_connections_per_client as u64),
        Key::new(
            "invalid_credentials_per_minute",
            whole(0, 1_000_000),
            "Invalid credentials that one address may show within a minute before it gets 429 until the minute is over; 0: any number.",
        )
        .or(LIMITS.invalid_credentials_per_minute),
        Key::new("http2_max_streams", whole(1, 10_000), "Streams at once on one HTTP/2 connection.")
            .or(LIMITS.http2_max_streams),
    ];
    Object::new("limits", &LIMITS_KEYS, keys)
}

fn shutdown() -> Object {
    let keys = vec![
        Key::new(
            "lead",
            duration(Duration::ZERO, LONGEST_SHUTDOWN),
            "How long connections are still taken while /readyz says 503 already, for load balancers to notice.",
        )
        .or(show_duration(SHUTDOWN.lead)),
        Key::new(
            "drain",
            duration(SHORTEST_DRAIN, LONGEST_SHUTDOWN),
            "How long requests under way may take after that.",
        )
        .or(show_duration(SHUTDOWN.drain)),
    ];
    Object::new("shutdown", &SHUTDOWN_KEYS, keys)
}

fn pool() -> Object {
    let keys = vec![
        Key::new(
            "idle_timeout",
            any_duration(),
            "How long an idle connection is kept. Below the 60 s after which common servers hang up.",
        )
        .or(show_duration(POOL.idle_timeout)),
        Key::new("max_idle", whole(1, 1_000_000), "Idle connections to all targets together.").or(POOL.max_idle as u64),
    ];
    Object::new("pool", &POOL_KEYS, keys)
}

fn dns() -> Object {
    let keys = vec![
        Key::new("servers", Shape::list(socket_address(false)), "Name servers. Default: those of the system.")
            .or(Vec::<String>::new())
            .like(&json!([["127.0.0.1:53"]])),
        Key::new("max_stale", any_duration(), "How long the last good answer is used when no new one can be had.")
            .or(show_duration(MAX_STALE)),
    ];
    Object::new("dns", &DNS_KEYS, keys)
}

fn access_log() -> Object {
    // YAML 1.1 takes `off` for `false`.
    let path = scalar(&json!({ "anyOf": [{ "type": "string", "minLength": 1 }, { "const": false }] }));
    let path =
        Key::new("path", path, "`stdout`, `off`, or the name of a file.").required().like(&json!(["stdout", "off"]));
    Object::new("accessLog", &ACCESS_LOG_KEYS, vec![path])
}
