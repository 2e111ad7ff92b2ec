//! The client's session while its request is with the target: holds an answer of unknown length, bounds its size, and races
//! one clock through every stage of the exchange.
//!
//! Pingora writes a response header as soon as it has one, and has no total deadline. Both are had by standing between its
//! proxy loop and the client: every write goes through [`CustomSession::response_duplex_vec`], and the loop polls
//! [`CustomSession::read_body_or_idle`] all the time that it waits for the target. The trait is hidden in Pingora's
//! documentation, hence the exact version in Cargo.toml and everything that touches it in this one file.
//!
//! Not raced here, since the loop is elsewhere then: connecting (the peer's connect timeouts), a client that does not take
//! the answer (the client's write timeout), an HTTP/2 target that does not take the upload (the peer's write timeout).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, header};
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::http::custom::{CustomMessageWrite, server::Session as CustomSession};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::protocols::{Digest, l4::socket::SocketAddr};
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;
use tokio::time::Instant;

use super::budget::{Budget, Reservation};
use crate::config::model::ResponseMode;
use crate::patience::Patience;
use crate::upstream::pacing::{self, Line, Pacer};

/// Pieces of an upload that Pingora queues towards an HTTP/1.1 target (`TASK_BUFFER_SIZE`), less one to be sure.
const PIPE: usize = 3;
/// The slowest that a client may take an answer, in bytes a second, on top of its write timeout: what is held counts
/// against everybody's memory, and what is passed on keeps a connection to the target.
const MIN_TAKE_RATE: u64 = 16 * 1024;
/// Pieces below this size are collected.
const CRUMB: usize = 4 * 1024;
/// Tasks with at most this much body go to the client in one write, at the price of a copy.
const ONE_WRITE: usize = 16 * 1024;

/// Why an exchange was halted here. Travels through Pingora as [`ErrorType::Custom`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halt {
    /// The target's total time is over.
    Deadline,
    /// The client stopped sending its body.
    ClientStalled,
    /// A streamed answer or a tunnel was silent for too long.
    Idle,
    /// The answer exceeds the limit.
    TooLarge,
    /// No memory left to hold the answer.
    NoMemory,
    /// Not a failure: the answer is out and complete, while the client is still sending.
    AnsweredEarly,
}

impl Halt {
    const ALL: [Self; 6] =
        [Self::Deadline, Self::ClientStalled, Self::Idle, Self::TooLarge, Self::NoMemory, Self::AnsweredEarly];

    fn name(self) -> &'static str {
        match self {
            Self::Deadline => "target deadline",
            Self::ClientStalled => "client stalled",
            Self::Idle => "stream idle",
            Self::TooLarge => "response too large",
            Self::NoMemory => "held responses at capacity",
            Self::AnsweredEarly => "answered early",
        }
    }

    fn error(self) -> Box<Error> {
        Error::new(ErrorType::Custom(self.name()))
    }

    /// The halt that `error` carries, if any.
    pub fn of(error: &Error) -> Option<Self> {
        let ErrorType::Custom(name) = error.etype() else { return None };
        Self::ALL.into_iter().find(|halt| halt.name() == *name)
    }
}

/// What applies to one exchange.
pub struct Terms {
    /// When the exchange with the target began.
    pub started: Instant,
    /// Total time of the target, connecting included, the client's upload not.
    pub timeout: Duration,
    /// Longest silence of a client that still owes its body.
    pub body_timeout: Duration,
    /// Longest silence within a streamed answer or a tunnel.
    pub idle_timeout: Duration,
    /// Longest wait for the client to take a piece of the answer.
    pub write_timeout: Duration,
    /// Bytes of body that pass.
    pub limit: u64,
    pub mode: ResponseMode,
    pub budget: Arc<Budget>,
    pub signals: Arc<Signals>,
    /// Goes off when the exchange is overdue: one that an earlier exchange has left, where there is one.
    pub clock: Option<Patience>,
    /// Whether the client asked for a WebSocket.
    pub wants_tunnel: bool,
    /// The process is about to leave: the connection ends with this answer.
    pub leaving: Arc<AtomicBool>,
}

/// What the held session and Pingora's phases tell each other.
#[derive(Default)]
pub struct Signals {
    /// Whether the request header of the current attempt is on its way. Cleared before each.
    pub begun: AtomicBool,
    /// The next empty piece of the request body stands for its end.
    pub ended: AtomicBool,
    /// The connection to the target, to pace an upload by.
    pub line: Line,
    /// What is given back when the exchange is over.
    returned: Mutex<Option<Returned>>,
}

