//! HTTP/2 on either side: a client with prior knowledge, and a scripted target.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request as HttpRequest, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

use super::origin::{Events, Origin, Peer, Recorded};
use super::request::Body;
use super::{Answer, End, PATIENCE, Request, ms, within};

/// One HTTP/2 connection to the edge.
pub struct H2Connection {
    sender: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<()>,
}

impl H2Connection {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the edge listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self::over(stream).await
    }

    /// Over whatever connects the two: TLS.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(stream)
            .await
            .expect("an HTTP/2 preface");
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { sender, driver }
    }

    /// Opens a stream: the answer to come, and where its body goes.
    pub async fn open(&self, request: &Request, ends: bool) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let head = Self::head(request);
        let head = head.body(()).expect("the test wrote a request");
        let mut sender = self.sender.clone().ready().await.expect("a usable connection");
        sender.send_request(head, ends).expect("a usable connection")
    }

    fn head(request: &Request) -> http::request::Builder {
        let uri = if request.target.starts_with('/') {
            format!("http://edge.test{}", request.target)
        } else {
            request.target.clone()
        };
        let mut head = HttpRequest::builder().method(request.method.as_str()).uri(uri);
        for (name, value) in &request.headers {
            head = head.header(name, value);
        }
        if let Body::Sized(body) = &request.body
            && !request.has("content-length")
        {
            head = head.header("content-length", body.len());
        }
        head
    }

    /// How many streams the edge allows at once.
    pub fn max_streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// The answer to a request without a body. `None`: the edge has announced (GOAWAY) that it did not look at it, so that
    /// it may be sent again elsewhere, as every client does.
    pub async fn attempt(&self, request: &Request) -> Option<Answer> {
        let head = Self::head(request).body(()).expect("the test wrote a request");
        let mut sender = self.sender.clone().ready().await.ok()?;
        let (response, _) = sender.send_request(head, true).ok()?;
        let mut response = Box::pin(response);
        match within(PATIENCE, "an HTTP/2 answer", poll_fn(|cx| response.as_mut().poll(cx))).await {
            Ok(head) => Some(within(PATIENCE, "an HTTP/2 body", read(head)).await),
            Err(error) if error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => None,
            Err(error) => panic!("no HTTP/2 answer: {error:?}"),
        }
    }

    /// Sends a request and reads its answer, both at once.
    pub async fn exchange(&self, request: &Request) -> Answer {
        let started = Instant::now();
        let body: Vec<Vec<u8>> = match &request.body {
            Body::None => Vec::new(),
            Body::Sized(body) => vec![body.clone()],
            Body::Pieces(pieces) => pieces.clone(),
        };
        let (response, stream) = self.open(request, body.is_empty()).await;
        let upload = tokio::spawn(upload(stream, body));
        let mut answer = within(PATIENCE, "an HTTP/2 answer", receive(response)).await;
        answer.took = started.elapsed();
        let abort = upload.abort_handle();
        answer.upload_stopped = tokio::time::timeout(ms(2000), upload).await.ok().and_then(|sent| sent.ok()?);
        abort.abort();
        answer
    }
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Sends all pieces; returns the reason when the peer wants no more.
pub async fn upload(mut stream: SendStream<Bytes>, pieces: Vec<Vec<u8>>) -> Option<Reason> {
    let count = pieces.len();
    for (at, piece) in pieces.into_iter().enumerate() {
        let mut rest = Bytes::from(piece);
        loop {
            stream.reserve_capacity(rest.len());
            let room = if rest.is_empty() {
                0
            } else {
                match poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(room)) => room.min(rest.len()),
                    _ => return poll_fn(|cx| stream.poll_reset(cx)).await.ok(),
                }
            };
            let part = rest.split_to(room);
            let last = rest.is_empty() && at + 1 == count;
            if stream.send_data(part, last).is_err() {
                return poll_fn(|cx| stream.poll_reset(cx)).await.ok();
            }
            if rest.is_empty() {
                break;
            }
        }
    }
    None
}

/// Reads an answer to its end.
pub async fn receive(response: h2::client::ResponseFuture) -> Answer {
    read(response.await.unwrap_or_else(|error| panic!("no HTTP/2 answer: {error}"))).await
}

