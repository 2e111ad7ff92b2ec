//! Listening sockets, bound before anything else starts: a port that is taken is a clear error and not a worker that dies.

use std::io;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::{DEFAULT_L4_WRITE_BUFFER_SIZE, L4BufferSettings, ListenerConfig};
use pingora_core::server::{Fds, ListenFds, ShutdownWatch};
use pingora_core::services::{Service, listening};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Connections that wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// What the kernel takes of an answer beyond what is on its way to the client. Without a bound it takes 4 MiB, and a few hundred
/// clients that read nothing use up the memory that it has for the connections of all (`net.ipv4.tcp_mem`).
const UNSENT: u32 = 256 * 1024;
/// What is read ahead where reads are small: of TLS, which rustls reads by 4 KiB, and of the PROXY protocol, read byte by
/// byte. HTTP reads into buffers of its own, and to read ahead of those only keeps memory while a client is idle (Pingora's
/// default: 64 KiB for each).
const READ_AHEAD: usize = 8 * 1024;

/// Binds `address` and listens.
///
/// # Errors
/// As the system words them: the port is taken, the address is not ours, the port is privileged.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of its predecessor to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two listeners, as written.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    // For every connection that is accepted from it.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    // Pingora hands it to tokio as it is.
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Lets nobody else begin to connect; who has begun still gets into the queue. For the moments before the socket is closed,
/// which resets what is in its queue, with requests that may have been sent already. Who tries meanwhile gets no answer,
/// tries again after a second, and is refused. There is no way back, and whoever shares the socket shares that.
pub fn close_queue(socket: &Socket) {
    // Classic BPF (linux/bpf_common.h) on the TCP header.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    let drop_syn = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = socket.attach_filter(&drop_syn) {
        log::debug!("whoever connects in this moment is reset: {error}");
    }
}

/// A Pingora service on sockets that are bound already.
pub struct Bound<A> {
    service: listening::Service<A>,
    sockets: ListenFds,
    pulse: Option<Arc<AtomicU64>>,
}

impl<A> Bound<A> {
    /// Serves `app` on `sockets`, each named by the address it was asked for. `reads_little` tells on which of them bytes
    /// are wanted in small pieces.
    pub fn new(
        name: &str,
        app: A,
        sockets: Vec<(SocketAddr, Socket)>,
        reads_little: impl Fn(SocketAddr) -> bool,
    ) -> Self {
        let mut service = listening::Service::new(name.to_owned(), app);
        let mut fds = Fds::new();
        for (address, socket) in sockets {
            let key = address.to_string();
            let read_ahead = if reads_little(address) { READ_AHEAD } else { 0 };
            let buffers = L4BufferSettings::new(read_ahead, DEFAULT_L4_WRITE_BUFFER_SIZE);
            service.add_listener(ListenerConfig::tcp(key.as_str()).l4_buffer(buffers));
            // Pingora takes it over by this key, and closes it.
            fds.add(key, socket.into_raw_fd());
        }
        Self { service, sockets: Arc::new(Mutex::new(fds)), pulse: None }
    }

    /// Counts `pulse` up once a second, on the service's own threads: as long as they are not stuck.
    #[must_use]
    pub fn with_pulse(mut self, pulse: Arc<AtomicU64>) -> Self {
        self.pulse = Some(pulse);
        self
    }

    /// Runs the service on `threads` threads of its own.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.service.threads = Some(threads);
        self
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Bound<A> {
    async fn start_service(&mut self, _fds: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        if let Some(pulse) = self.pulse.take() {
            tokio::spawn(async move {
                let mut second = tokio::time::interval(Duration::from_secs(1));
                loop {
                    second.tick().await;
                    pulse.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let sockets = Arc::clone(&self.sockets);
        self.service.start_service(Some(sockets), shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }
}
