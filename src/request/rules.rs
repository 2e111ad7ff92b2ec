//! In: the rules of every scope that a request touches, and the facts of that request. Out: nothing, or the rule that denies it.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, Method};
use regex::bytes::Regex;
use serde_json::Value;

use super::jwt::Claims;
use super::query;
use crate::config::model::{Condition, Effect, Expect, Rule, Scope};

/// What rules may look at.
pub struct Facts<'a> {
    pub method: &'a Method,
    /// The decoded target path: [`Route::decoded_path`](super::route::Route::decoded_path).
    pub path: &'a [u8],
    /// The headers of the client, its `Authorization` included or not: a rule that names it sees what is in here.
    pub headers: &'a HeaderMap,
    /// The raw query without the client's credential; decoded only for rules that ask for it.
    pub query: Option<&'a [u8]>,
    /// The claims of a verified token. `None`: every claim is absent.
    pub claims: Option<&'a Claims>,
}

/// What denied a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied<'r> {
    /// The rule with this id.
    Rule(&'r str),
    /// No rule: the `default_effect` of a scope.
    Default,
}

impl<'r> Denied<'r> {
    /// The rule's id, or `default`.
    pub fn id(self) -> &'r str {
        match self {
            Self::Rule(id) => id,
            Self::Default => "default",
        }
    }
}

impl fmt::Display for Denied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Denied by authorization rule {}", self.id())
    }
}

/// Whether every scope allows the request.
///
/// Within a scope any `deny` that matches denies; else any `allow` that matches allows; else the `default_effect` holds.
///
/// # Errors
/// The first denial, in the order of the scopes and of their rules.
pub fn evaluate<'r>(scopes: &[&'r Scope], facts: &Facts<'_>) -> Result<(), Denied<'r>> {
    scopes.iter().try_for_each(|scope| evaluate_scope(scope, facts))
}

fn evaluate_scope<'r>(scope: &'r Scope, facts: &Facts<'_>) -> Result<(), Denied<'r>> {
    let mut allowed = scope.default_effect == Effect::Allow;
    for rule in scope.rules.iter() {
        match rule.effect {
            Effect::Deny if matches(rule, facts) => return Err(Denied::Rule(&rule.id)),
            // One that allows is enough, but a deny may follow.
            Effect::Allow if !allowed => allowed = matches(rule, facts),
            _ => {}
        }
    }
    if allowed { Ok(()) } else { Err(Denied::Default) }
}

/// The cheap parts first; the query is decoded and claims are searched only where all else matches.
fn matches(rule: &Rule, facts: &Facts<'_>) -> bool {
    (rule.methods.is_empty() || rule.methods.contains(facts.method))
        && rule.path.as_ref().is_none_or(|path| reads(path, facts.path))
        && rule.headers.iter().all(|condition| header_meets(condition, facts.headers))
        && rule.query.iter().all(|condition| query_meets(condition, facts.query))
        && rule.claims.iter().all(|condition| claim_meets(condition, facts.claims))
}

fn header_meets(condition: &Condition, headers: &HeaderMap) -> bool {
    let values = headers.get_all(&*condition.name).into_iter().map(|value| Cow::Borrowed(value.as_bytes()));
    any_meets(&condition.expect, values)
}

fn query_meets(condition: &Condition, query: Option<&[u8]>) -> bool {
    let pairs = query.map(query::pairs).into_iter().flatten();
    let values = pairs.filter(|(name, _)| **name == *condition.name.as_bytes()).map(|(_, value)| value);
    any_meets(&condition.expect, values)
}

fn any_meets<'v>(expect: &Expect, mut values: impl Iterator<Item = Cow<'v, [u8]>>) -> bool {
    match expect {
        Expect::Present => values.next().is_some(),
        Expect::Absent => values.next().is_none(),
        Expect::Value(regex) => values.any(|value| reads(regex, &value)),
    }
}

fn claim_meets(condition: &Condition, claims: Option<&Claims>) -> bool {
    let claim = claims.and_then(|claims| find_claim(claims, &condition.name));
    match (&condition.expect, claim) {
        (Expect::Present, claim) => claim.is_some(),
        (Expect::Absent, claim) => claim.is_none(),
        (Expect::Value(regex), Some(Value::Array(elements))) => elements.iter().any(|element| says(regex, element)),
        (Expect::Value(regex), Some(value)) => says(regex, value),
        (Expect::Value(_), None) => false,
    }
}

/// The member with this very name, which may have dots in it (`https://example.com/roles`); otherwise `a.b` is the `b` of `a`.
fn find_claim<'c>(claims: &'c Claims, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        name.match_indices('.').find_map(|(dot, _)| match claims.get(&name[..dot]) {
            Some(Value::Object(inner)) => find_claim(inner, &name[dot + 1..]),
            _ => None,
        })
    })
}

