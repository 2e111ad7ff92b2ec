//! In: a token that a client sent, and a policy. Out: its claims, or why it is refused.
//!
//! The token's header only *selects*: `alg` from the pinned list, `kid` from the configured keys. Keys that it brings along
//! (`jwk`, `jku`, `x5c`, `x5u`) are never looked at. Where a JSON object names a member twice, the last one counts, for the checks
//! here and for the rules alike (RFC 7519 4 leaves us the choice); what the target makes of such a token does not matter, because
//! it never sees it.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::config::model::{JwtKey, JwtPolicy};

/// The claims of a token, as rules see them.
pub type Claims = serde_json::Map<String, Value>;

/// Keys tried for one token and policy: without a `kid` each key that fits the algorithm is a candidate, and a client must not
/// make us try a large key set at every request.
const MAX_CANDIDATES: usize = 4;

/// A token that is well formed. Nothing in it is true until [`verify`] says so.
pub struct Token<'t> {
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Claims,
    /// Header and payload as sent: what is signed.
    message: &'t [u8],
    /// Base64url, not empty.
    signature: &'t str,
}

/// Why a token is refused. For logs and tests: a client only learns that its credential is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Not three parts of unpadded base64url, of which the first two are JSON objects and the last is not empty.
    Malformed,
    /// It has a `crit` header: an extension that must be understood, and none is (RFC 7515 4.1.11).
    Critical,
    /// `none`, an unknown algorithm, or one that the policy does not pin.
    Algorithm,
    Issuer,
    Audience,
    /// No key has its `kid` and fits its algorithm.
    NoKey,
    Signature,
    /// At or after `exp`, or without one.
    Expired,
    NotYetValid,
}

impl Rejection {
    /// Whether a signature had been verified by then.
    pub(super) fn is_after_signature(self) -> bool {
        matches!(self, Self::Signature | Self::Expired | Self::NotYetValid)
    }
}

impl<'t> Token<'t> {
    /// Takes a token apart, with nothing around it.
    ///
    /// # Errors
    /// `Malformed`, `Critical`, or `Algorithm` for one that nobody could accept.
    pub fn parse(text: &'t [u8]) -> Result<Self, Rejection> {
        let mut parts = text.split(|&byte| byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Rejection::Malformed);
        };
        let header_values = object(header).ok_or(Rejection::Malformed)?;
        if header_values.contains_key("crit") {
            return Err(Rejection::Critical);
        }
        let algorithm = header_values.get("alg").and_then(Value::as_str).ok_or(Rejection::Malformed)?;
        let algorithm = algorithm.parse().map_err(|_| Rejection::Algorithm)?;
        let kid = match header_values.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Rejection::Malformed),
        };
        let claims = object(payload).ok_or(Rejection::Malformed)?;
        let signature = std::str::from_utf8(signature).map_err(|_| Rejection::Malformed)?;
        if signature.is_empty() || URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err(Rejection::Malformed);
        }
        let message = &text[..header.len() + 1 + payload.len()];
        Ok(Self { algorithm, kid, claims, message, signature })
    }

    /// The claims, once the token is verified.
    pub fn into_claims(self) -> Claims {
        self.claims
    }

    /// `iss` and `aud` are compared before the signature because they tell apart the policies of one proxy: a token costs the
    /// verifications of the policy that it is meant for. The signature covers them, so that the order changes no verdict.
    fn meant_for(&self, policy: &JwtPolicy) -> Result<(), Rejection> {
        if !policy.algorithms.contains(&self.algorithm) {
            return Err(Rejection::Algorithm);
        }
        if let Some(issuer) = &policy.issuer
            && self.claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Rejection::Issuer);
        }
        let names_us =
            |value: &Value| value.as_str().is_some_and(|name| policy.audience.iter().any(|ours| ours == name));
        let audience = match self.claims.get("aud") {
            _ if policy.audience.is_empty() => true,
            Some(Value::Array(names)) => names.iter().any(names_us),
            Some(name) => names_us(name),
            None => false,
        };
        if audience { Ok(()) } else { Err(Rejection::Audience) }
    }

    /// The keys that may have signed this token, those with its `kid` first.
    fn candidates<'p>(&self, policy: &'p JwtPolicy) -> impl Iterator<Item = &'p JwtKey> {
        let named = policy.keys.iter().filter(|key| self.kid.is_some() && key.kid == self.kid);
        let unnamed = policy.keys.iter().filter(|key| self.kid.is_none() || key.kid.is_none());
        named.chain(unnamed).filter(|key| key.algorithms.contains(&self.algorithm)).take(MAX_CANDIDATES)
    }

    /// The time of the last moment, and of the first. RFC 7519 4.1.4: not "on or after" `exp`; 4.1.5: not "before" `nbf`.
    fn check_times(&self, policy: &JwtPolicy, now: SystemTime) -> Result<(), Rejection> {
        // A clock before 1970 is broken; at 0 nothing with a sane `nbf` is valid yet.
        let now = nanos(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let leeway = nanos(policy.leeway);
        let expires = self.claims.get("exp").and_then(numeric_date).ok_or(Rejection::Expired)?;
        if now >= expires.saturating_add(leeway) {
            return Err(Rejection::Expired);
        }
        match self.claims.get("nbf").map(numeric_date) {
            None => Ok(()),
            Some(Some(start)) if now.saturating_add(leeway) >= start => Ok(()),
            Some(_) => Err(Rejection::NotYetValid),
        }
    }

    fn is_signed_with(&self, key: &DecodingKey) -> bool {
        #[cfg(test)]
        super::signing::count_verification();
        // An HMAC key for an RSA token, and the other way round, is refused in here as well; by then our own lists have.
        key.family() == self.algorithm.family()
            && jsonwebtoken::crypto::verify(self.signature, self.message, key, self.algorithm).unwrap_or(false)
    }
}

