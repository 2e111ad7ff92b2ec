//! The `jwt` of a `jwt_verify` credential: pinned algorithms, and keys that each serve only the algorithms of their kind.
//!
//! A public RSA key taken for an HMAC secret lets anyone sign tokens. So a key's algorithms come from its kind, never from a token.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;

use super::model::{JwtKey, JwtPolicy};
use super::node::{Fields, Node};
use super::problem::quoted;
use super::secrets;

pub(super) const KEYS: [&str; 8] =
    ["algorithms", "secret", "public_key_file", "jwks_file", "jwks_url", "issuer", "audience", "leeway"];

pub(super) const KEY_SOURCES: [&str; 4] = ["secret", "public_key_file", "jwks_file", "jwks_url"];

pub(super) const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Bits of an RSA modulus: the least that RFC 7518 (3.3) allows, and the most that the verifier takes.
const MODULUS: RangeInclusive<usize> = 2_048..=8_192;

/// Clocks that differ more are a fault to mend, not to allow for.
pub(super) const MOST_LEEWAY: Duration = Duration::from_secs(600);

pub(super) const LEEWAY: Duration = Duration::from_secs(60);

/// RFC 7518 (3.2): an HMAC key of at least the size of the hash.
const LEAST_SECRET: usize = 32;

pub(super) fn policy(node: Node<'_>) -> Option<Arc<JwtPolicy>> {
    // What is no mapping here may well be a token.
    let node = if node.is_mapping() { node } else { node.hidden() };
    let fields = node.fields(&KEYS)?;
    let pinned = fields
        .required("algorithms", "write those that tokens may use, like `[RS256]`", |node| node.some_items(algorithm));
    let issuer = fields.optional("issuer", |node| node.text().map(str::to_owned));
    let audience = fields.or("audience", Vec::new(), audience);
    let leeway = fields.or("leeway", LEEWAY, leeway);
    let keys = keys(&fields, pinned.as_deref());
    let (pinned, keys) = (pinned?, keys?);
    let served = |algorithm: &&Algorithm| keys.iter().any(|key| key.algorithms.contains(algorithm));
    if let Some(algorithm) = pinned.iter().find(|algorithm| !served(algorithm)) {
        let algorithm = name(*algorithm);
        return fields.node.problem(format!("no key here can verify `{algorithm}`; remove it from `algorithms`"));
    }
    Some(Arc::new(JwtPolicy { algorithms: pinned, keys, issuer: issuer?, audience: audience?, leeway: leeway? }))
}

fn algorithm(node: Node<'_>) -> Option<Algorithm> {
    if node.text()?.eq_ignore_ascii_case("none") {
        return node.problem("a token without a signature proves nothing; write an algorithm like `RS256`");
    }
    if node.text()? == "ES512" {
        let supported = super::problem::alternatives(ALGORITHMS.iter().map(|(name, _)| *name));
        return node.wrong(&format!("is not supported; write {supported}"));
    }
    node.choice(&ALGORITHMS)
}

fn audience(node: Node<'_>) -> Option<Vec<String>> {
    if node.is_list() {
        node.some_items(|node| node.text().map(str::to_owned))
    } else {
        node.text().map(|text| vec![text.to_owned()])
    }
}

fn leeway(node: Node<'_>) -> Option<Duration> {
    match node.parse(super::units::duration)? {
        leeway if leeway > MOST_LEEWAY => {
            node.wrong("is too long; write at most `10m`: it lengthens the life of every token")
        }
        leeway => Some(leeway),
    }
}

