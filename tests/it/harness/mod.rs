//! What the tests speak with: the real binary, scripted targets, strict clients, a name server, nginx.

pub mod answer;
pub mod client;
pub mod dns;
pub mod edge;
pub mod frames;
pub mod h2;
pub mod h2_target;
pub mod llhttp;
pub mod nginx;
pub mod notify;
pub mod origin;
pub mod port;
pub mod request;
pub mod tls;
pub mod yaml;

pub use answer::{Answer, End};
pub use client::Connection;
pub use edge::Edge;
pub use frames::{Frames, Outcome};
pub use h2::H2Connection;
pub use llhttp::Llhttp;
pub use origin::{Origin, Peer};
pub use request::Request;

use std::future::Future;
use std::time::Duration;

/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// `300` as milliseconds.
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The output of `future`, or a failure that names what did not happen.
pub async fn within<T>(patience: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(patience, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {patience:?}"),
    }
}

/// Asks again and again until the answer is yes, or fails naming `what`.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, async {
        while !condition().await {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await;
}

/// `size` bytes that differ enough for a misplaced piece to be noticed.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}