/// Whether a policy accepts a token at `now`.
///
/// # Errors
/// The first check that fails; those that select the policy come first, the times last.
pub fn verify(token: &Token<'_>, policy: &JwtPolicy, now: SystemTime) -> Result<(), Rejection> {
    token.meant_for(policy)?;
    let mut candidates = token.candidates(policy).peekable();
    if candidates.peek().is_none() {
        return Err(Rejection::NoKey);
    }
    if !candidates.any(|key| token.is_signed_with(&key.key)) {
        return Err(Rejection::Signature);
    }
    token.check_times(policy, now)
}

/// Spends the time of one verification with a key that nobody holds, for a token that no policy wanted: how long a denial takes
/// must not tell whether there is a proxy, and whether it takes tokens.
///
/// Not hidden: keys of another size than these, and more than one candidate key.
pub(super) fn verify_decoy(token: &Token<'_>) {
    let key = match token.algorithm {
        Algorithm::ES256 => &DECOYS.p256,
        Algorithm::ES384 => &DECOYS.p384,
        Algorithm::EdDSA => &DECOYS.ed25519,
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => &DECOYS.rsa,
        _ => &DECOYS.hmac,
    };
    black_box(token.is_signed_with(key));
}

/// The claims of a fixed token, whose digest vouches for them. `None`: it was no JWT after all.
pub(super) fn claims_of_fixed(token: &[u8]) -> Option<Claims> {
    object(token.split(|&byte| byte == b'.').nth(1)?)
}

struct Decoys {
    hmac: DecodingKey,
    rsa: DecodingKey,
    p256: DecodingKey,
    p384: DecodingKey,
    ed25519: DecodingKey,
}

