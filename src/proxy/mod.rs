//! The life of a request in Pingora's phases. Each phase is a sentence; the stages it names decide.
//!
//! `request_filter`: the gates ([`admission`]). `upstream_peer`: an address of the target. `upstream_request_filter`: path,
//! `Host`, credential. `response_filter`: labels, size. `fail_to_proxy`: 408, 413, 502, 503, 504. `logging`: what happened.

pub mod admission;
mod answer;
mod client;
pub mod connection;
pub mod exchange;
mod failure;
pub mod preamble;
mod report;

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::ServerSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use self::admission::{Admitted, Refused};
use self::answer::{answer, answer_failed, drain, keep, linger, prepare_for_refusal};
use self::exchange::{Exchange, InFlight, Verdict};
use self::failure::{End, Failed};
use crate::config::model::TargetHost;
use crate::fields;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::refusal::{REQUEST_ID, Refusal, TargetFault, TimeoutPhase};
use crate::request::framing;
use crate::request::guesses::Guesses;
use crate::request::rate_limit::{Clock, policy_header};
use crate::request::rewrite::{self, Origin};
use crate::request::upgrade::{asks_for_websocket, is_websocket};
use crate::response::headers::{self, Labels};
use crate::response::hold::{self, Terms};
use crate::snapshot::{Lasting, Snapshot};
use crate::upstream::address;
use crate::upstream::peer::Attempt;

/// Interim answers (1xx) to one request that are passed on.
const MAX_INTERIM: u32 = 32;
/// Addresses of one target that a request tries.
const MAX_ADDRESSES: usize = 4;
/// Marks an error whose meaning stands in [`Exchange::refusal`].
const REFUSED: ErrorType = ErrorType::Custom("refused");

/// The proxy: one per process.
pub struct EdgeProxy {
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    pub lasting: Arc<Lasting>,
    /// Requests under way.
    pub in_flight: Arc<AtomicUsize>,
    /// Set when the process is about to leave: connections are closed with their next answer.
    pub leaving: Arc<AtomicBool>,
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
}

