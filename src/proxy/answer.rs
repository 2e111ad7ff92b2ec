//! Answers that the edge writes in the target's place, and what becomes of the client's connection after them.
//!
//! A refusal leaves the connection usable wherever HTTP allows it: a small unread body is read to its end, and an exchange
//! that its target failed does not cost the client its connection. Where it has to end, the client is told, and listened
//! to for a moment, or its kernel would throw the answer away.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_core::Result;
use pingora_core::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::Session;

use super::admission::announced_length;
use super::exchange::Exchange;
use crate::refusal::{PROXY_STATUS, Refusal};

/// An unread body of at most this size is read to its end after a refusal, so that the connection stays usable.
const DRAINED_BODY: u64 = 64 * 1024;
/// And within this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client that is still sending is listened to after its answer, before the connection is closed: closing at
/// once would make its kernel throw the answer away (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// Answers in the target's place.
pub(super) async fn answer(
    session: &mut Session,
    exchange: &mut Exchange,
    refusal: Refusal,
    warning: Option<HeaderValue>,
) -> Result<()> {
    let (head, body) = refusal.answer(&exchange.request_id, warning.as_ref());
    exchange.refusal = Some(refusal);
    let bodiless = session.req_header().method == Method::HEAD;
    let client = &mut session.downstream_session;
    client.write_response_header(Box::new(head)).await?;
    if bodiless { client.finish_body().await } else { client.write_response_body(body, true).await }
}

/// The same after an exchange has begun: unless an answer is on its way already, which can only be cut.
pub(super) async fn answer_failed(
    session: &mut Session,
    exchange: &mut Exchange,
    refusal: Refusal,
    warning: Option<HeaderValue>,
) -> Result<()> {
    let begun = session
        .response_written()
        .is_some_and(|head| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS);
    if begun {
        exchange.refusal = Some(refusal);
        return Ok(());
    }
    let unread = prepare_for_refusal(session);
    if !leaves_client_in_step(&refusal) {
        session.set_keepalive(None);
        return answer(session, exchange, refusal, warning).await;
    }
    answer(session, exchange, refusal, warning).await?;
    drain(session, unread).await;
    Ok(())
}

/// Whether the client's side of the exchange was in order, so that both still agree where its next request begins. After a
/// framing error nobody does: what follows on that connection may be meant as body by who sent it.
fn leaves_client_in_step(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::TargetTimeout(..) | Refusal::TargetFailed(_) | Refusal::ResponseTooLarge(_) | Refusal::AtCapacity
    )
}

/// What is still to come from a client that is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    /// So little that it is read to its end, for the connection to stay usable, or the stream to end in peace.
    Little,
    /// Unknown, or too much: the connection ends, or the stream is reset.
    Much,
}

/// Looks at what is still to come, and tells an HTTP/1 client with the answer whether its connection ends.
pub(super) fn prepare_for_refusal(session: &mut Session) -> Unread {
    let headers = &session.req_header().headers;
    let length = announced_length(headers);
    // Who waits for `100 Continue` may never send the body that we would wait for.
    let waits = headers.contains_key(header::EXPECT);
    let client = &mut session.downstream_session;
    if client.is_body_done() {
        return Unread::Nothing;
    }
    // Chunks of unknown length get their chance, too.
    if length.is_none_or(|length| length <= DRAINED_BODY) && !waits {
        return Unread::Little;
    }
    if let ServerSession::H1(http1) = &mut **client {
        http1.set_server_keepalive(None);
    }
    Unread::Much
}

/// Reads the little that is still to come. What turns out to be more ends the connection. An HTTP/2 stream that is dropped
/// before is reset, which the answer may be lost to: not every client reads on after a RST_STREAM(NO_ERROR).
pub(super) async fn drain(session: &mut Session, unread: Unread) {
    if unread != Unread::Little {
        return;
    }
    let client = &mut session.downstream_session;
    let reading = async {
        let mut read = 0;
        while read <= DRAINED_BODY {
            match client.read_request_body().await {
                Ok(Some(piece)) => read += piece.len() as u64,
                Ok(None) => return true,
                // Pingora takes a body that breaks off in the middle of a chunk for done.
                Err(_) => return false,
            }
        }
        false
    };
    if !tokio::time::timeout(DRAIN_TIMEOUT, reading).await.unwrap_or(false)
        && let ServerSession::H1(http1) = &mut **client
    {
        http1.set_server_keepalive(None);
    }
}

/// Keeps an HTTP/1 connection whose exchange failed after its answer went out whole: Pingora would close it, though it is
/// the target that is at fault.
pub(super) async fn keep(session: &mut Session, exchange: &Exchange) {
    let Some(connection) = &exchange.connection else { return };
    let ServerSession::H1(http1) = &mut *session.downstream_session else { return };
    let whole = exchange.answered_whole
        && exchange.refusal.as_ref().is_some_and(|refusal| {
            leaves_client_in_step(refusal)
                && http1.response_written().is_some_and(|head| head.status == refusal.status() && is_ours(head))
        });
    if !whole || !http1.is_body_done() || !http1.will_keepalive() {
        return;
    }
    let settings = HttpPersistentSettings::for_session(&session.downstream_session);
    let client = std::mem::replace(&mut *session.downstream_session, ServerSession::new_custom(Box::new(())));
    if let Ok(Some(stream)) = client.finish().await {
        connection.keep(ReusedHttpStream::from_reusable_stream(stream, settings));
    }
}

/// Whether an answer is one that the edge has written.
fn is_ours(head: &ResponseHeader) -> bool {
    head.headers.contains_key(PROXY_STATUS) && !head.headers.contains_key(header::VIA)
}

/// Listens for a moment to a client that still sends although its answer is out and its connection will be closed.
pub(super) async fn linger(session: &mut Session) {
    let waits = session.req_header().headers.contains_key(header::EXPECT);
    let ServerSession::H1(http1) = &mut *session.downstream_session else { return };
    if waits || http1.is_body_done() || http1.will_keepalive() || http1.response_written().is_none() {
        return;
    }
    http1.set_total_drain_timeout(Some(LINGER));
    let _ = http1.drain_request_body().await; // a client that hangs up meanwhile is what we wait for
}
