//! Tokens for tests: keys of every family, signed claims, and a count of the signatures that were verified.

use std::cell::Cell;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};

use crate::config::model::{JwtKey, JwtPolicy};

thread_local! {
    static VERIFICATIONS: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn count_verification() {
    VERIFICATIONS.set(VERIFICATIONS.get() + 1);
}

/// What `work` returns, and how many signatures it verified.
pub(super) fn count_verifications<T>(work: impl FnOnce() -> T) -> (T, usize) {
    VERIFICATIONS.set(0);
    (work(), VERIFICATIONS.get())
}

pub(super) struct Signer {
    pub(super) algorithm: Algorithm,
    private: EncodingKey,
    public: DecodingKey,
}

impl Signer {
    pub(super) fn hmac(algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { algorithm, private: EncodingKey::from_secret(secret), public: DecodingKey::from_secret(secret) }
    }

    pub(super) fn rsa(algorithm: Algorithm) -> Self {
        let private = STANDARD.decode(RSA_PRIVATE.concat()).unwrap();
        let private = EncodingKey::from_rsa_der(&private);
        Self { algorithm, private, public: DecodingKey::from_rsa_der(&rsa_public_der()) }
    }

    pub(super) fn p256() -> Self {
        Self::ec(Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(super) fn p384() -> Self {
        Self::ec(Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384)
    }

    fn ec(algorithm: Algorithm, kind: &'static rcgen::SignatureAlgorithm) -> Self {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let private = EncodingKey::from_ec_der(pair.serialized_der());
        Self { algorithm, private, public: DecodingKey::from_ec_der(pair.public_key_raw()) }
    }

    pub(super) fn ed25519() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let private = EncodingKey::from_ed_der(pair.serialized_der());
        Self { algorithm: Algorithm::EdDSA, private, public: DecodingKey::from_ed_der(pair.public_key_raw()) }
    }

    /// Whether `signers` yields the same key every time.
    pub(super) fn is_shared(&self) -> bool {
        !matches!(self.algorithm, Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA)
    }

    /// A token with `alg` and whatever else `header` names.
    pub(super) fn sign(&self, mut header: Value, claims: &Value) -> String {
        header["alg"] = json!(self.algorithm);
        self.sign_raw(&header.to_string(), claims.to_string().as_bytes())
    }

    pub(super) fn sign_raw(&self, header: &str, payload: &[u8]) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

/// One signer for every supported algorithm.
pub(super) fn signers() -> Vec<Signer> {
    use Algorithm::*;
    let secret = b"a secret of at least sixty-four bytes, which is what HS512 wants!";
    let hmac = [HS256, HS384, HS512].map(|algorithm| Signer::hmac(algorithm, secret));
    let rsa = [RS256, RS384, RS512, PS256, PS384, PS512].map(Signer::rsa);
    hmac.into_iter().chain(rsa).chain([Signer::p256(), Signer::p384(), Signer::ed25519()]).collect()
}

/// A policy that accepts what these signers sign: no issuer, no audience, the usual leeway.
pub(super) fn policy(signers: &[&Signer]) -> JwtPolicy {
    let key = |signer: &&Signer| JwtKey { kid: None, algorithms: vec![signer.algorithm], key: signer.public.clone() };
    JwtPolicy {
        algorithms: signers.iter().map(|signer| signer.algorithm).collect(),
        keys: signers.iter().map(key).collect(),
        issuer: None,
        audience: Vec::new(),
        leeway: Duration::from_secs(60),
    }
}

pub(super) fn encode_part(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

pub(super) fn rsa_public_der() -> Vec<u8> {
    STANDARD.decode(RSA_PUBLIC.concat()).unwrap()
}

pub(super) fn rsa_public_pem() -> String {
    format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", RSA_PUBLIC.join("\n"))
}

/// PKCS #1, made for these tests and used nowhere else: no crate at hand generates RSA keys.
const RSA_PRIVATE: &[&str] = &[
    "MIIEowIBAAKCAQEAnPtkJkBULg4dSqdZ8hhaWASqGNfAlrjCll9MPjHGK9WqxGNOUp8THyhK/dfYz9effF997S8rrhRPq8ede27b2PDMcpTQMCSWJP9w",
    "+nu7e8lArmtJX7JrQLgbS+7njiv1JTylRKTHAMvIQCCjJeCwltDxOIDmEA1V3dKhAbNmQGv8Dldn6DrIUrkT8vq2X0r03yCq6q8EZpWTf4pOnYnpTzOB",
    "RABhDQFj7tQud8WE/4IWGzKSw4OQjIo4aiUuXyk5Y+qvBrMizKjNQZEadj/MXn348GD5Kj09hSxFnVH2HLL6TYj5g0HhnSiqc/UsxuiyR9NCr3TUiqQu",
    "4SljuHGotwIDAQABAoIBAE5uDxhJVYV5CcttlzOsVR7anb0xtgfXoWiNjkMYjSEDbIEX+F6xGVWcxPLUL3+QBB+YegrRYWpkvXVekuDDf1WA4TRyAx26",
    "ecVcVi7fOMlcwFMkSRFly84W7ZRfdRMEBUOobA3CoaZVKeRYKgrXmoKPO6V2SPtGHltoS4bVAcY3JJQ8R4DPLUpa1GHCFo/DNyhbbOC8v6J/Ynhnisk9",
    "Qje6FMVOV3B/UvNEYOtX3EtFyhHaJNVOygYoeNdiTwfDRmz5kwnSEDwQ7WuIpaYguGXQO+BNvxpcGPYzwPbv7ThQXRk+jOtZx/KTa7snvn4/mBMCcu2L",
    "cNLaicyxk8esACkCgYEA1RWPfmjbCn51i7z9Mm7eRdJxf2DK3fFDCjiHdICEbqBv+q94acVwNUg8zMxl4diAOG+mBRZelg1OdVFW1Pk5KScGdTJ0wc/7",
    "bkCuMMOuru2boPeBGAobqQfivWYrQS4CRzmafdV1g0Tl+rE6EhtCHVvZjXn3+skcn+Mc9jJY4vMCgYEAvJk/iWJsuip8IcrPpFcNLI4NRXKgWnj9Nq1M",
    "zi0giQ2Zc14BF3Ir+f0fn+gV73umOxaDBHFwEoAG7Mc8HgIx+LvNA0TMKJFmGBweGOQ8E8fuFOKyTWkRbLDqL0JlHs7jUiPIR+Phh+GoyRaGhRp0DGga",
    "59Fij+KDRtl+iNzwLC0CgYB2aUPTaGuIuluR6tT9aLTmMhrWQTCbA05Q6LcFW8G8RDXWJhqRFKHVSi5XVKKtTYV7Vzf4DcVEN2LJOQk60sAcCU7CY+aU",
    "KYK8cv8ZpDR3ixz353J6rGtQlExBGfyhfPLRJ8addLiX2PrARCpUE4e7Duangwb1+zqH80qN2c6hVwKBgQCjYwAwPRyEi5nOjK0mamP3XXkR2SQiPP7h",
    "B3GqjF3LXgS6dY3sifSfNjLXjXCzcCOqvO30Q3IcFN3q8w+Zz70LB2eslUVpP816xaEtX0zMtkADyAFAHu4Bg6LeHl8MOZ+l4Wn5HeqclVpsGx+e4DP5",
    "K5djjXodvNaN4o5Ec2N+YQKBgBwoJWr2DIuBt/t7eGXCv161TLXdiP78iVPCc0hMXwVYrMOhfha7rIQ/9PprJ4Fpzvq4H3atiFR8UWq8CceZI7e0wWqx",
    "5ZLfQzbrBmPdh+o5yRcKda7UHzuX9K1YZK1ipdAcXc/F6wOJTTDgO8/7P6AWY6wl1niUbCv7OpXG2hUe",
];

const RSA_PUBLIC: &[&str] = &[
    "MIIBCgKCAQEAnPtkJkBULg4dSqdZ8hhaWASqGNfAlrjCll9MPjHGK9WqxGNOUp8THyhK/dfYz9effF997S8rrhRPq8ede27b2PDMcpTQMCSWJP9w+nu7",
    "e8lArmtJX7JrQLgbS+7njiv1JTylRKTHAMvIQCCjJeCwltDxOIDmEA1V3dKhAbNmQGv8Dldn6DrIUrkT8vq2X0r03yCq6q8EZpWTf4pOnYnpTzOBRABh",
    "DQFj7tQud8WE/4IWGzKSw4OQjIo4aiUuXyk5Y+qvBrMizKjNQZEadj/MXn348GD5Kj09hSxFnVH2HLL6TYj5g0HhnSiqc/UsxuiyR9NCr3TUiqQu4Slj",
    "uHGotwIDAQAB",
];
