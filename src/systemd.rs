//! What the service manager is told (`sd_notify(3)`). Without one, every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The daemon serves. `note` is shown by `systemctl status`.
pub fn ready(note: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(note)]);
}

/// A reload has begun; [`ready`] ends it. With the time, without which systemd 253 and later do not believe it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The daemon is leaving.
pub fn stopping(note: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(note)]);
}

/// What the daemon does now.
pub fn status(note: &str) {
    tell(&[NotifyState::Status(note)]);
}

/// From here on, process `pid` is the service. With `note` on its behalf: it spoke before it was listened to.
pub fn succeeded_by(pid: u32, note: &str) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Status(note)]);
}

/// The daemon is well.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is expected; `None`: not at all.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("the service manager was not told: {error}");
    }
}
