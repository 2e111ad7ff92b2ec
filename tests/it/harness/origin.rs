//! A target that does on its socket exactly what the test wrote, and remembers what it was sent.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::edge::Target;
use super::{PATIENCE, within};

/// An answer with a body.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Of which connection, counted from 0.
    pub connection: usize,
    pub method: String,
    /// The request target, byte for byte.
    pub target: String,
    /// Names as they were sent, in their order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether the body arrived to its end.
    pub complete: bool,
}

impl Recorded {
    /// The value of a header that must not be there twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        one(&self.headers, name, self)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.headers, name)
    }
}

/// The values of the field `name`, whatever its case.
pub fn all<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

/// The value of a field that must not be in `message` twice.
#[track_caller]
pub fn one<'a>(headers: &'a [(String, String)], name: &str, message: &dyn Debug) -> Option<&'a str> {
    let values = all(headers, name);
    assert!(values.len() <= 1, "`{name}` is there more than once: {message:?}");
    values.first().copied()
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub struct Events {
    pub requests: Vec<Recorded>,
    pub connections: usize,
    /// Connections that the edge has closed or reset.
    pub closed: BTreeSet<usize>,
    /// Server names of the TLS handshakes.
    pub server_names: Vec<Option<String>>,
}

/// A listening target. Dropped, it stops listening.
pub struct Origin {
    address: SocketAddr,
    secure: bool,
    events: watch::Sender<Events>,
    task: tokio::task::JoinHandle<()>,
}

/// A byte stream under a scripted target.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// One connection of the edge, in the hands of the script.
pub struct Peer {
    pub number: usize,
    pub(super) wire: Box<dyn Wire>,
    buffer: Vec<u8>,
    pub(super) events: watch::Sender<Events>,
}

impl Origin {
    /// Every connection is handed to `script`; when it returns, the connection is closed.
    pub async fn scripted<F>(script: impl Fn(Peer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start("127.0.0.1:0", None, script).await
    }

    /// The same behind TLS.
    pub async fn secure<F>(tls: TlsAcceptor, script: impl Fn(Peer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start("127.0.0.1:0", Some(tls), script).await
    }

    /// Reads requests and answers each with a small body.
    pub async fn replying(status: u16) -> Self {
        Self::saying(format!("HTTP/1.1 {status} Status\r\nContent-Length: 2\r\n\r\nok")).await
    }

    /// Reads requests and answers each with these bytes, on connections that stay open.
    pub async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::scripted(move |peer| peer.keep_saying(answer.clone())).await
    }

    /// Reads each request and says nothing.
    pub async fn silent() -> Self {
        Self::scripted(|mut peer| async move {
            peer.request().await;
            peer.silence().await;
        })
        .await
    }

    /// Answers `/slow` with the bytes `slow` when it is told to, and everything else at once.
    pub async fn patient(slow: &'static str) -> (Self, watch::Sender<bool>) {
        let (finish, finished) = watch::channel(false);
        let origin = Self::scripted(move |mut peer| {
            let mut finished = finished.clone();
            async move {
                while let Some(request) = peer.request().await {
                    if request.target == "/slow" {
                        let _ = finished.wait_for(|finished| *finished).await;
                        peer.send(slow).await;
                    } else {
                        peer.send(OK).await;
                    }
                }
            }
        })
        .await;
        (origin, finish)
    }

    /// On an address of the test's choice; `scripted` for most.
    pub async fn start<F>(
        address: &str,
        tls: Option<TlsAcceptor>,
        script: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a loopback address");
        let address = listener.local_addr().expect("a bound socket");
        let events = watch::Sender::new(Events::default());
        let (secure, log, script) = (tls.is_some(), events.clone(), Arc::new(script));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let number = log.borrow().connections;
                log.send_modify(|events| events.connections += 1);
                let (events, tls, script) = (log.clone(), tls.clone(), script.clone());
                tokio::spawn(async move {
                    let wire: Box<dyn Wire> = match tls {
                        None => Box::new(stream),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            let name = stream.get_ref().1.server_name().map(str::to_owned);
                            events.send_modify(|events| events.server_names.push(name));
                            Box::new(stream)
                        }
                    };
                    script(Peer { number, wire, buffer: Vec::new(), events }).await;
                });
            }
        });
        Self { address, secure, events, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.events.borrow().requests.clone()
    }

    /// The one request that there must be.
    #[track_caller]
    pub fn request(&self) -> Recorded {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "one request and no more: {requests:?}");
        requests.into_iter().next().expect("just counted")
    }

    pub fn connections(&self) -> usize {
        self.events.borrow().connections
    }

    pub fn server_names(&self) -> Vec<Option<String>> {
        self.events.borrow().server_names.clone()
    }

    /// Waits until something has been seen here.
    pub async fn until(&self, what: &str, condition: impl FnMut(&Events) -> bool) {
        let mut events = self.events.subscribe();
        within(PATIENCE, what, events.wait_for(condition)).await.expect("the origin still holds its sender");
    }
}

