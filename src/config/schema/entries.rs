//! The entries of the five lists, described beside their readers in `config::lists` and what it uses.

use std::time::Duration;

use serde_json::json;

use super::edge::{certificate, limits_of_proxy};
use super::words::{
    base_url, credential_header, duration, flag, form, header_name, id, one_of, scalar, text, whole, words,
};
use super::{Key, Object, Shape, Sources, Type};
use crate::config::credentials::{self, MOST_PER_DAY, MOST_PER_MINUTE};
use crate::config::{injection, jwt_keys, lists, rules, target, tls, units};

/// The pattern of `http://`, in upper and lower case.
const PLAIN_TEXT: &str = "^[Hh][Tt][Tt][Pp]:";

pub(in crate::config) fn fragment() -> Object {
    Object::new("fragment", &lists::KEYS, self::lists())
}

pub(super) fn lists() -> Vec<Key> {
    let list = |name, object, about| Key::new(name, Shape::Entries(object), about).or(Vec::<String>::new());
    vec![
        list("accounts", account(), "Who pays: a plan, and the state of billing."),
        list(
            "proxy_credentials",
            proxy_credential(),
            "What clients prove themselves with. Only digests of secrets are kept.",
        ),
        list(
            "target_credentials",
            target_credential(),
            "What takes the place of the client's credential on the way to the target.",
        ),
        list("targets", target(), "What is called."),
        list("proxies", proxy(), "What ties the others together: each is reached as /api/{id}/..."),
    ]
}

fn own_id() -> Key {
    Key::new("id", id(), "A name that is its own in this list, in all files.").required()
}

fn account() -> Object {
    let keys = vec![
        own_id(),
        Key::new(
            "plan",
            words(&credentials::PLANS),
            "For each credential: `basic` 100 requests a minute; `team` 1,000; `business` its `rate_limit`.",
        )
        .required(),
        Key::new(
            "billing",
            words(&credentials::BILLING),
            "`active`; `low_budget`: a warning with every answer; `suspended`: 402.",
        )
        .or("active"),
        Key::new(
            "rate_limit",
            Shape::Object(rate_limit()),
            "What plan `business` allows each credential; goes with that plan only.",
        ),
    ];
    Object::new("account", &credentials::ACCOUNT_KEYS, keys).and(&json!({
        "if": { "required": ["plan"], "properties": { "plan": { "const": "business" } } },
        "then": { "required": ["rate_limit"], "properties": { "rate_limit": { "required": ["requests_per_minute"] } } },
        "else": { "properties": { "rate_limit": false } },
    }))
}

fn rate_limit() -> Object {
    let keys = vec![
        Key::new("requests_per_minute", whole(1, MOST_PER_MINUTE), "Requests in any 60 seconds."),
        Key::new("requests_per_day", whole(1, MOST_PER_DAY), "Requests in a day of UTC."),
    ];
    Object::new("rateLimit", &credentials::RATE_LIMIT_KEYS, keys).and(&json!({ "minProperties": 1 }))
}

fn proxy_credential() -> Object {
    let moment = form("^[+-]?[0-9]{4,6}-?[0-9]{2}-?[0-9]{2}[Tt ].+$", "Write a moment like `2030-01-31T00:00:00Z`");
    let mut keys = vec![
        own_id(),
        Key::new("account", id(), "The id of one of `accounts`. Default: none, and plan `defaults.plan`."),
        Key::new("type", words(&credentials::KINDS), "How it is sent in `Authorization`, and checked.").required(),
        Key::new("secret", Shape::Secret(Sources::Any), "What the client sends, or for `basic` its password."),
        Key::new("username", username(), "The user name that goes with the password of `basic`."),
        Key::new("jwt", Shape::Object(jwt()), "Which tokens `jwt_verify` takes."),
        Key::new("active", flag(), "false: denied like a credential that does not exist.").or(true),
        Key::new("expires_at", moment, "From then on it is denied (RFC 3339). Default: never.")
            .like(&json!(["2035-01-01T00:00:00Z"])),
        Key::new("rate_limit", Shape::Object(rate_limit()), "Either or both; goes before the account's."),
    ];
    keys.extend(scope());
    let fixed = |word| Type { word, takes: &["secret"], requires: &["secret"], defaults: Vec::new(), unless: "" };
    Object::new("proxyCredential", &credentials::KEYS, keys).typed(vec![
        fixed("api_key"),
        fixed("bearer"),
        Type { takes: &["secret", "username"], requires: &["secret", "username"], ..fixed("basic") },
        fixed("jwt"),
        Type { takes: &["jwt"], requires: &["jwt"], ..fixed("jwt_verify") },
    ])
}

