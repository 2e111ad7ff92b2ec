//! Clients as users have them, against the real binary's `demo`: the examples of the README, and the lines the demo prints.
//!
//! A missing runtime is a failure, not a skip: an example that nobody ran is an example that nobody may trust.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const DEMO: &str = include_str!("../src/demo.txt");

/// Long enough for a Java machine on a busy computer; every example is done in a few seconds otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn curl_calls_through_the_edge() {
    example(&["sh"], "curl.sh");
}

#[test]
fn fetch_calls_through_the_edge() {
    example(&["node"], "fetch.mjs");
}

#[test]
fn requests_calls_through_the_edge() {
    example(&[python_with_requests()], "requests_client.py");
}

#[test]
fn java_calls_through_the_edge() {
    example(&["java"], "HttpClientExample.java");
}

#[test]
fn the_demo_prints_the_lines_to_try() {
    let demo = Demo::start();
    let lines = demo.on_its_address(DEMO);
    let deadline = Instant::now() + PATIENCE;
    while !demo.printed().contains(&lines) {
        assert!(Instant::now() < deadline, "src/demo.txt is not in what the demo printed:\n{}", demo.printed());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_line_of_the_demo_shows_what_it_says() {
    let demo = Demo::start();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for idea in DEMO.trim().split("\n\n") {
        let (comment, command) = idea.split_once('\n').expect("an idea is a comment and a command");
        let status =
            comment.strip_prefix("# ").and_then(|text| text.split_once(": ")).expect("`# status: what to see`").0;
        let (_, output) = run(Command::new("sh").arg("-c").arg(demo.on_its_address(command)));
        // The last one: the rate limit shows at the end of several answers. Not by line: a body need not end with one.
        let answered = output.rsplit_once("HTTP/1.1 ").map_or("nothing", |(_, answer)| answer);
        if !answered.starts_with(status) {
            wrong.push(format!("{comment}\n{command}\n{output}"));
        }
        tried += 1;
    }
    assert!(tried > 10, "src/demo.txt holds {tried} ideas");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Runs an example of the README twice: against the demo, where it must succeed, and where no proxy is, where it must not.
fn example(interpreter: &[&str], file: &str) {
    let demo = Demo::start();
    let path = format!("{}/tests/clients/{file}", env!("CARGO_MANIFEST_DIR"));
    let run_against = |base: String| {
        let [program, arguments @ ..] = interpreter else { panic!("an interpreter has a name") };
        run(Command::new(program).args(arguments).arg(&path).env("BASE_URL", base))
    };

    let (status, output) = run_against(demo.url());
    assert!(status.success(), "{file}: {status}\n{output}\nthe demo:\n{}", demo.printed());
    let answers = output.matches("target-secret").count();
    assert_eq!(answers, 2, "{file}: GET and POST both reach the target with its own credential:\n{output}");
    assert!(!output.contains("demo-token"), "{file}: the client's credential reached the target:\n{output}");
    assert!(output.contains("proxy-access-granted"), "{file}:\n{output}");

    let (status, output) = run_against(format!("{}/nowhere", demo.url()));
    assert!(!status.success(), "{file}: takes a refusal for a success:\n{output}");
}

/// The system's package manager may have put `requests` beside an interpreter that is not the first on the PATH.
fn python_with_requests() -> &'static str {
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| {
            let import = Command::new(python).args(["-c", "import requests"]).stderr(Stdio::null()).status();
            import.is_ok_and(|status| status.success())
        })
        .expect("no python3 with `requests`; `make test` installs it")
}

/// Runs a command to its end. Its exit status, and what it printed on either output.
fn run(command: &mut Command) -> (ExitStatus, String) {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("output");
    let output = File::create(&path).expect("a file for the output");
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .envs([("NO_PROXY", "127.0.0.1"), ("no_proxy", "127.0.0.1")])
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a second handle"))
        .stderr(output)
        .spawn()
        .unwrap_or_else(|error| panic!("`{program}`: {error}; `make test` installs what is missing"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return (status, text_of(&path));
        }
        if Instant::now() > deadline {
            let _ = end(&mut child);
            panic!("`{program}` was not done after {PATIENCE:?}:\n{}", text_of(&path));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The real binary's `demo` on a port of its own, ended when dropped.
struct Demo {
    process: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Demo {
    /// Starts a demo and waits until it takes connections.
    fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let output = File::create(directory.path().join("output")).expect("a file for the output");
        let address = free_address();
        let process = Command::new(env!("CARGO_BIN_EXE_requestrocket-edge"))
            .args(["demo", "--listen", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("cargo built the binary");
        let mut demo = Self { process, address, directory };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            let ended = demo.process.try_wait().expect("a child of ours");
            let late = Instant::now() > deadline;
            assert!(!late && ended.is_none(), "no demo on {address}: {error}, exit: {ended:?}\n{}", demo.printed());
            thread::sleep(Duration::from_millis(20));
        }
        demo
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same text, spoken to this demo instead of the one that `make run` starts.
    fn on_its_address(&self, text: &str) -> String {
        text.replace("127.0.0.1:8080", &self.address.to_string())
    }

    fn printed(&self) -> String {
        text_of(&self.directory.path().join("output"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = end(&mut self.process);
    }
}

/// A loopback port that was free a moment ago. Ports are handed out at random, so that it still is.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

fn end(child: &mut Child) -> io::Result<ExitStatus> {
    match child.kill() {
        Err(error) if error.kind() != ErrorKind::InvalidInput => Err(error),
        _ => child.wait(),
    }
}

/// What is in a file, as text: an answer may be cut within a character.
fn text_of(path: &std::path::Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
