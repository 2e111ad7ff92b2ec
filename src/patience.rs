//! A deadline that moves on with every request and is seldom reached.
//!
//! Setting a timer and taking it back costs more than most of what happens in between. So this one's stays set where the
//! deadline moves away from it, and when it goes off too early it is set for the rest.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Becomes ready when its deadline has come, as often as it is asked.
pub struct Patience {
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl Patience {
    /// Ends at `deadline`.
    pub fn until(deadline: Instant) -> Self {
        Self { timer: Box::pin(sleep_until(deadline)), deadline }
    }

    /// Ends at `deadline` instead.
    pub fn move_to(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl Future for Patience {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let deadline = self.deadline;
            if self.timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_ends_when_its_last_deadline_has_come() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let start = Instant::now();
            let mut patience = Patience::until(start + SECOND);
            for (moved_to, ends_at) in [(1, 1), (9, 9), (5, 9), (20, 20)] {
                patience.move_to(start + SECOND * moved_to);
                (&mut patience).await;
                assert_eq!(start.elapsed().as_secs(), ends_at, "moved to {moved_to}");
            }
            patience.move_to(start + SECOND * 90);
            patience.move_to(start + SECOND * 30);
            assert!(tokio::time::timeout(SECOND * 5, &mut patience).await.is_err());
            patience.move_to(start + SECOND * 40);
            patience.await;
            assert_eq!(start.elapsed().as_secs(), 40);
        });
    }
}
