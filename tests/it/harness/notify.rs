//! A service manager that is notified: the datagram socket of `sd_notify(3)`.

use std::path::Path;

use tempfile::TempDir;
use tokio::net::UnixDatagram;

use super::{PATIENCE, within};

/// The socket, with what has come so far.
pub struct ServiceManager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl ServiceManager {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(Self::path_in(folder.path())).expect("the folder is ours");
        Self { socket, folder }
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> String {
        Self::path_in(self.folder.path())
    }

    fn path_in(folder: &Path) -> String {
        folder.join("notify").to_str().expect("UTF-8").to_owned()
    }

    /// The next message: its assignments in their order.
    pub async fn message(&self) -> Vec<(String, String)> {
        let mut buffer = vec![0; 4096];
        let size = within(PATIENCE, "a notification", self.socket.recv(&mut buffer)).await.expect("a bound socket");
        let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The next message that assigns `name`; what comes before it is passed over.
    pub async fn until(&self, name: &str) -> Vec<(String, String)> {
        loop {
            let message = self.message().await;
            if value(&message, name).is_some() {
                return message;
            }
        }
    }
}

/// What a message assigns to `name`.
pub fn value<'a>(message: &'a [(String, String)], name: &str) -> Option<&'a str> {
    message.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}