/// What a held session was made of.
struct Returned {
    client: Box<ServerSession>,
    clock: Option<Patience>,
}

/// Puts a [`HeldSession`] in the place of the client's session. [`restore`] undoes it.
pub fn install(session: &mut Session, terms: Terms) {
    let nobody = Box::new(ServerSession::new_custom(Box::new(())));
    let mut client = std::mem::replace(&mut session.downstream_session, nobody);
    let stage = if client.is_body_done() { Stage::Answer } else { Stage::Upload };
    let owed = stage == Stage::Upload && asks_to_continue(&client.req_header().headers);
    let due = match stage {
        Stage::Upload if !owed => terms.started + terms.body_timeout,
        _ => terms.started + terms.timeout,
    };
    *session.downstream_session = ServerSession::new_custom(Box::new(HeldSession {
        client: Some(client),
        connecting: Duration::ZERO,
        stage,
        owed,
        due,
        held: None,
        passed: 0,
        taking: Duration::ZERO,
        pacer: Pacer::default(),
        pieces: 0,
        ending: Ending::Reported,
        terms,
    }));
}

/// Puts the client's own session back: it alone knows about keep-alive. Returns the clock that is left over.
pub fn restore(session: &mut Session, signals: &Signals) -> Option<Patience> {
    // Dropping the held session gives back what it was made of.
    *session.downstream_session = ServerSession::new_custom(Box::new(()));
    let Returned { client, clock } = signals.returned.lock().take()?;
    session.downstream_session = client;
    clock
}

/// What the clock is running for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The client still sends: due is the end of its patience, renewed by every piece.
    Upload,
    /// The target has the request: due is its deadline.
    Answer,
    /// A streamed answer: due is the end of a silence.
    Streaming,
    /// An upgraded connection: likewise, in both directions.
    Tunnel,
    /// Nothing more to wait for.
    Done,
}

struct HeldSession {
    /// `None` only while being dropped.
    client: Option<Box<ServerSession>>,
    terms: Terms,
    /// How much of the target's time went into connecting.
    connecting: Duration,
    stage: Stage,
    /// The client waits for a `100 Continue`: until it comes, or the client goes on without, it is the target that is late.
    owed: bool,
    due: Instant,
    held: Option<Held>,
    /// Body bytes that were passed on without being held.
    passed: u64,
    /// How long the client took to take them.
    taking: Duration,
    pacer: Pacer,
    /// How many pieces of the request body have been handed on.
    pieces: usize,
    ending: Ending,
}

/// How Pingora learns that the request body has ended.
///
/// Once it knows, it polls this session, and with it the clock, only while its queue to the target has room. A last piece
/// that fills the queue would stop the clock for as long as the target is silent. So after as many pieces as may fill it,
/// the end goes to the target as a piece of its own ([`Signals::ended`]), and to Pingora only with the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// With the last piece, as it comes.
    Reported,
    /// The last piece is out, the end is not.
    Owed,
    /// The target has it.
    Passed,
}

/// An answer that is complete only in here.
struct Held {
    header: Box<ResponseHeader>,
    chunks: Vec<Bytes>,
    /// Small pieces, collected: a block of memory for each would cost more than what it holds.
    crumbs: BytesMut,
    memory: Reservation,
}

impl Held {
    fn push(&mut self, piece: Bytes) {
        if piece.len() < CRUMB {
            self.crumbs.extend_from_slice(&piece);
        }
        if piece.len() >= CRUMB || self.crumbs.len() >= ONE_WRITE {
            self.sweep();
        }
        if piece.len() >= CRUMB {
            self.chunks.push(piece);
        }
    }

    /// Puts the collected pieces in their place.
    fn sweep(&mut self) {
        if !self.crumbs.is_empty() {
            self.chunks.push(self.crumbs.split().freeze());
        }
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        let clock = self.terms.clock.take();
        *self.terms.signals.returned.lock() = self.client.take().map(|client| Returned { client, clock });
    }
}

impl HeldSession {
    fn client(&self) -> &ServerSession {
        self.client.as_ref().expect("the client's session leaves only on drop")
    }

    fn client_mut(&mut self) -> &mut ServerSession {
        self.client.as_mut().expect("the client's session leaves only on drop")
    }

    /// The target has the whole request: its time runs from here on, less what connecting took.
    fn upload_ended(&mut self) {
        if self.stage == Stage::Upload {
            self.stage = Stage::Answer;
            self.due = Instant::now() + self.terms.timeout.saturating_sub(self.connecting);
        }
    }

