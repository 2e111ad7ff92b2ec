//! In: a credential's limit and the time. Out: a permit, or how long to wait for one.
//!
//! Exact, not approximate: in no half-open interval of 60 seconds is more than `per_minute` admitted, however many threads ask at
//! once, and whoever keeps to the limit is never refused. That takes the times of the last `per_minute` admissions, eight bytes
//! each, kept only for those who use them; a counter per window would admit twice the limit around its edge, a token bucket would
//! admit a burst on top of its rate. What is refused uses up nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::config::model::RateLimit;

const MINUTE: u64 = 60 * 1_000_000_000; // nanoseconds
const DAY: u64 = 24 * 60 * 60; // seconds

/// Both times that limits need: one that never runs backwards for the minute, the calendar's for the day.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Nanoseconds since some fixed moment. Good for 584 years.
    monotonic: u64,
    /// Seconds and nanoseconds of Unix time.
    wall: Duration,
}

impl Clock {
    /// Reads both clocks.
    pub fn now() -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self::at(START.elapsed(), SystemTime::now())
    }

    /// Time since some fixed moment; never runs backwards.
    pub fn monotonic(self) -> Duration {
        Duration::from_nanos(self.monotonic)
    }

    /// A given time: `monotonic` since any fixed moment. A wall clock before 1970 counts as 1970.
    pub fn at(monotonic: Duration, wall: SystemTime) -> Self {
        Self {
            monotonic: u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX - MINUTE),
            wall: wall.duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }
}

/// Proof that a request was admitted and counted.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    approaching: bool,
}

impl Permit {
    /// Whether this admission reached 80 % of a limit: worth a warning.
    pub fn is_approaching_limit(&self) -> bool {
        self.approaching
    }
}

/// Which of the limits of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Any 60 seconds.
    Minute,
    /// A day of UTC.
    Day,
}

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The wait after which it will be, unless others of the same credential come first. More than zero.
    pub retry_after: Duration,
    /// The limit that takes this long: the longer wait where both are used up.
    pub window: Window,
    /// The number of requests that this limit allows.
    pub limit: u64,
}

impl Refused {
    /// For `Retry-After`: whole seconds, never too few (RFC 9110 10.2.3).
    pub fn retry_after_seconds(&self) -> u64 {
        seconds_rounded_up(self.retry_after)
    }
}

/// What a credential has used up. One for each credential, shared by its proxies, by all threads and by all generations.
#[derive(Default)]
pub struct Limiter(Mutex<Usage>);

#[derive(Default)]
struct Usage {
    /// The latest time seen. A thread that read its clock earlier but came later counts as coming now, so that `admissions` stays
    /// in order.
    now: u64,
    /// The times of the newest admissions, oldest first: at least all of the last minute.
    admissions: VecDeque<u64>,
    /// Days since 1970 of `admitted_today`.
    day: u64,
    admitted_today: u64,
}

impl Limiter {
    /// Takes one request from both limits, or from neither.
    ///
    /// # Errors
    /// [`Refused`], with the exact wait.
    pub fn acquire(&self, limit: &RateLimit, now: Clock) -> Result<Permit, Refused> {
        let mut usage = self.0.lock();
        usage.advance(now);
        let waits = [usage.minute_refusal(limit), usage.day_refusal(limit, now)];
        if let Some(refused) = waits.into_iter().flatten().max_by_key(|refused| refused.retry_after) {
            return Err(refused);
        }
        usage.admit(per_minute(limit));
        Ok(Permit { approaching: usage.is_approaching(limit) })
    }

    /// What is left, for the headers of an answer. Takes nothing.
    pub fn budget(&self, limit: &RateLimit, now: Clock) -> Budget {
        let mut usage = self.0.lock();
        usage.advance(now);
        Budget { minute: usage.minute_remaining(limit), day: usage.day_remaining(limit, now) }
    }

    /// Gives back the memory of admissions that no longer count; says whether anything is left that does.
    fn release(&self, now: Clock) -> bool {
        let mut usage = self.0.lock();
        usage.advance(now);
        let is_idle = usage.admissions.back().is_none_or(|&newest| !usage.is_recent(newest));
        if is_idle {
            usage.admissions = VecDeque::new();
        }
        !is_idle || usage.admitted_today > 0
    }
}