fn username() -> Shape {
    form("^[^:\\u0000-\\u001f\\u007f-\\u009f]+$", "Write it without colons and control characters")
}

fn jwt() -> Object {
    let algorithms = || words(&jwt_keys::ALGORITHMS);
    let texts = json!({ "anyOf": [
        { "type": "string", "minLength": 1 },
        { "type": "array", "minItems": 1, "items": { "type": "string", "minLength": 1 } },
    ] });
    let keys = vec![
        Key::new(
            "algorithms",
            Shape::some(algorithms()),
            "Those that a token may use; its own `alg` only selects from them.",
        )
        .required()
        .like(&json!([["RS256"], ["ES256"]])),
        Key::new("secret", Shape::Secret(Sources::Plain), "The key of HS256, HS384 and HS512; of 32 bytes or more."),
        Key::new(
            "public_key_file",
            text(),
            "A PEM file with the public key, RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519.",
        ),
        Key::new("jwks_file", text(), "A file with a JSON Web Key Set."),
        Key::new("issuer", text(), "The token's `iss`. Default: any."),
        Key::new("audience", scalar(&texts), "The token's `aud` names one of these. Default: any.")
            .like(&json!([["orders"]])),
        Key::new("leeway", duration(Duration::ZERO, jwt_keys::MOST_LEEWAY), "How far clocks may differ; at most 10m.")
            .or(units::show_duration(jwt_keys::LEEWAY)),
    ];
    let refused = ["jwks_url"];
    let sources = jwt_keys::KEY_SOURCES.iter().filter(|source| !refused.contains(source));
    let one: Vec<_> = sources.map(|source| json!({ "required": [source] })).collect();
    let hmac = "^HS";
    Object::new("jwt", &jwt_keys::KEYS, keys)
        .refusing(&["jwks_url"])
        .and(&json!({ "oneOf": one }))
        .and(&json!({
            "if": { "required": ["secret"] },
            "then": { "properties": { "algorithms": { "items": { "pattern": hmac } } } },
        }))
        .and(&json!({
            "if": { "required": ["public_key_file"] },
            "then": { "properties": { "algorithms": { "items": { "not": { "pattern": hmac } } } } },
        }))
}

fn target_credential() -> Object {
    let prefix = form("^\\s*$|^[!-~][ -~]*\\s*$", "Write a scheme like `Bearer`, or `\"\"` for none");
    let mut keys = vec![
        own_id(),
        Key::new(
            "type",
            one_of(injection::KINDS.iter().map(|(word, _)| *word).filter(|word| *word != "oauth2")),
            "How the target wants its credential.",
        )
        .required(),
        Key::new("secret", Shape::Secret(Sources::Plain), "What the target is shown, or for `basic` the password."),
        Key::new("prefix", prefix, "What stands before the secret in its header."),
        Key::new("header", scalar(&credential_header()), "The header that carries an `api_key`.")
            .like(&json!(["X-API-Key"])),
        Key::new("query", text(), "The query parameter that carries an `api_key`, instead of a header.")
            .like(&json!(["key"])),
        Key::new("username", username(), "The user name that goes with the password of `basic`."),
        Key::new("headers", Shape::Headers, "Headers of your own with their secrets, for `custom`.")
            .like(&json!([{ "X-Key": { "file": "secrets/key" } }])),
        Key::new("expose", flag(), "true: the target may send its credential back in the header of an answer."),
    ];
    keys.extend(scope());
    let hidden = ("expose", false.into());
    let none = |word| Type { word, takes: &[], requires: &[], defaults: Vec::new(), unless: "" };
    let bearer = |word| Type {
        takes: &["secret", "prefix", "expose"],
        requires: &["secret"],
        defaults: vec![("prefix", "Bearer".into()), hidden.clone()],
        ..none(word)
    };
    Object::new("targetCredential", &injection::KEYS, keys)
        .typed(vec![
            bearer("bearer"),
            Type {
                takes: &["secret", "prefix", "header", "query", "expose"],
                requires: &["secret"],
                defaults: vec![("prefix", "".into()), ("header", "Authorization".into())],
                unless: "query",
                ..none("api_key")
            },
            Type {
                takes: &["secret", "username", "expose"],
                requires: &["secret", "username"],
                defaults: vec![hidden.clone()],
                ..none("basic")
            },
            bearer("jwt"),
            Type {
                takes: &["headers", "expose"],
                requires: &["headers"],
                defaults: vec![hidden.clone()],
                ..none("custom")
            },
            none("none"),
        ])
        .and(&json!({
            "if": { "required": ["query"] },
            "then": { "properties": { "header": false, "prefix": false } },
        }))
}

