//! `demo`: the real proxy before a small target of its own, on loopback, from no file but this binary.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, header};
use pingora::http::ResponseHeader;
use pingora_core::Result;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;

use crate::config::Loader;
use crate::listen::{self, Bound};
use crate::logging;
use crate::server::{Daemon, Unserved};

/// Where the demo listens unless told otherwise, and the address in [`LINES`].
pub const ADDRESS: &str = "127.0.0.1:8080";

/// What to try.
const LINES: &str = include_str!("demo.txt");

/// The demo's configuration; `TARGET` and `NOBODY` are filled in.
const CONFIG: &str = include_str!("demo.yaml");

/// The largest answer that passes, and one byte.
const BIG: usize = (6 << 20) + 1;
/// Longer than the second that the `slow` proxy gives its target.
const SLOW: Duration = Duration::from_secs(3);

/// Runs the demo on `address` until it is interrupted.
///
/// # Errors
/// As [`Daemon::serve`].
pub fn run(address: SocketAddr) -> std::result::Result<(), Unserved> {
    logging::start();
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bound = |socket: io::Result<socket2::Socket>| {
        let socket = socket.map_err(|error| Unserved::Other(format!("cannot listen on loopback: {error}")))?;
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        address.map(|address| (address, socket)).ok_or_else(|| Unserved::Other("no address on loopback".to_owned()))
    };
    let (target, socket) = bound(listen::bind(loopback))?;
    // A port that was free a moment ago and that nobody listens on now.
    let (nobody, _) = bound(listen::bind(loopback))?;
    let config = CONFIG
        .replace("LISTEN", &address.to_string())
        .replace("TARGET", &target.to_string())
        .replace("NOBODY", &nobody.to_string());
    let daemon = Daemon::prepare(Loader::of_text("demo.yaml", &config))?
        .with(Bound::new("target", Target, vec![(target, socket)], |_| false).threads(1));
    let lines = LINES.replace(ADDRESS, &address.to_string());
    let mut out = io::stdout().lock();
    let _ = write!(out, "\n{lines}\nCtrl-C ends the demo.\n\n").and_then(|()| out.flush()); // the demo works unread, too
    drop(out);
    daemon.serve()
}

/// Shows what it received; `/slow`, `/big`, `/error`, `/redirect` and `/stream` misbehave on request.
struct Target;

#[async_trait]
impl HttpServerApp for Target {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        session.set_keepalive(Some(60));
        reply(&mut session).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

async fn reply(session: &mut ServerSession) -> Result<()> {
    let path = session.req_header().uri.path().to_owned();
    match path.as_str() {
        "/slow" => {
            tokio::time::sleep(SLOW).await;
            send(session, 200, &[], echo(session, &[])).await
        }
        "/big" => send(session, 200, &[("content-type", "text/plain")], "x".repeat(BIG)).await,
        "/error" => {
            send(session, 500, &[], json("error", "the target failed, and the proxy hands its answer on")).await
        }
        "/redirect" => send(session, 302, &[("location", "/users")], String::new()).await,
        "/stream" => stream(session).await,
        _ => {
            let mut body = Vec::new();
            while let Some(piece) = session.read_request_body().await? {
                body.extend_from_slice(&piece);
            }
            send(session, 200, &[], echo(session, &body)).await
        }
    }
}

async fn send(
    session: &mut ServerSession,
    status: u16,
    fields: &[(&'static str, &'static str)],
    body: String,
) -> Result<()> {
    let mut head = ResponseHeader::build(status, Some(4))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    for (name, value) in fields {
        head.insert_header(*name, *value)?;
    }
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    let bodiless = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head)).await?;
    let body = if bodiless { Bytes::new() } else { Bytes::from(body) };
    session.write_response_body(body, true).await
}

async fn stream(session: &mut ServerSession) -> Result<()> {
    let mut head = ResponseHeader::build(200, Some(2))?;
    head.insert_header(header::CONTENT_TYPE, "text/event-stream")?;
    head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    session.write_response_header(Box::new(head)).await?;
    for event in 1..=3 {
        let piece = Bytes::from(format!("data: event {event} of 3\n\n"));
        session.write_response_body(piece, event == 3).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// The request as it arrived.
fn echo(session: &ServerSession, body: &[u8]) -> String {
    let request = session.req_header();
    let headers: serde_json::Map<_, _> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let shown = serde_json::json!({
        "method": request.method.as_str(),
        "path": request.uri.path(),
        "query": request.uri.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(body),
    });
    format!("{shown:#}\n")
}

fn json(name: &str, text: &str) -> String {
    format!("{:#}\n", serde_json::json!({ name: text }))
}
