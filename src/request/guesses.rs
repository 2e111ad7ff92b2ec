//! Bad credentials by address: who fails too often is slowed down, whoever it is and however many addresses try.
//!
//! Addresses are strangers without number, so they are counted in a sketch of fixed size (`pingora-limits`), which may take
//! two of them for one, but never forgets one. `Rate` of the same crate is not used: it panics in debug builds, and resets
//! twice in release builds, when two threads meet at the end of its window.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora_limits::estimator::Estimator;

/// Failures are counted within one of these, and forgotten with its end.
const WINDOW: Duration = Duration::from_secs(60);
/// 4 rows of 16,384 counters, twice: 1 MiB. Two addresses share a counter in all rows once in 7 * 10^16.
const ROWS: usize = 4;
const COUNTERS: usize = 16 * 1024;

/// Counts failures by address.
pub struct Guesses {
    /// This window's and the last one's, by turns.
    windows: [Estimator; 2],
    /// The number of the window that counts now.
    current: AtomicU64,
}

impl Default for Guesses {
    fn default() -> Self {
        Self { windows: [Estimator::new(ROWS, COUNTERS), Estimator::new(ROWS, COUNTERS)], current: AtomicU64::new(0) }
    }
}

impl Guesses {
    /// Counts a failure of `address` at `now`, a monotonic time. Whether it is the one that reaches `limit`.
    pub fn count(&self, address: IpAddr, limit: u32, now: Duration) -> bool {
        self.window(now).incr(key(address), 1) == isize::try_from(limit).unwrap_or(isize::MAX)
    }

    /// Whether `address` has failed `limit` times or more lately.
    pub fn is_slowed(&self, address: IpAddr, limit: u32, now: Duration) -> bool {
        let key = key(address);
        let failures = self.window(now).get(key);
        failures >= isize::try_from(limit).unwrap_or(isize::MAX)
    }

    /// After how many seconds the window ends, and with it the slowness.
    pub fn retry_after(now: Duration) -> u64 {
        WINDOW.as_secs() - now.as_secs() % WINDOW.as_secs()
    }

    /// The window of `now`; whoever comes first in a new one clears it.
    fn window(&self, now: Duration) -> &Estimator {
        let number = now.as_secs() / WINDOW.as_secs();
        let window = &self.windows[usize::from(number % 2 == 1)];
        if self.current.fetch_max(number, Ordering::AcqRel) < number {
            window.reset();
        }
        window
    }
}

/// What counts as one client: an address, or a network of IPv6.
///
/// A household or a machine gets a /64 in IPv6, and may use any address of it.
pub fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).expect("64 bits are left"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn who_fails_often_is_slowed_until_the_window_ends() {
        let guesses = Guesses::default();
        let (bad, good) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..9 {
            assert!(!guesses.count(bad, 10, at(70)));
        }
        assert!(!guesses.is_slowed(bad, 10, at(70)));
        assert!(guesses.count(bad, 10, at(71)), "the tenth is worth a word");
        assert!(guesses.is_slowed(bad, 10, at(119)) && !guesses.is_slowed(good, 10, at(119)));
        assert_eq!(Guesses::retry_after(at(119)), 1);
        assert!(!guesses.is_slowed(bad, 10, at(120)));
        assert!(!guesses.is_slowed(bad, 10, at(185)), "an old window is cleared before it is used again");
    }

    #[test]
    fn a_network_of_ipv6_is_one() {
        let guesses = Guesses::default();
        guesses.count(address("2001:db8::1"), 10, at(1));
        assert!(guesses.is_slowed(address("2001:db8::ffff:2"), 1, at(1)));
        assert!(!guesses.is_slowed(address("2001:db8:0:1::1"), 1, at(1)));
    }
}