fn target() -> Object {
    let mut keys = vec![
        own_id(),
        Key::new(
            "base_url",
            base_url(),
            "Scheme, host, port and path, nothing else. The path goes before that of each request.",
        )
        .required()
        .like(&json!(["https://api.example.com/v1"])),
        Key::new("tls", Shape::Object(target_tls()), "For `https`, beside the usual checks."),
        Key::new("http", words(&target::HTTP), "`auto`: HTTP/2 where the target offers it.").or("auto"),
    ];
    keys.extend(scope());
    Object::new("target", &target::KEYS, keys).and(&json!({
        "if": { "required": ["base_url"], "properties": { "base_url": { "pattern": PLAIN_TEXT } } },
        "then": { "properties": { "tls": false } },
    }))
}

fn target_tls() -> Object {
    let keys = vec![
        Key::new("ca", text(), "A PEM file with roots, in place of the system's."),
        Key::new("client_certificate", Shape::Object(certificate()), "The certificate that the edge shows."),
    ];
    Object::new("targetTls", &tls::TARGET_KEYS, keys)
}

fn proxy() -> Object {
    // `.` and `..` mean folders in URLs.
    let id = form(
        "^(?:\\.{3,128}|(?=.*[^.])[A-Za-z0-9._~-]{1,128})$",
        "Write up to 128 letters, digits, `-`, `.`, `_` and `~`; it is part of a URL",
    );
    let mut keys = vec![
        Key::new("id", id, "Its name in the URL: /api/{id}/...").required(),
        Key::new("target", self::id(), "The id of one of `targets`.").required(),
        Key::new(
            "target_credential",
            self::id(),
            "The id of one of `target_credentials`. Default: none, the client's is just removed.",
        ),
        Key::new("proxy_credentials", Shape::some(self::id()), "The ids of those that may call.")
            .required()
            .like(&json!([["acme-mobile"]])),
    ];
    keys.extend(limits_of_proxy());
    keys.extend([
        Key::new(
            "rate_limit_headers",
            flag(),
            "`RateLimit` and `RateLimit-Policy` with every answer, not with 429 only.",
        )
        .or(false),
        Key::new("active", flag(), "false: denied like a proxy that does not exist.").or(true),
    ]);
    keys.extend(scope());
    Object::new("proxy", &lists::PROXY_KEYS, keys)
}

/// The keys of every scope of rules.
fn scope() -> [Key; 2] {
    [
        Key::new("default_effect", words(&rules::EFFECTS), "What holds where no rule matches.").or("allow"),
        Key::new(
            "rules",
            Shape::list(Shape::Object(rule())),
            "Any that denies and matches denies; else any that allows and matches allows; else `default_effect` holds.",
        )
        .or(Vec::<String>::new()),
    ]
}

fn rule() -> Object {
    let id = form("^[A-Za-z0-9._-]+$", "Write letters, digits, `-`, `_` and `.` only");
    let pattern = || text();
    let conditions = |name, shape, about| Key::new(name, Shape::some(Shape::Object(condition(name, shape))), about);
    let keys = vec![
        Key::new("id", id, "A name that tells a denied caller which rule it was.").required(),
        Key::new("effect", words(&rules::EFFECTS), "What it does when all that it names matches.").required(),
        Key::new("methods", Shape::some(words(&rules::METHODS)), "Any of these. Default: any."),
        Key::new(
            "path",
            pattern(),
            "A regular expression on the target path, decoded; it matches anywhere unless anchored.",
        )
        .like(&json!(["^/users(/|$)"])),
        conditions("headers", header_name(), "Conditions on headers of the client."),
        conditions("query", text(), "Conditions on query parameters, decoded."),
        conditions("claims", text(), "Conditions on claims of a verified token; `a.b` is the `b` of `a`."),
    ];
    Object::new("rule", &rules::KEYS, keys)
}

fn condition(of: &str, name: Shape) -> Object {
    let keys = vec![
        Key::new("name", name, "What the condition is about.").required(),
        Key::new("value", text(), "A regular expression that one of its values must match."),
        Key::new("presence", words(&rules::PRESENCE), "Whether it must be there. Default, without `value`: present."),
    ];
    let definition = if of == "headers" { "headerCondition" } else { "condition" };
    Object::new(definition, &rules::CONDITION_KEYS, keys)
        .and(&json!({ "if": { "required": ["value"] }, "then": { "properties": { "presence": false } } }))
}
