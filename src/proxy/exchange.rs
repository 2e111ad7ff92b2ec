//! The state of one request from its header to its log line. State is what has happened, not a bag of options.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderValue};

use super::admission::{Admitted, Known};
use super::connection::{Connection, OnConnection};
use crate::refusal::Refusal;
use crate::response::hold::Signals;
use crate::snapshot::{Entry, Snapshot};

/// What has been decided over a request.
pub enum Verdict {
    /// Its gates are still ahead.
    Pending,
    /// It may go to its target.
    Admitted(Box<Admitted>),
}

/// One request, carried through Pingora's phases as their `CTX`.
pub struct Exchange {
    /// The generation that this request sees from start to end.
    pub snapshot: Arc<Snapshot>,
    pub started: Instant,
    /// Sent to the target, the client and the log.
    pub request_id: HeaderValue,
    pub verdict: Verdict,
    /// Who asked for what, where a request was refused after its credential was verified.
    pub known: Option<Known>,
    /// Why the edge answers, or had to cut the answer.
    pub refusal: Option<Refusal>,
    /// A refusal of a failed exchange went out to its last byte.
    pub answered_whole: bool,
    /// Whether a held session stands in for the client's.
    pub held: bool,
    /// The connection it came on.
    pub connection: Option<OnConnection>,
    pub target: TargetSide,
    pub body_in: u64,
    in_flight: Option<InFlight>,
}

/// What happened between the edge and the target.
#[derive(Default)]
pub struct TargetSide {
    /// Where the request went last.
    pub address: Option<SocketAddr>,
    /// Whether that connection had served a request before.
    pub reused: bool,
    /// When the exchange with the target began.
    pub started: Option<Instant>,
    /// When the header of its final answer was there.
    pub answered: Option<Instant>,
    /// When the last piece of it was there.
    pub last_piece: Option<Instant>,
    pub signals: Arc<Signals>,
    /// Whether the client asked for a WebSocket.
    pub wants_tunnel: bool,
    /// Interim answers so far.
    pub interim: u32,
    /// Addresses still to try.
    pub addresses: Option<std::vec::IntoIter<SocketAddr>>,
}

impl Exchange {
    /// A request that has just arrived.
    pub fn new(snapshot: Arc<Snapshot>, in_flight: InFlight) -> Self {
        Self {
            snapshot,
            started: Instant::now(),
            request_id: HeaderValue::from_static("-"),
            verdict: Verdict::Pending,
            known: None,
            refusal: None,
            answered_whole: false,
            held: false,
            connection: Connection::with_new_header(),
            target: TargetSide::default(),
            body_in: 0,
            in_flight: Some(in_flight),
        }
    }

    /// The proof of admission, once there is one.
    pub fn admitted(&self) -> Option<&Admitted> {
        match &self.verdict {
            Verdict::Admitted(admitted) => Some(admitted),
            Verdict::Pending => None,
        }
    }

    /// The id of the credential, once it was verified.
    pub fn credential(&self) -> Option<&str> {
        let credential = self.admitted().map(|admitted| &admitted.credential);
        let credential = credential.or(self.known.as_ref().map(|known| &known.credential))?;
        Some(&credential.id)
    }

    /// The proxy, where it is known and the credential was verified.
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        self.admitted().map(|admitted| &admitted.entry).or(self.known.as_ref().map(|known| &known.entry))
    }

    /// The client: the peer, or whoever stands behind trusted proxies.
    pub fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = self.connection.as_ref()?.peer;
        Some(client_behind(peer, headers, |address| self.snapshot.edge.trusts(address)))
    }

    /// How many requests are under way, this one included.
    pub fn in_flight(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |count| count.0.load(Ordering::Relaxed))
    }

    /// The request is over, but for what its connection still needs.
    pub fn leave(&mut self) {
        self.in_flight = None;
    }
}

/// Counts a request as under way until it is dropped.
pub struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// Counts one more.
    pub fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who connected to the first trusted proxy: `peer` itself, or the last address of `X-Forwarded-For` that is not trusted.
pub fn client_behind(peer: IpAddr, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    if !trusts(peer) {
        return peer;
    }
    let mut client = peer;
    // From the right, where each trusted hop has written who it heard from. What cannot be read ends the walk: beyond
    // it may stand whatever the client likes.
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for entry in value.to_str().unwrap_or_default().rsplit(',') {
            match forwarded_address(entry.trim()) {
                Some(address) if trusts(address) => client = address,
                Some(address) => return address,
                None => return client,
            }
        }
    }
    client
}

/// An entry of `X-Forwarded-For`: an address, with a port behind some load balancers. One of IPv4 may be written in IPv6.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_an_address_with_or_without_a_port() {
        for (entry, address) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:4711", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
        ] {
            assert_eq!(forwarded_address(entry), address.map(|text| text.parse().expect("an address")), "{entry}");
        }
    }
}
