//! TLS towards clients: certificates by SNI, HTTP/2 by ALPN, client certificates where asked for. TLS 1.2 and 1.3 only.
//!
//! A whole configuration is built per generation and swapped with it, so that a renewed certificate serves the next
//! connection; one that has not changed is kept, and with it the sessions that clients resume.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use pingora_core::listeners::tls::Acceptor;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, version};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::model::{ListenerCertificate, ListenerTls};

/// A listener's TLS, ready for handshakes.
pub struct ServerTls {
    acceptor: Acceptor,
    fingerprint: u64,
    /// Each certificate's file and expiry.
    pub expiries: Vec<Expiry>,
}

/// When a certificate ends.
#[derive(Clone)]
pub struct Expiry {
    /// The file it came from, as configured.
    pub certificate: Box<str>,
    /// Seconds since 1970.
    pub at: i64,
}

impl ServerTls {
    /// TLS as configured: that of `before` where nothing has changed.
    ///
    /// # Panics
    /// Never: `config` has checked every certificate, key and root.
    pub fn build(tls: &ListenerTls, before: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(same) = before.filter(|before| before.fingerprint == tls.fingerprint) {
            return Arc::clone(same);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("ring has cipher suites for both versions");
        let builder = match &tls.client_ca {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let mut store = RootCertStore::empty();
                for root in roots.iter() {
                    store.add(root.clone()).expect("config has added each root to a store");
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
                builder.with_client_cert_verifier(verifier.expect("config refuses a file without certificates"))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName::new(&tls.certificates)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if let Ok(ticketer) = rustls::crypto::ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Arc::new(Self {
            acceptor: Acceptor::from_server_config(Arc::new(config)),
            fingerprint: tls.fingerprint,
            expiries: tls.certificates.iter().filter_map(expiry).collect(),
        })
    }

    /// What handshakes are made with.
    pub fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }
}

/// Certificates by the names they are for; the first one for who asks for another name, or for none.
struct ByName {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// `*.example.com` under `example.com`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl ByName {
    fn new(certificates: &[ListenerCertificate]) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for certificate in certificates {
            for name in names(certificate) {
                // Of two for one name, the one configured first.
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.into()),
                    None => exact.entry(name.into_boxed_str()),
                }
                .or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        let default = certificates.first().expect("config refuses an empty list of certificates");
        Self { exact, wildcard, default: Arc::clone(&default.key) }
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.exact
            .get(&*name)
            // A wildcard stands for exactly one label (RFC 6125 section 6.4.3).
            .or_else(|| self.wildcard.get(parent?))
            .unwrap_or(&self.default)
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(hello.server_name().map_or(&self.default, |name| self.find(name))))
    }
}

/// The DNS names that a certificate is for, in lower case.
fn names(certificate: &ListenerCertificate) -> Vec<String> {
    let Some(parsed) = leaf(certificate) else { return Vec::new() };
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn expiry(certificate: &ListenerCertificate) -> Option<Expiry> {
    let at = leaf(certificate)?.validity().not_after.timestamp();
    Some(Expiry { certificate: certificate.file.clone(), at })
}

fn leaf(certificate: &ListenerCertificate) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(certificate.key.cert.first()?).ok().map(|(_, parsed)| parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> ListenerCertificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).expect("names are valid");
        let provider = rustls::crypto::ring::default_provider();
        let der = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("PKCS #8");
        let key = CertifiedKey::from_der(vec![made.cert.der().clone()], der, &provider).expect("they belong together");
        ListenerCertificate { file: names.join(" ").into(), key: Arc::new(key) }
    }

    #[test]
    fn the_name_chooses_the_certificate() {
        let all =
            [certificate(&["a.example"]), certificate(&["*.b.example", "B2.example"]), certificate(&["a.example"])];
        let by_name = ByName::new(&all);
        for (name, wanted) in [
            ("a.example", 0),
            ("A.EXAMPLE", 0),
            ("x.b.example", 1),
            ("b2.example", 1),
            ("x.y.b.example", 0), // two labels: not for the wildcard
            ("b.example", 0),
            ("unknown.example", 0),
            ("example", 0),
        ] {
            assert!(Arc::ptr_eq(by_name.find(name), &all[wanted].key), "{name}");
        }
    }

    #[test]
    fn what_has_not_changed_is_kept() {
        let tls =
            |fingerprint| ListenerTls { certificates: vec![certificate(&["a.example"])], client_ca: None, fingerprint };
        let first = ServerTls::build(&tls(1), None);
        assert!(Arc::ptr_eq(&first, &ServerTls::build(&tls(1), Some(&first))));
        assert!(!Arc::ptr_eq(&first, &ServerTls::build(&tls(2), Some(&first))));
        assert!(first.expiries[0].at > 1_700_000_000);
    }
}
