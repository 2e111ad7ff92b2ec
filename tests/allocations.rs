//! How often an admitted request takes memory, from its header to its log line. A number that grew unnoticed would be paid by
//! every request from then on.
//!
//! The daemon runs within this process. Client and target use blocking sockets and buffers of their own, so that what is
//! counted is the daemon's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use requestrocket_edge::config::Loader;
use requestrocket_edge::server::Daemon;

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// 89 when this was written, Pingora's own among them. To be lowered with what goes, and raised only with a reason.
const MOST: u64 = 92;
const ROUNDS: u64 = 200;

const REQUEST: &[u8] =
    b"GET /api/demo/users?page=2 HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer k1\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn an_admitted_request_takes_no_more_memory_than_it_did() {
    let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = origin.local_addr().unwrap();
    thread::spawn(move || {
        for stream in origin.incoming().flatten() {
            thread::spawn(move || answer_all(stream));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let yaml = format!(
        "region: test-1\nthreads: 1\nlisteners: [{{ address: '{address}' }}]\nallow_private_targets: true\n\
         access_log: {{ path: access.log }}\n\
         proxy_credentials: [{{ id: client, type: bearer, secret: {{ value: k1 }}, rate_limit: {{ requests_per_minute: 100000 }} }}]\n\
         targets: [{{ id: origin, base_url: 'http://{target}' }}]\n\
         target_credentials: [{{ id: key, type: bearer, secret: {{ value: t1 }} }}]\n\
         proxies: [{{ id: demo, target: origin, target_credential: key, proxy_credentials: [client] }}]\n"
    );
    let path = folder.path().join("edge.yaml");
    std::fs::write(&path, yaml).unwrap();
    let Ok(daemon) = Daemon::prepare(Loader::new(&path)) else { panic!("the configuration is valid") };
    thread::spawn(move || drop(daemon.serve()));

    let mut client = connect(address);
    let mut buffer = [0; 4096];
    for _ in 0..ROUNDS {
        exchange(&mut client, &mut buffer); // pools, buffers and counters are there after these
    }
    let _profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().total_blocks;
    for _ in 0..ROUNDS {
        exchange(&mut client, &mut buffer);
    }
    let each = (dhat::HeapStats::get().total_blocks - before).div_ceil(ROUNDS);
    assert!(each <= MOST, "{each} allocations a request, and {MOST} are allowed");
    assert!(each > 20, "{each} allocations a request cannot be all of them");
}

fn answer_all(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let mut length = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[length..]) {
        length += read;
        if buffer[..length].ends_with(b"\r\n\r\n") {
            length = 0;
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

fn exchange(client: &mut TcpStream, buffer: &mut [u8]) {
    client.write_all(REQUEST).unwrap();
    let mut length = 0;
    while !buffer[..length].ends_with(b"\r\n\r\nok") {
        let read = client.read(&mut buffer[length..]).unwrap();
        assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&buffer[..length]));
        length += read;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..length]));
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < deadline, "the edge does not listen: {error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}
