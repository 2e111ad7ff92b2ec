//! The peer that Pingora connects to. The only place that builds an [`HttpPeer`]: Pingora's constructor resolves names with
//! a blocking call and panics on failure, so it is only ever given a socket address.

use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};

use crate::config::model::{Target, TargetCredential, TargetHttp, TargetTls};

/// Streams on one HTTP/2 connection to a target; the target's own setting lowers it.
const HTTP2_STREAMS: usize = 100;
/// Flow-control window of a stream: answers are at most a few megabytes.
const HTTP2_STREAM_WINDOW: u32 = 1 << 20;
/// Flow-control window of a connection.
const HTTP2_CONNECTION_WINDOW: u32 = 8 << 20;
/// Pingora's per-read timeout behind the exchange's own clock (`response::hold`), should that ever not run.
const READ_BACKSTOP: Duration = Duration::from_secs(60);

/// What all connections of one target with one credential have in common.
pub struct Peers {
    tls: Option<PeerTls>,
    http: TargetHttp,
    /// Keeps connections apart that differ in target, TLS settings or target credential, a renewed secret included: some
    /// servers bind what they know of a client to the connection, and Pingora's own key leaves the CA out.
    group: u64,
    idle_timeout: Duration,
}

struct PeerTls {
    server_name: String,
    ca: Option<Arc<CaType>>,
    client_certificate: Option<Arc<CertKey>>,
}

/// What differs from request to request.
pub struct Attempt {
    pub address: SocketAddr,
    /// For the TCP connection and the TLS handshake together.
    pub connect_timeout: Duration,
    pub write_timeout: Duration,
    /// The target's whole time.
    pub timeout: Duration,
    /// The request asks for another protocol on its connection, which HTTP/2 cannot give.
    pub upgrade: bool,
}

impl Peers {
    /// Prepares the peers of `target` for requests that carry `credential`.
    pub fn new(target: &Target, credential: &TargetCredential, idle_timeout: Duration) -> Self {
        let tls = target.tls.as_ref();
        let secrets =
            (&credential.injection.headers, credential.injection.query.as_ref().map(|query| query.pair.expose()));
        Self {
            tls: tls.map(PeerTls::new),
            http: target.http,
            group: group_key(&(&*target.id, tls.map(|tls| tls.fingerprint), &*credential.id, secrets)),
            idle_timeout,
        }
    }

    /// The peer for one attempt.
    pub fn peer(&self, attempt: &Attempt) -> HttpPeer {
        let server_name = self.tls.as_ref().map(|tls| tls.server_name.clone()).unwrap_or_default();
        #[expect(clippy::disallowed_methods, reason = "a socket address needs no resolution, which is what panics")]
        let mut peer = HttpPeer::new(attempt.address, self.tls.is_some(), server_name);
        peer.group_key = self.group;
        if let Some(tls) = &self.tls {
            peer.client_cert_key.clone_from(&tls.client_certificate);
            peer.options.ca.clone_from(&tls.ca);
        }
        peer.options.connection_timeout = Some(attempt.connect_timeout);
        peer.options.total_connection_timeout = Some(attempt.connect_timeout);
        peer.options.read_timeout = Some(attempt.timeout + READ_BACKSTOP);
        peer.options.write_timeout = Some(attempt.write_timeout);
        peer.options.idle_timeout = Some(self.idle_timeout);
        peer.options.max_h2_streams = HTTP2_STREAMS;
        peer.options.h2_stream_window_size = Some(HTTP2_STREAM_WINDOW);
        peer.options.h2_connection_window_size = Some(HTTP2_CONNECTION_WINDOW);
        peer.options.alpn = match (self.http, self.tls.is_some(), attempt.upgrade) {
            (TargetHttp::Http1, ..) | (TargetHttp::Auto, false, _) | (_, true, true) => ALPN::H1,
            (TargetHttp::Auto, true, false) => ALPN::H2H1,
            (TargetHttp::Http2, ..) => ALPN::H2,
        };
        peer
    }
}

impl PeerTls {
    fn new(tls: &TargetTls) -> Self {
        let ca = tls
            .ca
            .as_ref()
            .map(|roots| roots.iter().map(|root| WrappedX509::new(root.to_vec(), parse_x509)).collect::<Arc<CaType>>());
        let client_certificate = tls.client_certificate.as_ref().map(|certificate| {
            let chain = certificate.chain.iter().map(|link| link.to_vec()).collect();
            Arc::new(CertKey::new(chain, certificate.key.secret_der().to_vec()))
        });
        // An empty server name would turn verification off in Pingora; `config` never makes one.
        assert!(!tls.server_name.is_empty(), "config gives every TLS target a server name");
        Self { server_name: tls.server_name.clone().into(), ca, client_certificate }
    }
}

/// Stable over reloads, since pooled connections are found by it.
fn group_key(settings: &impl Hash) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(settings)
}