#[async_trait]
impl ProxyHttp for EdgeProxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.snapshots.load_full(), InFlight::enter(&self.in_flight))
    }

    // Pingora's own modules compress; answers here are the target's, byte for byte.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        let limits = &exchange.snapshot.edge.limits;
        session.set_write_timeout(Some(limits.write_timeout));
        // Read timeouts of a body are the exchange's own clock's business (`response::hold`); this one is for what is read
        // outside of an exchange.
        session.set_read_timeout(Some(limits.body_timeout));
        session.set_pipelining_enabled(true);
        if session.as_http1().is_some_and(|http1| http1.will_keepalive()) {
            // Pingora keeps an HTTP/1.1 connection for ever unless it is told otherwise with each request.
            let leaving = self.leaving.load(Ordering::Relaxed);
            session.set_keepalive((!leaving).then(|| limits.keepalive_timeout.as_secs().max(1)));
        }
        exchange.request_id = request_id(&session.req_header().headers);
        if let ServerSession::H1(http1) = &mut *session.downstream_session {
            // Decided where the answer is known (`answer`, `response::hold`): Pingora's own rule closes after a `100`, too.
            http1.set_close_on_response_before_downstream_finish(false);
            if let Some(connection) = &exchange.connection {
                connection.expect_body(&http1.req_header().headers);
            }
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        match shielded(|| self.admit(session, exchange)).unwrap_or_else(|fault| Err(fault.into())) {
            Ok(admitted) => {
                exchange.verdict = Verdict::Admitted(Box::new(admitted));
                Ok(false)
            }
            Err(Refused { refusal, known, warning }) => {
                exchange.known = known;
                let unread = prepare_for_refusal(session);
                if matches!(refusal, Refusal::MalformedRequest) {
                    // Where this one ends is in doubt, and with it where the next would begin (RFC 9112 section 6.3).
                    session.set_keepalive(None);
                }
                answer(session, exchange, refusal, warning).await?;
                // What is left is listening: it must not take a place that a request could have.
                exchange.leave();
                drain(session, unread).await;
                Ok(true) // answered here: Pingora must not go on to a target
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        exchange.target.signals.begun.store(false, Ordering::Relaxed);
        if !exchange.held {
            self.hold(session, exchange)?;
        }
        let Some(patience) = exchange.connect_patience() else {
            let timeout = exchange.admitted().map_or(Duration::ZERO, |admitted| admitted.entry.proxy.timeout);
            return Err(exchange.refused(Refusal::TargetTimeout(TimeoutPhase::Connect, timeout)));
        };
        let address = self.next_address(exchange, patience).await?;
        exchange.target.address = Some(address);
        let admitted = exchange.admitted().ok_or_else(unadmitted)?;
        let attempt = Attempt {
            address,
            connect_timeout: patience,
            write_timeout: admitted.entry.proxy.timeout,
            timeout: admitted.entry.proxy.timeout.max(admitted.entry.proxy.stream_idle_timeout),
            upgrade: exchange.target.wants_tunnel,
        };
        Ok(Box::new(admitted.entry.peers.peer(&attempt)))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // No byte of the request is out: the next address is always safe, while there is one and time for it.
        let more = exchange.target.addresses.as_ref().is_some_and(|left| left.len() > 0);
        error.set_retry(more && exchange.connect_patience().is_some());
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.target.reused = reused;
        exchange.target.signals.line.set(digest.and_then(|digest| digest.socket_digest.clone()));
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if head.version == Version::HTTP_2 {
            // Streams have windows of their own, and share the connection.
            exchange.target.signals.line.set(None);
        }
        let admitted = exchange.admitted().ok_or_else(unadmitted)?;
        if head.version != Version::HTTP_2 && head.method == Method::POST && session.is_body_empty() {
            // HTTP/2 says so without a length; servers of HTTP/1.1 may insist on one (RFC 9110 section 8.6).
            head.insert_header(header::CONTENT_LENGTH, "0")?;
        }
        let connection = exchange.connection.as_ref().ok_or_else(unadmitted)?;
        let origin = Origin {
            peer: &connection.forwarded_for,
            trusted: exchange.snapshot.edge.trusts(connection.peer),
            tls: connection.tls,
            request_id: &exchange.request_id,
            version: session.req_header().version,
        };
        let (target, injection) = (&admitted.entry.proxy.target, &admitted.entry.proxy.target_credential.injection);
        let rewritten = shielded(|| {
            rewrite::rewrite(head, &admitted.line, target, injection, &origin, exchange.target.wants_tunnel)?;
            rewrite::keep_trailers(head, session.req_header())
        });
        rewritten.map_err(|fault| exchange.refused(fault))?
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        // What flows through a tunnel is no body.
        if session.was_upgraded() {
            return Ok(());
        }
        if exchange.target.signals.ended.load(Ordering::Relaxed) && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        exchange.body_in += body.as_ref().map_or(0, |piece| piece.len() as u64);
        let limit = exchange.admitted().ok_or_else(unadmitted)?.entry.proxy.max_request_body;
        if exchange.body_in > limit {
            // Blamed on the client: after any other error Pingora would wait for what an HTTP/2 target makes of half a body.
            return Err(exchange.refused(Refusal::RequestTooLarge(limit)).into_down());
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            exchange.target.interim += 1;
            if exchange.target.interim > MAX_INTERIM {
                return Err(exchange.refused(Refusal::TargetFailed(TargetFault::Protocol)));
            }
            headers::strip_interim(head);
            let credential = &exchange.admitted().ok_or_else(unadmitted)?.entry.proxy.target_credential;
            return if credential.expose { Ok(()) } else { headers::conceal(head, &credential.injection) };
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS
            && !(exchange.target.wants_tunnel && is_websocket(&head.headers))
        {
            return Err(exchange.refused(Refusal::TargetFailed(TargetFault::Protocol)));
        }
        exchange.target.answered = Some(Instant::now());
        let admitted = exchange.admitted().ok_or_else(unadmitted)?;
        if let Err(refusal) = check_framing(session.req_header(), head, admitted.entry.proxy.max_response_body) {
            return Err(exchange.refused(refusal));
        }
        headers::collapse_length(head)?;
        let credential = &admitted.entry.proxy.target_credential;
        if !credential.expose {
            headers::conceal(head, &credential.injection)?;
        }
        if head.version != Version::HTTP_2 {
            // The message is ours now, whatever version the target speaks (RFC 9112 section 2.3).
            head.set_version(Version::HTTP_11);
        }
        headers::label(head, &Labels { request_id: &exchange.request_id, warning: admitted.warning.as_ref() })?;
        if admitted.entry.proxy.rate_limit_headers {
            let limit = &admitted.credential.rate_limit;
            head.insert_header("ratelimit", admitted.limiter.budget(limit, Clock::now()).to_string())?;
            head.insert_header("ratelimit-policy", policy_header(limit))?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        exchange.target.last_piece = Some(Instant::now());
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        exchange: &mut Exchange,
    ) -> Result<Option<Bytes>> {
        let credential = &exchange.admitted().ok_or_else(unadmitted)?.entry.proxy.target_credential;
        if !credential.expose {
            headers::conceal_in_trailers(trailers, &credential.injection);
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        client_reused: bool,
    ) -> Box<Error> {
        // Sent again only while the target cannot have acted on it: an idempotent method whose body has not begun, on a
        // connection that was dead already or a stream that was refused.
        let untouched = session.req_header().method.is_idempotent()
            && session.as_ref().body_bytes_read() == 0
            && exchange.target.answered.is_none()
            && exchange.connect_patience().is_some();
        if untouched && !session.as_ref().retry_buffer_truncated() {
            error.retry.decide_reuse(client_reused);
            if error.retry() {
                // The same address: it was the connection that had died, not the target.
                exchange.target.addresses = exchange.target.address.map(|address| vec![address].into_iter());
            }
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        release(session, exchange);
        // Its kind alone: Pingora quotes the bytes that it stumbled over in the rest of it.
        let (id, address) = (exchange.request_id.to_str().unwrap_or("-"), exchange.target.address);
        log::debug!("{id}: {:?} {:?}, target {address:?}", error.esource(), error.etype());
        let end = match exchange.refusal.take() {
            Some(refusal) => End::Refused(refusal),
            None => failure::explain(&exchange.failed(error)),
        };
        let status = match end {
            End::Refused(refusal) => {
                if self.leaving.load(Ordering::Relaxed) {
                    session.set_keepalive(None);
                }
                let status = refusal.status().as_u16();
                let warning = exchange.admitted().and_then(|admitted| admitted.warning.clone());
                // A client that is gone by now is its own business.
                exchange.answered_whole = answer_failed(session, exchange, refusal, warning).await.is_ok();
                status
            }
            End::AnsweredEarly => session.response_written().map_or(0, |head| head.status.as_u16()),
            End::ClientGone => 0,
        };
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        release(session, exchange);
        report::finished(self, session, exchange);
        exchange.leave();
        linger(session).await;
        if error.is_some() {
            keep(session, exchange).await;
        }
    }

    // The edge's own log line tells it all, without the query that Pingora's would show.
    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &Exchange,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, exchange: &Exchange) -> String {
        exchange.request_id.to_str().unwrap_or("-").to_owned()
    }
}

impl EdgeProxy {
    fn admit(&self, session: &Session, exchange: &Exchange) -> Result<Admitted, Refused> {
        let limits = &exchange.snapshot.edge.limits;
        if exchange.in_flight() > limits.max_requests_in_flight {
            return Err(Refusal::AtCapacity.into());
        }
        let request = session.req_header();
        let framed = match session.as_http1() {
            Some(http1) => framing::check(&http1.get_headers_raw_bytes()),
            None => framing::check_values(&request.headers),
        };
        framed.map_err(|_| Refusal::MalformedRequest)?;
        let (clock, guesses, most) = (Clock::now(), &self.lasting.guesses, limits.invalid_credentials_per_minute);
        let client = exchange.client(&request.headers).filter(|_| most > 0);
        if let Some(client) = client
            && guesses.is_slowed(client, most, clock.monotonic())
        {
            return Err(Refusal::Guessing(Guesses::retry_after(clock.monotonic())).into());
        }
        let verdict = admission::admit(&exchange.snapshot, request, clock, SystemTime::now());
        if let (Some(client), Err(Refused { refusal: Refusal::CredentialDenied, .. })) = (client, &verdict)
            && guesses.count(client, most, clock.monotonic())
        {
            // Once a minute and address at most. fail2ban: `^.* client (?P<host>\S+): \d+ invalid credentials`.
            log::warn!("client {client}: {most} invalid credentials within a minute, refused until it is over");
        }
        verdict
    }

    /// Puts the held session in place: from here on the exchange's clock runs.
    fn hold(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        let started = Instant::now();
        exchange.target.started = Some(started);
        exchange.target.wants_tunnel = asks_for_websocket(session.req_header());
        let proxy = &exchange.admitted().ok_or_else(unadmitted)?.entry.proxy;
        let limits = &exchange.snapshot.edge.limits;
        let terms = Terms {
            started: started.into(),
            timeout: proxy.timeout,
            body_timeout: limits.body_timeout,
            idle_timeout: proxy.stream_idle_timeout,
            write_timeout: limits.write_timeout,
            limit: proxy.max_response_body,
            mode: proxy.response,
            budget: Arc::clone(&self.lasting.held),
            signals: Arc::clone(&exchange.target.signals),
            clock: exchange.connection.as_ref().and_then(|connection| connection.take_clock()),
            wants_tunnel: exchange.target.wants_tunnel,
            leaving: Arc::clone(&self.leaving),
        };
        // The held session times the body itself, over HTTP/2 too.
        session.set_read_timeout(None);
        fields::forget_spelling(session.req_header_mut());
        hold::install(session, terms);
        exchange.held = true;
        Ok(())
    }

    /// The next address to try; resolves the name first where that is still to be done.
    async fn next_address(&self, exchange: &mut Exchange, patience: Duration) -> Result<SocketAddr> {
        if exchange.target.addresses.is_none() {
            match self.resolve(exchange, patience).await {
                Ok(addresses) => exchange.target.addresses = Some(addresses.into_iter()),
                Err(refusal) => return Err(exchange.refused(refusal)),
            }
        }
        let next = exchange.target.addresses.as_mut().and_then(Iterator::next);
        next.ok_or_else(|| Error::explain(ErrorType::ConnectError, "no address left").into_up())
    }

    async fn resolve(&self, exchange: &Exchange, patience: Duration) -> Result<Vec<SocketAddr>, Refusal> {
        let entry = &exchange.admitted().ok_or(Refusal::Fault)?.entry;
        let target = &entry.proxy.target;
        let port = target.port;
        let allowed = |addresses: &mut dyn Iterator<Item = IpAddr>| -> Vec<SocketAddr> {
            let allow_private = exchange.snapshot.edge.allow_private_targets;
            let allowed = addresses.filter(|address| allow_private || address::is_public(*address));
            allowed.take(MAX_ADDRESSES).map(|address| SocketAddr::new(address, port)).collect()
        };
        let allowed = match (&target.host, &entry.name) {
            (TargetHost::Address(address), _) => allowed(&mut std::iter::once(*address)),
            (TargetHost::Name(_), Some(name)) => {
                let lookup = self.lasting.resolver.addresses(name);
                let answer = tokio::time::timeout(patience, lookup)
                    .await
                    .map_err(|_| Refusal::TargetTimeout(TimeoutPhase::Dns, patience))?
                    .map_err(|_| Refusal::TargetFailed(TargetFault::Dns))?;
                allowed(&mut answer.rotated())
            }
            (TargetHost::Name(_), None) => return Err(Refusal::Fault),
        };
        if allowed.is_empty() { Err(Refusal::TargetFailed(TargetFault::Prohibited)) } else { Ok(allowed) }
    }
}

impl Exchange {
    /// How long resolving or connecting may take: within the target's whole time. `None` when that is over.
    fn connect_patience(&self) -> Option<Duration> {
        let proxy = &self.admitted()?.entry.proxy;
        let spent = self.target.started.map_or(Duration::ZERO, |started| started.elapsed());
        let left = proxy.timeout.checked_sub(spent).filter(|left| !left.is_zero())?;
        Some(proxy.connect_timeout.min(left))
    }

    /// Notes why the exchange ends, and makes the error that ends it.
    fn refused(&mut self, refusal: Refusal) -> Box<Error> {
        self.refusal = Some(refusal);
        Error::new(REFUSED)
    }

    fn failed<'a>(&self, error: &'a Error) -> Failed<'a> {
        let proxy = self.admitted().map(|admitted| &admitted.entry.proxy);
        let timeout = proxy.map_or(Duration::ZERO, |proxy| proxy.timeout);
        Failed {
            error,
            timeout,
            connect_timeout: proxy.map_or(Duration::ZERO, |proxy| proxy.connect_timeout).min(timeout),
            max_response_body: proxy.map_or(0, |proxy| proxy.max_response_body),
            answered: self.target.answered.is_some(),
        }
    }
}

/// A panic in a stage is a fault of ours with a log line (from the panic hook), not a dead connection.
fn shielded<T>(stage: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(stage)).map_err(|_| Refusal::Fault)
}

fn unadmitted() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a phase ran for a request that was not admitted")
}

