//! A target with a strict parser that is not ours: Node's, which is llhttp. What it runs is `tests/framing/origin.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;

use super::edge::Target;
use super::eventually;

/// A running Node.
pub struct Llhttp {
    child: Child,
    met: Arc<Mutex<Vec<Met>>>,
    /// Its answers to being asked.
    asked: Mutex<Receiver<()>>,
    port: u16,
}

/// What it met on its connections.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Met {
    Listening {
        listening: u16,
    },
    Asked {
        #[expect(dead_code, reason = "tells it from the others")]
        asked: bool,
    },
    /// Bytes that are no HTTP.
    Error {
        error: String,
        packet: Latin1,
    },
    Request(Seen),
}

/// A request as that parser understood it.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub method: String,
    pub target: Latin1,
    pub headers: Vec<(String, Latin1)>,
    pub trailers: Vec<(String, Latin1)>,
    pub body: Latin1,
    /// The connection ended before it did.
    #[serde(default)]
    pub cut: bool,
    /// What its path is to several readers; the first has decoded it and done nothing else.
    pub readings: Vec<Latin1>,
}

/// Bytes that came as the characters of the same numbers.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Latin1(pub Vec<u8>);

impl From<String> for Latin1 {
    fn from(text: String) -> Self {
        Self(text.chars().map(|character| u8::try_from(character).expect("Latin-1")).collect())
    }
}

impl std::fmt::Debug for Latin1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Llhttp {
    pub async fn start() -> Self {
        let mut child = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/framing/origin.mjs"))
            .stdin(Stdio::piped()) // whose end, should this process die, is the end of that one
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed (`make test` does it)");
        let met = Arc::new(Mutex::new(Vec::new()));
        let (lines, log) = (BufReader::new(child.stdout.take().expect("piped")).lines(), met.clone());
        let (answered, asked) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")) {
                    Met::Asked { .. } => drop(answered.send(())), // nobody may be left to hear it
                    met => log.lock().expect("no reader panics").push(met),
                }
            }
        });
        let mut origin = Self { child, met, asked: Mutex::new(asked), port: 0 };
        eventually("node listens", async || !origin.met.lock().expect("no reader panics").is_empty()).await;
        let first = origin.met.lock().expect("no reader panics").remove(0);
        let Met::Listening { listening } = first else { panic!("{first:?}") };
        origin.port = listening;
        origin
    }

    /// All that it has met until now: an answer may be here before the line that tells of its request.
    fn met(&self) -> Vec<Met> {
        let asked = self.asked.lock().expect("no asker panics");
        let mut stdin = self.child.stdin.as_ref().expect("piped");
        stdin.write_all(b"?\n").expect("node runs");
        asked.recv_timeout(Duration::from_secs(10)).expect("node answers");
        self.met.lock().expect("no reader panics").clone()
    }

    pub fn requests(&self) -> Vec<Seen> {
        let met = self.met();
        met.into_iter().filter_map(|met| if let Met::Request(seen) = met { Some(seen) } else { None }).collect()
    }

    /// Everything that was no HTTP.
    pub fn errors(&self) -> Vec<String> {
        let met = self.met();
        let errors = met.into_iter().filter_map(|met| match met {
            Met::Error { error, packet } => Some(format!("{error}: {packet:?}")),
            _ => None,
        });
        errors.collect()
    }
}

impl Seen {
    /// The values of the field `name`.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let fields = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.0.as_slice()).collect()
    }
}

impl Target for &Llhttp {
    fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Llhttp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