async fn read(response: Response<RecvStream>) -> Answer {
    let (head, mut stream) = response.into_parts();
    let (mut body, mut end) = (Vec::new(), End::Whole);
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                let _ = stream.flow_control().release_capacity(data.len());
                body.extend_from_slice(&data);
            }
            Err(_) => {
                end = End::Cut;
                break;
            }
        }
    }
    let trailers = match end {
        End::Whole => stream.trailers().await.ok().flatten().unwrap_or_default(),
        End::Cut => Default::default(),
    };
    Answer {
        version: "HTTP/2",
        status: head.status.as_u16(),
        headers: pairs(&head.headers),
        body,
        trailers: pairs(&trailers),
        interim: Vec::new(),
        end,
        reusable: true,
        raw_head: Vec::new(),
        upload_stopped: None,
        took: Default::default(),
    }
}

fn pairs(headers: &http::HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())).collect()
}

/// One stream of the edge, in the hands of the script.
pub struct Stream {
    pub head: http::request::Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
    events: watch::Sender<Events>,
    at: usize,
    goaway: Arc<Notify>,
}

impl Origin {
    /// HTTP/2 with prior knowledge, in plain text. Each stream is handed to `script`.
    pub async fn http2_cleartext<F>(script: impl Fn(Stream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::http2(None, script).await
    }

    /// The same, behind TLS where there is an acceptor.
    pub async fn http2<F>(tls: Option<TlsAcceptor>, script: impl Fn(Stream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script = Arc::new(script);
        Self::start("127.0.0.1:0", tls, move |peer| serve(peer, script.clone())).await
    }
}

async fn serve<F>(peer: Peer, script: Arc<impl Fn(Stream) -> F + Send + Sync + 'static>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let Peer { number, wire, events, .. } = peer;
    let Ok(mut connection) = h2::server::handshake(wire).await else { return };
    let goaway = Arc::new(Notify::new());
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = goaway.notified() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { break };
        let (head, body) = request.into_parts();
        let recorded = Recorded {
            connection: number,
            method: head.method.to_string(),
            target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: std::iter::once((
                ":authority".to_owned(),
                head.uri.authority().map_or(String::new(), |a| a.to_string()),
            ))
            .chain(pairs(&head.headers))
            .collect(),
            ..Default::default()
        };
        let at = events.borrow().requests.len();
        events.send_modify(|events| events.requests.push(recorded));
        tokio::spawn(script(Stream { head, body, respond, events: events.clone(), at, goaway: goaway.clone() }));
    }
    events.send_modify(|events| {
        events.closed.insert(number);
    });
}

impl Stream {
    /// Reads the request body to its end.
    pub async fn read(&mut self) -> Vec<u8> {
        let (mut body, mut complete) = (Vec::new(), true);
        while let Some(data) = self.body.data().await {
            let Ok(data) = data else {
                complete = false;
                break;
            };
            let _ = self.body.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        let trailers = self.body.trailers().await.ok().flatten().unwrap_or_default();
        self.events.send_modify(|events| {
            let recorded = &mut events.requests[self.at];
            recorded.body = body.clone();
            recorded.trailers = pairs(&trailers);
            recorded.complete = complete;
        });
        body
    }

    /// Sends a head; the body goes into the returned stream.
    pub fn answer(&mut self, status: u16, headers: &[(&str, &str)], ends: bool) -> SendStream<Bytes> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(()).expect("the test wrote an answer");
        self.respond.send_response(response, ends).expect("the stream is open")
    }

    /// Sends a whole answer.
    pub async fn reply(&mut self, status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) {
        let stream = self.answer(status, headers, false);
        upload(stream, vec![body.into()]).await;
    }

    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// Says GOAWAY(NO_ERROR) on the connection; open streams may finish.
    pub fn go_away(&self) {
        self.goaway.notify_one();
    }

    /// Says nothing until the edge gives the stream up.
    pub async fn silence(mut self) -> Option<Reason> {
        let reason = poll_fn(|cx| self.respond.poll_reset(cx)).await.ok();
        let connection = self.events.borrow().requests[self.at].connection;
        self.events.send_modify(|events| {
            events.closed.insert(connection);
        });
        reason
    }
}
