//! HTTP/2 frame by frame: a client that writes what no library would, and takes down what the edge says to it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::{PATIENCE, within};

// Types of frames (RFC 9113 section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

// Their flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

// Error codes (section 7).
pub const PROTOCOL_ERROR: u32 = 1;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// What a stream came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Status(u16),
    /// RST_STREAM, with its error code.
    Reset(u32),
    /// GOAWAY, which ends the whole connection, with its error code.
    GoAway(u32),
    /// The connection ended without a word.
    Closed,
}

/// One connection to the edge.
pub struct Frames {
    output: OwnedWriteHalf,
    said: watch::Receiver<Said>,
}

/// What the edge has said so far, but for the contents of answers.
#[derive(Default)]
struct Said {
    /// By stream; those of the connection under 0.
    outcomes: Vec<(u32, Outcome)>,
    ended: bool,
}

impl Frames {
    /// A client that does not listen: what the edge says to it stays in the kernels' buffers, until these are full.
    pub async fn deaf_to(address: SocketAddr) -> Self {
        Self::start(address, |input, log| async move {
            log.closed().await;
            drop(input);
        })
        .await
    }

    /// Exchanges settings. The edge is asked to write headers without a dynamic table, so that they can be read without one.
    pub async fn to(address: SocketAddr) -> Self {
        Self::start(address, take_down).await
    }

    async fn start<F>(address: SocketAddr, listen: impl FnOnce(OwnedReadHalf, watch::Sender<Said>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stream = TcpStream::connect(address).await.expect("the edge listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let (mut input, output) = stream.into_split();
        let (log, said) = watch::channel(Said::default());
        let mut frames = Self { output, said };
        let no_table = [0, 1, 0, 0, 0, 0];
        let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        start.extend(frame(SETTINGS, 0, 0, no_table));
        start.extend(frame(WINDOW_UPDATE, 0, 0, (1_u32 << 30).to_be_bytes()));
        assert!(frames.write(start).await, "an HTTP/2 preface");
        let settings = within(PATIENCE, "the edge's settings", read(&mut input)).await.expect("a frame");
        assert_eq!(settings.0, SETTINGS);
        assert!(frames.write(frame(SETTINGS, ACK, 0, [])).await);
        tokio::spawn(listen(input, log));
        frames
    }

    /// Sends bytes as they are. `false`: the edge no longer takes them.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.output.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Sends a frame.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> bool {
        self.write(frame(kind, flags, stream, payload)).await
    }

    /// What became of a stream, once it is known. Nothing else comes on it, or on the connection, before that.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let known = |said: &Said| {
            let first = said.outcomes.iter().find(|(of, _)| *of == stream || *of == 0).map(|(_, outcome)| *outcome);
            first.or(said.ended.then_some(Outcome::Closed))
        };
        let said = within(PATIENCE, "an outcome", self.said.wait_for(|said| known(said).is_some())).await;
        said.map_or(Outcome::Closed, |said| known(&said).expect("just waited for"))
    }

    /// What else has become of a stream by now, after its first outcome.
    pub fn then(&self, stream: u32) -> Option<Outcome> {
        let said = self.said.borrow();
        said.outcomes.iter().filter(|(of, _)| *of == stream).nth(1).map(|(_, outcome)| *outcome)
    }

    /// How the connection ended, once it has.
    pub async fn end(&mut self) -> Outcome {
        let _ = within(PATIENCE, "the end of the connection", self.said.wait_for(|said| said.ended)).await;
        let said = self.said.borrow();
        said.outcomes.iter().rev().find(|(of, _)| *of == 0).map_or(Outcome::Closed, |(_, outcome)| *outcome)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.said.borrow().ended
    }
}

/// A frame, whatever is in it.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).expect("a frame has at most 24 bits of length");
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field block of literals that no table remembers (RFC 7541 section 6.2.2), whatever is in them.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: impl IntoIterator<Item = (N, V)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name.as_ref());
        literal(&mut block, value.as_ref());
    }
    block
}

/// A string without Huffman coding (RFC 7541 section 5.2).
pub fn literal(block: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text);
}

async fn read(input: &mut OwnedReadHalf) -> io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    input.read_exact(&mut head).await?;
    let [a, b, c, kind, _flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    input.read_exact(&mut payload).await?;
    Ok((kind, u32::from_be_bytes(stream) & (u32::MAX >> 1), payload))
}

async fn take_down(mut input: OwnedReadHalf, log: watch::Sender<Said>) {
    while let Ok((kind, stream, payload)) = read(&mut input).await {
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        let outcome = match kind {
            HEADERS => Outcome::Status(status(&payload)),
            RST_STREAM => Outcome::Reset(number(0)),
            GOAWAY => Outcome::GoAway(number(4)),
            _ => continue,
        };
        log.send_modify(|said| said.outcomes.push((stream, outcome)));
    }
    log.send_modify(|said| said.ended = true);
}

/// The `:status` that a field block begins with: indexed, or a literal of three digits.
fn status(block: &[u8]) -> u16 {
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block }; // the table's new size
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [_, length, text @ ..] if *length & 0x80 == 0 => {
            std::str::from_utf8(&text[..usize::from(*length)]).expect("digits").parse().expect("digits")
        }
        [_, length, text @ ..] => digits(&text[..usize::from(length & 0x7f)]),
        _ => panic!("no status: {block:?}"),
    }
}

/// Three digits in the Huffman code of RFC 7541 appendix B: five bits for 0 to 2, six for 3 to 9.
fn digits(coded: &[u8]) -> u16 {
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | bit);
        let digit = if five <= 2 { five } else { (five << 1 | bits.next().expect("a digit")) - 0x19 + 3 };
        assert!(digit <= 9, "no digit: {coded:?}");
        number = number * 10 + digit;
    }
    number
}