/// Public halves of keys whose private halves were thrown away. It would not matter if they had not been: what they verify is
/// ignored.
static DECOYS: LazyLock<Decoys> = LazyLock::new(|| Decoys {
    hmac: DecodingKey::from_secret(b"IjIv8_ASlVqd7zmeB6M8edPlxbVc15sh"),
    rsa: DecodingKey::from_rsa_components(
        "pkaLWj5hd1-JNGnojKfBuYz_EicqQCTdoMI1WpD3dk1CBzN9Y5kv6r8001vkh_a3-mW3XRfKap8Q_S6P-Ub7GbdiqHX-M-hoZOnvEqVkwS48ia\
         Zn62M37VbXcZHAfWXKmNxXux16KzKt1sxcmg_1aeD4dwXbGK4v8shTu9-1Po6Vk1emBWm5dX6DVjUPfujHk2c1-u7uKWoX4A5IN9PuCatpQNrr\
         FpwmqHg1DLK5UEOSrYzE5tGKUPQvavhdH-WnCZwfCGMHUOHG4UbV4SGcK_uPA8dxAwpReDu8m1UGSiYv9XHL1TLfMpGcfigGAKxAZl7LNp3zSY\
         iabsz7MIvxBQ",
        "AQAB",
    )
    .expect("an embedded key is valid base64url"),
    p256: DecodingKey::from_ec_components(
        "IMeRn1Lczd_3VN00usE0ymDlgp0YoWDKpF5ADFWZ44U",
        "eYQNnzdbByB2xC5bIdpV178E-iAPOxUjw0AzC9o6ppk",
    )
    .expect("an embedded key is valid base64url"),
    p384: DecodingKey::from_ec_components(
        "GwhzRlVMlPkD-GtYVhtHt-xuP6U77ohTVEYCeMnY9yXi-8mqDkl56X6sXWXQzl_1",
        "0fmElEbjE6Lxi9aIoJtBDZ6lSE1FuLuSMb3TQXAIOXI_rb0Ym0m8PhnCF-PZUAmc",
    )
    .expect("an embedded key is valid base64url"),
    ed25519: DecodingKey::from_ed_components("H21hn3vvxx28mSTAY7oC87AfEX4UpV85lqiYG-U4HJQ")
        .expect("an embedded key is valid base64url"),
});

/// A JSON object in unpadded base64url.
fn object(part: &[u8]) -> Option<Claims> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// A NumericDate (RFC 7519 2) in nanoseconds: a JSON number of seconds, which may have a fraction. Anything else is no date.
fn numeric_date(value: &Value) -> Option<i128> {
    const SECOND: i128 = 1_000_000_000;
    if let Some(seconds) = value.as_i64() {
        return Some(i128::from(seconds) * SECOND);
    }
    if let Some(seconds) = value.as_u64() {
        return Some(i128::from(seconds) * SECOND);
    }
    value.as_f64().map(|seconds| (seconds * 1e9) as i128) // saturates
}

