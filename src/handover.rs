//! A new binary at noon: the running process starts its successor, hands it the listening sockets, and drains once the
//! successor serves. There is no moment in which nobody listens; a successor that fails changes nothing.
//!
//! The two talk over a socket pair that is the successor's standard input: the predecessor sends the addresses with their
//! sockets (`SCM_RIGHTS`), the successor answers one line when it is ready.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use socket2::Socket;

/// Tells a process that its standard input is its predecessor.
const VARIABLE: &str = "REQUESTROCKET_EDGE_HANDOVER";
/// The kernel passes at most 253 descriptors at once (`SCM_MAX_FD`).
const MOST_SOCKETS: usize = 253;
/// An address and a line break take at most 60 bytes.
const LONGEST_LIST: usize = MOST_SOCKETS * 60;
const READY: &[u8] = b"ready\n";
/// A successor that needs longer to load its configuration is taken for hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a predecessor handed over.
pub struct Inherited {
    sockets: HashMap<SocketAddr, Socket>,
    predecessor: UnixStream,
}

impl Inherited {
    /// Takes over from the predecessor, where there is one.
    ///
    /// # Errors
    /// When there is one, but nothing can be understood of it.
    pub fn receive() -> io::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let predecessor = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut list = vec![0; LONGEST_LIST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&predecessor, &mut [IoSliceMut::new(&mut list)], &mut ancillary, flags)?;
        let passed: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(passed) => Some(passed),
                _ => None,
            })
            .flatten()
            .collect();
        let list = std::str::from_utf8(&list[..received.bytes]).map_err(io::Error::other)?;
        let addresses =
            list.lines().map(str::parse).collect::<Result<Vec<SocketAddr>, _>>().map_err(io::Error::other)?;
        if addresses.len() != passed.len() {
            return Err(io::Error::other("the predecessor announced other sockets than it sent"));
        }
        let sockets = addresses.into_iter().zip(passed.into_iter().map(Socket::from)).collect();
        Ok(Some(Self { sockets, predecessor }))
    }

    /// The socket that listens on `address`, if it was handed over.
    pub fn take(&mut self, address: &SocketAddr) -> Option<Socket> {
        self.sockets.remove(address)
    }

    /// Tells the predecessor that it may go. Sockets that were not taken are closed.
    pub fn ready(mut self) {
        if let Err(error) = self.predecessor.write_all(READY) {
            log::warn!("the predecessor is gone before it was told to go: {error}");
        }
    }
}

/// A successor that is yet to be started.
pub struct Handover {
    ours: UnixStream,
    theirs: UnixStream,
}

/// Gives a [`Handover`] up while it is under way on another thread.
pub struct GiveUp(UnixStream);

impl GiveUp {
    /// Ends the successor, unless it serves already.
    pub fn give_up(&self) {
        let _ = self.0.shutdown(Shutdown::Both); // a successor that is gone has been given up by itself
    }
}

impl Handover {
    /// What the two processes will talk over.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn new() -> io::Result<(Self, GiveUp)> {
        let (ours, theirs) = UnixStream::pair()?;
        let give_up = GiveUp(ours.try_clone()?);
        Ok((Self { ours, theirs }, give_up))
    }

    /// Starts a successor with `sockets`, and waits until it serves. Returns its process id.
    ///
    /// # Errors
    /// When it cannot be started, or ends, or does not become ready; it is gone then, and this process serves on.
    pub fn run(self, sockets: &[(SocketAddr, Socket)]) -> io::Result<u32> {
        let Self { mut ours, theirs } = self;
        let program = program();
        let mut successor = Command::new(&program)
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, "1")
            // Names this process: the successor would take itself for unwatched.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", program.display())))?;
        match send(&ours, sockets).and_then(|()| await_ready(&mut ours)) {
            Ok(()) => Ok(successor.id()),
            Err(error) => Err(io::Error::other(format!("{error}{}", buried(&mut successor)))),
        }
    }
}

fn send(successor: &UnixStream, sockets: &[(SocketAddr, Socket)]) -> io::Result<()> {
    if sockets.len() > MOST_SOCKETS {
        return Err(io::Error::other(format!("more than {MOST_SOCKETS} listeners cannot be handed over")));
    }
    let list: String = sockets.iter().map(|(address, _)| format!("{address}\n")).collect();
    let passed: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&passed)) {
        return Err(io::Error::other("no room for the sockets"));
    }
    sendmsg(successor, &[IoSlice::new(list.as_bytes())], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn await_ready(successor: &mut UnixStream) -> io::Result<()> {
    successor.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    while answer != READY {
        let mut byte = [0];
        match successor.read(&mut byte) {
            Ok(0) => return Err(io::Error::other("the successor ended before it served")),
            Ok(_) => answer.extend(byte),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(io::Error::other(format!("the successor did not serve within {} s", PATIENCE.as_secs())));
            }
            Err(error) => return Err(error),
        }
        if answer.len() > READY.len() {
            return Err(io::Error::other("the successor said something else than that it serves"));
        }
    }
    Ok(())
}

/// Ends a successor that failed, and tells how it ended.
fn buried(successor: &mut Child) -> String {
    let ended = |status: ExitStatus| format!(" ({status})");
    // One that has ended by itself tells its own exit code.
    for _ in 0..20 {
        if let Ok(Some(status)) = successor.try_wait() {
            return ended(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = successor.kill(); // it may have ended in this moment
    successor.wait().map(ended).unwrap_or_default()
}

/// The file to start: the one this process was started from, as it is now. After an upgrade the kernel knows the running
/// one as deleted.
fn program() -> PathBuf {
    let named = std::env::args_os().next().map(PathBuf::from).filter(|named| named.components().count() > 1);
    named.or_else(|| std::env::current_exe().ok().map(undeleted)).unwrap_or_else(|| PathBuf::from("requestrocket-edge"))
}

fn undeleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(before) => PathBuf::from(OsString::from(before)),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_binary_is_found_under_its_name() {
        for (path, found) in [("/usr/bin/edge (deleted)", "/usr/bin/edge"), ("/usr/bin/edge", "/usr/bin/edge")] {
            assert_eq!(undeleted(path.into()), PathBuf::from(found));
        }
    }
}