impl Target for &Origin {
    fn base_url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Reads a request to its end. `None`: the edge has closed the connection.
    pub async fn request(&mut self) -> Option<Recorded> {
        let mut recorded = self.head().await?;
        let at = self.events.borrow().requests.len() - 1;
        recorded.complete = self.body(&mut recorded).await.is_some();
        let complete = recorded.complete;
        self.events.send_modify(|events| events.requests[at] = recorded.clone());
        complete.then_some(recorded)
    }

    /// Reads a request's head and leaves its body where it is.
    pub async fn head(&mut self) -> Option<Recorded> {
        let raw = self.until(b"\r\n\r\n").await?;
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let recorded = Recorded {
            connection: self.number,
            method: first.next().unwrap_or_default(),
            target: first.next().unwrap_or_default(),
            headers: lines.map(field).collect(),
            ..Default::default()
        };
        assert_eq!(first.next().as_deref(), Some("HTTP/1.1"), "{text}");
        self.events.send_modify(|events| events.requests.push(recorded.clone()));
        Some(recorded)
    }

    async fn body(&mut self, recorded: &mut Recorded) -> Option<()> {
        let chunked = recorded.header("transfer-encoding").is_some_and(|coding| coding == "chunked");
        match recorded.header("content-length") {
            Some(length) => {
                assert!(!chunked, "ambiguous framing reached the target: {recorded:?}");
                let length = length.parse().expect("a number");
                recorded.body = self.exactly(length).await?;
            }
            None if chunked => loop {
                let line = self.until(b"\r\n").await?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size");
                if size == 0 {
                    loop {
                        match self.until(b"\r\n").await?.as_slice() {
                            b"\r\n" => return Some(()),
                            line => recorded.trailers.push(field(String::from_utf8_lossy(line).trim_end())),
                        }
                    }
                }
                let chunk = self.exactly(size + 2).await?;
                recorded.body.extend_from_slice(&chunk[..size]);
            },
            None => {}
        }
        Some(())
    }

    /// Sends bytes as they are. `false`: the edge no longer takes them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.write_all(bytes.as_ref()).await.is_ok() && self.wire.flush().await.is_ok()
    }

    /// Sends one byte at a time until the edge no longer takes them.
    pub async fn drip(&mut self, bytes: impl AsRef<[u8]>, every: Duration) {
        for byte in bytes.as_ref().chunks(1) {
            if !self.send(byte).await {
                return self.mark_closed();
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Answers every request on the connection with these bytes.
    pub async fn keep_saying(mut self, answer: Arc<Vec<u8>>) {
        while self.request().await.is_some() {
            self.send(&*answer).await;
        }
    }

    /// Says nothing more, until the edge goes away. What it still sends is read.
    pub async fn silence(mut self) {
        while self.read().await.is_some() {
            self.buffer.clear();
        }
    }

    /// Neither reads nor writes for as long as the test runs.
    pub async fn stop_reading(self) {
        std::future::pending::<()>().await;
    }

    /// Sends back whatever comes, as it comes.
    pub async fn echo(mut self) {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            if !self.send(&bytes).await || self.read().await.is_none() {
                return self.mark_closed();
            }
        }
    }

    /// Closes with a RST.
    pub fn reset(self) {
        let _ = self.wire.tcp().set_zero_linger();
    }

    /// Closes the sending side only.
    pub async fn half_close(&mut self) {
        let _ = self.wire.shutdown().await;
    }

    /// Whatever has come by now or comes next; `None` at the end of the connection.
    pub async fn read(&mut self) -> Option<usize> {
        match self.wire.read_buf(&mut self.buffer).await {
            Ok(count) if count > 0 => Some(count),
            _ => {
                self.mark_closed();
                None
            }
        }
    }

    pub async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.read().await?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            self.read().await?;
        }
    }

    fn mark_closed(&self) {
        self.events.send_modify(|events| {
            events.closed.insert(self.number);
        });
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
    (name.to_owned(), value.trim().to_owned())
}
