//! Certificates and keys that the configuration names: read, and checked to be usable, before anything is bound or dialled.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::model::{ClientCertificate, ListenerCertificate, ListenerTls, TargetTls};
use super::node::{Fields, Node};
use super::problem::quoted;

pub(super) const TARGET_KEYS: [&str; 2] = ["ca", "client_certificate"];
pub(super) const LISTENER_KEYS: [&str; 2] = ["certificates", "client_ca"];
pub(super) const PAIR_KEYS: [&str; 2] = ["chain", "key"];

/// The `tls` of a target with base URL `https://{server_name}`.
pub(super) fn target(node: Option<Node<'_>>, server_name: Box<str>) -> Option<TargetTls> {
    let mut tls = TargetTls { server_name, ca: None, client_certificate: None, fingerprint: 0 };
    let Some(node) = node else { return Some(tls) };
    let fields = node.fields(&TARGET_KEYS)?;
    let ca = fields.optional("ca", roots);
    let client_certificate = fields.optional("client_certificate", |node| {
        let (chain, key) = chain_and_key(node)?;
        let (chain, key) = certified(node, &chain, &key)?;
        Some(Arc::new(ClientCertificate { chain, key }))
    });
    tls.ca = ca?;
    tls.client_certificate = client_certificate?;
    let chain = tls.client_certificate.iter().flat_map(|client| &client.chain);
    tls.fingerprint = fingerprint(tls.ca.as_deref(), chain);
    Some(tls)
}

/// The `tls` of a listener.
pub(super) fn listener(node: Node<'_>) -> Option<Arc<ListenerTls>> {
    let fields = node.fields(&LISTENER_KEYS)?;
    let advice = "write `[{ chain: NAME, key: NAME }]`";
    let certificates = fields.required("certificates", advice, |node| node.some_items(listener_certificate));
    let client_ca = fields.optional("client_ca", roots);
    let mut tls = ListenerTls { certificates: certificates?, client_ca: client_ca?, fingerprint: 0 };
    let chains = tls.certificates.iter().flat_map(|certificate| &certificate.key.cert);
    tls.fingerprint = fingerprint(tls.client_ca.as_deref(), chains);
    Some(Arc::new(tls))
}

fn listener_certificate(node: Node<'_>) -> Option<ListenerCertificate> {
    let (file, key) = chain_and_key(node)?;
    let (chain, key) = certified(node, &file, &key)?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).ok()?;
    Some(ListenerCertificate { file: file.into(), key: Arc::new(key) })
}

fn chain_and_key(node: Node<'_>) -> Option<(String, String)> {
    let fields: Fields<'_> = node.fields(&PAIR_KEYS)?;
    let chain = fields
        .required("chain", "write the name of a PEM file with the certificates", |node| node.text().map(str::to_owned));
    let key = fields
        .required("key", "write the name of a PEM file with the private key", |node| node.text().map(str::to_owned));
    Some((chain?, key?))
}

fn certified(node: Node<'_>, chain: &str, key: &str) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let key_name = quoted(key);
    let certificates = read(node, chain).and_then(|bytes| certificates(node, chain, &bytes));
    let key = read(node, key).and_then(|bytes| match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Some(key),
        Err(_) => node.problem(format!("{key_name} holds no private key; write the name of a PEM file with one")),
    });
    let (certificates, key) = (certificates?, key?);
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(certificates.clone(), key.clone_key(), &provider) {
        Ok(_) => Some((certificates, key)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let chain = quoted(chain);
            node.problem(format!("the key in {key_name} is not that of the first certificate in {chain}; the host's own certificate comes first"))
        }
        Err(_) => {
            node.problem(format!("{key_name} holds a key that cannot be used; write an RSA, ECDSA or Ed25519 key"))
        }
    }
}

/// The roots in a file, read once for all targets that name it.
fn roots(node: Node<'_>) -> Option<Arc<[CertificateDer<'static>]>> {
    let name = node.text()?;
    let path = node.source.resolve(name);
    if let Some(known) = node.source.notes.borrow().roots.get(&path) {
        return Some(Arc::clone(known));
    }
    let bytes = read(node, name)?;
    let roots: Arc<[_]> = certificates(node, name, &bytes)?.into();
    let mut store = RootCertStore::empty();
    if roots.iter().any(|root| store.add(root.clone()).is_err()) {
        return node
            .problem(format!("{} holds a certificate that cannot be a root; write a CA's certificate", quoted(name)));
    }
    node.source.notes.borrow_mut().roots.insert(path, Arc::clone(&roots));
    Some(roots)
}

fn certificates(node: Node<'_>, name: &str, bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Some(certificates),
        _ => node.problem(format!("{} holds no certificate; write the name of a PEM file with one", quoted(name))),
    }
}

fn read(node: Node<'_>, name: &str) -> Option<Zeroizing<Vec<u8>>> {
    match node.source.read(&node.source.resolve(name)) {
        Ok(bytes) => Some(bytes),
        Err(reason) => {
            node.problem(format!("{} cannot be read: {reason}; names are looked up beside this file", quoted(name)))
        }
    }
}

/// Tells settings apart. Keys need no part in it: each is bound to its certificate.
fn fingerprint<'a>(
    roots: Option<&[CertificateDer<'static>]>,
    chain: impl Iterator<Item = &'a CertificateDer<'static>>,
) -> u64 {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new(); // the same in every run and every reload
    roots.map(|roots| roots.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>()).hash(&mut hasher);
    chain.map(AsRef::as_ref).collect::<Vec<&[u8]>>().hash(&mut hasher);
    hasher.finish()
}
