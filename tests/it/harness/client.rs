//! A strict HTTP/1 client over one connection. What a lenient one would repair, it reports.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::{Answer, End, PATIENCE, Request, within};

/// One connection to the edge.
pub struct Connection {
    input: Input,
    output: Box<dyn AsyncWrite + Send + Unpin>,
}

/// The reading side with what has been read too far.
struct Input {
    socket: Box<dyn AsyncRead + Send + Unpin>,
    buffer: Vec<u8>,
}

/// Status line and headers.
pub struct Head {
    pub status: u16,
    pub minor: u8,
    pub headers: Vec<(String, String)>,
    pub raw: Vec<u8>,
}

impl Connection {
    pub async fn to(address: SocketAddr) -> Self {
        Self::from("127.0.0.1", address).await
    }

    /// As another client: all of 127.0.0.0/8 is ours.
    pub async fn from(client: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(client.parse().expect("an address"), 0)).expect("a loopback address");
        let stream = within(PATIENCE, "connect", socket.connect(address)).await.expect("the edge listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self::over(stream)
    }

    /// Over whatever connects the two: TLS.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (socket, output) = tokio::io::split(stream);
        Self { input: Input { socket: Box::new(socket), buffer: Vec::new() }, output: Box::new(output) }
    }

    /// Sends bytes as they are. That the peer has closed shows in what it answered.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.output.write_all(bytes.as_ref()).await;
        let _ = self.output.flush().await;
        self
    }

    /// Sends a request and reads its answer, both at once: an answer may come before the request is through.
    pub async fn exchange(&mut self, request: &Request) -> Answer {
        let Self { input, output } = self;
        let (head, payload) = (request.head(), request.payload());
        let started = Instant::now();
        let upload = async {
            let _ = output.write_all(&head).await;
            let _ = output.write_all(&payload).await;
            let _ = output.flush().await;
            std::future::pending::<Answer>().await
        };
        let download = within(PATIENCE, "an answer", input.answer(request.method == "HEAD"));
        let mut answer = tokio::select! {
            answer = download => answer,
            answer = upload => answer,
        };
        answer.took = started.elapsed();
        answer
    }

    /// Reads a whole answer to a request that was sent by hand.
    pub async fn answer(&mut self) -> Answer {
        let started = Instant::now();
        let mut answer = within(PATIENCE, "an answer", self.input.answer(false)).await;
        answer.took = started.elapsed();
        answer
    }

    /// All answers until the peer closes or resets. `to_head(n)` says whether the nth answers a HEAD request.
    pub async fn answers(&mut self, to_head: impl Fn(usize) -> bool) -> Vec<Answer> {
        within(PATIENCE, "the end of the connection", async {
            let mut answers = Vec::new();
            while !self.input.buffer.is_empty() || self.input.more().await.unwrap_or(0) > 0 {
                answers.push(self.input.answer(to_head(answers.len())).await);
            }
            answers
        })
        .await
    }

    /// Reads a head alone; the rest is read with `bytes`.
    pub async fn head(&mut self) -> Head {
        within(PATIENCE, "a head", self.input.head()).await.expect("a head before the end of the connection")
    }

    /// Exactly so many bytes, whatever they mean.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        within(PATIENCE, "bytes", self.input.exactly(count)).await.expect("bytes before the end of the connection")
    }

    /// So many bytes, or fewer where the connection ends before.
    pub async fn until_end_or(&mut self, count: usize) -> Vec<u8> {
        let bytes = within(PATIENCE, "bytes", self.input.exactly(count)).await;
        bytes.unwrap_or_else(|| std::mem::take(&mut self.input.buffer))
    }

    /// Everything until the peer closes or resets.
    pub async fn rest(&mut self) -> Vec<u8> {
        within(PATIENCE, "the end of the connection", async {
            while self.input.more().await.unwrap_or(0) > 0 {}
            std::mem::take(&mut self.input.buffer)
        })
        .await
    }
}

impl Input {
    async fn more(&mut self) -> io::Result<usize> {
        self.socket.read_buf(&mut self.buffer).await
    }

    async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if self.more().await.unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Bytes up to and with `end`.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if self.more().await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn head(&mut self) -> Option<Head> {
        let raw = self.until(b"\r\n\r\n").await?;
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let status_line = lines.next().expect("split yields at least one line");
        let rest = status_line.strip_prefix("HTTP/1.").unwrap_or_else(|| panic!("not a status line: {status_line}"));
        let minor = rest.as_bytes()[0] - b'0';
        let status = rest[2..5].parse().unwrap_or_else(|_| panic!("not a status line: {status_line}"));
        Some(Head { status, minor, headers: lines.map(field).collect(), raw })
    }

    async fn answer(&mut self, to_head: bool) -> Answer {
        let mut interim = Vec::new();
        let head = loop {
            let head = self.head().await.unwrap_or_else(|| {
                panic!("the connection ended before an answer: {:?}", String::from_utf8_lossy(&self.buffer))
            });
            if head.status >= 200 || head.status == 101 {
                break head;
            }
            interim.push(head.status);
        };
        let values = |name: &str| -> Vec<&str> {
            head.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
        };
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        assert!(lengths.len() + codings.len() <= 1, "ambiguous framing: {:?}", head.headers);
        let closing = values("connection").iter().any(|v| v.eq_ignore_ascii_case("close")) || head.minor == 0;

        let (mut body, mut trailers, mut delimited) = (Vec::new(), Vec::new(), true);
        let end = if to_head || head.status < 200 || head.status == 204 || head.status == 304 {
            End::Whole
        } else if let [coding] = codings[..] {
            assert_eq!(coding, "chunked");
            self.chunks(&mut body, &mut trailers).await
        } else if let [length] = lengths[..] {
            let length = length.parse().unwrap_or_else(|_| panic!("content-length: {length}"));
            self.sized(length, &mut body).await
        } else {
            delimited = false;
            while self.more().await.is_ok_and(|count| count > 0) {}
            body = std::mem::take(&mut self.buffer);
            End::Whole
        };
        Answer {
            version: "HTTP/1",
            status: head.status,
            reusable: delimited && !closing && end == End::Whole,
            headers: head.headers,
            body,
            trailers,
            interim,
            end,
            raw_head: head.raw,
            upload_stopped: None,
            took: Default::default(),
        }
    }

    async fn sized(&mut self, length: usize, body: &mut Vec<u8>) -> End {
        while self.buffer.len() < length {
            if self.more().await.unwrap_or(0) == 0 {
                *body = std::mem::take(&mut self.buffer);
                return End::Cut;
            }
        }
        *body = self.buffer.drain(..length).collect();
        End::Whole
    }

    async fn chunks(&mut self, body: &mut Vec<u8>, trailers: &mut Vec<(String, String)>) -> End {
        loop {
            let Some(line) = self.until(b"\r\n").await else { return End::Cut };
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(line.trim_end().split(';').next().unwrap_or_default(), 16)
                .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            let Some(chunk) = self.exactly(size + 2).await else {
                body.append(&mut self.buffer);
                return End::Cut;
            };
            assert_eq!(&chunk[size..], b"\r\n", "a chunk ends with CRLF");
            body.extend_from_slice(&chunk[..size]);
        }
        loop {
            match self.until(b"\r\n").await.as_deref() {
                None => return End::Cut,
                Some(b"\r\n") => return End::Whole,
                Some(line) => trailers.push(field(String::from_utf8_lossy(line).trim_end())),
            }
        }
    }
}

/// One header line, its name in lower case.
fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
    assert!(!name.is_empty() && !name.contains([' ', '\t']), "not a header name: {line:?}");
    (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned())
}