impl Usage {
    fn advance(&mut self, clock: Clock) {
        self.now = self.now.max(clock.monotonic);
        let day = clock.wall.as_secs() / DAY;
        if day > self.day {
            self.day = day;
            self.admitted_today = 0;
        } else if self.day - day > 1 {
            // The clock was far ahead and has been set right. Stay with the count but not with the day, or it would not start
            // anew until that day comes. One day back is a clock that is adjusted around midnight: that grants no second day.
            self.day = day;
        }
    }

    fn is_recent(&self, admission: u64) -> bool {
        self.now - admission < MINUTE
    }

    /// The admission that must be out of the last minute before another one fits: the `count`th newest.
    fn newest(&self, count: usize) -> Option<u64> {
        self.admissions.len().checked_sub(count).and_then(|at| self.admissions.get(at)).copied()
    }

    fn minute_refusal(&self, limit: &RateLimit) -> Option<Refused> {
        let blocking = self.newest(per_minute(limit)).filter(|&admission| self.is_recent(admission))?;
        let retry_after = Duration::from_nanos(blocking + MINUTE - self.now);
        Some(Refused { retry_after, window: Window::Minute, limit: limit.per_minute.into() })
    }

    fn day_refusal(&self, limit: &RateLimit, clock: Clock) -> Option<Refused> {
        let limit = limit.per_day.filter(|&limit| self.admitted_today >= limit)?;
        Some(Refused { retry_after: self.until_midnight(clock), window: Window::Day, limit })
    }

    /// Two old ones out for one in: a log that a lowered limit left too long shrinks, and no call pays for all of it.
    fn admit(&mut self, per_minute: usize) {
        for _ in 0..2 {
            if self.admissions.front().is_some_and(|&oldest| !self.is_recent(oldest)) {
                self.admissions.pop_front();
            }
        }
        let length = self.admissions.len();
        if length == self.admissions.capacity() {
            // Doubling, but never beyond the limit.
            let room = per_minute.saturating_sub(length).max(1);
            self.admissions.reserve_exact(length.max(4).min(room));
        } else if self.admissions.capacity() / 2 > per_minute.max(length) {
            self.admissions.shrink_to(per_minute);
        }
        self.admissions.push_back(self.now);
        self.admitted_today += 1;
    }

    fn is_approaching(&self, limit: &RateLimit) -> bool {
        let per_minute = per_minute(limit);
        let threshold = per_minute - per_minute / 5; // 80 %, rounded up
        self.newest(threshold).is_some_and(|admission| self.is_recent(admission))
            || limit.per_day.is_some_and(|per_day| self.admitted_today >= per_day - per_day / 5)
    }

    fn minute_remaining(&self, limit: &RateLimit) -> Remaining {
        let first_recent = self.admissions.partition_point(|&admission| !self.is_recent(admission));
        let used = self.admissions.len() - first_recent;
        let per_minute = per_minute(limit);
        // Whose leaving makes room for one more: the oldest, or a later one where a lowered limit is exceeded.
        let next = self.newest(used.min(per_minute)).map(|admission| admission + MINUTE - self.now);
        Remaining {
            requests: (per_minute.saturating_sub(used)) as u64,
            reset: Duration::from_nanos(next.filter(|_| used > 0).unwrap_or_default()),
        }
    }

    fn day_remaining(&self, limit: &RateLimit, clock: Clock) -> Option<Remaining> {
        let requests = limit.per_day?.saturating_sub(self.admitted_today);
        Some(Remaining { requests, reset: self.until_midnight(clock) })
    }

    fn until_midnight(&self, clock: Clock) -> Duration {
        Duration::from_secs((self.day + 1) * DAY).saturating_sub(clock.wall)
    }
}

/// What is left of a credential's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub minute: Remaining,
    /// `None`: no daily limit.
    pub day: Option<Remaining>,
}

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    pub requests: u64,
    /// Until there is more. Zero: there cannot be.
    pub reset: Duration,
}

/// Writes the value of `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11): `t` is the time until *additional* quota is
/// available, which in a sliding window is before all of it is.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = |remaining: &Remaining| (integer(remaining.requests), seconds_rounded_up(remaining.reset));
        let (requests, reset) = item(&self.minute);
        write!(f, "\"default\";r={requests};t={reset}")?;
        if let Some(day) = &self.day {
            let (requests, reset) = item(day);
            write!(f, ", \"daily\";r={requests};t={reset}")?;
        }
        Ok(())
    }
}

/// The value of `RateLimit-Policy`: the same for every answer to a credential.
pub fn policy_header(limit: &RateLimit) -> String {
    let minute = format!("\"default\";q={};w=60", limit.per_minute);
    match limit.per_day {
        Some(per_day) => format!("{minute}, \"daily\";q={};w={DAY}", integer(per_day)),
        None => minute,
    }
}

