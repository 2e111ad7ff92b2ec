//! In: what a client presents, and the keyring of the proxy it names, if there is such a proxy. Out: which credential that is.
//!
//! Refuses without a word and, above all, without a difference: which digests are computed and whether a signature is verified
//! follows from the bytes that the client sent alone. An unknown proxy, a proxy with other kinds of credentials and an expired
//! credential take the same work, so that nobody can enumerate proxies or guess what they accept. What remains is a binary search
//! among digests, nanoseconds, over SHA-256 prefixes that say nothing about a secret.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::jwt::{self, Claims, Rejection, Token};
use super::query::{Decoded, Found};
use super::route::split_once;
use crate::config::model::{JwtPolicy, Proof, ProxyCredential};
use crate::secret::Digest;

/// The one credential of a request, or none that counts.
pub struct Presented<'a>(Option<Decoded<'a>>);

impl<'a> Presented<'a> {
    /// From the values of all `Authorization` headers and the parameter of the query.
    ///
    /// One header goes before the parameter. Two headers are none at all: whichever we took, a target or another proxy might take
    /// the other. The same goes for a repeated parameter where there is no header.
    pub fn from_request(headers: impl IntoIterator<Item = &'a [u8]>, parameter: Found<'a>) -> Self {
        let mut headers = headers.into_iter().fuse();
        Self(match (headers.next(), headers.next(), parameter) {
            (Some(header), None, _) => Some(header.into()),
            (None, _, Found::One(parameter)) => Some(parameter),
            _ => None,
        })
    }

    /// The value without surrounding whitespace, which is no part of it (OWS, RFC 9110 5.5); `None` when nothing remains.
    fn value(&self) -> Option<&[u8]> {
        let mut value: &[u8] = self.0.as_deref()?;
        while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
            value = rest;
        }
        (!value.is_empty()).then_some(value)
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(..)")
    }
}

/// A credential that the client has proved to hold, active and not expired.
pub struct Verified<'k> {
    pub credential: &'k Arc<ProxyCredential>,
    /// What the token claims, for `jwt_verify` and for a `jwt` that is one. `None` for the other kinds.
    pub claims: Option<Claims>,
}

/// The credentials of one proxy, ordered for lookup: a proxy with ten thousand of them verifies as fast as a proxy with one.
pub struct Keyring {
    /// Digests of whole values: `api_key`, `jwt`.
    values: Index<1>,
    /// Digests of what follows `Bearer`: `bearer`, `jwt`.
    tokens: Index<1>,
    /// Digests of user names and passwords.
    passwords: Index<2>,
    signed: Box<[(Arc<JwtPolicy>, Arc<ProxyCredential>)]>,
}

