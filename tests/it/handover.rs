//! A new process at noon: QUIT hands the sockets over, and no client notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::harness::{Connection, Edge, H2Connection, Origin, Request, eventually, ms, origin};

/// How a client connects.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A new connection for each request.
    New {
        http2: bool,
    },
    /// One for as long as the edge keeps it.
    Kept,
    KeptHttp2,
}

/// Clients that ask without pause until they are stopped. Every answer must be the target's, and whole.
struct Load {
    stop: Arc<AtomicBool>,
    counts: Vec<(Kind, Arc<AtomicUsize>)>,
    clients: JoinSet<()>,
}

impl Load {
    fn on(edge: &Edge) -> Self {
        let mut load = Self { stop: Arc::default(), counts: Vec::new(), clients: JoinSet::new() };
        let request = edge.get("/api/demo/x").bearer("k1");
        for kind in [Kind::New { http2: false }, Kind::New { http2: true }, Kind::Kept, Kind::Kept, Kind::KeptHttp2] {
            let count = Arc::<AtomicUsize>::default();
            load.counts.push((kind, count.clone()));
            load.clients.spawn(ask(kind, request.clone(), load.stop.clone(), count));
        }
        load
    }

    fn count(&self) -> usize {
        self.counts.iter().map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    /// Until every kind of client has been answered `more` times more.
    async fn goes_on(&self, more: usize) {
        for (kind, count) in &self.counts {
            let before = count.load(Ordering::Relaxed);
            eventually(&format!("{kind:?} goes on"), async || {
                assert!(self.clients.len() == self.counts.len());
                count.load(Ordering::Relaxed) >= before + more
            })
            .await;
        }
    }

    /// Stops; fails where a client has.
    async fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no request fails");
        }
        self.count()
    }
}