    /// The piece that stands for the end of the request body.
    fn pass_end(&mut self) -> Bytes {
        self.ending = Ending::Passed;
        self.terms.signals.ended.store(true, Ordering::Relaxed);
        Bytes::new()
    }

    fn renew(&mut self) {
        match self.stage {
            Stage::Upload => self.due = Instant::now() + self.terms.body_timeout,
            Stage::Streaming | Stage::Tunnel => self.due = Instant::now() + self.terms.idle_timeout,
            Stage::Answer | Stage::Done => {}
        }
    }

    /// Waits while the target takes no more of the upload. That is its time, not the client's.
    async fn await_room(&mut self) -> Result<()> {
        let mut waited = false;
        while !self.pacer.has_room(&self.terms.signals.line) {
            waited = true;
            if self.pacer.stuck() > self.terms.timeout {
                return Err(Halt::Deadline.error());
            }
            tokio::time::sleep(pacing::LOOK).await;
        }
        if waited {
            self.renew();
        }
        Ok(())
    }

    fn overdue(&self) -> Box<Error> {
        match self.stage {
            Stage::Upload if !self.owed => Halt::ClientStalled,
            Stage::Upload | Stage::Answer | Stage::Done => Halt::Deadline,
            Stage::Streaming | Stage::Tunnel => Halt::Idle,
        }
        .error()
    }

    /// Decides over a response header: `None` when it is held or dropped, otherwise what goes to the client now.
    fn receive_header(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Option<HttpTask> {
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            if head.status == StatusCode::CONTINUE && self.owed {
                self.owed = false;
                self.renew();
            }
            // HTTP/1.0 knows none, and would take it for the answer (RFC 9110 section 15.2).
            let known = self.client().req_header().version != Version::HTTP_10;
            return known.then_some(HttpTask::Header(head, false));
        }
        if !self.client_mut().is_body_done() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            // The rest of the upload will not be read: the client had better see that its connection ends here.
            self.client_mut().set_keepalive(None);
        }
        let request = self.client().req_header();
        let bodiless = end
            || request.method == Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            self.stage = Stage::Tunnel;
            self.renew();
        } else if bodiless || head.headers.contains_key(header::CONTENT_LENGTH) {
            // The length is known, and `response_filter` has checked it: the deadline stays.
        } else if self.terms.mode == ResponseMode::Streamed || is_stream(&head) {
            if request.version == Version::HTTP_10 {
                // HTTP/1.0 does not know chunks (RFC 9112 section 6.1): the end of the connection ends the body.
                head.remove_header(&header::TRANSFER_ENCODING);
                self.client_mut().set_keepalive(None);
            }
            self.stage = Stage::Streaming;
            self.renew();
        } else {
            let memory = Reservation::of(&self.terms.budget);
            self.held = Some(Held { header: head, chunks: Vec::new(), crumbs: BytesMut::new(), memory });
            return None;
        }
        Some(HttpTask::Header(head, end))
    }

    /// Counts a piece of body. `None` when it is held.
    fn receive_body(&mut self, data: Option<Bytes>, end: bool) -> Result<Option<HttpTask>> {
        let size = data.as_ref().map_or(0, Bytes::len) as u64;
        let Some(held) = self.held.as_mut() else {
            self.passed += size;
            if self.passed > self.terms.limit {
                return Err(Halt::TooLarge.error());
            }
            if self.stage == Stage::Streaming {
                self.renew();
            }
            return Ok(Some(HttpTask::Body(data, end)));
        };
        if held.memory.bytes() + size > self.terms.limit {
            return Err(Halt::TooLarge.error());
        }
        if let Some(data) = data.filter(|data| !data.is_empty()) {
            if !held.memory.grow(size) {
                return Err(Halt::NoMemory.error());
            }
            held.push(data);
        }
        Ok(None)
    }

    /// Sends what was held, with its exact length.
    async fn release(&mut self, trailers: Option<Box<HeaderMap>>) -> Result<bool> {
        let Some(mut held) = self.held.take() else { return Ok(true) };
        held.sweep();
        let Held { mut header, chunks, memory, .. } = held;
        // From here on the client's own pace counts, not the target's.
        self.stage = Stage::Done;
        let patience = self.terms.write_timeout + Duration::from_secs(memory.bytes() / MIN_TAKE_RATE);
        header.remove_header(&header::TRANSFER_ENCODING);
        header.insert_header(header::CONTENT_LENGTH, memory.bytes())?;
        let mut tasks = vec![HttpTask::Header(header, false)];
        tasks.extend(chunks.into_iter().map(|chunk| HttpTask::Body(Some(chunk), false)));
        tasks.push(trailers.map_or(HttpTask::Done, |trailers| HttpTask::Trailer(Some(trailers))));
        match tokio::time::timeout(patience, self.forward(tasks)).await {
            Ok(end) => end,
            Err(_) => {
                Err(Error::explain(ErrorType::WriteTimedout, "client takes a held response too slowly").into_down())
            }
        }
    }

    /// Hands tasks to the client's session. Says whether the answer is complete.
    async fn forward(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let (end, took) = {
            let mut writing = pin!(self.write(tasks));
            // Nearly always the client's socket takes it as it comes.
            match poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
                Poll::Ready(end) => (end?, Duration::ZERO),
                Poll::Pending => {
                    let began = Instant::now();
                    (writing.await?, began.elapsed())
                }
            }
        };
        if self.stage == Stage::Answer && !took.is_zero() {
            // What the client took to take it is not the target's time, but it must not take for ever.
            self.due += took;
            self.taking += took;
            if self.taking > self.terms.write_timeout + Duration::from_secs(self.passed / MIN_TAKE_RATE) {
                return Err(Error::explain(ErrorType::WriteTimedout, "client takes a response too slowly").into_down());
            }
        }
        Ok(end)
    }

    async fn write(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let body: usize = tasks.iter().map(body_size).sum();
        let leaving = self.terms.leaving.load(Ordering::Relaxed);
        let client = self.client_mut();
        if leaving && tasks.iter().any(|task| matches!(task, HttpTask::Header(..))) {
            client.set_keepalive(None);
        }
        // HTTP/1's session copies the body when it gets several tasks at once: a good trade for one system call, a bad one
        // for megabytes.
        if body <= ONE_WRITE {
            return client.response_duplex_vec(tasks).await;
        }
        let mut end = false;
        for task in tasks {
            end = client.response_duplex_vec(vec![task]).await? || end;
        }
        Ok(end)
    }

    /// The answer is complete. A client that is still sending is released at once: by an error that tears the rest down,
    /// since the proxy loop would go on to feed a target that does not listen.
    fn completed(&mut self) -> Result<bool> {
        let tunnel = self.stage == Stage::Tunnel;
        self.stage = Stage::Done;
        if tunnel || self.client_mut().is_body_done() { Ok(true) } else { Err(Halt::AnsweredEarly.error()) }
    }
}