/// Whether a claim's text matches. `null`, objects and arrays in arrays are there, but have no text.
fn says(regex: &Regex, value: &Value) -> bool {
    match value {
        Value::String(text) => regex.is_match(text.as_bytes()),
        Value::Bool(true) => regex.is_match(b"true"),
        Value::Bool(false) => regex.is_match(b"false"),
        Value::Number(number) => regex.is_match(number.to_string().as_bytes()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Rules are written for text. In bytes that are no UTF-8 not even `.` would match, and `/admin/%FF` would escape a deny of
/// `^/admin/.+$`; read as U+FFFD it does not. Nothing is copied where the bytes are text.
fn reads(regex: &Regex, bytes: &[u8]) -> bool {
    regex.is_match(String::from_utf8_lossy(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn rule(id: &str, effect: Effect) -> Rule {
        let none = || Box::<[Condition]>::default();
        Rule { id: id.into(), effect, methods: [].into(), path: None, headers: none(), query: none(), claims: none() }
    }

    fn on_path(id: &str, effect: Effect, path: &str) -> Rule {
        Rule { path: Some(Arc::new(Regex::new(path).unwrap())), ..rule(id, effect) }
    }

    fn scope(default_effect: Effect, rules: impl Into<Arc<[Rule]>>) -> Scope {
        Scope { default_effect, rules: rules.into() }
    }

    fn value(name: &str, regex: &str) -> Condition {
        Condition { name: name.into(), expect: Expect::Value(Arc::new(Regex::new(regex).unwrap())) }
    }

    fn present(name: &str) -> Condition {
        Condition { name: name.into(), expect: Expect::Present }
    }

    fn absent(name: &str) -> Condition {
        Condition { name: name.into(), expect: Expect::Absent }
    }

    /// A request that tests change one thing of.
    struct Request {
        method: Method,
        path: &'static [u8],
        headers: HeaderMap,
        query: Option<&'static [u8]>,
        claims: Option<Claims>,
    }

    fn get(path: &'static str) -> Request {
        Request { method: Method::GET, path: path.as_bytes(), headers: HeaderMap::new(), query: None, claims: None }
    }

    impl Request {
        fn facts(&self) -> Facts<'_> {
            Facts {
                method: &self.method,
                path: self.path,
                headers: &self.headers,
                query: self.query,
                claims: self.claims.as_ref(),
            }
        }
    }

    use Effect::{Allow, Deny};

    #[test]
    fn deny_wins_then_allow_then_the_default() {
        let deny = || on_path("no-users", Deny, "^/users");
        let allow = || on_path("all", Allow, "^/");
        let miss = || on_path("miss", Allow, "^/orders");
        for (scope, expected) in [
            (scope(Allow, []), Ok(())),
            (scope(Deny, []), Err("default")),
            (scope(Allow, [deny()]), Err("no-users")),
            (scope(Deny, [deny()]), Err("no-users")),
            (scope(Deny, [allow()]), Ok(())),
            (scope(Deny, [allow(), deny()]), Err("no-users")),
            (scope(Deny, [deny(), allow()]), Err("no-users")),
            (scope(Allow, [miss()]), Ok(())),
            (scope(Deny, [miss()]), Err("default")),
            (scope(Deny, [miss(), allow()]), Ok(())),
            (scope(Deny, [allow(), miss()]), Ok(())),
            (scope(Allow, [on_path("first", Deny, "s$"), deny()]), Err("first")),
            (scope(Allow, [rule("everything", Deny)]), Err("everything")),
            (scope(Deny, [rule("everything", Allow)]), Ok(())),
        ] {
            assert_eq!(evaluate(&[&scope], &get("/users").facts()).map_err(Denied::id), expected);
        }
    }

    #[test]
    fn every_scope_must_allow() {
        let open = Scope::default();
        let closed = scope(Deny, []);
        let no_users = scope(Allow, [on_path("no-users", Deny, "^/users")]);
        let request = get("/users");
        assert_eq!(evaluate(&[], &request.facts()), Ok(()));
        assert_eq!(evaluate(&[&open; 4], &request.facts()), Ok(()));
        for at in 0..4 {
            for (denying, denied) in [(&closed, Denied::Default), (&no_users, Denied::Rule("no-users"))] {
                let mut scopes = [&open; 4];
                scopes[at] = denying;
                assert_eq!(evaluate(&scopes, &request.facts()), Err(denied), "scope {at}");
            }
        }
        assert_eq!(evaluate(&[&open, &no_users, &closed, &open], &request.facts()), Err(Denied::Rule("no-users")));
    }

    #[test]
    fn a_denial_names_its_rule() {
        assert_eq!(Denied::Rule("no-deletes").to_string(), "Denied by authorization rule no-deletes");
        assert_eq!(Denied::Default.to_string(), "Denied by authorization rule default");
    }

    #[test]
    fn a_rule_matches_when_all_it_names_matches() {
        let all = Rule {
            methods: [Method::PUT, Method::DELETE].into(),
            path: Some(Arc::new(Regex::new("^/users/[0-9]+$").unwrap())),
            headers: [value("x-team", "^a"), absent("x-trace")].into(),
            query: [present("force")].into(),
            claims: [value("role", "^admin$")].into(),
            ..rule("all", Deny)
        };
        let scope = scope(Allow, [all]);
        let base = || {
            let mut request = get("/users/7");
            request.method = Method::DELETE;
            request.headers.insert("x-team", HeaderValue::from_static("alpha"));
            request.query = Some(b"force=1");
            request.claims = json!({ "role": "admin" }).as_object().cloned();
            request
        };
        let denied = |request: Request| evaluate(&[&scope], &request.facts()).is_err();
        assert!(denied(base()));
        assert!(!denied(Request { method: Method::GET, ..base() }));
        assert!(!denied(Request { path: b"/users/x", ..base() }));
        assert!(!denied(Request { headers: HeaderMap::new(), ..base() }));
        assert!(!denied(Request { query: None, ..base() }));
        assert!(!denied(Request { claims: None, ..base() }));
        let mut traced = base();
        traced.headers.insert("x-trace", HeaderValue::from_static("1"));
        assert!(!denied(traced));
    }

    #[test]
    fn headers_with_several_values_match_by_any() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", &b"one"[..]), ("x-a", b"two"), ("x-empty", b""), ("x-bytes", b"\xff")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        for (condition, expected) in [
            (value("x-a", "^one$"), true),
            (value("x-a", "^two$"), true),
            (value("x-a", "^three$"), false),
            (value("x-b", ""), false),
            (value("x-empty", "^$"), true),
            (value("x-bytes", "^.$"), true),
            (present("x-a"), true),
            (present("x-empty"), true),
            (present("x-b"), false),
            (absent("x-a"), false),
            (absent("x-b"), true),
            (absent("no header name"), true),
        ] {
            assert_eq!(header_meets(&condition, &headers), expected, "{}", condition.name);
        }
    }

    #[test]
    fn query_parameters_are_matched_decoded() {
        let query = Some(&b"a=1&a=two%20words&b&c+d=x+y&%65=e"[..]);
        for (condition, expected) in [
            (value("a", "^1$"), true),
            (value("a", "^two words$"), true),
            (value("a", "^2$"), false),
            (value("b", "^$"), true),
            (value("c d", "^x y$"), true),
            (value("e", "^e$"), true),
            (present("b"), true),
            (present("B"), false),
            (present("c+d"), false),
            (absent("f"), true),
            (absent("a"), false),
        ] {
            assert_eq!(query_meets(&condition, query), expected, "{}", condition.name);
        }
        assert!(query_meets(&absent("a"), None));
        assert!(!query_meets(&present("a"), None));
        assert!(!query_meets(&value("a", ""), None));
    }

    #[test]
    fn claims_are_matched_as_text_by_element_and_by_path() {
        let claims = json!({
            "role": "admin", "level": 3, "ratio": 0.5, "staff": true, "nothing": null,
            "groups": ["a", "b", 7, null, ["c"]], "none": [],
            "address": { "country": "CH", "tags": ["x", "y"] },
            "https://example.com/app": { "role": "owner" },
            "a.b": "literal", "a": { "b": "nested", "c": 1 },
        });
        let claims = claims.as_object();
        for (condition, expected) in [
            (value("role", "^admin$"), true),
            (value("role", "^user$"), false),
            (value("level", "^3$"), true),
            (value("ratio", "^0\\.5$"), true),
            (value("staff", "^true$"), true),
            (value("nothing", ""), false),
            (present("nothing"), true),
            (absent("nothing"), false),
            (value("groups", "^b$"), true),
            (value("groups", "^7$"), true),
            (value("groups", "^c$"), false),
            (value("groups", "^a,b$"), false),
            (present("none"), true),
            (value("none", ""), false),
            (value("address", ""), false),
            (present("address"), true),
            (value("address.country", "^CH$"), true),
            (value("address.tags", "^y$"), true),
            (present("address.city"), false),
            (absent("address.city"), true),
            (present("role.x"), false),
            (value("https://example.com/app.role", "^owner$"), true),
            (value("a.b", "^literal$"), true),
            (value("a.b", "^nested$"), false),
            (value("a.c", "^1$"), true),
            (absent("missing"), true),
        ] {
            assert_eq!(claim_meets(&condition, claims), expected, "{}", condition.name);
        }
        assert!(claim_meets(&absent("role"), None));
        assert!(!claim_meets(&present("role"), None));
        assert!(!claim_meets(&value("role", ""), None));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_escape_a_rule() {
        let scope = scope(Allow, [on_path("no-admin", Deny, "^/admin/.+$")]);
        for path in [&b"/admin/x"[..], b"/admin/\xff", b"/admin/\xc0\xaf", "/admin/é".as_bytes()] {
            let request = Request { path, ..get("/") };
            assert_eq!(evaluate(&[&scope], &request.facts()), Err(Denied::Rule("no-admin")), "{path:?}");
        }
    }
}