/// The limiters of all credentials, by id. Outlives every generation of the configuration: a reload grants nobody a fresh limit.
#[derive(Default)]
pub struct Limiters(Mutex<HashMap<Box<str>, Arc<Limiter>, ahash::RandomState>>);

impl Limiters {
    /// The limiter of a credential, with all that the credential has used up so far. For building a generation, not for requests.
    pub fn limiter(&self, id: &str) -> Arc<Limiter> {
        let mut limiters = self.0.lock();
        if let Some(limiter) = limiters.get(id) {
            return Arc::clone(limiter);
        }
        Arc::clone(limiters.entry(id.into()).or_default())
    }

    /// Frees what no longer counts: the admission log of whoever was silent for a minute, and the limiters that no generation
    /// holds any more, once nothing that they remember could still refuse anything. To be called after a reload and now and then.
    pub fn retain_used(&self, now: Clock) {
        self.0.lock().retain(|_, limiter| {
            let counts = limiter.release(now);
            // The only other way to a new reference is `limiter`, which waits for the lock that we hold.
            counts || Arc::strong_count(limiter) > 1
        });
    }
}

fn per_minute(limit: &RateLimit) -> usize {
    usize::try_from(limit.per_minute).unwrap_or(usize::MAX).max(1)
}

fn seconds_rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// An Integer of a structured field has at most fifteen digits (RFC 9651 3.3.1).
fn integer(value: u64) -> u64 {
    value.min(999_999_999_999_999)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// 2027-01-15T08:00:00Z, sixteen hours before midnight.
    const START: u64 = 1_800_000_000;

    fn after(nanos: u64) -> Clock {
        let elapsed = Duration::from_nanos(nanos);
        Clock::at(elapsed, UNIX_EPOCH + Duration::from_secs(START) + elapsed)
    }

    fn per_minute_only(per_minute: u32) -> RateLimit {
        RateLimit { per_minute, per_day: None }
    }

    fn is_admitted(limiter: &Limiter, limit: &RateLimit, nanos: u64) -> bool {
        limiter.acquire(limit, after(nanos)).is_ok()
    }

    #[test]
    fn an_interval_is_half_open() {
        let limiter = Limiter::default();
        let limit = per_minute_only(2);
        assert!(is_admitted(&limiter, &limit, 0));
        assert!(is_admitted(&limiter, &limit, 10 * SECOND));
        let refused = limiter.acquire(&limit, after(MINUTE - 1)).unwrap_err();
        assert_eq!(refused, Refused { retry_after: Duration::from_nanos(1), window: Window::Minute, limit: 2 });
        assert_eq!(refused.retry_after_seconds(), 1);
        assert!(is_admitted(&limiter, &limit, MINUTE));
        assert_eq!(
            limiter.acquire(&limit, after(MINUTE)).unwrap_err().retry_after,
            Duration::from_secs(10),
            "the second of the first interval"
        );
    }

    #[test]
    fn who_keeps_to_the_limit_is_never_refused() {
        let limiter = Limiter::default();
        let limit = per_minute_only(7);
        for n in 0..1_000 {
            assert!(is_admitted(&limiter, &limit, n * MINUTE.div_ceil(7)), "{n}");
        }
        let limiter = Limiter::default();
        for burst in 0..100 {
            for n in 0..7 {
                assert!(is_admitted(&limiter, &limit, burst * MINUTE), "{burst} {n}");
            }
        }
    }

    #[test]
    fn a_refused_request_uses_up_nothing() {
        let limiter = Limiter::default();
        let limit = RateLimit { per_minute: 1, per_day: Some(2) };
        assert!(is_admitted(&limiter, &limit, 0));
        for n in 1..1_000 {
            assert!(!is_admitted(&limiter, &limit, n));
        }
        assert!(is_admitted(&limiter, &limit, MINUTE));
        // Refused for the day: the minute is untouched as well.
        let refused = limiter.acquire(&limit, after(2 * MINUTE)).unwrap_err();
        assert_eq!((refused.window, refused.limit), (Window::Day, 2));
        assert_eq!(limiter.budget(&limit, after(2 * MINUTE)).minute.requests, 1);
    }

    #[test]
    fn the_day_begins_anew_at_midnight_utc() {
        let limiter = Limiter::default();
        let limit = RateLimit { per_minute: 100, per_day: Some(3) };
        let midnight = (DAY - START % DAY) * SECOND;
        for _ in 0..3 {
            assert!(is_admitted(&limiter, &limit, 0));
        }
        let refused = limiter.acquire(&limit, after(SECOND / 2)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_nanos(midnight - SECOND / 2));
        assert_eq!(refused.retry_after_seconds(), midnight / SECOND);
        assert!(!is_admitted(&limiter, &limit, midnight - 1));
        assert!(is_admitted(&limiter, &limit, midnight));
        // Both used up: the later of the two times counts.
        let limit = RateLimit { per_minute: 1, per_day: Some(1) };
        let refused = limiter.acquire(&limit, after(midnight)).unwrap_err();
        assert_eq!((refused.window, refused.retry_after_seconds()), (Window::Day, DAY));
        let limiter = Limiter::default();
        assert!(is_admitted(&limiter, &limit, midnight - SECOND));
        let refused = limiter.acquire(&limit, after(midnight - SECOND)).unwrap_err();
        assert_eq!((refused.window, refused.retry_after_seconds()), (Window::Minute, 60));
    }

    #[test]
    fn a_wall_clock_set_back_grants_no_second_day_and_sticks_to_no_future_one() {
        let limiter = Limiter::default();
        let limit = RateLimit { per_minute: 100, per_day: Some(1) };
        let on_day = |day: u64| Clock::at(Duration::ZERO, UNIX_EPOCH + Duration::from_secs(day * DAY + 1));
        assert!(limiter.acquire(&limit, on_day(20_000)).is_ok());
        assert!(limiter.acquire(&limit, on_day(19_999)).is_err());
        assert!(limiter.acquire(&limit, on_day(20_000)).is_err());
        assert!(limiter.acquire(&limit, on_day(30_000)).is_ok(), "a clock gone wrong");
        assert!(limiter.acquire(&limit, on_day(20_000)).is_err());
        assert!(limiter.acquire(&limit, on_day(20_001)).is_ok());
        assert!(limiter.acquire(&limit, Clock::at(Duration::ZERO, UNIX_EPOCH - Duration::from_secs(9))).is_err());
    }

    #[test]
    fn a_thread_with_an_older_clock_comes_now() {
        let limiter = Limiter::default();
        let limit = per_minute_only(2);
        assert!(is_admitted(&limiter, &limit, 5 * SECOND));
        assert!(is_admitted(&limiter, &limit, 4 * SECOND));
        assert_eq!(limiter.acquire(&limit, after(3 * SECOND)).unwrap_err().retry_after, Duration::from_secs(60));
        assert!(!is_admitted(&limiter, &limit, 64 * SECOND));
        assert!(is_admitted(&limiter, &limit, 65 * SECOND));
    }

    #[test]
    fn a_changed_limit_counts_what_was_admitted_before() {
        let limiter = Limiter::default();
        for n in 0..10 {
            assert!(is_admitted(&limiter, &per_minute_only(10), n * SECOND));
        }
        // Lowered: the third newest, of second 7, must go first.
        let refused = limiter.acquire(&per_minute_only(3), after(10 * SECOND)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(57));
        let lowered = limiter.budget(&per_minute_only(3), after(10 * SECOND));
        assert_eq!(lowered.minute, Remaining { requests: 0, reset: Duration::from_secs(57) });
        // Raised again: all ten still count.
        assert!(!is_admitted(&limiter, &per_minute_only(10), 10 * SECOND));
        assert!(is_admitted(&limiter, &per_minute_only(11), 10 * SECOND));
        // A daily limit that comes later counts from midnight on.
        let limit = RateLimit { per_minute: 100, per_day: Some(12) };
        assert!(is_admitted(&limiter, &limit, 10 * SECOND));
        assert!(!is_admitted(&limiter, &limit, 10 * SECOND));
    }

    #[test]
    fn eighty_percent_is_approaching() {
        for (limit, first) in [
            (RateLimit { per_minute: 1, per_day: None }, 1),
            (RateLimit { per_minute: 4, per_day: None }, 4),
            (RateLimit { per_minute: 5, per_day: None }, 4),
            (RateLimit { per_minute: 100, per_day: None }, 80),
            (RateLimit { per_minute: 101, per_day: None }, 81),
            (RateLimit { per_minute: 100, per_day: Some(10) }, 8),
        ] {
            let limiter = Limiter::default();
            for n in 1..=limit.per_day.unwrap_or(limit.per_minute.into()) {
                let permit = limiter.acquire(&limit, after(n)).unwrap();
                assert_eq!(permit.is_approaching_limit(), n >= first, "{limit:?} {n}");
            }
        }
        let limiter = Limiter::default();
        let limit = per_minute_only(2);
        assert!(!limiter.acquire(&per_minute_only(3), after(0)).unwrap().is_approaching_limit());
        assert!(limiter.acquire(&limit, after(1)).unwrap().is_approaching_limit());
        assert!(!limiter.acquire(&limit, after(MINUTE + 1)).unwrap().is_approaching_limit(), "the others are gone");
    }

    #[test]
    fn headers_say_what_is_left_and_when_there_is_more() {
        let limiter = Limiter::default();
        let limit = per_minute_only(100);
        assert_eq!(policy_header(&limit), "\"default\";q=100;w=60");
        assert_eq!(limiter.budget(&limit, after(0)).to_string(), "\"default\";r=100;t=0");
        for _ in 0..50 {
            assert!(is_admitted(&limiter, &limit, 0));
        }
        assert_eq!(limiter.budget(&limit, after(30 * SECOND + 1)).to_string(), "\"default\";r=50;t=30");
        let limit = RateLimit { per_minute: 100, per_day: Some(1_000_000) };
        assert_eq!(policy_header(&limit), "\"default\";q=100;w=60, \"daily\";q=1000000;w=86400");
        let until_midnight = DAY - START % DAY - 60;
        assert_eq!(
            limiter.budget(&limit, after(MINUTE)).to_string(),
            format!("\"default\";r=100;t=0, \"daily\";r=999950;t={until_midnight}")
        );
        let endless = RateLimit { per_minute: 1, per_day: Some(u64::MAX) };
        assert_eq!(policy_header(&endless), "\"default\";q=1;w=60, \"daily\";q=999999999999999;w=86400");
    }

    #[test]
    fn eight_threads_get_exactly_the_limit() {
        const LIMIT: u32 = 1_000;
        let limiter = Limiter::default();
        let limit = RateLimit { per_minute: LIMIT, per_day: Some(1_000_000) };
        let admitted: usize = std::thread::scope(|scope| {
            let hammer = || (0..LIMIT).filter(|_| limiter.acquire(&limit, Clock::now()).is_ok()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(hammer)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1_000);
    }

    #[test]
    fn memory_is_bounded_by_the_limit_and_given_back() {
        let limiter = Limiter::default();
        let memory = || limiter.0.lock().admissions.capacity();
        assert_eq!(memory(), 0);
        assert!(is_admitted(&limiter, &per_minute_only(1_000), 0));
        assert!(memory() <= 8, "grown as needed");
        for n in 0..10_000 {
            let _ = limiter.acquire(&per_minute_only(1_000), after(n * MINUTE / 2_000));
            assert!(memory() <= 1_000);
        }
        assert_eq!(memory(), 1_000);
        let start = 10 * MINUTE;
        for n in 0..2_000 {
            assert!(is_admitted(&limiter, &per_minute_only(10), start + n * MINUTE / 10));
        }
        assert!(memory() <= 20, "{}", memory());
        assert!(limiter.release(after(start + 300 * MINUTE)), "the day still counts");
        assert_eq!(memory(), 0);
    }

    #[test]
    fn limiters_outlive_reloads_and_are_dropped_when_they_count_no_more() {
        let limiters = Limiters::default();
        let limit = per_minute_only(1);
        let ids = || {
            let mut ids: Vec<String> = limiters.0.lock().keys().map(ToString::to_string).collect();
            ids.sort();
            ids
        };
        let kept = limiters.limiter("kept");
        assert!(is_admitted(&limiters.limiter("busy"), &limit, 0));
        drop(limiters.limiter("unused"));
        assert!(!is_admitted(&limiters.limiter("busy"), &limit, 1), "the same one as before");
        assert!(Arc::ptr_eq(&kept, &limiters.limiter("kept")));
        limiters.retain_used(after(1));
        assert_eq!(ids(), ["busy", "kept"]);
        limiters.retain_used(after(MINUTE));
        assert_eq!(ids(), ["busy", "kept"], "its day still counts");
        limiters.retain_used(after(DAY * SECOND));
        assert_eq!(ids(), ["kept"]);
    }

    /// The definition, as slow as it may be: every admission there ever was.
    #[derive(Default)]
    struct Model {
        now: u64,
        day: u64,
        admissions: Vec<(u64, u64)>, // when, on which day
    }

    impl Model {
        fn refuses(&self, limit: &RateLimit, now: u64, day: u64) -> bool {
            let recent = self.admissions.iter().filter(|(at, _)| at + MINUTE > now).count();
            let today = self.admissions.iter().filter(|(_, on)| *on == day).count();
            recent >= limit.per_minute as usize || limit.per_day.is_some_and(|limit| today as u64 >= limit)
        }

        /// `Err`: the shortest wait that ends in an admission, found by trying every moment at which something changes.
        fn acquire(&mut self, limit: &RateLimit, clock: Clock) -> Result<(), Duration> {
            self.now = self.now.max(clock.monotonic);
            self.day = self.day.max(clock.wall.as_secs() / DAY);
            if !self.refuses(limit, self.now, self.day) {
                self.admissions.push((self.now, self.day));
                return Ok(());
            }
            let until_midnight =
                u64::try_from((Duration::from_secs((self.day + 1) * DAY) - clock.wall).as_nanos()).unwrap();
            let ends = self.admissions.iter().map(|(at, _)| (at + MINUTE).saturating_sub(self.now));
            let waits = ends.chain([until_midnight]).filter(|wait| {
                let day = if *wait >= until_midnight { self.day + 1 } else { self.day };
                !self.refuses(limit, self.now + wait, day)
            });
            Err(Duration::from_nanos(waits.min().unwrap()))
        }

        fn remaining(&self, limit: &RateLimit) -> u64 {
            let recent = self.admissions.iter().filter(|(at, _)| at + MINUTE > self.now).count();
            u64::from(limit.per_minute).saturating_sub(recent as u64)
        }
    }

    /// Steps of time, some backwards, and now and then another limit.
    fn schedule() -> impl Strategy<Value = Vec<(i64, Option<RateLimit>)>> {
        let step = prop_oneof![
            6 => 0..3 * SECOND as i64,
            3 => Just(0_i64),
            2 => 0..70 * SECOND as i64,
            2 => (0..8_i64).prop_map(|n| n * 10 * SECOND as i64), // meets the edges of intervals
            1 => -(SECOND as i64)..0,
            1 => 0..6 * 3_600 * SECOND as i64,
        ];
        let limit = (1..6_u32, proptest::option::of(1..20_u64))
            .prop_map(|(per_minute, per_day)| RateLimit { per_minute, per_day });
        proptest::collection::vec((step, proptest::option::weighted(0.05, limit)), 1..150)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_decides_as_the_definition_does(schedule in schedule()) {
            let (limiter, mut model) = (Limiter::default(), Model::default());
            let mut limit = RateLimit { per_minute: 3, per_day: Some(10) };
            let mut now = SECOND;
            for (step, change) in schedule {
                now = now.saturating_add_signed(step);
                limit = change.unwrap_or(limit);
                let verdict = limiter.acquire(&limit, after(now));
                prop_assert_eq!(verdict.map(|_| ()).map_err(|refused| refused.retry_after), model.acquire(&limit, after(now)));
                prop_assert_eq!(limiter.budget(&limit, after(now)).minute.requests, model.remaining(&limit));
                prop_assert!(limiter.0.lock().admissions.len() <= 5, "no limit was higher");
            }
        }

        #[test]
        fn no_interval_holds_more_than_the_limit(
            steps in proptest::collection::vec(0..20 * SECOND, 1..200),
            per_minute in 1..8_u32,
        ) {
            let limiter = Limiter::default();
            let limit = per_minute_only(per_minute);
            let times = steps.iter().scan(0, |now, step| { *now += step; Some(*now) });
            let admitted: Vec<u64> = times.filter(|&now| is_admitted(&limiter, &limit, now)).collect();
            for window in admitted.windows(per_minute as usize + 1) {
                prop_assert!(window[window.len() - 1] - window[0] >= MINUTE);
            }
        }

        #[test]
        fn who_waits_as_told_is_admitted(steps in proptest::collection::vec(0..10 * SECOND, 1..100)) {
            let limiter = Limiter::default();
            let limit = RateLimit { per_minute: 3, per_day: Some(20) };
            let mut now = 0;
            for step in steps {
                now += step;
                if let Err(refused) = limiter.acquire(&limit, after(now)) {
                    now += u64::try_from(refused.retry_after.as_nanos()).unwrap();
                    prop_assert!(is_admitted(&limiter, &limit, now));
                }
            }
        }
    }
}
