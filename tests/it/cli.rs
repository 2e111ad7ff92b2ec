//! Commands and exit codes.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::harness::edge::BINARY;
use crate::harness::port::Port;
use crate::harness::{Edge, Origin, ms};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .env_remove("REQUESTROCKET_EDGE_CONFIG")
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_is_silent_when_all_is_well() {
    let (port, admin) = (Port::claim(), Port::claim());
    let digest = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90";
    let folder = Edge::to("https://api.example.com/v1")
        .client(&format!("type: bearer, secret: {{ sha256: {digest} }}"))
        .target_credential("type: none")
        .written(port.address(), admin.address());
    let path = folder.path().join("edge.yaml");
    // It binds nothing: that the addresses are taken is no matter.
    let _taken = std::net::TcpListener::bind(port.address()).expect("just claimed");
    let output = run(&["check", "-c", path.to_str().expect("UTF-8")], "");
    assert_eq!(
        (output.status.code(), text(&output.stdout), text(&output.stderr)),
        (Some(0), String::new(), String::new())
    );
}

#[test]
fn check_reports_every_problem_at_once() {
    let (port, admin) = (Port::claim(), Port::claim());
    let folder = Edge::to("https://api.example.com/v1")
        .edge("defaults: { timeout: 90s, plan: baisc }")
        .proxy("timeout: 5x")
        .client("colour: red")
        .fragment(
            "proxies:\n  - { id: demo, target: orgin, target_credential: origin-key, proxy_credentials: [client] }\n",
        )
        .written(port.address(), admin.address());
    let path = folder.path().join("edge.yaml");
    for verb in ["check", "serve"] {
        let output = run(&[verb, "-c", path.to_str().expect("UTF-8")], "");
        let problems = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{problems}");
        assert!(output.stdout.is_empty());
        for part in ["90s", "baisc", "basic", "5x", "colour", "orgin", "origin", "demo.yaml", "more.yaml", "edge.yaml"]
        {
            assert!(problems.contains(part), "`{part}` is missing:\n{problems}");
        }
    }
}

#[test]
fn a_missing_file_is_a_configuration_problem() {
    for verb in ["check", "serve"] {
        let output = run(&[verb, "-c", "/nowhere/edge.yaml"], "");
        assert_eq!(output.status.code(), Some(78));
        let problem = text(&output.stderr);
        assert!(problem.contains("edge.yaml") && problem.contains("no such file"), "{problem}");
    }
}

#[test]
fn wrong_usage_is_64() {
    for arguments in
        [&["chekc"][..], &["--nope"], &["check", "--nope"], &["check", "-c"], &["digest", "secret"], &["serve", "x"]]
    {
        let output = run(arguments, "");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [["--help"], ["-h"], ["--version"], ["-V"]] {
        let output = run(&arguments, "");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty() && text(&output.stdout).contains("requestrocket-edge"));
    }
    assert!(text(&run(&["-V"], "").stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn digest_prints_what_to_configure() {
    use sha2::Digest as _;
    let expected: String = sha2::Sha256::digest("s3cret").iter().map(|byte| format!("{byte:02x}")).collect();
    for input in ["s3cret", "s3cret\n", "s3cret\r\n"] {
        let output = run(&["digest"], input);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains(&expected), "{input:?}: {}", text(&output.stdout));
        assert!(!text(&output.stdout).contains("s3cret"));
    }
    assert_ne!(run(&["digest"], "").status.code(), Some(0), "an empty secret is a mistake");
}

#[tokio::test]
async fn term_finishes_what_is_in_flight() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        tokio::time::sleep(ms(700)).await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        peer.silence().await;
    })
    .await;
    let mut edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
    origin.until("the request", |events| events.requests.len() == 1).await;
    edge.signal("TERM");
    client.answer().await.expect_granted(200).expect_body("ok");
    let ended = std::time::Instant::now();
    assert_eq!(edge.exited().await, Some(0));
    assert!(ended.elapsed() < ms(5000), "{:?}", ended.elapsed());
}

#[tokio::test]
async fn int_stops_at_once() {
    let origin = Origin::silent().await;
    let mut edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
    origin.until("the request", |events| events.connections == 1).await;
    let asked = std::time::Instant::now();
    edge.signal("INT");
    edge.exited().await;
    assert!(asked.elapsed() < ms(2000), "{:?}", asked.elapsed());
}

#[test]
fn an_address_that_is_taken_is_said_so() {
    let (port, admin) = (Port::claim(), Port::claim());
    let _taken = std::net::TcpListener::bind(port.address()).expect("just claimed");
    let folder = Edge::to("http://127.0.0.1:1").written(port.address(), admin.address());
    let path = folder.path().join("edge.yaml");
    let output = run(&["serve", "-c", path.to_str().expect("UTF-8")], "");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&port.address().to_string()), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_signal_is_obeyed_from_the_first_connection_on() {
    for _ in 0..5 {
        let (port, admin) = (Port::claim(), Port::claim());
        let folder = Edge::to("http://127.0.0.1:1").written(port.address(), admin.address());
        let mut child = Command::new(BINARY)
            .args(["serve", "-c"])
            .arg(folder.path().join("edge.yaml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        while std::net::TcpStream::connect(port.address()).is_err() {
            tokio::time::sleep(ms(1)).await;
        }
        // The default action of HUP is to end the process.
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().expect("kill runs").success());
        tokio::time::sleep(ms(200)).await;
        let ended = child.try_wait().expect("our child");
        let _ = child.kill();
        let _ = child.wait();
        assert!(ended.is_none(), "HUP ended the process: {ended:?}");
    }
}
