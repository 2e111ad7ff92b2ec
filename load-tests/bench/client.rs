//! Two loads that common generators do not make.
//!
//! `rate`: requests at times that were fixed before, over kept connections. Latency runs from when a request was *meant* to be
//! sent: one that waits behind a slow answer counts as slow (no coordinated omission). HTTP/1.1 without TLS.
//!
//! `new`: one TLS connection after another, each for one request. Every handshake is a full one: no session is resumed.
//!
//! Requests are read from standard input, as they are sent, with a NUL between them; they are sent in turn. One line of JSON says
//! what came of it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program to be run by hand")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// Threads that mostly sleep.
const STACK: usize = 128 * 1024;
const ANSWER: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut given = Vec::new();
    io::stdin().read_to_end(&mut given)?;
    let requests: Arc<[Vec<u8>]> = given.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["rate", address, connections, rate, seconds] => rate_mode(
            parsed(address)?,
            parsed(connections)?,
            parsed(rate)?,
            Duration::from_secs_f64(parsed(seconds)?),
            &requests,
        ),
        ["new", address, clients, seconds, name, ca] => {
            let seconds = Duration::from_secs_f64(parsed(seconds)?);
            new_mode(parsed(address)?, parsed(clients)?, seconds, name, ca, &requests)
        }
        _ => Err(io::Error::other(
            "usage: client rate ADDRESS CONNECTIONS RATE SECONDS | new ADDRESS CLIENTS SECONDS NAME CA",
        )),
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("`{text}` is no value here")))
}

/// What one connection saw, in nanoseconds.
#[derive(Default)]
struct Seen {
    latencies: Vec<u64>,
    /// How late requests were sent although their connection was free: the generator's own fault.
    late: Vec<u64>,
    failed: u64,
}

fn rate_mode(
    address: SocketAddr,
    connections: u32,
    rate: f64,
    length: Duration,
    requests: &Arc<[Vec<u8>]>,
) -> io::Result<()> {
    let interval = Duration::from_secs_f64(f64::from(connections) / rate);
    // Everybody is connected before the first request is due.
    let start = Instant::now() + Duration::from_millis(500);
    // The same phases in each run, spread over the interval, yet not evenly: arrivals meet as they do in life.
    let phases = fastrand::Rng::with_seed(7);
    let threads: Vec<_> = (0..connections)
        .scan(phases, |phases, number| Some((number, interval.mul_f64(phases.f64()))))
        .map(|(number, phase)| {
            let requests = Arc::clone(requests);
            let connection =
                move || paced(address, start + phase, interval, length, in_turn(&requests, number, connections));
            std::thread::Builder::new().stack_size(STACK).spawn(connection)
        })
        .collect::<io::Result<_>>()?;
    let mut all = Seen::default();
    for thread in threads {
        let seen = thread.join().map_err(|_| io::Error::other("a connection's thread panicked"))??;
        all.latencies.extend(seen.latencies);
        all.late.extend(seen.late);
        all.failed += seen.failed;
    }
    all.latencies.sort_unstable();
    all.late.sort_unstable();
    println!(
        r#"{{"requests":{},"failed":{},"p50_us":{:.1},"p90_us":{:.1},"p99_us":{:.1},"p999_us":{:.1},"max_us":{:.1},"late_p50_us":{:.1},"late_p99_us":{:.1}}}"#,
        all.latencies.len(),
        all.failed,
        quantile(&all.latencies, 0.5),
        quantile(&all.latencies, 0.9),
        quantile(&all.latencies, 0.99),
        quantile(&all.latencies, 0.999),
        quantile(&all.latencies, 1.0),
        quantile(&all.late, 0.5),
        quantile(&all.late, 0.99),
    );
    Ok(())
}

/// All requests again and again, from a place that is the connection's own.
fn in_turn(requests: &[Vec<u8>], number: u32, of: u32) -> impl Iterator<Item = &Vec<u8>> {
    let first = requests.len() * number as usize / of as usize;
    requests.iter().cycle().skip(first)
}

