//! Accounts and proxy credentials: who calls, on what plan, and how it is proved.

use std::time::SystemTime;

use super::file::{Account, BASIC_PER_MINUTE, ProxyCredential, TEAM_PER_MINUTE, WrittenLimit};
use super::model::{Billing, Proof};
use super::node::{Fields, Node};
use super::secrets::{self, ProxySecret};
use super::{jwt_keys, rules};
use crate::secret::Digest;

pub(super) const ACCOUNT_KEYS: [&str; 4] = ["id", "plan", "billing", "rate_limit"];

pub(super) const KEYS: [&str; 11] = [
    "id",
    "account",
    "type",
    "secret",
    "username",
    "jwt",
    "active",
    "expires_at",
    "rate_limit",
    "default_effect",
    "rules",
];

pub(super) const RATE_LIMIT_KEYS: [&str; 2] = ["requests_per_minute", "requests_per_day"];

/// The limiter remembers when each request of the last minute was admitted: 8 bytes each, so 8 MB for one credential.
pub(super) const MOST_PER_MINUTE: u64 = 1_000_000;

/// More than `MOST_PER_MINUTE` can use up; what is above is a slip of the hand.
pub(super) const MOST_PER_DAY: u64 = 1_000_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ApiKey,
    Bearer,
    Basic,
    Jwt,
    JwtVerify,
}

pub(super) const KINDS: [(&str, Kind); 5] = [
    ("api_key", Kind::ApiKey),
    ("bearer", Kind::Bearer),
    ("basic", Kind::Basic),
    ("jwt", Kind::Jwt),
    ("jwt_verify", Kind::JwtVerify),
];

/// What `business` allows is agreed with each account, so the plan itself has no number.
pub(super) const PLANS: [(&str, Option<u32>); 3] =
    [("basic", Some(BASIC_PER_MINUTE)), ("team", Some(TEAM_PER_MINUTE)), ("business", None)];

pub(super) const BILLING: [(&str, Billing); 3] =
    [("active", Billing::Active), ("low_budget", Billing::LowBudget), ("suspended", Billing::Suspended)];

pub(super) fn account(fields: &Fields<'_>) -> Option<Account> {
    fields.refuse_unknown();
    let plan = fields.required("plan", "write `basic`, `team` or `business`", |node| node.choice(&PLANS));
    let billing = fields.or("billing", Billing::Active, |node| node.choice(&BILLING));
    let written = fields.optional("rate_limit", rate_limit);
    let rate_limit = match (plan?, written?) {
        (None, Some(limit @ WrittenLimit { per_minute: Some(_), .. })) => limit,
        (None, _) => {
            return fields.node.problem(
                "plan `business` has no limit of its own; write `rate_limit: { requests_per_minute: 5000 }` with the one agreed on",
            );
        }
        (per_minute, None) => WrittenLimit { per_minute, per_day: None },
        (Some(_), Some(_)) => {
            return fields.node.problem(
                "`rate_limit` goes with plan `business` only; remove it, or give the limit to the account's proxy credentials",
            );
        }
    };
    Some(Account { billing: billing?, rate_limit })
}

pub(super) fn proxy_credential(fields: &Fields<'_>) -> Option<ProxyCredential> {
    fields.refuse_unknown();
    let account = fields.optional("account", Node::id);
    let active = fields.or("active", true, Node::flag);
    let expires_at = fields.optional("expires_at", moment);
    let rate_limit = fields.or("rate_limit", WrittenLimit::default(), rate_limit);
    let scope = rules::scope(fields);
    let kind = fields
        .required("type", "write `api_key`, `bearer`, `basic`, `jwt` or `jwt_verify`", |node| node.choice(&KINDS));
    let proof = kind.and_then(|kind| proof(fields, kind));
    Some(ProxyCredential {
        account: account?,
        active: active?,
        expires_at: expires_at?,
        rate_limit: rate_limit?,
        proof: proof?,
        scope: scope?,
    })
}

