//! HTTP/2 frame by frame: a target that says what no library would let it say.

use std::future::Future;

use super::frames::{ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, block, frame};
use super::origin::{Origin, Peer, Recorded};

/// One connection of the edge, its preface read, in the hands of the script.
pub struct Frames {
    pub peer: Peer,
}

/// A frame as it arrived.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Origin {
    /// HTTP/2 with prior knowledge, in plain text, without so much as a SETTINGS frame of its own.
    pub async fn frames<F>(script: impl Fn(Frames) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::scripted(move |mut peer| {
            let script = script.clone();
            async move {
                let Some(preface) = peer.exactly(24).await else { return };
                assert_eq!(preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                script(Frames { peer }).await;
            }
        })
        .await
    }
}

impl Frames {
    /// The next frame. `None`: the edge has closed the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let head = self.peer.exactly(9).await?;
        self.peer.exactly(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream })
    }

    /// Goes on to the next request's header: its stream, and whether that is all of it. Settings are acknowledged on the way.
    pub async fn head(&mut self) -> Option<(u32, bool)> {
        loop {
            let frame = self.next().await?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => drop(self.send(SETTINGS, ACK, 0, []).await),
                HEADERS => {
                    let recorded = Recorded { connection: self.peer.number, ..Default::default() };
                    self.peer.events.send_modify(|events| events.requests.push(recorded));
                    return Some((frame.stream, frame.flags & END_STREAM != 0));
                }
                _ => {}
            }
        }
    }

    /// The same, to the end of the request.
    pub async fn request(&mut self) -> Option<u32> {
        let (stream, mut ended) = self.head().await?;
        while !ended {
            let frame = self.next().await?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => drop(self.send(SETTINGS, ACK, 0, []).await),
                DATA if frame.stream == stream => ended = frame.flags & END_STREAM != 0,
                _ => {}
            }
        }
        Some(stream)
    }

    /// Sends a frame as it is. `false`: the edge no longer takes it.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> bool {
        self.peer.send(frame(kind, flags, stream, payload)).await
    }

    /// A whole header block in one frame.
    pub async fn answer(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) -> bool {
        self.send(HEADERS, END_HEADERS | if ends { END_STREAM } else { 0 }, stream, block(fields.iter().copied())).await
    }

    pub async fn data(&mut self, stream: u32, data: impl AsRef<[u8]>, ends: bool) -> bool {
        self.send(DATA, if ends { END_STREAM } else { 0 }, stream, data).await
    }

    pub async fn reset(&mut self, stream: u32, code: u32) -> bool {
        self.send(RST_STREAM, 0, stream, code.to_be_bytes()).await
    }

    pub async fn go_away(&mut self, last: u32, code: u32) -> bool {
        self.send(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat()).await
    }

    /// Reads on and says nothing more, until the edge goes away.
    pub async fn silence(self) {
        self.peer.silence().await;
    }
}

/// Settings: identifiers with their values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat()).collect()
}