/// One connection's requests, from `start` on, one every `interval`.
fn paced<'a>(
    address: SocketAddr,
    start: Instant,
    interval: Duration,
    length: Duration,
    mut requests: impl Iterator<Item = &'a Vec<u8>>,
) -> io::Result<Seen> {
    // Sleeps end within microseconds of their time, not within the usual 50.
    let _ = std::fs::write("/proc/thread-self/timerslack_ns", "1000");
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut seen = Seen::default();
    let mut due = start;
    let end = start + length;
    let mut buffer = vec![0; 16 * 1024];
    let mut free = Instant::now();
    while due < end {
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        if free <= due {
            seen.late.push(nanoseconds(due.elapsed()));
        }
        stream.write_all(requests.next().ok_or(ErrorKind::InvalidInput)?)?;
        if read_answer(&mut stream, &mut buffer)? == 200 {
            seen.latencies.push(nanoseconds(due.elapsed()));
        } else {
            seen.failed += 1;
        }
        free = Instant::now();
        due += interval;
    }
    Ok(seen)
}

/// Reads one answer of known length, and tells its status.
fn read_answer(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<u16> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some((status, length)) = answer_length(&buffer[..filled])? {
            if filled > length {
                return Err(io::Error::other("more than one answer"));
            }
            if filled == length {
                return Ok(status);
            }
        }
        if filled == buffer.len() {
            return Err(io::Error::other("an answer larger than 16 KiB"));
        }
    }
}

/// Status and whole length of an answer; `None`: its head is not complete.
fn answer_length(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let nonsense = || io::Error::other("an answer without status or length");
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| nonsense())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(nonsense)?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or_else(nonsense)?;
    Ok(Some((status, end + 4 + length)))
}

fn quantile(sorted: &[u64], part: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let rank = ((sorted.len().saturating_sub(1)) as f64 * part).round() as usize;
    sorted.get(rank).map_or(0.0, |&value| Duration::from_nanos(value).as_secs_f64() * 1e6)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn new_mode(
    address: SocketAddr,
    clients: u32,
    length: Duration,
    name: &str,
    ca: &str,
    requests: &Arc<[Vec<u8>]>,
) -> io::Result<()> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (of, started) = (clients, Instant::now());
    let (answered, failed) = runtime.block_on(async {
        let clients: Vec<_> = (0..clients)
            .map(|number| {
                let (connector, name, requests) = (connector.clone(), name.clone(), Arc::clone(requests));
                tokio::spawn(async move {
                    let mut requests = in_turn(&requests, number, of);
                    let (mut answered, mut failed) = (0_u64, 0_u64);
                    let mut buffer = vec![0; 16 * 1024];
                    while started.elapsed() < length
                        && let Some(request) = requests.next()
                    {
                        match once(&connector, address, name.clone(), request, &mut buffer).await {
                            Ok(200) => answered += 1,
                            Ok(_) | Err(_) => failed += 1,
                        }
                    }
                    (answered, failed)
                })
            })
            .collect();
        let mut sums = (0, 0);
        for client in clients {
            let (answered, failed) = client.await.unwrap_or((0, 1));
            sums = (sums.0 + answered, sums.1 + failed);
        }
        sums
    });
    println!(r#"{{"requests":{answered},"failed":{failed},"seconds":{:.3}}}"#, started.elapsed().as_secs_f64());
    Ok(())
}

/// One connection, one request; the server is left to close it, or not.
async fn once(
    connector: &TlsConnector,
    address: SocketAddr,
    name: ServerName<'static>,
    request: &[u8],
    buffer: &mut [u8],
) -> io::Result<u16> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // Closing with a reset leaves no port in TIME_WAIT: there are 28,000, and thousands of connections a second.
    stream.set_zero_linger()?;
    let mut stream = connector.connect(name, stream).await?;
    stream.write_all(request).await?;
    let mut filled = 0;
    loop {
        let read = tokio::time::timeout(ANSWER, stream.read(&mut buffer[filled..])).await??;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some((status, length)) = answer_length(&buffer[..filled])?
            && filled >= length
        {
            return Ok(status);
        }
        if filled == buffer.len() {
            return Err(io::Error::other("an answer larger than 16 KiB"));
        }
    }
}