fn body_size(task: &HttpTask) -> usize {
    match task {
        HttpTask::Body(Some(data), _) | HttpTask::UpgradedBody(Some(data), _) => data.len(),
        _ => 0,
    }
}

fn asks_to_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether an answer makes sense only as it comes: server-sent events, and gRPC, whose trailers carry its status.
fn is_stream(head: &ResponseHeader) -> bool {
    head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        let starts = |prefix: &[u8]| kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        starts(b"text/event-stream") || starts(b"application/grpc")
    })
}

#[async_trait]
impl CustomSession for HeldSession {
    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ready = Vec::with_capacity(tasks.len());
        let mut end = false;
        for task in tasks {
            match task {
                HttpTask::Header(head, last) => ready.extend(self.receive_header(head, last)),
                HttpTask::Body(data, last) => {
                    ready.extend(self.receive_body(data, last)?);
                    if last && self.held.is_some() {
                        end = self.release(None).await?;
                    }
                }
                HttpTask::Trailer(trailers) if self.held.is_some() => end = self.release(trailers).await?,
                HttpTask::Done if self.held.is_some() => end = self.release(None).await?,
                HttpTask::Failed(error) if self.held.is_some() || self.client().response_written().is_none() => {
                    return Err(error);
                }
                HttpTask::UpgradedBody(..) => {
                    self.renew();
                    ready.push(task);
                }
                other => ready.push(other),
            }
        }
        if !ready.is_empty() {
            end = self.forward(ready).await? || end;
        }
        if end { self.completed() } else { Ok(false) }
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if self.stage == Stage::Done {
            if self.ending != Ending::Reported && !no_body_expected {
                return Ok(None);
            }
            return self.client_mut().read_body_or_idle(no_body_expected).await;
        }
        if self.ending == Ending::Owed {
            return Ok(Some(self.pass_end()));
        }
        if self.stage == Stage::Upload {
            self.await_room().await?;
        }
        let due = self.due;
        let clock = self.terms.clock.get_or_insert_with(|| Patience::until(due));
        clock.move_to(due);
        let client = self.client.as_mut().expect("the client's session leaves only on drop");
        // What has arrived comes before the clock: a client whose pieces waited in our own queue is not a silent one.
        let read = tokio::select! {
            biased;
            read = client.read_body_or_idle(no_body_expected || self.ending == Ending::Passed) => read?,
            () = clock => return Err(self.overdue()),
        };
        self.pacer.handed(read.as_ref().map_or(0, Bytes::len));
        self.pieces += 1;
        self.owed = false;
        self.renew();
        if self.stage == Stage::Upload && self.client_mut().is_body_done() {
            self.upload_ended();
            if self.pieces >= PIPE && self.terms.signals.line.is_known() {
                self.ending = Ending::Owed;
                if read.is_none() {
                    return Ok(Some(self.pass_end()));
                }
            }
        }
        Ok(read)
    }

    /// Pingora calls this when the request header is on its way to the target: connecting is over.
    fn enable_retry_buffering(&mut self) {
        self.connecting = self.terms.started.elapsed();
        self.terms.signals.begun.store(true, Ordering::Relaxed);
        self.client_mut().enable_retry_buffering();
    }

    /// Once a request for a tunnel is under way, its missing body is not reported: Pingora would pass the end of it on, and
    /// where the target's 101 is faster, that end would end the tunnel.
    fn is_body_empty(&mut self) -> bool {
        !(self.terms.wants_tunnel && self.terms.signals.begun.load(Ordering::Relaxed))
            && self.client_mut().is_body_empty()
    }

    fn is_body_done(&mut self) -> bool {
        if self.ending != Ending::Reported {
            return self.stage == Stage::Done;
        }
        let done = self.client_mut().is_body_done();
        if done {
            self.upload_ended();
        }
        done
    }

    async fn finish(&mut self) -> Result<()> {
        if self.held.is_some() {
            return Error::e_explain(ErrorType::InternalError, "held response never completed");
        }
        self.client_mut().finish_body().await
    }

    // The rest is the client's session as it is.

    fn req_header(&self) -> &RequestHeader {
        self.client().req_header()
    }
    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.client_mut().req_header_mut()
    }
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.client_mut().read_request_body().await
    }
    async fn drain_request_body(&mut self) -> Result<()> {
        self.client_mut().drain_request_body().await
    }
    async fn write_response_header(&mut self, head: Box<ResponseHeader>, _end: bool) -> Result<()> {
        self.client_mut().write_response_header(head).await
    }
    async fn write_response_header_ref(&mut self, head: &ResponseHeader, _end: bool) -> Result<()> {
        self.client_mut().write_response_header_ref(head).await
    }
    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.client_mut().write_response_body(data, end).await
    }
    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.client_mut().write_response_trailers(trailers).await
    }
    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.client_mut().set_read_timeout(timeout);
    }
    fn get_read_timeout(&self) -> Option<Duration> {
        self.client().get_read_timeout()
    }
    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.client_mut().set_write_timeout(timeout);
    }
    fn get_write_timeout(&self) -> Option<Duration> {
        self.client().get_write_timeout()
    }
    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.client_mut().set_total_drain_timeout(timeout);
    }
    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.client().get_total_drain_timeout()
    }
    fn request_summary(&self) -> String {
        self.client().request_summary()
    }
    fn response_written(&self) -> Option<&ResponseHeader> {
        self.client().response_written()
    }
    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.client_mut().shutdown().await;
    }
    fn body_bytes_sent(&self) -> usize {
        self.client().body_bytes_sent()
    }
    fn body_bytes_read(&self) -> usize {
        self.client().body_bytes_read()
    }
    fn digest(&self) -> Option<&Digest> {
        self.client().digest()
    }
    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.client_mut().digest_mut()
    }
    fn client_addr(&self) -> Option<&SocketAddr> {
        self.client().client_addr()
    }
    fn server_addr(&self) -> Option<&SocketAddr> {
        self.client().server_addr()
    }
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.client().to_h1_raw()
    }
    fn retry_buffer_truncated(&self) -> bool {
        self.client().retry_buffer_truncated()
    }
    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.client().get_retry_buffer()
    }
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }
    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn futures::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }
    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn futures::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }
    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }
    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
    fn is_upgrade_req(&self) -> bool {
        self.client().is_upgrade_req()
    }
    fn was_upgraded(&self) -> bool {
        self.client().was_upgraded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_survives_its_way_through_pingora() {
        for halt in Halt::ALL {
            assert_eq!(Halt::of(&halt.error().into_down()), Some(halt));
        }
        assert_eq!(Halt::of(&Error::new(ErrorType::ReadTimedout)), None);
    }
}
