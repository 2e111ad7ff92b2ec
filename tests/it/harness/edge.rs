//! The real binary, serving on loopback for as long as the test holds it.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::port::Port;
use super::yaml::Yaml;
use super::{Connection, H2Connection, Request, eventually, ms};

pub const BINARY: &str = env!("CARGO_BIN_EXE_requestrocket-edge");

/// Anything that a proxy can be pointed at.
pub trait Target {
    fn base_url(&self) -> String;
}

impl Target for &str {
    fn base_url(&self) -> String {
        (*self).to_owned()
    }
}

impl Target for String {
    fn base_url(&self) -> String {
        self.clone()
    }
}

/// A running edge with one proxy, `demo`, whose client shows `Bearer k1` and whose target is shown `Bearer t1`.
pub struct Edge {
    child: Child,
    port: Port,
    admin: Port,
    folder: TempDir,
    stdout: Lines,
    stderr: Lines,
}

/// An edge that is not running yet.
pub struct EdgeBuilder {
    yaml: Yaml,
    files: Vec<(String, Vec<u8>)>,
    environment: Vec<(String, String)>,
    unread_stdout: bool,
    own_binary: bool,
}

type Lines = Arc<Mutex<String>>;

impl Edge {
    pub fn to(target: impl Target) -> EdgeBuilder {
        EdgeBuilder {
            yaml: Yaml {
                base_url: target.base_url(),
                listener: Vec::new(),
                admin: Vec::new(),
                edge: Vec::new(),
                proxy: Vec::new(),
                client: Vec::new(),
                target: Vec::new(),
                target_credential: Vec::new(),
                account: None,
            },
            files: Vec::new(),
            environment: Vec::new(),
            unread_stdout: false,
            own_binary: false,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    pub fn post(&self, target: &str) -> Request {
        self.request("POST", target)
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address(), method, target)
    }

    pub fn admin(&self, path: &str) -> Request {
        let address = self.admin.address();
        Request::new(address, "GET", path).header("Host", &address.to_string())
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    pub async fn connect(&self) -> Connection {
        Connection::to(self.address()).await
    }

    pub async fn connect_http2(&self) -> H2Connection {
        H2Connection::to(self.address()).await
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the configuration folder, whole or not at all, as editors and deployments do.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.folder().join(name);
        let draft = self.folder().join("draft");
        std::fs::write(&draft, content).expect("the folder is ours");
        std::fs::rename(&draft, &path).expect("the folder is ours");
    }

    /// The same for a script, which may be started.
    pub fn write_script(&self, name: &str, lines: &str) {
        let draft = self.folder().join("draft");
        std::fs::write(&draft, format!("#!/bin/sh\n{lines}\n")).expect("the folder is ours");
        std::fs::set_permissions(&draft, Permissions::from_mode(0o755)).expect("the folder is ours");
        std::fs::rename(&draft, self.folder().join(name)).expect("the folder is ours");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder().join(name)).expect("a file of the configuration")
    }

    /// `HUP`, `TERM`, ...
    pub fn signal(&self, name: &str) {
        self.signal_to(&self.child.id().to_string(), name);
    }

    /// A signal to one of the successors.
    pub fn signal_to(&self, pid: &str, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), pid]).status();
        assert!(status.expect("kill runs").success());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes to which this one and its successors have handed over, in their order.
    pub fn successors(&self) -> Vec<String> {
        let log = self.stderr();
        let lines = log.lines().filter_map(|line| line.split_once(" serves, leaving")?.0.rsplit_once("process "));
        lines.map(|(_, pid)| pid.to_owned()).collect()
    }

    /// The lines of the access log on stdout, once there are `count`.
    pub async fn access_log(&self, count: usize) -> Vec<serde_json::Value> {
        eventually("the access log", async || self.stdout().lines().count() >= count).await;
        self.stdout().lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The value of a series of `/metrics`.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin("/metrics").await.text();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// The exit code, once the process has ended by itself.
    pub async fn exited(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the end of the process", async || match self.child.try_wait().expect("our child") {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        })
        .await;
        code
    }

    /// Bytes of memory that the process has resident.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("our child runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of its own");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("no reader panics").clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no reader panics").clone()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for successor in self.successors() {
            let _ = Command::new("kill").args(["-KILL", &successor]).stderr(Stdio::null()).status();
        }
        if std::thread::panicking() {
            eprintln!("--- stderr of the edge\n{}", self.stderr());
        }
    }
}

impl EdgeBuilder {
    /// Lines of `edge.yaml`.
    pub fn edge(mut self, yaml: &str) -> Self {
        self.yaml.edge.extend(yaml.lines().map(str::to_owned));
        self
    }

