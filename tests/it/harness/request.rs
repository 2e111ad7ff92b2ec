//! A request as a sentence: `edge.get("/api/demo/users").bearer("k1").await`.

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Answer, Connection, H2Connection};

/// What follows the header.
#[derive(Clone)]
pub enum Body {
    None,
    Sized(Vec<u8>),
    /// HTTP/1.1: one chunk a piece; HTTP/2: no Content-Length.
    Pieces(Vec<Vec<u8>>),
}

/// A request on its way; awaiting it sends it on a connection of its own.
#[derive(Clone)]
pub struct Request {
    pub address: SocketAddr,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Body,
    http2: bool,
}

impl Request {
    pub fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { address, method, target, headers: Vec::new(), body: Body::None, http2: false }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn authorization(self, value: &str) -> Self {
        self.header("Authorization", value)
    }

    pub fn bearer(self, token: &str) -> Self {
        self.authorization(&format!("Bearer {token}"))
    }

    pub fn basic(self, username: &str, password: &str) -> Self {
        self.authorization(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Sized(body.into());
        self
    }

    pub fn pieces<P: Into<Vec<u8>>>(mut self, pieces: impl IntoIterator<Item = P>) -> Self {
        self.body = Body::Pieces(pieces.into_iter().map(Into::into).collect());
        self
    }

    /// By HTTP/2 with prior knowledge when `yes`.
    pub fn http2(mut self, yes: bool) -> Self {
        self.http2 = yes;
        self
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// The HTTP/1.1 head, with `Host` and framing where the test did not write its own.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.has("host") {
            head.push_str("Host: edge.test\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.body {
            Body::Sized(body) if !self.has("content-length") => {
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            Body::Pieces(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The HTTP/1.1 bytes after the head.
    pub fn payload(&self) -> Vec<u8> {
        match &self.body {
            Body::None => Vec::new(),
            Body::Sized(body) => body.clone(),
            Body::Pieces(pieces) => chunked(pieces),
        }
    }
}

impl IntoFuture for Request {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if self.http2 {
                H2Connection::to(self.address).await.exchange(&self).await
            } else {
                Connection::to(self.address).await.exchange(&self).await
            }
        })
    }
}

/// A chunked body, one chunk a piece, with its end.
pub fn chunked<P: AsRef<[u8]>>(pieces: &[P]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces.iter().map(AsRef::as_ref).filter(|piece| !piece.is_empty()) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