impl Keyring {
    /// Built once per proxy and generation.
    pub fn new(credentials: &[Arc<ProxyCredential>]) -> Self {
        let (mut values, mut tokens, mut passwords, mut signed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for credential in credentials {
            let entry = |digest: &Digest| ([*digest], Arc::clone(credential));
            match &credential.proof {
                Proof::ApiKey(key) => values.push(entry(key)),
                Proof::Bearer(token) => tokens.push(entry(token)),
                Proof::Jwt(token) => {
                    values.push(entry(token));
                    tokens.push(entry(token));
                }
                Proof::Basic { username, password } => {
                    passwords.push(([Digest::of(username.as_bytes()), *password], Arc::clone(credential)));
                }
                Proof::JwtVerify(policy) => signed.push((Arc::clone(policy), Arc::clone(credential))),
            }
        }
        Self {
            values: Index::new(values),
            tokens: Index::new(tokens),
            passwords: Index::new(passwords),
            signed: signed.into(),
        }
    }

    /// The `jwt_verify` credential that a refused token is meant for and that has no key for it: its key set may have been rotated,
    /// and is worth fetching again. Anybody can make up such a token, so that the fetching must be limited; and only a known proxy
    /// has a keyring to ask, so that asking must not delay the answer.
    pub fn missing_key(&self, presented: &Presented<'_>, now: SystemTime) -> Option<&Arc<ProxyCredential>> {
        let value = presented.value()?;
        let token = Token::parse(token_of(value, b"bearer").unwrap_or(value)).ok()?;
        let mut signed = self.signed.iter();
        let (_, credential) = signed.find(|(policy, _)| jwt::verify(&token, policy, now) == Err(Rejection::NoKey))?;
        Some(credential)
    }
}

/// Finds the credential that a client holds. `keyring` is `None` where the proxy is unknown or inactive.
///
/// What the client sends is compared in each of its readings, every one of them, whatever the proxy has:
///
/// - as a whole: `api_key`, `jwt`, `jwt_verify`;
/// - behind `Bearer`: `bearer`, `jwt`, `jwt_verify`;
/// - behind `Basic`: `basic`.
pub fn verify<'k>(keyring: Option<&'k Keyring>, presented: &Presented<'_>, now: SystemTime) -> Option<Verified<'k>> {
    static UNKNOWN_PROXY: LazyLock<Keyring> = LazyLock::new(|| Keyring::new(&[]));
    let keyring = keyring.unwrap_or(&UNKNOWN_PROXY);
    let value = presented.value()?;

    let by_value = keyring.values.find(&[Digest::of(value)], now);
    let bearer = token_of(value, b"bearer");
    let by_token = bearer.and_then(|token| keyring.tokens.find(&[Digest::of(token)], now));
    let by_password =
        token_of(value, b"basic").and_then(digests_of_basic).and_then(|digests| keyring.passwords.find(&digests, now));

    let token = bearer.unwrap_or(value);
    match by_value.or(by_token).or(by_password) {
        Some(credential) => Some(Verified { credential, claims: claims_of(credential, token) }),
        None => verify_signed(keyring, token, now),
    }
}

/// A token that is signed rather than known. Every refusal of a well-formed one has cost at least one signature, and exactly one
/// where no more than one key could have been meant.
fn verify_signed<'k>(keyring: &'k Keyring, token: &[u8], now: SystemTime) -> Option<Verified<'k>> {
    let token = Token::parse(token).ok()?;
    let mut spent = false;
    let mut accepted = None;
    for (policy, credential) in &keyring.signed {
        let verdict = jwt::verify(&token, policy, now);
        spent |= verdict.map_or_else(Rejection::is_after_signature, |()| true);
        if verdict.is_ok() && is_usable(credential, now) {
            accepted = Some(credential);
            break;
        }
    }
    if !spent {
        jwt::verify_decoy(&token);
    }
    accepted.map(|credential| Verified { credential, claims: Some(token.into_claims()) })
}

/// Credentials ordered by the sum of their digests' prefixes, so that many users with one password are told apart at once too.
struct Index<const N: usize>(Box<[Entry<N>]>);

type Entry<const N: usize> = ([Digest; N], Arc<ProxyCredential>);

impl<const N: usize> Index<N> {
    fn new(mut entries: Vec<Entry<N>>) -> Self {
        entries.sort_by_key(|(digests, _)| order(digests)); // stable: of two that match, the one configured first
        Self(entries.into())
    }

    /// The credential with these digests. Where several share a secret, as when one that expires is replaced by itself, it is one
    /// that can be used.
    fn find(&self, digests: &[Digest; N], now: SystemTime) -> Option<&Arc<ProxyCredential>> {
        let wanted = order(digests);
        let start = self.0.partition_point(|(digests, _)| order(digests) < wanted);
        let same = self.0[start..].iter().take_while(|(digests, _)| order(digests) == wanted);
        let matching = same.filter(|(ours, _)| ours.iter().zip(digests).fold(true, |all, (a, b)| all & a.matches(b)));
        matching.map(|(_, credential)| credential).find(|credential| is_usable(credential, now))
    }
}

fn order<const N: usize>(digests: &[Digest; N]) -> u64 {
    digests.iter().fold(0, |sum, digest| sum.wrapping_add(digest.prefix()))
}

fn is_usable(credential: &ProxyCredential, now: SystemTime) -> bool {
    credential.active && credential.expires_at.is_none_or(|end| now < end)
}

/// What follows `scheme`, in any case, and one or more spaces.
///
/// RFC 9110 11.4: `credentials = auth-scheme [ 1*SP ( token68 / ... ) ]`; RFC 6750 2.1: `"Bearer" 1*SP b64token`. A tab is not SP.
fn token_of<'v>(value: &'v [u8], scheme: &[u8]) -> Option<&'v [u8]> {
    let (word, token) = split_once(value, b' ');
    let mut token = token?;
    while let [b' ', rest @ ..] = token {
        token = rest;
    }
    word.eq_ignore_ascii_case(scheme).then_some(token)
}

