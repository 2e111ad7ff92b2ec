//! A client's HTTP/1 connection, which can be waited on between two requests. While its client is idle, nothing is kept for it
//! but the connection: what Pingora needs for a request, some 20 KiB, is made when the first bytes of the next one are there.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use memchr::memchr_iter;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::PREFACE_START;

/// As much as Pingora reads at first.
const FIRST_READ: usize = 4096;

/// The connection, which counts what is read from it.
pub(super) struct Client {
    stream: Stream,
    /// Bytes read since the current request was waited for.
    read: u64,
    /// How many of them are its header, where that is certain.
    header: Option<u64>,
}

impl Client {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, read: 0, header: None }
    }

    /// The first bytes of the next request, once there are some. `None`: the client has hung up.
    pub(super) async fn next_request(&mut self) -> Option<BytesMut> {
        let start = poll_fn(|context| self.poll_start(context)).await.ok().filter(|start| !start.is_empty())?;
        self.read = start.len() as u64;
        self.header = header_length(&start);
        Some(start)
    }

    fn poll_start(&mut self, context: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        // On the stack, and only while there is something to read: a buffer of the connection's own would stay.
        let mut room = [MaybeUninit::uninit(); FIRST_READ];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
        // What was looked at to tell HTTP/2 comes by itself, with the rest right behind it. Pending is no news: whoever asks
        // next says again that it wants to be woken.
        let read = room.filled().len();
        if (1..=PREFACE_START.len()).contains(&read)
            && let Poll::Ready(more) = Pin::new(&mut self.stream).poll_read(context, &mut room)
        {
            more?;
        }
        let mut start = BytesMut::with_capacity(FIRST_READ);
        start.extend_from_slice(room.filled());
        Poll::Ready(Ok(start))
    }

    /// Whether it is certain that, with a request whose body had `length` bytes, nothing of the next one has been read. What
    /// Pingora reads too far it keeps without telling, and whoever then waited for more might wait in vain.
    pub(super) fn is_between_requests(&self, length: Option<u64>) -> bool {
        self.header.zip(length).is_some_and(|(header, length)| header.checked_add(length) == Some(self.read))
    }
}

/// The length of the header that `start` begins with, where every reader finds it to be the same. Never more than Pingora's
/// parser takes: so the sum of header and body is no more than was read, and when it is as much, nothing was read too far.
fn header_length(start: &[u8]) -> Option<u64> {
    let mut before = None;
    for at in memchr_iter(b'\n', start) {
        // A lenient parser, as Pingora's is, takes a line feed alone for the end of a line, and two for that of the header.
        if at == 0 || start[at - 1] != b'\r' {
            return None;
        }
        if before.is_some_and(|before| before + 2 == at) {
            return Some(at as u64 + 1);
        }
        before = Some(at);
    }
    None
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, room));
        self.read += (room.filled().len() - before) as u64;
        Poll::Ready(read)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Client {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl UniqueID for Client {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Client {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Client {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Client {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Client {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

// Whoever peeked would count twice what it reads then.
impl Peek for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use pingora_core::protocols::l4::stream::Stream as L4Stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: e\r\n\r\n";

    #[test]
    fn only_a_header_that_everybody_ends_at_the_same_byte_has_a_length() {
        for (start, length) in [
            (GET, Some(27)),
            (b"GET / HTTP/1.1\r\nHost: e\r\n\r\nGET / HTTP/1.1\r\n", Some(27)),
            (b"\r\nGET / HTTP/1.1\r\nHost: e\r\n\r\n", Some(29)),
            (b"GET / HTTP/1.1\r\nHost: e\r\n", None),
            (b"GET / HTTP/1.1\nHost: e\n\nGET / HTTP/1.1\r\nHost: e\r\n\r\n", None),
            (b"GET / HTTP/1.1\r\nHost: e\n\r\n\r\n", None),
            (b"\nGET / HTTP/1.1\r\nHost: e\r\n\r\n", None),
            (b"", None),
        ] {
            assert_eq!(header_length(start), length, "{:?}", String::from_utf8_lossy(start));
        }
    }

    #[tokio::test]
    async fn what_is_read_too_far_is_noticed() {
        for (sent, taken, length, between) in [
            (GET.to_vec(), 0, Some(0), true),
            (GET.to_vec(), 0, None, false),
            ([GET, b"body"].concat(), 0, Some(4), true),
            ([GET, b"body"].concat(), 0, Some(0), false),
            ([GET, GET].concat(), 0, Some(0), false),
            (GET.to_vec(), 4, Some(4), true),
            (GET.to_vec(), 5, Some(4), false),
            (GET.to_vec(), 3, Some(4), false),
            (GET[..20].to_vec(), 7, Some(0), false),
        ] {
            let (ours, mut theirs) = duplex(1 << 16);
            let mut client = Client::new(Box::new(ours));
            theirs.write_all(&sent).await.expect("there is room");
            assert_eq!(client.next_request().await.expect("a beginning"), sent);
            theirs.write_all(&vec![b'x'; taken]).await.expect("there is room");
            client.read_exact(&mut vec![0; taken]).await.expect("as much as was written");
            assert_eq!(client.is_between_requests(length), between, "{sent:?}, then {taken}");
        }
    }

    #[tokio::test]
    async fn what_was_looked_at_comes_with_what_is_there_behind_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        for sent in [GET, &GET[..PREFACE_START.len()]] {
            let mut theirs = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("loopback");
            let mut ours = L4Stream::from(listener.accept().await.expect("who has connected").0);
            theirs.write_all(sent).await.expect("a connection");
            assert!(ours.try_peek(&mut [0; PREFACE_START.len()]).await.expect("a connection"));
            let mut client = Client::new(Box::new(ours));
            assert_eq!(client.next_request().await.expect("a beginning"), sent);
            assert_eq!(client.is_between_requests(Some(0)), sent == GET);
        }
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_has_no_next_request() {
        let (ours, theirs) = duplex(64);
        drop(theirs);
        assert!(Client::new(Box::new(ours)).next_request().await.is_none());
    }
}
