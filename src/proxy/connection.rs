//! A client's connection: what is the same for all its requests, and the deadline of each header.
//!
//! Pingora times single reads, so that a header which drips a byte a minute holds its connection for days, and it waits
//! without any limit for the first bytes of HTTP/2. Here every connection has an app of its own around Pingora's proxy, and
//! a connection whose next header does not arrive in time is dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use super::EdgeProxy;
use super::exchange::InFlight;
use crate::config::model::{ClientLimits, Edge};

/// The first bytes of the HTTP/2 preface (RFC 9113 section 3.4). `PRI` is reserved: no HTTP/1 request begins with it.
const PREFACE_START: &[u8; 3] = b"PRI";

/// One client's connection.
pub struct Connection {
    /// The TCP peer.
    pub peer: IpAddr,
    /// The same, ready to be sent in `X-Forwarded-For`.
    pub forwarded_for: HeaderValue,
    /// Headers that have arrived on it.
    headers: AtomicU64,
}

impl Connection {
    /// A connection from `peer`.
    pub fn new(peer: IpAddr) -> Self {
        let peer = peer.to_canonical();
        let forwarded_for = HeaderValue::try_from(peer.to_string()).expect("an address is plain ASCII");
        Self { peer, forwarded_for, headers: AtomicU64::new(0) }
    }

    /// A request header has arrived whole.
    pub fn header_arrived(&self) {
        self.headers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Accepts connections for the proxy.
pub struct Gate {
    proxy: Arc<HttpProxy<EdgeProxy>>,
    http1: HttpServerOptions,
    http2: HttpServerOptions,
    h2: H2Options,
    header_timeout: Duration,
    keepalive_timeout: Duration,
    /// Ports of plain-text listeners that take HTTP/2.
    cleartext_ports: Vec<u16>,
    /// Clients connected now.
    connections: Arc<AtomicUsize>,
}

impl Gate {
    /// The gate in front of `proxy`. Counts its clients in `connections`.
    pub fn new(proxy: HttpProxy<EdgeProxy>, edge: &Edge, connections: Arc<AtomicUsize>) -> Self {
        let limits = &edge.limits;
        Self {
            proxy: Arc::new(proxy),
            http1: options(limits, false),
            http2: options(limits, true),
            h2: h2_options(limits),
            header_timeout: limits.header_timeout,
            keepalive_timeout: limits.keepalive_timeout,
            cleartext_ports: edge
                .listeners
                .iter()
                .filter(|listener| listener.http2_cleartext)
                .map(|listener| listener.address.port())
                .collect(),
            connections,
        }
    }

    /// Whether the connection starts with the HTTP/2 preface. Three bytes tell; waiting for all 24 would hang on a short
    /// HTTP/1.0 request.
    async fn speaks_http2(&self, stream: &mut Stream) -> Option<bool> {
        let local =
            stream.get_socket_digest().and_then(|digest| digest.local_addr().and_then(PeerAddr::as_inet).copied());
        if stream.get_ssl_digest().is_some() || !local.is_some_and(|at| self.cleartext_ports.contains(&at.port())) {
            return Some(false);
        }
        let mut start = [0; PREFACE_START.len()];
        match tokio::time::timeout(self.header_timeout, stream.try_peek(&mut start)).await {
            Ok(Ok(peeked)) => Some(peeked && &start == PREFACE_START),
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

fn options(limits: &ClientLimits, cleartext_http2: bool) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = cleartext_http2;
    options.keepalive_request_limit = Some(limits.requests_per_connection);
    options.h2_idle_timeout = Some(limits.keepalive_timeout);
    options
}

fn h2_options(limits: &ClientLimits) -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(limits.http2_max_streams);
    options.max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX));
    // 1 MiB a stream keeps an upload going over a long path; what one connection can make us hold is bounded by its own.
    options.initial_window_size(1 << 20);
    options.initial_connection_window_size(4 << 20);
    // Rapid reset (CVE-2023-44487): streams reset by the client before they were looked at.
    options.max_pending_accept_reset_streams(20);
    options.max_send_buffer_size(1 << 20);
    options
}

#[async_trait]
impl ServerApp for Gate {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _counted = InFlight::enter(&self.connections);
        let cleartext_http2 = self.speaks_http2(&mut stream).await?;
        let http2 = cleartext_http2 || matches!(stream.selected_alpn_proto(), Some(pingora_core::protocols::ALPN::H2));
        let peer = stream
            .get_socket_digest()
            .and_then(|digest| digest.peer_addr().and_then(PeerAddr::as_inet).map(std::net::SocketAddr::ip))?;
        let connection = Arc::new(Connection::new(peer));
        let app = Arc::new(Attended { gate: Arc::clone(self), connection: Arc::clone(&connection), cleartext_http2 });
        if !http2 {
            return app.process_new(stream, shutdown).await;
        }
        let served = app.process_new(stream, shutdown);
        tokio::pin!(served);
        tokio::select! {
            biased;
            end = &mut served => return end,
            () = tokio::time::sleep(self.header_timeout) => {}
        }
        // No stream in all this time: silent after the handshake or the preface.
        if connection.headers.load(Ordering::Relaxed) == 0 { None } else { served.await }
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// The app of one connection.
struct Attended {
    gate: Arc<Gate>,
    connection: Arc<Connection>,
    cleartext_http2: bool,
}

#[async_trait]
impl HttpServerApp for Attended {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.is_http2() {
            self.connection.header_arrived();
            return self.gate.proxy.process_new_http(session, shutdown).await;
        }
        session.set_connection_user_context(Some(Box::new(Arc::clone(&self.connection))));
        let before = self.connection.headers.load(Ordering::Relaxed);
        // An idle connection may wait for its next request first; Pingora's own timer ends that wait.
        let idle = if before == 0 { Duration::ZERO } else { self.gate.keepalive_timeout };
        let served = self.gate.proxy.process_new_http(session, shutdown);
        tokio::pin!(served);
        tokio::select! {
            biased;
            end = &mut served => return end,
            () = tokio::time::sleep(idle + self.gate.header_timeout) => {}
        }
        if self.connection.headers.load(Ordering::Relaxed) == before { None } else { served.await }
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.gate.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(if self.cleartext_http2 { &self.gate.http2 } else { &self.gate.http1 })
    }
}