fn keys(fields: &Fields<'_>, pinned: Option<&[Algorithm]>) -> Option<Vec<JwtKey>> {
    let given: Vec<&str> = KEY_SOURCES.into_iter().filter(|key| fields.has(key)).collect();
    match given.as_slice() {
        [] => fields
            .node
            .problem("says nowhere which key verifies; write `public_key_file`, `jwks_file`, or `secret` (for HS256)"),
        ["secret"] => fields.get("secret").and_then(|node| secret(node, pinned)),
        ["public_key_file"] => fields.get("public_key_file").and_then(|node| public_key(node, pinned)),
        ["jwks_file"] => fields.get("jwks_file").and_then(|node| jwks(node, pinned)),
        [_jwks_url] => fields.get("jwks_url").and_then(|node| {
            node.problem("a key set is not fetched yet; save it beside this file and write `jwks_file: NAME`")
        }),
        [first, second, ..] => fields.node.problem(format!("gives both `{first}` and `{second}`; keep one of them")),
    }
}

fn secret(node: Node<'_>, pinned: Option<&[Algorithm]>) -> Option<Vec<JwtKey>> {
    let secret = secrets::plain_secret(node, "signatures are computed with the secret itself")?;
    if secret.expose().len() < LEAST_SECRET {
        node.warn(format!(
            "the secret is shorter than {LEAST_SECRET} bytes, and may be guessed from a token; take a longer one"
        ));
    }
    let algorithms = serving(pinned?, &kinds(AlgorithmFamily::Hmac));
    if algorithms.is_empty() {
        return node.problem(
            "a secret verifies only HS256, HS384 and HS512; write `public_key_file` or `jwks_file` for the others",
        );
    }
    Some(vec![JwtKey { kid: None, algorithms, key: DecodingKey::from_secret(secret.expose()) }])
}

fn public_key(node: Node<'_>, pinned: Option<&[Algorithm]>) -> Option<Vec<JwtKey>> {
    let (name, bytes) = file(node)?;
    if bytes.windows(11).any(|window| window == b"PRIVATE KEY") {
        return node
            .problem(format!("{name} holds a private key, which only the issuer should have; write the public one"));
    }
    let key = DecodingKey::from_rsa_pem(&bytes)
        .or_else(|_| DecodingKey::from_ec_pem(&bytes))
        .or_else(|_| DecodingKey::from_ed_pem(&bytes));
    let Ok(key) = key else {
        return node.problem(format!(
            "{name} holds no public key; write the name of a PEM file that starts with `BEGIN PUBLIC KEY`"
        ));
    };
    let kind = match kind_of(&key) {
        Ok(kind) => kind,
        Err(reason) => return node.problem(format!("{name} holds {reason}")),
    };
    let algorithms = serving(pinned?, &kind);
    if algorithms.is_empty() {
        return node.problem(format!(
            "{name} holds a key for {}; write that into `algorithms`, or name another file",
            names(&kind)
        ));
    }
    Some(vec![JwtKey { kid: None, algorithms, key }])
}

fn jwks(node: Node<'_>, pinned: Option<&[Algorithm]>) -> Option<Vec<JwtKey>> {
    let (name, bytes) = file(node)?;
    // The library's reason may quote the file, so it is left out.
    let Ok(set) = serde_json::from_slice::<JwkSet>(&bytes) else {
        return node.problem(format!(
            "{name} is not a JSON Web Key Set; it looks like `{{\"keys\": [{{\"kty\": \"RSA\", ...}}]}}`"
        ));
    };
    let verifying = |key: &&Jwk| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
    let read = |(index, key): (usize, &Jwk)| match jwk(key, pinned?) {
        Ok(key) => Some(key),
        Err(reason) => node.problem(format!("key {} of {name} {reason}", index + 1)),
    };
    let keys: Vec<Option<JwtKey>> = set.keys.iter().enumerate().filter(|(_, key)| verifying(key)).map(read).collect();
    if keys.is_empty() {
        return node.problem(format!("{name} holds no key that verifies signatures; add one"));
    }
    keys.into_iter().collect()
}