/// Takes the held session away again.
fn release(session: &mut Session, exchange: &mut Exchange) {
    if !std::mem::take(&mut exchange.held) {
        return;
    }
    let clock = hold::restore(session, &exchange.target.signals);
    if let (Some(clock), Some(connection)) = (clock, &exchange.connection) {
        connection.leave_clock(clock);
    }
}

/// Judges the announced framing of an answer.
fn check_framing(request: &RequestHeader, head: &ResponseHeader, limit: u64) -> Result<(), Refusal> {
    let bodiless =
        request.method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // Any other coding would have to be decoded by whoever takes the chunks off (RFC 9112 section 7).
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.next().is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.next().is_some()
    {
        return Err(Refusal::TargetFailed(TargetFault::Protocol));
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    // Two lengths, or one that is no number: nobody can say where this answer ends (RFC 9112 section 6.3).
    let length = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(length) = length.and_then(|text| text.parse::<u64>().ok()) else {
        return Err(Refusal::TargetFailed(TargetFault::Protocol));
    };
    if lengths.any(|other| other != first) {
        return Err(Refusal::TargetFailed(TargetFault::Protocol));
    }
    if !bodiless && length > limit { Err(Refusal::ResponseTooLarge(limit)) } else { Ok(()) }
}

/// The client's request id where it is well-formed, a new one otherwise.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let well_formed = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=128).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~:+/=@".contains(byte))
    };
    let mut sent = headers.get_all(REQUEST_ID).iter();
    match (sent.next(), sent.next()) {
        (Some(one), None) if well_formed(&one) => one.clone(),
        _ => {
            let nibbles = fastrand::u128(..).to_be_bytes().map(|byte| [byte >> 4, byte & 15]);
            let digits = nibbles.map(|pair| pair.map(|nibble| b"0123456789abcdef"[usize::from(nibble)]));
            HeaderValue::from_bytes(digits.as_flattened()).expect("hexadecimal digits")
        }
    }
}
