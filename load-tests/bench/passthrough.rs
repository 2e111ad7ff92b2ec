//! Pingora and nothing else: what the edge would cost if it had no job. Same lockfile, profile, allocator, threads and work
//! stealing; no module, no access log, no metric.
//!
//! In: the addresses to listen on (plain, TLS), those of the targets (plain, TLS), and the number of threads.

#![expect(clippy::print_stderr, reason = "a program to be run by hand")]

use std::net::SocketAddr;
use std::process::ExitCode;

use async_trait::async_trait;
use pingora::modules::http::HttpModules;
use pingora_core::Result;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Paths that begin with this go to the target with TLS.
const TO_TLS: &str = "/api/s";

struct Passthrough {
    plain: SocketAddr,
    tls: SocketAddr,
    server_name: String,
}

#[async_trait]
impl ProxyHttp for Passthrough {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, session: &mut Session, _exchange: &mut ()) -> Result<Box<HttpPeer>> {
        let tls = session.req_header().uri.path().starts_with(TO_TLS);
        let (address, name) = if tls { (self.tls, self.server_name.clone()) } else { (self.plain, String::new()) };
        #[expect(clippy::disallowed_methods, reason = "a socket address needs no resolution, which is what panics")]
        Ok(Box::new(HttpPeer::new(address, tls, name)))
    }
}

struct Arguments {
    listen: String,
    listen_tls: String,
    certificate: String,
    key: String,
    proxy: Passthrough,
    threads: usize,
}

fn arguments() -> Option<Arguments> {
    let mut given = std::env::args().skip(1);
    let mut next = || given.next();
    Some(Arguments {
        listen: next()?,
        listen_tls: next()?,
        certificate: next()?,
        key: next()?,
        proxy: Passthrough { plain: next()?.parse().ok()?, tls: next()?.parse().ok()?, server_name: next()? },
        threads: next()?.parse().ok()?,
    })
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: passthrough LISTEN LISTEN_TLS CERTIFICATE KEY TARGET TLS_TARGET SERVER_NAME THREADS");
        return ExitCode::from(64);
    };
    // As the edge has it.
    let work_stealing = arguments.threads > 1;
    let mut conf = ServerConf { threads: arguments.threads, work_stealing, ..ServerConf::default() };
    // As many as the edge keeps.
    conf.upstream_keepalive_pool_size = 4096_usize.div_ceil(conf.threads);
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, arguments.proxy);
    service.add_tcp(&arguments.listen);
    match TlsSettings::intermediate(&arguments.certificate, &arguments.key) {
        Ok(mut tls) => {
            tls.enable_h2();
            service.add_tls_with_settings(&arguments.listen_tls, None, tls);
        }
        Err(error) => {
            eprintln!("passthrough: {error}");
            return ExitCode::FAILURE;
        }
    }
    server.add_service(service);
    server.run(RunArgs::default());
    ExitCode::SUCCESS
}