    /// Fields of the proxy `demo`.
    pub fn proxy(mut self, fields: &str) -> Self {
        self.yaml.proxy.push(fields.to_owned());
        self
    }

    /// Fields of the proxy credential `client`; with a `type` of their own they replace `Bearer k1`.
    pub fn client(mut self, fields: &str) -> Self {
        self.yaml.client.push(fields.to_owned());
        self
    }

    /// Fields of the target `origin`.
    pub fn target(mut self, fields: &str) -> Self {
        self.yaml.target.push(fields.to_owned());
        self
    }

    /// Fields of the target credential `origin-key`; with a `type` of their own they replace `Bearer t1`.
    pub fn target_credential(mut self, fields: &str) -> Self {
        self.yaml.target_credential.push(fields.to_owned());
        self
    }

    /// Fields of the account `acme`, to which the client then belongs.
    pub fn account(mut self, fields: &str) -> Self {
        self.yaml.account = Some(fields.to_owned());
        self
    }

    /// A client whose limit no test reaches.
    pub fn unhurried(self) -> Self {
        self.client("rate_limit: { requests_per_minute: 100000 }")
    }

    /// Fields of the listener: `tls: { ... }`, `proxy_protocol: true`.
    pub fn listener(mut self, fields: &str) -> Self {
        self.yaml.listener.push(fields.to_owned());
        self
    }

    /// Fields of the admin listener: `hosts: [edge.test]`.
    pub fn admin(mut self, fields: &str) -> Self {
        self.yaml.admin.push(fields.to_owned());
        self
    }

    /// Takes HTTP/2 with prior knowledge too.
    pub fn http2(self) -> Self {
        self.listener("http2: cleartext")
    }

    /// Another file of the folder: a fragment, a key, a certificate.
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), content.into()));
        self
    }

    /// More of the five lists, beside those of `demo`.
    pub fn fragment(self, yaml: &str) -> Self {
        self.file("proxies.d/more.yaml", yaml)
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Nobody reads what the edge prints.
    pub fn unread_stdout(mut self) -> Self {
        self.unread_stdout = true;
        self
    }

    /// Runs a copy of the binary, `edge` in the folder, for the test to replace.
    pub fn own_binary(mut self) -> Self {
        self.own_binary = true;
        self
    }

    /// Writes the configuration folder, to be checked or served.
    pub fn written(&self, address: SocketAddr, admin: SocketAddr) -> TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("proxies.d")).expect("the folder is ours");
        std::fs::write(at("edge.yaml"), self.yaml.edge(address, admin)).expect("the folder is ours");
        std::fs::write(at("proxies.d/demo.yaml"), self.yaml.fragment()).expect("the folder is ours");
        for (name, content) in &self.files {
            std::fs::write(at(name), content).expect("the folder is ours");
        }
        folder
    }

    /// Starts the edge and waits until it takes connections.
    pub async fn start(self) -> Edge {
        let (port, admin) = (Port::claim(), Port::claim());
        let folder = self.written(port.address(), admin.address());
        let binary = if self.own_binary { folder.path().join("edge") } else { BINARY.into() };
        if self.own_binary {
            std::fs::copy(BINARY, &binary).expect("the folder is ours");
        }
        let mut command = Command::new(binary);
        command
            .args(["serve", "-c"])
            .arg(folder.path().join("edge.yaml"))
            .env_remove("REQUESTROCKET_EDGE_CONFIG")
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env("NO_COLOR", "1")
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = loop {
            match command.spawn() {
                // Another test's process, between its fork and its exec, still has the copy open.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => tokio::time::sleep(ms(10)).await,
                spawned => break spawned.expect("the binary runs"),
            }
        };
        let stdout = if self.unread_stdout { Lines::default() } else { collect(child.stdout.take().expect("piped")) };
        let stderr = collect(child.stderr.take().expect("piped"));
        let mut edge = Edge { child, port, admin, folder, stdout, stderr };
        eventually("the edge listens", async || {
            if let Some(status) = edge.child.try_wait().expect("our child") {
                tokio::time::sleep(ms(100)).await; // its last words are still in the pipe
                panic!("the edge ended at once, {status}");
            }
            edge.stderr().contains("serving") && TcpStream::connect(edge.address()).await.is_ok()
        })
        .await;
        edge
    }
}

/// Reads a pipe to its end on a thread of its own: a full pipe would stop the edge.
fn collect(pipe: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let collected = lines.clone();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            collected.lock().expect("no reader panics").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    lines
}
