//! A client's connection, from its first byte: PROXY protocol, TLS, HTTP version, and the deadline of each header.
//!
//! Pingora times single reads, so that a header which drips a byte a minute holds its connection for days, and it waits
//! without any limit for the first bytes of HTTP/2. Here every connection has an app of its own around Pingora's proxy, and
//! a connection whose next step does not come in time is dropped.

use std::future::poll_fn;
use std::net::IpAddr;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_limits::inflight::{Guard, Inflight};
use pingora_proxy::HttpProxy;

use super::admission::announced_length;
use super::client::Client;
use super::exchange::InFlight;
use super::{EdgeProxy, preamble};
use crate::config::model::{ClientLimits, Edge};
use crate::observe::metrics::Metrics;
use crate::patience::Patience;
use crate::request::guesses;
use crate::snapshot::{Listeners, Snapshot};

/// The first bytes of the HTTP/2 preface (RFC 9113 section 3.4). `PRI` is reserved: no HTTP/1 request begins with it.
pub(super) const PREFACE_START: &[u8; 3] = b"PRI";

/// When the daemon leaves: how long it waits for the first word of who has just connected. Nobody else holds it up.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A length that no body has.
const UNKNOWN: u64 = u64::MAX;

tokio::task_local! {
    /// The connection that the current task serves: Pingora makes an exchange without telling where it came from.
    static CURRENT: Arc<Connection>;
}

/// One client's connection.
pub struct Connection {
    /// Who connected: the TCP peer, or who the PROXY protocol says it is.
    pub peer: IpAddr,
    /// The same, ready to be sent in `X-Forwarded-For`.
    pub forwarded_for: HeaderValue,
    /// Whether it is encrypted.
    pub tls: bool,
    /// Headers that have arrived on it.
    headers: AtomicU64,
    /// HTTP/1: the length of the current request's body; [`UNKNOWN`] unless it was announced.
    body: AtomicU64,
    /// HTTP/2: requests under way on it, and since when there is none.
    under_way: Option<Mutex<(usize, Instant)>>,
    /// The connection itself, between a failed exchange and its next request.
    kept: Mutex<Option<ReusedHttpStream>>,
    /// Timers of exchanges that are over, for those to come.
    clock: Mutex<Option<Patience>>,
}

impl Connection {
    fn new(peer: IpAddr, tls: bool, http2: bool) -> Self {
        let peer = peer.to_canonical();
        let forwarded_for = HeaderValue::try_from(peer.to_string()).expect("an address is plain ASCII");
        let (headers, body) = (AtomicU64::new(0), AtomicU64::new(UNKNOWN));
        let under_way = http2.then(|| Mutex::new((0, Instant::now())));
        let (kept, clock) = (Mutex::new(None), Mutex::new(None));
        Self { peer, forwarded_for, tls, headers, body, under_way, kept, clock }
    }

