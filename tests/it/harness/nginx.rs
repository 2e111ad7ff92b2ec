//! An ordinary web server as a target, with a parser of its own.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::edge::Target;
use super::eventually;
use super::port::Port;

/// A running nginx.
pub struct Nginx {
    child: Child,
    port: Port,
    _folder: TempDir,
}

const CONFIG: &str = r#"
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events { worker_connections 256; }
http {
    access_log off;
    default_type text/plain;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    gzip on;
    gzip_proxied any;
    gzip_min_length 1;
    gzip_types text/plain;
    client_max_body_size 20m;
    server {
        listen LISTEN;
        location / { return 200 "$request_method $request_uri\n$http_host\n$http_authorization\n"; }
        location /moved { return 302 /elsewhere; }
        location /empty { return 204; }
        location /files/ { root .; dav_methods PUT DELETE; create_full_put_path on; }
    }
}
"#;

impl Nginx {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = Port::claim();
        let config = CONFIG.replace("LISTEN", &port.address().to_string());
        std::fs::create_dir(folder.path().join("files")).expect("the folder is ours");
        std::fs::write(folder.path().join("files/page.txt"), "hello ".repeat(1000)).expect("the folder is ours");
        // nginx serves files as a user of its own when it is started by root.
        let user = format!("user root;\n{config}");
        std::fs::write(folder.path().join("nginx.conf"), user).expect("the folder is ours");
        let child = Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .args(["-e", "error.log", "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed (Debian: nginx-light)");
        let nginx = Self { child, port, _folder: folder };
        eventually("nginx listens", async || TcpStream::connect(nginx.address()).await.is_ok()).await;
        nginx
    }

    fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

impl Target for &Nginx {
    fn base_url(&self) -> String {
        format!("http://{}", self.address())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
