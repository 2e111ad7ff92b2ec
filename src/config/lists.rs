//! The five lists that any file may hold.

use std::sync::Arc;
use std::time::Duration;

use super::file::{Entry, Proxy, Written};
use super::model::ResponseMode;
use super::node::{Fields, Node};
use super::{credentials, injection, rules, target};

/// The keys of a fragment.
pub(super) const KEYS: [&str; 5] = ["accounts", "proxy_credentials", "target_credentials", "targets", "proxies"];

/// The longest `timeout`: the time that the caller of a proxy can rely on having an answer within.
pub(super) const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) const RESPONSES: [(&str, ResponseMode); 2] =
    [("held", ResponseMode::Held), ("streamed", ResponseMode::Streamed)];

pub(super) const PROXY_KEYS: [&str; 14] = [
    "id",
    "target",
    "target_credential",
    "proxy_credentials",
    "timeout",
    "connect_timeout",
    "max_response_body",
    "max_request_body",
    "response",
    "stream_idle_timeout",
    "rate_limit_headers",
    "active",
    "default_effect",
    "rules",
];

/// Reads the lists of a file into `written`.
pub(super) fn read(fields: &Fields<'_>, written: &mut Written) {
    use credentials::{account, proxy_credential};
    use injection::target_credential;
    use target::target;
    written.accounts = list(fields, "accounts", &credentials::ACCOUNT_KEYS, any_id, |fields, _| account(fields));
    written.proxy_credentials =
        list(fields, "proxy_credentials", &credentials::KEYS, any_id, |fields, _| proxy_credential(fields));
    written.target_credentials = list(fields, "target_credentials", &injection::KEYS, any_id, |fields, id| {
        target_credential(fields, id).map(Arc::new)
    });
    written.targets = list(fields, "targets", &target::KEYS, any_id, |fields, id| target(fields, id).map(Arc::new));
    written.proxies = list(fields, "proxies", &PROXY_KEYS, proxy_id, |fields, _| proxy(fields));
}

fn list<T>(
    fields: &Fields<'_>,
    key: &'static str,
    known: &[&str],
    id: fn(Node<'_>) -> Option<Box<str>>,
    read: impl Fn(&Fields<'_>, Option<Box<str>>) -> Option<T>,
) -> Vec<Entry<T>> {
    let Some(node) = fields.get(key).filter(|node| !node.is_empty()) else {
        return Vec::new(); // a key above nothing but comments is an empty list
    };
    let mut entries = Vec::new();
    let mut indexes = 0..;
    node.items(|node| {
        let index = indexes.next()?;
        let fields = node.loose_fields(known)?;
        let id = fields.required("id", "write a name that is its own in this list", id);
        let item = read(&fields, id.clone());
        debug_assert!(item.is_some() || node.source.has_problems(), "an entry is missing, and nobody is told why");
        entries.push(Entry { index, id: id?, item });
        Some(())
    });
    entries
}

fn any_id(node: Node<'_>) -> Option<Box<str>> {
    node.id()
}

/// The id of a proxy is a segment of its URL.
fn proxy_id(node: Node<'_>) -> Option<Box<str>> {
    let id = node.text()?;
    let unreserved = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    match id {
        "." | ".." => node.wrong("means a folder in URLs; write another id"),
        _ if !unreserved => node.wrong("does not go into a URL; write letters, digits, `-`, `.`, `_` and `~` only"),
        _ if id.len() > 128 => node.wrong("is longer than 128 characters; write a shorter id"),
        _ => Some(id.into()),
    }
}

fn proxy(fields: &Fields<'_>) -> Option<Proxy> {
    fields.refuse_unknown();
    let target = fields.required("target", "write the id of one of `targets`", Node::id);
    let target_credential = fields.optional("target_credential", Node::id);
    let advice = "write the ids of those that may call, like `[acme-mobile]`";
    let proxy_credentials = fields.required("proxy_credentials", advice, clients);
    let active = fields.or("active", true, Node::flag);
    let timeout = fields.optional("timeout", |node| node.duration_up_to(LONGEST_TIMEOUT));
    let connect_timeout = fields.optional("connect_timeout", |node| node.duration_up_to(LONGEST_TIMEOUT));
    let max_response_body = fields.optional("max_response_body", Node::size);
    let max_request_body = fields.optional("max_request_body", Node::size);
    let stream_idle_timeout = fields.optional("stream_idle_timeout", Node::duration);
    let response = fields.optional("response", |node| node.choice(&RESPONSES));
    let rate_limit_headers = fields.or("rate_limit_headers", false, Node::flag);
    let scope = rules::scope(fields);
    Some(Proxy {
        target: target?,
        target_credential: target_credential?,
        proxy_credentials: proxy_credentials?.into(),
        active: active?,
        timeout: timeout?,
        connect_timeout: connect_timeout?,
        max_response_body: max_response_body?,
        max_request_body: max_request_body?,
        stream_idle_timeout: stream_idle_timeout?,
        response: response?,
        rate_limit_headers: rate_limit_headers?,
        scope: scope?,
    })
}

fn clients(node: Node<'_>) -> Option<Vec<Box<str>>> {
    let clients = node.items(Node::id)?;
    if clients.is_empty() {
        return node.problem("is an empty list, so nobody could call; write at least one id, or set `active: false`");
    }
    Some(clients)
}