fn jwk(jwk: &Jwk, pinned: &[Algorithm]) -> Result<JwtKey, String> {
    if let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm
        && pair.curve != EllipticCurve::Ed25519
    {
        return Err("is on a curve that is not supported; write an `Ed25519`, `P-256` or `P-384` key".to_owned());
    }
    let key =
        DecodingKey::from_jwk(jwk).map_err(|_| "cannot be used; write one of `kty` RSA, EC, OKP or oct".to_owned())?;
    let mut kind = kind_of(&key).map_err(|reason| format!("is {reason}"))?;
    if let Some(algorithm) = jwk.common.key_algorithm {
        kind.retain(|kind| algorithm == (*kind).into());
    }
    let algorithms = serving(pinned, &kind);
    if algorithms.is_empty() {
        return Err(match kind.is_empty() {
            true => "has an `alg` that is not one of its kind's; remove it, or the key".to_owned(),
            false => {
                format!("is for {}; write that into `algorithms`, or remove the key", names(&kind))
            }
        });
    }
    Ok(JwtKey { kid: jwk.common.key_id.clone(), algorithms, key })
}

/// The algorithms that a key may serve; or why it may serve none.
fn kind_of(key: &DecodingKey) -> Result<Vec<Algorithm>, String> {
    let bytes = match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => bytes,
        DecodingKeyKind::RsaModulusExponent { n, .. } => n,
    };
    match (key.family(), bytes.len()) {
        (AlgorithmFamily::Rsa, _) => {
            let bits = match key.kind() {
                DecodingKeyKind::SecretOrDer(der) => {
                    RSAPublicKey::from_der(der).map_or(0, |(_, key)| bits(key.modulus))
                }
                DecodingKeyKind::RsaModulusExponent { n, .. } => bits(n),
            };
            if bits < *MODULUS.start() {
                return Err(format!("an RSA key of less than {} bits; take a longer one", MODULUS.start()));
            }
            if bits > *MODULUS.end() {
                return Err(format!("an RSA key of more than {} bits; take a shorter one", MODULUS.end()));
            }
            Ok(kinds(AlgorithmFamily::Rsa))
        }
        (AlgorithmFamily::Hmac, 0) => Err("an empty secret; take one of 32 bytes or more".to_owned()),
        // An uncompressed point: a byte and two coordinates.
        (AlgorithmFamily::Ec, 65) => Ok(vec![Algorithm::ES256]),
        (AlgorithmFamily::Ec, 97) => Ok(vec![Algorithm::ES384]),
        (AlgorithmFamily::Ec, _) => Err("a key on a curve that is not supported; take P-256 or P-384".to_owned()),
        (AlgorithmFamily::Ed, length) if length != 32 => {
            Err("a key on a curve that is not supported; take Ed25519".to_owned())
        }
        (family, _) => Ok(kinds(family)),
    }
}

/// How long a big-endian number is without the zeros before it.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros).map_or(0, |first| 8 * (number.len() - zeros) - first.leading_zeros() as usize)
}

fn kinds(family: AlgorithmFamily) -> Vec<Algorithm> {
    family.algorithms().to_vec()
}

fn serving(pinned: &[Algorithm], kind: &[Algorithm]) -> Vec<Algorithm> {
    pinned.iter().copied().filter(|algorithm| kind.contains(algorithm)).collect()
}

fn file(node: Node<'_>) -> Option<(String, zeroize::Zeroizing<Vec<u8>>)> {
    let name = node.text()?;
    match node.source.read(&node.source.resolve(name)) {
        Ok(bytes) => Some((quoted(name), bytes)),
        Err(reason) => {
            node.problem(format!("{} cannot be read: {reason}; names are looked up beside this file", quoted(name)))
        }
    }
}

fn name(algorithm: Algorithm) -> &'static str {
    ALGORITHMS.iter().find(|(_, known)| *known == algorithm).map(|(name, _)| *name).expect("every algorithm has a name")
}

fn names(algorithms: &[Algorithm]) -> String {
    super::problem::alternatives(algorithms.iter().map(|algorithm| name(*algorithm)))
}