fn nanos(duration: std::time::Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::signing::*;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn check(token: &str, policy: &JwtPolicy) -> Result<(), Rejection> {
        verify(&Token::parse(token.as_bytes())?, policy, at(NOW))
    }

    #[test]
    fn every_pinned_algorithm_verifies_its_own_tokens_and_no_others() {
        for signer in signers() {
            let token = signer.sign(json!({}), &json!({ "exp": NOW + 60, "sub": "ada" }));
            let parsed = Token::parse(token.as_bytes()).unwrap();
            assert_eq!(verify(&parsed, &policy(&[&signer]), at(NOW)), Ok(()), "{:?}", signer.algorithm);
            assert_eq!(parsed.into_claims()["sub"], "ada");
            for other in signers() {
                let expected = match other.algorithm == signer.algorithm {
                    true if other.is_shared() => Ok(()),
                    true => Err(Rejection::Signature),
                    false => Err(Rejection::Algorithm),
                };
                assert_eq!(check(&token, &policy(&[&other])), expected, "{:?} {:?}", signer.algorithm, other.algorithm);
            }
        }
    }

    #[test]
    fn an_rsa_public_key_is_no_hmac_secret() {
        let rsa = Signer::rsa(Algorithm::RS256);
        for public in [rsa_public_der(), rsa_public_pem().into_bytes()] {
            let forger = Signer::hmac(Algorithm::HS256, &public);
            let token = forger.sign(json!({}), &json!({ "exp": NOW + 60 }));
            assert_eq!(check(&token, &policy(&[&forger])), Ok(()), "the forgery itself is sound");
            assert_eq!(check(&token, &policy(&[&rsa])), Err(Rejection::Algorithm));

            // Even where an operator pins both, and even where the key's own list is wrong.
            let mut both = policy(&[&rsa]);
            both.algorithms = vec![Algorithm::RS256, Algorithm::HS256];
            assert_eq!(check(&token, &both), Err(Rejection::NoKey));
            both.keys[0].algorithms = both.algorithms.clone();
            assert_eq!(check(&token, &both), Err(Rejection::Signature));
        }
    }

    #[test]
    fn a_key_verifies_only_the_algorithms_of_its_own_list() {
        let rs256 = Signer::rsa(Algorithm::RS256);
        let mut policy = policy(&[&rs256]);
        policy.algorithms.push(Algorithm::PS256);
        let token = Signer::rsa(Algorithm::PS256).sign(json!({}), &json!({ "exp": NOW + 60 }));
        assert_eq!(check(&token, &policy), Err(Rejection::NoKey));
        policy.keys[0].algorithms.push(Algorithm::PS256);
        assert_eq!(check(&token, &policy), Ok(()));
    }

    #[test]
    fn what_is_no_signed_token_is_refused() {
        let signer = Signer::hmac(Algorithm::HS256, b"a secret of sufficient length ...");
        let policy = policy(&[&signer]);
        let good = signer.sign(json!({}), &json!({ "exp": NOW + 60 }));
        assert_eq!(check(&good, &policy), Ok(()));
        let (head, signature) = good.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let forged = encode_part(&json!({ "exp": NOW + 60, "sub": "root" }));
        let none = |alg: &str| format!("{}.{forged}.", encode_part(&json!({ "alg": alg })));
        let other_header = encode_part(&json!({ "alg": "HS512" }));
        let shouting = encode_part(&json!({ "alg": "hs256" }));
        for (token, rejection) in [
            (String::new(), Rejection::Malformed),
            ("..".into(), Rejection::Malformed),
            ("a.b.c".into(), Rejection::Malformed),
            (head.into(), Rejection::Malformed),
            (format!("{head}."), Rejection::Malformed),
            (format!("{good}."), Rejection::Malformed),
            (format!("{good}.{signature}"), Rejection::Malformed),
            (format!("{good} "), Rejection::Malformed),
            (format!(" {good}"), Rejection::Malformed),
            (format!("{good}\n"), Rejection::Malformed),
            (format!("{good}="), Rejection::Malformed),
            (format!("{head} .{signature}"), Rejection::Malformed),
            (format!("{good}AAAA"), Rejection::Signature),
            (format!("{header}.{forged}.{signature}"), Rejection::Signature),
            (format!("{head}.{}", &signature[4..]), Rejection::Signature),
            (format!("{other_header}.{forged}.{signature}"), Rejection::Algorithm),
            (format!("{shouting}.{forged}.{signature}"), Rejection::Algorithm),
            (none("none"), Rejection::Algorithm),
            (none("None"), Rejection::Algorithm),
            (none(""), Rejection::Algorithm),
            (none("HS256"), Rejection::Malformed),
            (format!("{}.{forged}.{signature}", encode_part(&json!({}))), Rejection::Malformed),
            (format!("{}.{forged}.{signature}", encode_part(&json!(["HS256"]))), Rejection::Malformed),
            (format!("{header}.{}.{signature}", encode_part(&json!("claims"))), Rejection::Malformed),
            (signer.sign(json!({ "crit": ["b64"], "b64": false }), &json!({ "exp": NOW + 60 })), Rejection::Critical),
            (signer.sign(json!({ "crit": [] }), &json!({ "exp": NOW + 60 })), Rejection::Critical),
            (signer.sign(json!({ "kid": 1 }), &json!({ "exp": NOW + 60 })), Rejection::Malformed),
            (signer.sign(json!({ "kid": null }), &json!({ "exp": NOW + 60 })), Rejection::Malformed),
        ] {
            assert_eq!(check(&token, &policy), Err(rejection), "{token}");
        }
    }

    #[test]
    fn trouble_in_the_json_is_no_trouble_here() {
        let signer = Signer::hmac(Algorithm::HS256, b"a secret of sufficient length ...");
        let policy = policy(&[&signer]);
        let raw = |payload: &str| signer.sign_raw(r#"{"alg":"HS256"}"#, payload.as_bytes());
        let deep = format!(r#"{{"exp":{},"a":{}{}}}"#, NOW + 60, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(check(&raw(&deep), &policy), Err(Rejection::Malformed));
        assert_eq!(check(&raw(&format!(r#"{{"exp":1,"exp":{}}}"#, NOW + 60)), &policy), Ok(()), "the last one counts");
        assert_eq!(check(&raw(&format!(r#"{{"exp":{},"exp":1}}"#, NOW + 60)), &policy), Err(Rejection::Expired));
        assert_eq!(check(&signer.sign_raw(r#"{"alg":"HS256"}"#, b"\xff\xfe"), &policy), Err(Rejection::Malformed));
        let large = json!({ "exp": NOW + 60, "pad": "x".repeat(64 << 10) });
        assert_eq!(check(&signer.sign(json!({}), &large), &policy), Ok(()));
    }

    #[test]
    fn times_hold_to_the_second_of_the_leeway() {
        let signer = Signer::hmac(Algorithm::HS256, b"a secret of sufficient length ...");
        let policy = policy(&[&signer]); // leeway 60 s
        use Rejection::{Expired, NotYetValid};
        for (claims, expected) in [
            (json!({ "exp": NOW + 1 }), Ok(())),
            (json!({ "exp": NOW - 59 }), Ok(())),
            (json!({ "exp": NOW - 60 }), Err(Expired)),
            (json!({ "exp": NOW as f64 - 59.5 }), Ok(())),
            (json!({ "exp": NOW as f64 - 60.5 }), Err(Expired)),
            (json!({}), Err(Expired)),
            (json!({ "exp": null }), Err(Expired)),
            (json!({ "exp": (NOW + 60).to_string() }), Err(Expired)),
            (json!({ "exp": [NOW + 60] }), Err(Expired)),
            (json!({ "exp": 0 }), Err(Expired)),
            (json!({ "exp": -1 }), Err(Expired)),
            (json!({ "exp": i64::MIN }), Err(Expired)),
            (json!({ "exp": -1e300 }), Err(Expired)),
            (json!({ "exp": i64::MAX }), Ok(())),
            (json!({ "exp": u64::MAX }), Ok(())),
            (json!({ "exp": 1e300 }), Ok(())),
            (json!({ "exp": NOW + 60, "nbf": NOW + 60 }), Ok(())),
            (json!({ "exp": NOW + 60, "nbf": NOW + 61 }), Err(NotYetValid)),
            (json!({ "exp": NOW + 60, "nbf": NOW as f64 + 60.5 }), Err(NotYetValid)),
            (json!({ "exp": NOW + 60, "nbf": -1 }), Ok(())),
            (json!({ "exp": NOW + 60, "nbf": 1e300 }), Err(NotYetValid)),
            (json!({ "exp": NOW + 60, "nbf": "0" }), Err(NotYetValid)),
            (json!({ "exp": NOW + 60, "nbf": null }), Err(NotYetValid)),
        ] {
            assert_eq!(check(&signer.sign(json!({}), &claims), &policy), expected, "{claims}");
        }
        let token = signer.sign(json!({}), &json!({ "exp": NOW }));
        let token = Token::parse(token.as_bytes()).unwrap();
        let last = at(NOW + 60) - Duration::from_nanos(1);
        assert_eq!(verify(&token, &policy, last), Ok(()));
        assert_eq!(verify(&token, &policy, at(NOW + 60)), Err(Expired));
        assert_eq!(verify(&token, &policy, UNIX_EPOCH - Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn issuer_and_audience_must_be_ours() {
        let signer = Signer::hmac(Algorithm::HS256, b"a secret of sufficient length ...");
        let mut ours = policy(&[&signer]);
        ours.issuer = Some("https://id.example.com/".into());
        ours.audience = vec!["orders".into(), "users".into()];
        use Rejection::{Audience, Issuer};
        for (issuer, audience, expected) in [
            (json!("https://id.example.com/"), json!("orders"), Ok(())),
            (json!("https://id.example.com/"), json!(["else", "users"]), Ok(())),
            (json!("https://id.example.com"), json!("orders"), Err(Issuer)),
            (json!(["https://id.example.com/"]), json!("orders"), Err(Issuer)),
            (json!(null), json!("orders"), Err(Issuer)),
            (json!("https://id.example.com/"), json!("Orders"), Err(Audience)),
            (json!("https://id.example.com/"), json!([]), Err(Audience)),
            (json!("https://id.example.com/"), json!([["orders"]]), Err(Audience)),
            (json!("https://id.example.com/"), json!({ "orders": "orders" }), Err(Audience)),
            (json!("https://id.example.com/"), json!(null), Err(Audience)),
        ] {
            let claims = json!({ "exp": NOW + 60, "iss": issuer, "aud": audience });
            assert_eq!(check(&signer.sign(json!({}), &claims), &ours), expected, "{claims}");
        }
        let bare = signer.sign(json!({}), &json!({ "exp": NOW + 60, "iss": "https://id.example.com/" }));
        assert_eq!(check(&bare, &ours), Err(Audience));
        let bare = signer.sign(json!({}), &json!({ "exp": NOW + 60, "aud": "orders" }));
        assert_eq!(check(&bare, &ours), Err(Issuer));
        assert_eq!(check(&bare, &policy(&[&signer])), Ok(()), "neither is checked unless configured");
    }

    #[test]
    fn a_kid_selects_the_key() {
        let [a, b, c] = [0, 1, 2].map(|_| Signer::p256());
        let mut policy = policy(&[&a, &b, &c]);
        policy.keys[0].kid = Some("a".into());
        policy.keys[1].kid = Some("b".into());
        let claims = json!({ "exp": NOW + 60 });
        for (signer, header, expected) in [
            (&a, json!({ "kid": "a" }), Ok(())),
            (&b, json!({ "kid": "b" }), Ok(())),
            (&a, json!({ "kid": "b" }), Err(Rejection::Signature)),
            (&a, json!({}), Ok(())),
            (&b, json!({}), Ok(())),
            (&c, json!({}), Ok(())),
            (&c, json!({ "kid": "c" }), Ok(())),
            (&c, json!({ "kid": "a" }), Ok(())),
            (&a, json!({ "kid": "c" }), Err(Rejection::Signature)),
        ] {
            assert_eq!(check(&signer.sign(header.clone(), &claims), &policy), expected, "{header}");
        }
        policy.keys.pop();
        assert_eq!(check(&a.sign(json!({ "kid": "c" }), &claims), &policy), Err(Rejection::NoKey));
        assert_eq!(check(&a.sign(json!({ "kid": "A" }), &claims), &policy), Err(Rejection::NoKey));
    }

    #[test]
    fn a_token_without_kid_costs_four_verifications_at_most() {
        let keys: Vec<_> = (0..6).map(|_| Signer::ed25519()).collect();
        let policy = policy(&keys.iter().collect::<Vec<_>>());
        let stranger = Signer::ed25519().sign(json!({}), &json!({ "exp": NOW + 60 }));
        let (result, verifications) = count_verifications(|| check(&stranger, &policy));
        assert_eq!((result, verifications), (Err(Rejection::Signature), MAX_CANDIDATES));
    }

    #[test]
    fn decoys_cost_what_real_keys_cost_and_accept_nothing() {
        for signer in signers() {
            let token = signer.sign(json!({}), &json!({ "exp": NOW + 60 }));
            let token = Token::parse(token.as_bytes()).unwrap();
            assert_eq!(count_verifications(|| verify_decoy(&token)).1, 1, "{:?}", signer.algorithm);
        }
        // The decoys are real keys: a broken one would be refused early, in a fraction of the time.
        for (key, length) in [(&DECOYS.p256, 65), (&DECOYS.p384, 97), (&DECOYS.ed25519, 32)] {
            assert_eq!(key.try_get_as_bytes().unwrap().len(), length);
        }
    }
}
