//! The pace of an upload over HTTP/1: what the target's kernel takes, and no more.
//!
//! Pingora does not read a target's answer while a write to it is blocked. A target that answers early and reads no further
//! would hold its client until the write times out. So the next piece of a body is handed on only while the socket will
//! take it without blocking, which the kernel's own account of the connection tells (`TCP_INFO`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::protocols::SocketDigest;

/// Bytes that may be under way beyond the congestion window. The send buffer grows with that window, to about twice its
/// size, and starts above this on every Linux (`tcp_wmem`).
const SLACK: u64 = 64 * 1024;
/// Between two looks at a socket that is full.
pub const LOOK: Duration = Duration::from_millis(2);

/// The connection to the target, as soon as there is one: set by the phase that learns of it.
#[derive(Default)]
pub struct Line(Mutex<Option<Arc<SocketDigest>>>);

impl Line {
    /// From here on, this connection counts.
    pub fn set(&self, socket: Option<Arc<SocketDigest>>) {
        *self.0.lock() = socket;
    }

    /// Whether there is one, which there is for HTTP/1.1 alone.
    pub fn is_known(&self) -> bool {
        self.0.lock().is_some()
    }
}

/// Paces one upload.
#[derive(Default)]
pub struct Pacer {
    socket: Option<Arc<SocketDigest>>,
    /// Acknowledged bytes when this upload began, and at the last look.
    base: u64,
    acknowledged: u64,
    handed: u64,
    /// `None` before the first look.
    moved: Option<Instant>,
}

impl Pacer {
    /// Whether the socket behind `line` takes another piece without blocking.
    pub fn has_room(&mut self, line: &Line) -> bool {
        // An ordinary body is not worth a system call. What the first look then takes for unacknowledged is at most this.
        if self.handed <= SLACK {
            return true;
        }
        let Some(socket) = line.0.lock().clone() else { return true };
        let Some(info) = socket.tcp_info() else { return true };
        if !self.socket.as_ref().is_some_and(|known| Arc::ptr_eq(known, &socket)) {
            (self.base, self.acknowledged) = (info.tcpi_bytes_acked, info.tcpi_bytes_acked);
            (self.socket, self.moved) = (Some(socket), Some(Instant::now()));
        }
        if info.tcpi_bytes_acked != self.acknowledged {
            (self.acknowledged, self.moved) = (info.tcpi_bytes_acked, Some(Instant::now()));
        }
        // TLS and chunk sizes make a little more of it on the wire than was handed on.
        let under_way = self.handed.saturating_sub(self.acknowledged - self.base);
        let room = under_way <= u64::from(info.tcpi_snd_cwnd) * u64::from(info.tcpi_snd_mss) + SLACK;
        if room {
            self.moved = Some(Instant::now());
        }
        room
    }

    /// A piece was handed on.
    pub fn handed(&mut self, bytes: usize) {
        self.handed += bytes as u64;
    }

    /// For how long the target's kernel has taken nothing.
    pub fn stuck(&self) -> Duration {
        self.moved.map_or(Duration::ZERO, |moved| moved.elapsed())
    }
}
