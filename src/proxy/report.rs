//! A finished request, told to the metrics and the access log.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, StatusCode, header};
use pingora_proxy::Session;

use super::EdgeProxy;
use super::admission::origin_form;
use super::exchange::Exchange;
use crate::observe::record::Record;
use crate::request::{query, route};

/// Counts and logs the request that has just ended.
pub(super) fn finished(proxy: &EdgeProxy, session: &Session, exchange: &Exchange) {
    let now = Instant::now();
    let request = session.req_header();
    let admitted = exchange.admitted();
    let refusal = exchange.refusal.as_ref();
    let logged = proxy.access_log.is_on();
    // Read once more only for who wants to know: most of it went by as borrowed bytes.
    let route = if logged { route::parse(origin_form(request.raw_path())).ok() } else { None };
    let stripped = route.as_ref().map(|route| query::split(route.query));
    let status = session.response_written().map(|head| head.status.as_u16());
    let record = Record {
        time: SystemTime::now(),
        request_id: exchange.request_id.to_str().unwrap_or("-"),
        traceparent: if logged { traceparent(&request.headers) } else { None },
        proxy: route.as_ref().map(|route| String::from_utf8_lossy(route.proxy_id)),
        credential: exchange.credential(),
        client: if logged { exchange.client(&request.headers) } else { None },
        method: &request.method,
        path: route.as_ref().map(|route| String::from_utf8_lossy(route.target_path)),
        query: stripped.as_ref().and_then(|stripped| stripped.query.as_deref()),
        status,
        proxy_code: match refusal {
            Some(refusal) => refusal.code(),
            None => admitted.map(|_| crate::refusal::GRANTED_CODE),
        },
        refusal: refusal.map(crate::refusal::Refusal::label),
        error: refusal.map(crate::refusal::Refusal::proxy_status),
        duration: now - exchange.started,
        target_duration: exchange.target.started.map(|started| {
            let ended = exchange.target.last_piece.or(exchange.target.answered).unwrap_or(now);
            ended.saturating_duration_since(started)
        }),
        target: exchange.target.address,
        reused: exchange.target.reused,
        bytes_in: session.downstream_session.body_bytes_read() as u64,
        bytes_out: session.downstream_session.body_bytes_sent() as u64,
        version: request.version,
        tls: exchange.connection.as_ref().is_some_and(|connection| connection.tls),
        user_agent: if logged { text(&request.headers, header::USER_AGENT) } else { None },
    };
    proxy.metrics.observe(&record);
    if let Some(entry) = exchange.entry() {
        entry.traffic.count(&record);
    }
    proxy.access_log.write(&record);
    if status == Some(StatusCode::INTERNAL_SERVER_ERROR.as_u16()) && refusal.is_some() {
        log::error!("request {}: a fault of the edge itself, answered with 500", record.request_id);
    }
}

/// A `traceparent` of the form that W3C Trace Context gives it: hexadecimal fields of fixed length.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let lengths = value.split('-').map(str::len);
    let well_formed = lengths.take(4).eq([2, 32, 16, 2])
        && value.len() == 55
        && value.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    well_formed.then_some(value)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<Cow<'_, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}