/// The digests of user name and password (RFC 7617 2: the first colon parts them; base64 as in RFC 4648 4, padded).
fn digests_of_basic(encoded: &[u8]) -> Option<[Digest; 2]> {
    // Room for all of it from the start: a vector that grows leaves copies of the password behind.
    let mut pair = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(encoded.len())));
    STANDARD.decode_vec(encoded, &mut pair).ok()?;
    let (username, password) = split_once(&pair, b':');
    Some([Digest::of(username), Digest::of(password?)])
}

fn claims_of(credential: &ProxyCredential, token: &[u8]) -> Option<Claims> {
    matches!(credential.proof, Proof::Jwt(_)).then(|| jwt::claims_of_fixed(token)).flatten()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use jsonwebtoken::Algorithm;
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::query;
    use super::super::signing::*;
    use super::*;
    use crate::config::model::{Billing, RateLimit, Scope};

    const NOW: u64 = 1_800_000_000;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn credential(id: &str, proof: Proof) -> ProxyCredential {
        ProxyCredential {
            id: id.into(),
            active: true,
            expires_at: None,
            billing: Billing::Active,
            account: None,
            rate_limit: RateLimit { per_minute: 100, per_day: None },
            proof,
            scope: Scope::default(),
        }
    }

    fn digest(secret: &str) -> Digest {
        Digest::of(secret.as_bytes())
    }

    fn basic(username: &str, password: &str) -> Proof {
        Proof::Basic { username: username.into(), password: digest(password) }
    }

    fn keyring(credentials: Vec<ProxyCredential>) -> Keyring {
        Keyring::new(&credentials.into_iter().map(Arc::new).collect::<Vec<_>>())
    }

    fn signer() -> Signer {
        Signer::hmac(Algorithm::HS256, b"a secret of sufficient length ...")
    }

    /// One credential of each kind, named after it.
    fn one_of_each() -> Keyring {
        keyring(vec![
            credential("api_key", Proof::ApiKey(digest("key"))),
            credential("bearer", Proof::Bearer(digest("token"))),
            credential("basic", basic("ada", "pass:word")),
            credential("jwt", Proof::Jwt(digest("e30.e30.c2ln"))),
            credential("jwt_verify", Proof::JwtVerify(Arc::new(policy(&[&signer()])))),
            credential("large", Proof::Bearer(digest(&"x".repeat(64 << 10)))),
            credential("bytes", Proof::ApiKey(Digest::of(b"\xff\xfe\x80"))),
        ])
    }

    /// The id of the credential that these headers and this query present.
    fn presented_as(keyring: &Keyring, headers: &[&[u8]], query: &str) -> Option<String> {
        let parameter = query::split(Some(query.as_bytes())).credential;
        let presented = Presented::from_request(headers.iter().copied(), parameter);
        verify(Some(keyring), &presented, now()).map(|verified| verified.credential.id.to_string())
    }

    fn b64(pair: &str) -> String {
        STANDARD.encode(pair)
    }

    #[test]
    fn every_kind_is_accepted_in_its_spellings_and_in_no_others() {
        let keyring = one_of_each();
        let pair = b64("ada:pass:word");
        let token = signer().sign(json!({}), &json!({ "exp": NOW + 60 }));
        let large = "x".repeat(64 << 10);
        let wrong = signer().sign(json!({}), &json!({ "exp": NOW - 60 }));
        for (value, kind) in [
            // as they should be
            ("key".into(), Some("api_key")),
            ("Bearer token".into(), Some("bearer")),
            (format!("Basic {pair}"), Some("basic")),
            ("e30.e30.c2ln".into(), Some("jwt")),
            ("Bearer e30.e30.c2ln".into(), Some("jwt")),
            (token.clone(), Some("jwt_verify")),
            (format!("Bearer {token}"), Some("jwt_verify")),
            (format!("Bearer {large}"), Some("large")),
            // the scheme's case, spaces, whitespace around
            ("bearer token".into(), Some("bearer")),
            ("BEARER token".into(), Some("bearer")),
            (format!("bAsIc {pair}"), Some("basic")),
            ("Bearer  token".into(), Some("bearer")),
            (format!("Basic   {pair}"), Some("basic")),
            (format!("bearer  {token}"), Some("jwt_verify")),
            ("\t key \t".into(), Some("api_key")),
            (" Bearer token ".into(), Some("bearer")),
            // a tab is no separator, and nothing else is
            ("Bearer\ttoken".into(), None),
            ("Bearer \ttoken".into(), None),
            (format!("Basic\t{pair}"), None),
            (format!("Bearer\t{token}"), None),
            ("Bearer:token".into(), None),
            ("Bearertoken".into(), None),
            ("Bearer,token".into(), None),
            // nothing
            ("".into(), None),
            (" \t".into(), None),
            ("Bearer".into(), None),
            ("Bearer ".into(), None),
            ("Basic ".into(), None),
            // near misses
            ("KEY".into(), None),
            ("ke".into(), None),
            ("keyy".into(), None),
            ("Bearer Token".into(), None),
            ("Bearer token x".into(), None),
            ("Bearer token, Bearer token".into(), None),
            ("key,key".into(), None),
            (format!("Bearer {large}x"), None),
            (large.clone(), None),
            // the scheme of another kind, or none
            ("Bearer key".into(), None),
            ("Basic key".into(), None),
            ("ApiKey key".into(), None),
            ("token".into(), None),
            (format!("Basic {}", b64("token:")), None),
            (pair.clone(), None),
            (format!("Bearer {pair}"), None),
            ("ada:pass:word".into(), None),
            ("Basic ada:pass:word".into(), None),
            ("Basic e30.e30.c2ln".into(), None),
            (format!("Basic {token}"), None),
            (format!("JWT {token}"), None),
            (format!("Bearer Bearer {token}"), None),
            // bad pairs
            (format!("Basic {}", b64("ada:pass")), None),
            (format!("Basic {}", b64("eve:pass:word")), None),
            (format!("Basic {}", b64("ada")), None),
            (format!("Basic {}", b64("ada:pass:word\n")), None),
            (format!("Basic {}", b64("ADA:pass:word")), None),
            (format!("Basic {}", b64(":pass:word")), None),
            (format!("Basic {}", pair.trim_end_matches('=')), None),
            (format!("Basic {pair}="), None),
            (format!("Basic {pair}A"), None),
            (format!("Basic {} {}", &pair[..4], &pair[4..]), None),
            ("Basic !!!!".into(), None),
            // bad tokens
            (wrong, None),
            (format!("{token}."), None),
            (format!("{token}AAAA"), None),
            ("e30.e30.".into(), None),
        ] {
            let shown = &value[..value.len().min(60)];
            assert_eq!(presented_as(&keyring, &[value.as_bytes()], "").as_deref(), kind, "{shown:?}");
        }
        for (value, kind) in [
            (&b"\xff\xfe\x80"[..], Some("bytes")),
            (b"\xff\xfe", None),
            (b"Bearer \xff\xfe", None),
            (b"Basic \xff\xfe", None),
            (b"\xff.\xff.\xff", None),
        ] {
            assert_eq!(presented_as(&keyring, &[value], "").as_deref(), kind, "{value:?}");
        }
    }

    #[test]
    fn the_parameter_says_the_same_as_the_header() {
        let keyring = one_of_each();
        let token = signer().sign(json!({}), &json!({ "exp": NOW + 60 }));
        for (query, kind) in [
            ("Authorization=key".into(), Some("api_key")),
            ("a=1&authorization=Bearer%20token&b".into(), Some("bearer")),
            ("Authorization=Bearer+token".into(), Some("bearer")),
            (format!("Authorization=Basic%20{}", b64("ada:pass:word").replace('=', "%3D")), Some("basic")),
            (format!("AUTHORIZATION=basic+{}", b64("ada:pass:word")), Some("basic")),
            (format!("Authorization={token}"), Some("jwt_verify")),
            (format!("Authorization=Bearer+{token}"), Some("jwt_verify")),
            ("Authorization=token".into(), None),
            ("Authorization=Bearer%09token".into(), None),
            ("Authorization=".into(), None),
            ("Authorization".into(), None),
            ("key=key".into(), None),
        ] {
            assert_eq!(presented_as(&keyring, &[], &query).as_deref(), kind, "{query}");
        }
    }

    #[test]
    fn only_one_credential_counts() {
        let keyring = one_of_each();
        for (headers, query, kind) in [
            (&[][..], "", None),
            (&[&b"key"[..]][..], "", Some("api_key")),
            (&[b"key", b"key"], "", None),
            (&[b"key", b""], "", None),
            (&[b"key", b"nokey"], "", None),
            (&[b"key", b"key"], "Authorization=key", None),
            (&[b"key"], "Authorization=Bearer+token", Some("api_key")),
            (&[b"nokey"], "Authorization=key", None),
            (&[b""], "Authorization=key", None),
            (&[b"key"], "Authorization=x&Authorization=y", Some("api_key")),
            (&[], "Authorization=key&Authorization=key", None),
            (&[], "Authorization=key&authorization=", None),
        ] {
            assert_eq!(presented_as(&keyring, headers, query).as_deref(), kind, "{headers:?} {query}");
        }
    }

    #[test]
    fn inactive_and_expired_credentials_are_none() {
        let with = |active, expires_at| {
            let credential = credential("key", Proof::ApiKey(digest("key")));
            keyring(vec![ProxyCredential { active, expires_at, ..credential }])
        };
        for (active, expires_at, accepted) in [
            (true, None, true),
            (false, None, false),
            (true, Some(now() + Duration::from_nanos(1)), true),
            (true, Some(now()), false),
            (true, Some(UNIX_EPOCH), false),
            (false, Some(now() + Duration::from_secs(1)), false),
        ] {
            assert_eq!(presented_as(&with(active, expires_at), &[b"key"], "").is_some(), accepted);
        }
    }

    #[test]
    fn a_usable_credential_is_found_behind_an_expired_one_with_the_same_secret() {
        let old = credential("old", Proof::ApiKey(digest("key")));
        let new = credential("new", Proof::ApiKey(digest("key")));
        let keyring = keyring(vec![ProxyCredential { active: false, ..old }, new]);
        assert_eq!(presented_as(&keyring, &[b"key"], "").as_deref(), Some("new"));
    }

    #[test]
    fn one_key_set_serves_several_audiences() {
        let for_audience = |name: &str| {
            let mut policy = policy(&[&signer()]);
            policy.audience = vec![name.into()];
            credential(name, Proof::JwtVerify(Arc::new(policy)))
        };
        let keyring = keyring(vec![for_audience("orders"), for_audience("users")]);
        for audience in ["orders", "users"] {
            let token = signer().sign(json!({}), &json!({ "exp": NOW + 60, "aud": audience }));
            let (found, verifications) = count_verifications(|| presented_as(&keyring, &[token.as_bytes()], ""));
            assert_eq!((found.as_deref(), verifications), (Some(audience), 1));
        }
    }

    #[test]
    fn a_token_with_an_unknown_kid_tells_which_keys_to_fetch_again() {
        let mut rotated = policy(&[&signer()]);
        rotated.keys[0].kid = Some("old".into());
        let keyring = keyring(vec![
            credential("key", Proof::ApiKey(digest("key"))),
            credential("other", Proof::JwtVerify(Arc::new(policy(&[&Signer::p256()])))),
            credential("rotated", Proof::JwtVerify(Arc::new(rotated))),
        ]);
        let missing = |value: &str| {
            let presented = Presented::from_request([value.as_bytes()], Found::None);
            let missing = keyring.missing_key(&presented, now());
            missing.map(|credential| credential.id.to_string())
        };
        let token = |kid: &str| signer().sign(json!({ "kid": kid }), &json!({ "exp": NOW + 60 }));
        assert_eq!(missing(&token("new")).as_deref(), Some("rotated"));
        assert_eq!(missing(&format!("Bearer {}", token("new"))).as_deref(), Some("rotated"));
        assert_eq!(missing(&token("old")), None);
        assert_eq!(missing("key"), None);
    }

    #[test]
    fn claims_reach_the_rules() {
        let fixed = Signer::p256().sign(json!({}), &json!({ "role": "reader" }));
        let keyring = keyring(vec![
            credential("fixed", Proof::Jwt(digest(&fixed))),
            credential("opaque", Proof::Jwt(digest("opaque"))),
            credential("key", Proof::ApiKey(digest("key"))),
            credential("signed", Proof::JwtVerify(Arc::new(policy(&[&signer()])))),
        ]);
        let claims = |value: &str| {
            let presented = Presented::from_request([value.as_bytes()], Found::None);
            verify(Some(&keyring), &presented, now()).expect(value).claims
        };
        assert_eq!(claims(&fixed).unwrap()["role"], "reader");
        assert_eq!(claims(&format!("Bearer {fixed}")).unwrap()["role"], "reader");
        assert_eq!(
            claims(&signer().sign(json!({}), &json!({ "exp": NOW, "role": "writer" }))).unwrap()["role"],
            "writer"
        );
        assert!(claims("opaque").is_none());
        assert!(claims("key").is_none());
    }

    #[test]
    fn every_denied_token_costs_one_signature_whatever_the_proxy_has() {
        for real in signers() {
            let policy = || Arc::new(policy(&[&real]));
            let signed = || credential("signed", Proof::JwtVerify(policy()));
            let denied = real.sign(json!({}), &json!({ "exp": NOW - 60 }));
            let stranger = Signer::hmac(Algorithm::HS256, b"another").sign(json!({}), &json!({ "exp": NOW + 60 }));
            let proxies = [
                ("api key", keyring(vec![credential("key", Proof::ApiKey(digest("key")))])),
                ("signed", keyring(vec![signed()])),
                ("inactive signed", keyring(vec![ProxyCredential { active: false, ..signed() }])),
                (
                    "other signed",
                    keyring(vec![credential(
                        "p",
                        Proof::JwtVerify(Arc::new(super::super::signing::policy(&[&Signer::p384()]))),
                    )]),
                ),
                (
                    "expired fixed",
                    keyring(vec![ProxyCredential {
                        expires_at: Some(now()),
                        ..credential("jwt", Proof::Jwt(digest(&denied)))
                    }]),
                ),
            ];
            let proxies = proxies.iter().map(|(name, keyring)| (*name, Some(keyring))).chain([("unknown", None)]);
            for (name, keyring) in proxies {
                for token in [&denied, &stranger] {
                    for spelling in [token.clone(), format!("Bearer {token}")] {
                        let presented = Presented::from_request([spelling.as_bytes()], Found::None);
                        let (found, verifications) = count_verifications(|| verify(keyring, &presented, now()));
                        assert!(found.is_none(), "{name}");
                        assert_eq!(verifications, 1, "{name} {:?}", real.algorithm);
                    }
                }
                let good = real.sign(json!({}), &json!({ "exp": NOW + 60 }));
                let presented = Presented::from_request([good.as_bytes()], Found::None);
                let (found, verifications) = count_verifications(|| verify(keyring, &presented, now()));
                assert_eq!((found.is_some(), verifications), (name == "signed", 1), "{name}");
            }
        }
    }

    #[test]
    fn ten_thousand_credentials_are_told_apart() {
        let number = |n: usize| match n % 2 {
            0 => credential(&n.to_string(), Proof::Bearer(digest(&format!("t{n}")))),
            _ => credential(&n.to_string(), basic(&format!("u{n}"), "the same password")),
        };
        let keyring = keyring((0..10_000).map(number).collect());
        for n in [0, 1, 2, 4_998, 4_999, 9_998, 9_999] {
            let value = match n % 2 {
                0 => format!("Bearer t{n}"),
                _ => format!("Basic {}", b64(&format!("u{n}:the same password"))),
            };
            assert_eq!(presented_as(&keyring, &[value.as_bytes()], ""), Some(n.to_string()));
        }
        assert_eq!(presented_as(&keyring, &[b"Bearer t1"], ""), None);
        assert_eq!(presented_as(&keyring, &[format!("Basic {}", b64("u2:the same password")).as_bytes()], ""), None);
    }

    #[test]
    fn user_name_and_password_must_both_match_to_the_last_byte_and_in_their_places() {
        let [name, mut other, password] = [[1; 32], [1; 32], [2; 32]];
        other[31] = 9; // the same prefix
        let [name, other, password] = [name, other, password].map(Digest::from_bytes);
        let index = Index::new(vec![([name, password], Arc::new(credential("ada", basic("", ""))))]);
        for (digests, found) in
            [([name, password], true), ([other, password], false), ([password, name], false), ([name, other], false)]
        {
            assert_eq!(index.find(&digests, now()).is_some(), found);
        }
    }

    #[test]
    fn a_presented_credential_is_not_printed() {
        assert_eq!(format!("{:?}", Presented::from_request([&b"canary"[..]], Found::None)), "Presented(..)");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_none_are_accepted(value in proptest::collection::vec(any::<u8>(), 0..64), scheme in 0..3_usize) {
            let value = [[&b""[..], b"Bearer ", b"Basic "][scheme], &value[..]].concat();
            let keyring = keyring(vec![credential("key", Proof::ApiKey(digest("a key that no test will guess")))]);
            let presented = Presented::from_request([&value[..]], Found::None);
            prop_assert!(verify(Some(&keyring), &presented, now()).is_none());
        }
    }
}