    /// Takes note of how long the body of an HTTP/1 request will be.
    pub fn expect_body(&self, headers: &HeaderMap) {
        let length = match (headers.contains_key(TRANSFER_ENCODING), headers.contains_key(CONTENT_LENGTH)) {
            (false, false) => Some(0),
            (false, true) => announced_length(headers),
            (true, _) => None,
        };
        self.body.store(length.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// A clock that nobody looks at, if there is one.
    pub fn take_clock(&self) -> Option<Patience> {
        self.clock.lock().take()
    }

    /// Leaves a clock for the next exchange.
    pub fn leave_clock(&self, clock: Patience) {
        *self.clock.lock() = Some(clock);
    }

    /// Keeps the connection for its next request although Pingora closes it after a failed exchange, whoever failed it.
    pub fn keep(&self, stream: ReusedHttpStream) {
        *self.kept.lock() = Some(stream);
    }

    /// A request on the connection of the task that this is called in, to be called once for each header that has arrived.
    pub fn with_new_header() -> Option<OnConnection> {
        let connection = CURRENT.try_with(Arc::clone).ok()?;
        connection.headers.fetch_add(1, Ordering::Relaxed);
        if let Some(under_way) = &connection.under_way {
            under_way.lock().0 += 1;
        }
        Some(OnConnection(connection))
    }

    /// Waits until the daemon leaves, and nothing has been under way for `patience`: GOAWAY and PING are out, and this client
    /// takes notice of neither, nor of an answer.
    async fn ignores_leaving(&self, shutdown: &ShutdownWatch, patience: Duration) {
        left(shutdown, LAST_MOMENT).await;
        loop {
            let Some((under_way, since)) = self.under_way.as_ref().map(|under_way| *under_way.lock()) else { return };
            let left = if under_way > 0 { patience } else { patience.saturating_sub(since.elapsed()) };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// The connection of a request that is under way on it.
pub struct OnConnection(Arc<Connection>);

impl Deref for OnConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for OnConnection {
    fn drop(&mut self) {
        if let Some(under_way) = &self.0.under_way {
            let mut under_way = under_way.lock();
            *under_way = (under_way.0 - 1, Instant::now());
        }
    }
}

/// Accepts connections for the proxy.
pub struct Gate {
    proxy: Arc<HttpProxy<EdgeProxy>>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// What was bound.
    first: Arc<Listeners>,
    http1: HttpServerOptions,
    http2: HttpServerOptions,
    h2: H2Options,
    header_timeout: Duration,
    keepalive_timeout: Duration,
    write_timeout: Duration,
    /// Clients connected now.
    connections: Arc<AtomicUsize>,
    /// The same by client: a sketch, since strangers are without number.
    by_client: Inflight,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// The gate in front of `proxy`. Counts its clients in `connections`.
    pub fn new(
        proxy: HttpProxy<EdgeProxy>,
        snapshots: Arc<ArcSwap<Snapshot>>,
        edge: &Edge,
        connections: Arc<AtomicUsize>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let limits = &edge.limits;
        Self {
            proxy: Arc::new(proxy),
            first: Arc::clone(&snapshots.load().listeners),
            snapshots,
            http1: options(limits, false),
            http2: options(limits, true),
            h2: h2_options(limits),
            header_timeout: limits.header_timeout,
            keepalive_timeout: limits.keepalive_timeout,
            write_timeout: limits.write_timeout,
            connections,
            by_client: Inflight::new(),
            metrics,
        }
    }

    /// Takes a place for one more connection of `peer`; `None`: it has too many.
    fn place_for(&self, peer: IpAddr) -> Option<Option<Guard>> {
        let snapshot = self.snapshots.load();
        let most = snapshot.edge.limits.max_connections_per_client;
        if most == 0 || snapshot.edge.trusts(peer) {
            return Some(None);
        }
        let (place, taken) = self.by_client.incr(guesses::key(peer), 1);
        if usize::try_from(taken).unwrap_or(0) > most {
            self.metrics.connections_refused.with_label_values(&["client"]).inc();
            return None;
        }
        Some(Some(place))
    }

    /// Everything before HTTP, with who is at the other end of the connection. `None` where the client is not worth an answer.
    async fn greet(&self, mut stream: Stream, mut peer: IpAddr) -> Option<Greeted> {
        let local = *stream.get_socket_digest()?.local_addr()?.as_inet()?;
        let snapshot = self.snapshots.load_full();
        // A listener that was taken out of the configuration goes on as it was until the next restart.
        let (listener, tls) = snapshot.listeners.of(&local).or_else(|| self.first.of(&local))?;
        if listener.proxy_protocol {
            if !snapshot.edge.trusts(peer) {
                log::debug!("{peer} is no trusted proxy, and speaks to a listener with the PROXY protocol");
                return None;
            }
            peer = preamble::read(&mut stream).await.ok()?.unwrap_or(peer);
        }
        let http2_cleartext = listener.http2_cleartext;
        if let Some(tls) = tls {
            let plain = stream.into_any().downcast::<L4Stream>().ok()?;
            let stream: Stream = match tls.acceptor().tls_handshake(*plain).await {
                Ok(stream) => Box::new(stream),
                Err(error) => {
                    log::debug!("TLS handshake with {peer}: {error}");
                    return None;
                }
            };
            let http2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
            return Some(Greeted { stream, connection: Connection::new(peer, true, http2), http2, cleartext: false });
        }
        // Three bytes tell; waiting for all 24 would hang on a short HTTP/1.0 request.
        let mut start = [0; PREFACE_START.len()];
        let http2 = http2_cleartext && stream.try_peek(&mut start).await.ok()? && &start == PREFACE_START;
        Some(Greeted { stream, connection: Connection::new(peer, false, http2), http2, cleartext: http2 })
    }
}

/// A connection that is ready for HTTP.
struct Greeted {
    stream: Stream,
    connection: Connection,
    http2: bool,
    /// HTTP/2 without TLS.
    cleartext: bool,
}

fn options(limits: &ClientLimits, cleartext_http2: bool) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = cleartext_http2;
    // Pingora counts how often a connection is used again.
    options.keepalive_request_limit = Some(limits.requests_per_connection - 1);
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
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _counted = InFlight::enter(&self.connections);
        if self.connections.load(Ordering::Relaxed) > self.snapshots.load().edge.limits.max_connections {
            self.metrics.connections_refused.with_label_values(&["total"]).inc();
            return None;
        }
        // Before any handshake, whose work is what an attacker wants to be done.
        let peer = stream.get_socket_digest()?.peer_addr()?.as_inet()?.ip().to_canonical();
        let _place = self.place_for(peer)?;
        // Boxed: a handshake takes several KiB, which must not stay for as long as the connection does.
        let greeting = Box::pin(tokio::time::timeout(self.header_timeout, self.greet(stream, peer)));
        let greeted = tokio::select! {
            biased;
            greeted = greeting => greeted.ok()??,
            () = left(shutdown, LAST_MOMENT) => return None,
        };
        let connection = Arc::new(greeted.connection);
        let attended = Attended {
            gate: Arc::clone(self),
            connection: Arc::clone(&connection),
            cleartext_http2: greeted.cleartext,
        };
        if !greeted.http2 {
            attended.http1(greeted.stream, shutdown).await;
            return None;
        }
        let app = Arc::new(attended);
        let served = app.process_new(greeted.stream, shutdown);
        tokio::pin!(served);
        let silent = async {
            tokio::time::sleep(self.header_timeout).await;
            // No stream in all this time: silent after the handshake or the preface.
            if connection.headers.load(Ordering::Relaxed) > 0 {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            end = &mut served => end,
            () = silent => None,
            () = connection.ignores_leaving(shutdown, self.write_timeout) => None,
        }
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// Waits until the daemon leaves, and a moment more.
async fn left(shutdown: &ShutdownWatch, moment: Duration) {
    let _ = shutdown.clone().wait_for(|leaving| *leaving).await; // its sender lives as long as the server
    tokio::time::sleep(moment).await;
}

/// The app of one connection.
struct Attended {
    gate: Arc<Gate>,
    connection: Arc<Connection>,
    cleartext_http2: bool,
}

impl Attended {
    /// Serves HTTP/1, request by request, until the connection ends.
    async fn http1(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<()> {
        let mut client = Box::new(Client::new(stream));
        let mut settings: Option<HttpPersistentSettings> = None;
        let mut between_requests = true;
        // Both outlast the requests: to set them up anew would cost each of these more than its look at the rate limit.
        let mut leaving = pin!(left(shutdown, Duration::ZERO));
        let mut clock = Patience::until((Instant::now() + self.gate.header_timeout).into());
        loop {
            // What Pingora may have read too far is a beginning already, which it alone knows.
            let start = match (between_requests, &settings) {
                (false, _) => None,
                (true, None) => {
                    let leaving = pin!(left(shutdown, LAST_MOMENT));
                    Some(next_request(&mut client, leaving, &mut clock).await?)
                }
                (true, Some(_)) => {
                    let keepalive = self.gate.snapshots.load().edge.limits.keepalive_timeout;
                    clock.move_to((Instant::now() + keepalive).into());
                    Some(next_request(&mut client, leaving.as_mut(), &mut clock).await?)
                }
            };
            let mut session = ServerSession::new_http1(client);
            match settings.take() {
                Some(settings) => settings.apply_to_session(&mut session),
                None => {
                    session.set_keepalive((!*shutdown.borrow()).then_some(self.gate.header_timeout.as_secs().max(1)));
                    session.set_keepalive_reuses_remaining(self.gate.http1.keepalive_request_limit);
                }
            }
            let patience = match start {
                Some(start) => {
                    session.set_pipelined_prefix(start);
                    Duration::ZERO
                }
                // Pingora's own timer ends the wait for the first byte.
                None => self.gate.keepalive_timeout,
            };
            let (stream, kept) = self.exchange(session, patience, shutdown).await?.consume();
            client = stream.into_any().downcast().ok()?;
            settings = Some(kept?);
            let length = Some(self.connection.body.load(Ordering::Relaxed)).filter(|length| *length != UNKNOWN);
            between_requests &= client.is_between_requests(length);
        }
    }

    /// Serves one request, whose header must have come `patience` and the header's own time from now.
    async fn exchange(
        &self,
        session: ServerSession,
        patience: Duration,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let before = self.connection.headers.load(Ordering::Relaxed);
        self.connection.body.store(UNKNOWN, Ordering::Relaxed);
        let no_header = || self.connection.headers.load(Ordering::Relaxed) == before;
        let mut served =
            pin!(CURRENT.scope(Arc::clone(&self.connection), self.gate.proxy.process_new_http(session, shutdown)));
        let kept = || self.connection.kept.lock().take();
        // Nearly always the header is there already, all of it: no timer for that.
        if let Poll::Ready(end) = poll_fn(|context| Poll::Ready(served.as_mut().poll(context))).await {
            return end.or_else(kept);
        }
        if no_header() {
            tokio::select! {
                biased;
                end = &mut served => return end.or_else(kept),
                () = tokio::time::sleep(patience + self.gate.header_timeout) => {}
            }
            if no_header() {
                return None;
            }
        }
        served.await.or_else(kept)
    }
}

/// Waits for a request to begin. `None`: it does not in time, or not before the daemon leaves.
async fn next_request(
    client: &mut Client,
    leaving: Pin<&mut impl Future<Output = ()>>,
    patience: &mut Patience,
) -> Option<BytesMut> {
    tokio::select! {
        biased;
        start = client.next_request() => start,
        () = leaving => None,
        () = patience => None,
    }
}

/// HTTP/2, whose connection Pingora serves as a whole.
#[async_trait]
impl HttpServerApp for Attended {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        CURRENT.scope(Arc::clone(&self.connection), self.gate.proxy.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.gate.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(if self.cleartext_http2 { &self.gate.http2 } else { &self.gate.http1 })
    }
}