fn proof(fields: &Fields<'_>, kind: Kind) -> Option<Proof> {
    let fits =
        [("username", Kind::Basic, "basic"), ("jwt", Kind::JwtVerify, "jwt_verify")].map(
            |(key, of, name)| match fields.get(key) {
                Some(node) if kind != of => {
                    node.problem(format!("goes with `type: {name}` only; remove it, or change the type"))
                }
                _ => Some(()),
            },
        );
    let proof = match kind {
        Kind::ApiKey => secret(fields, kind).map(Proof::ApiKey),
        Kind::Bearer => secret(fields, kind).map(Proof::Bearer),
        Kind::Jwt => secret(fields, kind).map(Proof::Jwt),
        Kind::Basic => {
            let username = fields.required("username", "write the user name that goes with the password", username);
            let password = secret(fields, kind);
            username.zip(password).map(|(username, password)| Proof::Basic { username, password })
        }
        Kind::JwtVerify => match fields.get("secret") {
            Some(node) => node
                .problem("goes with a fixed credential; for `type: jwt_verify` write the secret or the key into `jwt`"),
            None => fields.required("jwt", "write `jwt: { algorithms: [RS256], public_key_file: NAME }`", |node| {
                jwt_keys::policy(node).map(Proof::JwtVerify)
            }),
        },
    };
    fits.into_iter().collect::<Option<Vec<()>>>().and(proof)
}

/// The digest of a fixed credential; one that no client could ever send is refused.
fn secret(fields: &Fields<'_>, kind: Kind) -> Option<Digest> {
    let advice = "write where it is: `secret: { file: NAME }` or `secret: { sha256: DIGEST }`";
    fields.required("secret", advice, |node| match secrets::proxy_secret(node)? {
        ProxySecret::Digest(digest) => Some(digest),
        ProxySecret::Plain(secret) => match unsendable(secret.expose(), kind) {
            Some(reason) => {
                node.problem(format!("the secret {reason}, so no client can send it; take another, or correct it"))
            }
            None => Some(Digest::of(secret.expose())),
        },
    })
}

/// Why no client can prove itself with `secret`.
fn unsendable(secret: &[u8], kind: Kind) -> Option<&'static str> {
    if secret.iter().any(u8::is_ascii_control) {
        return Some("holds a line break or another control character");
    }
    if kind == Kind::Basic {
        return None; // sent in base64
    }
    if secret.trim_ascii().len() != secret.len() {
        return Some("starts or ends with a space");
    }
    // The scheme is taken off what a client sends before it is compared.
    let scheme = secret.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"Bearer "));
    (scheme && kind != Kind::ApiKey).then_some("starts with `Bearer `, which is not part of a token")
}

/// A user name of basic authentication. The first colon ends it (RFC 7617), so it cannot hold one.
pub(super) fn username(node: Node<'_>) -> Option<Box<str>> {
    let name = node.text()?;
    if name.contains(':') || name.chars().any(char::is_control) {
        return node.wrong("is not possible as a user name; write it without colons and control characters");
    }
    Some(name.into())
}

fn moment(node: Node<'_>) -> Option<SystemTime> {
    let timestamp: jiff::Timestamp = node.parse(|text| {
        text.parse().map_err(|_| "is not a moment; write one like `2030-01-31T00:00:00Z` (RFC 3339)".to_owned())
    })?;
    Some(timestamp.into())
}

fn rate_limit(node: Node<'_>) -> Option<WrittenLimit> {
    let fields = node.fields(&RATE_LIMIT_KEYS)?;
    let per_minute = fields.optional("requests_per_minute", per_minute);
    let per_day = fields.optional("requests_per_day", |node| node.number(1, MOST_PER_DAY));
    if fields.keys().next().is_none() {
        return node.problem("limits nothing; write `requests_per_minute`, `requests_per_day`, or both");
    }
    Some(WrittenLimit { per_minute: per_minute?, per_day: per_day? })
}

fn per_minute(node: Node<'_>) -> Option<u32> {
    if node.exceeds(MOST_PER_MINUTE) {
        return node.wrong(&format!(
            "is too high; write at most {MOST_PER_MINUTE}: the exact count takes 8 bytes for each request of the last minute"
        ));
    }
    node.number(1, MOST_PER_MINUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_no_client_can_send_are_refused() {
        for (secret, kind, sendable) in [
            ("k-1", Kind::ApiKey, true),
            ("Bearer k-1", Kind::ApiKey, true),
            ("bearer k-1", Kind::Bearer, false),
            ("Bearer k-1", Kind::Jwt, false),
            (" k-1", Kind::Bearer, false),
            ("k-1 ", Kind::ApiKey, false),
            ("k\n1", Kind::ApiKey, false),
            (" pass word ", Kind::Basic, true),
            ("pass\tword", Kind::Basic, false),
            ("schlüssel", Kind::Bearer, true),
        ] {
            assert_eq!(unsendable(secret.as_bytes(), kind).is_none(), sendable, "{secret:?}");
        }
    }
}
