//! A name server that says what the test wants, or nothing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

/// What is said about a name.
#[derive(Clone)]
pub enum Record {
    Addresses { ttl: u32, addresses: Vec<IpAddr> },
    NoSuchName,
    Silence,
}

/// A UDP name server on loopback.
pub struct NameServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    records: HashMap<String, Record>,
    queries: usize,
}

impl NameServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a loopback address");
        let address = socket.local_addr().expect("a bound socket");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
                let reply = shared.lock().expect("no holder panics").reply(&buffer[..count]);
                if let Some(reply) = reply {
                    let _ = socket.send_to(&reply, peer).await;
                }
            }
        });
        Self { address, state, task }
    }

    pub fn set(&self, name: &str, record: Record) {
        self.state.lock().expect("no holder panics").records.insert(name.to_owned(), record);
    }

    pub fn addresses(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.set(name, Record::Addresses { ttl, addresses });
    }

    pub fn queries(&self) -> usize {
        self.state.lock().expect("no holder panics").queries
    }

    /// The line of `edge.yaml` that points the edge here.
    pub fn yaml(&self) -> String {
        self.yaml_with("max_stale: 5s")
    }

    /// The same, with fields of the test's own.
    pub fn yaml_with(&self, fields: &str) -> String {
        format!("dns: {{ servers: [\"{}\"], {fields} }}", self.address)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    /// RFC 1035: the header, the question repeated, the answers pointing at its name.
    fn reply(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        self.queries += 1;
        let (name, end) = question(query)?;
        let kind = u16::from_be_bytes([query[end], query[end + 1]]);
        let (rcode, ttl, addresses) = match self.records.get(&name) {
            Some(Record::Silence) => return None,
            None | Some(Record::NoSuchName) => (3, 0, Vec::new()),
            Some(Record::Addresses { ttl, addresses }) => (0, *ttl, addresses.clone()),
        };
        let data: Vec<Vec<u8>> = addresses
            .into_iter()
            .filter_map(|address| match address {
                IpAddr::V4(address) if kind == 1 => Some(address.octets().to_vec()),
                IpAddr::V6(address) if kind == 28 => Some(address.octets().to_vec()),
                _ => None,
            })
            .collect();

        let mut reply = query[..2].to_vec();
        reply.extend([0x81 | (query[2] & 0x01), 0x80 | rcode, 0, 1, 0, data.len() as u8, 0, 0, 0, 0]);
        reply.extend_from_slice(&query[12..end + 4]);
        for bytes in data {
            reply.extend([0xc0, 12]);
            reply.extend(kind.to_be_bytes());
            reply.extend([0, 1]);
            reply.extend(ttl.to_be_bytes());
            reply.extend((bytes.len() as u16).to_be_bytes());
            reply.extend(bytes);
        }
        Some(reply)
    }
}

/// The name asked for, and where its type stands.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    (query.len() >= at + 4).then(|| (labels.join("."), at))
}
