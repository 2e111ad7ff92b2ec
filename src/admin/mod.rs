//! The operators' listener: `/livez`, `/readyz`, `/metrics`, `/status` and a page at `/`. Loopback by default, and never on
//! the clients' port.
//!
//! Reading only. Requests that name another host are refused: a web page elsewhere that points its own name at this
//! address (DNS rebinding) gets nothing.

mod page;
pub mod status;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_core::Result;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;

pub use self::status::View;
use crate::observe::metrics;

/// A scraper that stops in the middle of its header is dropped after this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two scrapes.
const KEEPALIVE_SECONDS: u64 = 60;

/// The admin listener's app.
pub struct Admin {
    view: View,
}

impl Admin {
    /// An app that shows what `view` sees.
    pub fn new(view: View) -> Self {
        Self { view }
    }

    fn reply(&self, session: &ServerSession) -> Reply {
        let request = session.req_header();
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Reply::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        }
        let host = request.uri.host().or_else(|| request.headers.get(header::HOST)?.to_str().ok());
        if !host.is_some_and(|host| self.view.answers_to(host_name(host))) {
            let text =
                "this listener answers to its addresses and to `localhost`; for others, list them in admin.hosts\n";
            return Reply::text(StatusCode::FORBIDDEN, text);
        }
        match request.uri.path() {
            "/livez" => Reply::text(StatusCode::OK, "ok\n"),
            "/readyz" if self.view.leaving.load(Ordering::Relaxed) => {
                Reply::text(StatusCode::SERVICE_UNAVAILABLE, "leaving\n")
            }
            "/readyz" => Reply::text(StatusCode::OK, "ready\n"),
            "/metrics" => match self.view.metrics.text(&self.view.gauges) {
                Ok(text) => Reply { status: StatusCode::OK, kind: metrics::CONTENT_TYPE, body: text.into() },
                Err(error) => {
                    log::error!("metrics cannot be shown: {error}");
                    Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be shown: see the log\n")
                }
            },
            "/status" => {
                let body = serde_json::to_vec_pretty(&self.view.status()).unwrap_or_default();
                Reply { status: StatusCode::OK, kind: "application/json", body: body.into() }
            }
            "/" => {
                let body = page::render(&self.view.status());
                Reply { status: StatusCode::OK, kind: "text/html; charset=utf-8", body: body.into() }
            }
            _ => Reply::text(StatusCode::NOT_FOUND, "there is /livez, /readyz, /metrics, /status and /\n"),
        }
    }
}

/// `name` of `name:port`, brackets of an IPv6 address taken off.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
    }
}

/// Whether `host` can only be meant: an address, or the name that every machine gives itself.
fn is_unmistakable(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

struct Reply {
    status: StatusCode,
    kind: &'static str,
    body: Bytes,
}

impl Reply {
    fn text(status: StatusCode, text: &'static str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: Bytes::from_static(text.as_bytes()) }
    }

    async fn send(self, session: &mut ServerSession) -> Result<()> {
        let mut head = ResponseHeader::build(self.status, Some(6))?;
        head.insert_header(header::CONTENT_TYPE, self.kind)?;
        head.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            head.insert_header(header::ALLOW, "GET, HEAD")?;
        }
        head.insert_header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        )?;
        let bodiless = session.req_header().method == Method::HEAD;
        session.write_response_header(Box::new(head)).await?;
        if bodiless { session.finish_body().await } else { session.write_response_body(self.body, true).await }
    }
}

#[async_trait]
impl HttpServerApp for Admin {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let patience = HEADER_TIMEOUT + Duration::from_secs(KEEPALIVE_SECONDS);
        session.set_write_timeout(Some(HEADER_TIMEOUT));
        match tokio::time::timeout(patience, session.read_request()).await.ok()? {
            Ok(true) => {}
            Ok(false) => return None,
            Err(_) => {
                let _ = session.respond_error(StatusCode::BAD_REQUEST.as_u16()).await; // it may be gone as well
                return None;
            }
        }
        session.set_keepalive((!*shutdown.borrow()).then_some(KEEPALIVE_SECONDS));
        self.reply(&session).send(&mut session).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_pointed_here_is_answered() {
        for (host, answered) in [
            ("127.0.0.1:9091", true),
            ("127.0.0.1", true),
            ("[::1]:9091", true),
            ("[::1]", true),
            ("localhost:9091", true),
            ("LOCALHOST", true),
            ("edge.example:9091", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_unmistakable(host_name(host)), answered, "{host}");
        }
    }
}
