//! Throw-away certificates, right and wrong.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{PATIENCE, within};

/// A certification authority that lives as long as its test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names to refuse");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key()).expect("a fresh key signs"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name or an address.
    pub fn certify(&self, name: &str) -> Identity {
        self.sign(params(name))
    }

    /// One whose time is over.
    pub fn certify_expired(&self, name: &str) -> Identity {
        let mut params = params(name);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    /// One that ends on the first day of a year.
    pub fn certify_until(&self, name: &str, year: i32) -> Identity {
        let mut params = params(name);
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(params)
    }

    /// A client that believes this authority, and shows `identity` where it is asked to.
    pub fn client(&self, identity: Option<&Identity>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.as_ref().der().clone()).expect("our own root");
        Client::new(roots, identity, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    /// The same with one version of TLS only.
    pub fn client_of(&self, version: &'static SupportedProtocolVersion) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.as_ref().der().clone()).expect("our own root");
        Client::new(roots, None, &[version])
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.0).expect("our authority signs");
        Identity { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    /// Serves `identity` and demands a certificate of this authority from whoever connects.
    pub fn demand_certificate(&self, identity: &Identity) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.as_ref().der().clone()).expect("our own root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a root");
        identity.acceptor_with(|builder| builder.with_client_cert_verifier(verifier), &[])
    }
}

impl Identity {
    /// One that only vouches for itself.
    pub fn self_signed(name: &str) -> Self {
        let key = key();
        let certificate = params(name).self_signed(&key).expect("a fresh key signs");
        Self { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    /// The certificate as it is shown in a handshake.
    pub fn der(&self) -> &[u8] {
        &self.chain[0]
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A TLS server that speaks `protocols` (ALPN).
    pub fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        self.acceptor_with(|builder| builder.with_no_client_auth(), protocols)
    }

    fn acceptor_with(
        &self,
        clients: impl FnOnce(
            rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>,
        ) -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
        protocols: &[&str],
    ) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows them");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = clients(builder).with_single_cert(self.chain.clone(), key).expect("they belong together");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A TLS client. It remembers sessions.
pub struct Client(ClientConfig);

impl Client {
    fn new(roots: RootCertStore, identity: Option<&Identity>, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("ring knows them")
            .with_root_certificates(roots);
        Self(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
                builder.with_client_auth_cert(identity.chain.clone(), key).expect("they belong together")
            }
        })
    }

    pub fn offering(mut self, protocols: &[&str]) -> Self {
        self.0.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// The handshake over a new connection. `name` is an address for a client without SNI.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        self.handshake(stream, name).await
    }

    /// The handshake over a connection that has been used for something else before.
    pub async fn handshake(&self, stream: TcpStream, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("a name or an address");
        let connector = TlsConnector::from(Arc::new(self.0.clone()));
        within(PATIENCE, "a handshake", connector.connect(name, stream)).await
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("ring makes keys")
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).expect("a name or an address")
}