async fn ask(kind: Kind, request: Request, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) {
    let (mut kept, mut kept_http2) = (None, None);
    while !stop.load(Ordering::Relaxed) {
        let answer = match kind {
            Kind::New { http2 } => request.clone().http2(http2).await,
            Kind::Kept => {
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => Connection::to(request.address).await,
                };
                let answer = client.exchange(&request).await;
                kept = answer.reusable.then_some(client);
                answer
            }
            Kind::KeptHttp2 => {
                let client = match kept_http2.take() {
                    Some(client) => client,
                    None => H2Connection::to(request.address).await,
                };
                let Some(answer) = client.attempt(&request).await else { continue };
                kept_http2 = Some(client);
                answer
            }
        };
        answer.expect_granted(200).expect_body("ok");
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn unhurried(origin: &Origin) -> crate::harness::edge::EdgeBuilder {
    Edge::to(origin).client("rate_limit: { requests_per_minute: 1000000 }").http2()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_a_successor_takes_over() {
    let origin = Origin::replying(200).await;
    let mut edge = unhurried(&origin).start().await;
    let load = Load::on(&edge);
    load.goes_on(20).await;
    edge.signal("QUIT");
    assert_eq!(edge.exited().await, Some(0), "the old process leaves");
    let [successor] = &edge.successors()[..] else { panic!("one successor: {}", edge.stderr()) };
    assert_ne!(successor, &edge.pid().to_string());
    load.goes_on(20).await;
    let count = load.end().await;
    println!("{count} requests, none failed");
    assert!(count > 300, "{count} requests");
    // The operators' listener went along.
    edge.admin("/readyz").await.expect_status(200);
    assert_eq!(edge.metric("requestrocket_config_last_reload_successful").await, Some(1.0));
}

#[tokio::test]
async fn a_request_in_flight_is_finished_by_the_old_process() {
    let (origin, finish) = Origin::patient(origin::OK).await;
    let mut edge = unhurried(&origin).start().await;
    let mut slow = edge.connect().await;
    slow.send(edge.get("/api/demo/slow").bearer("k1").head()).await;
    origin.until("the slow request", |events| events.requests.len() == 1).await;
    edge.signal("QUIT");
    eventually("a successor", async || !edge.successors().is_empty()).await;
    // While the old one has not left, new clients are served.
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    finish.send_replace(true);
    slow.answer().await.expect_granted(200).expect_body("ok");
    let done = Instant::now();
    assert_eq!(edge.exited().await, Some(0));
    assert!(done.elapsed() < ms(5000), "{:?}", done.elapsed());
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn a_successor_with_a_bad_configuration_changes_nothing() {
    let origin = Origin::replying(200).await;
    let mut edge = unhurried(&origin).start().await;
    let good = edge.read("proxies.d/demo.yaml");
    edge.write("proxies.d/demo.yaml", good.replace("target: origin,", "target: nowhere,"));
    let load = Load::on(&edge);
    load.goes_on(5).await;
    edge.signal("QUIT");
    eventually("no successor", async || edge.stderr().contains("this process serves on")).await;
    assert!(edge.stderr().contains("exit status: 78"), "{}", edge.stderr());
    load.goes_on(20).await;
    edge.admin("/readyz").await.expect_status(200);
    assert!(edge.successors().is_empty());

    // Repaired, it hands over after all.
    edge.write("proxies.d/demo.yaml", good);
    edge.signal("QUIT");
    assert_eq!(edge.exited().await, Some(0));
    load.goes_on(20).await;
    load.end().await;
}

#[tokio::test]
async fn a_binary_that_cannot_be_started_changes_nothing() {
    let origin = Origin::replying(200).await;
    let mut edge = unhurried(&origin).own_binary().start().await;
    let (binary, good) = (edge.folder().join("edge"), edge.folder().join("edge.good"));
    std::fs::rename(&binary, &good).expect("the folder is ours");
    let failures = |edge: &Edge| edge.stderr().matches("this process serves on").count();
    edge.signal("QUIT");
    eventually("it is missing", async || failures(&edge) == 1).await;
    assert!(edge.stderr().contains("No such file or directory"), "{}", edge.stderr());
    edge.write("edge", "not executable");
    edge.signal("QUIT");
    eventually("it is not executable", async || failures(&edge) == 2).await;
    assert!(edge.stderr().contains("Permission denied"), "{}", edge.stderr());
    edge.write_script("edge", "exit 7");
    edge.signal("QUIT");
    eventually("it ends at once", async || failures(&edge) == 3).await;
    edge.write_script("edge", "echo nonsense >&0; exec sleep 60");
    edge.signal("QUIT");
    eventually("it says something else", async || failures(&edge) == 4).await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    edge.admin("/readyz").await.expect_status(200);

    std::fs::rename(&good, &binary).expect("the folder is ours");
    edge.signal("QUIT");
    assert_eq!(edge.exited().await, Some(0));
    assert_eq!(edge.successors().len(), 1);
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn nobody_waits_for_a_successor_that_hangs() {
    for signal in ["TERM", "INT"] {
        let origin = Origin::replying(200).await;
        let mut edge = unhurried(&origin).own_binary().start().await;
        let mark = edge.folder().join("started");
        edge.write_script("edge", &format!("echo $$ > {}; exec sleep 600", mark.display()));
        edge.signal("QUIT");
        let pid = || std::fs::read_to_string(&mark).unwrap_or_default().trim().to_owned();
        eventually("the successor", async || !pid().is_empty()).await;
        // Meanwhile all goes on.
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
        let asked = Instant::now();
        edge.signal(signal);
        assert_eq!(edge.exited().await, Some(0), "{signal}");
        assert!(asked.elapsed() < ms(3000), "{signal}: left after {:?}", asked.elapsed());
        assert!(!std::path::Path::new(&format!("/proc/{}", pid())).exists(), "the successor is gone too");
    }
}

#[tokio::test]
async fn a_successor_hands_over_in_its_turn_and_obeys_signals() {
    let origin = Origin::replying(200).await;
    let mut edge = unhurried(&origin).edge("access_log: { path: access.log }").start().await;
    let ask = async || edge.get("/api/demo/x").bearer("k1").await.expect_granted(200).status;
    ask().await;
    edge.signal("QUIT");
    eventually("the first successor", async || edge.successors().len() == 1).await;
    ask().await;
    edge.signal_to(&edge.successors()[0], "QUIT");
    eventually("the second successor", async || edge.successors().len() == 2).await;
    let last = edge.successors().remove(1);
    ask().await;
    edge.write("proxies.d/more.yaml", "nonsense: 1\n");
    edge.signal_to(&last, "HUP");
    // Until they have left, the old ones answer on the operators' listener, too.
    eventually("it reloads", async || edge.metric("requestrocket_config_last_reload_successful").await == Some(0.0))
        .await;
    assert_eq!(edge.exited().await, Some(0));
    edge.signal_to(&last, "TERM");
    eventually("nobody listens", async || tokio::net::TcpStream::connect(edge.address()).await.is_err()).await;
    eventually("every line", async || edge.read("access.log").lines().count() == 3).await;
}

/// Counts of a process are its own: who takes over starts with full budgets (README, signals).
#[tokio::test]
async fn rate_limits_start_anew_with_a_successor() {
    let origin = Origin::replying(200).await;
    let mut edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 2 }").start().await;
    for status in [200, 200, 429] {
        edge.get("/api/demo/x").bearer("k1").await.expect_status(status);
    }
    edge.signal("QUIT");
    assert_eq!(edge.exited().await, Some(0));
    for status in [200, 200, 429] {
        edge.get("/api/demo/x").bearer("k1").await.expect_status(status);
    }
}
