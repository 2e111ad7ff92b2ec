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

    use futures::FutureExt;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MOMENT: Duration = Duration::from_millis(5);

    #[test]
    fn it_ends_when_its_last_deadline_has_come() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let start = Instant::now();
            let mut patience = Patience::until(start + HOUR);
            assert!((&mut patience).now_or_never().is_none());
            // Earlier, the same again, earlier than now, and later in two steps: by what is gone when it ends, never too soon.
            for moments in [&[2][..], &[2], &[1], &[4, 9], &[9, 12]] {
                let mut deadline = start;
                for moment in moments {
                    deadline = start + MOMENT * *moment;
                    patience.move_to(deadline);
                    let _ = (&mut patience).now_or_never();
                }
                (&mut patience).await;
                assert!(Instant::now() >= deadline, "{moments:?}");
            }
            patience.move_to(start + HOUR);
            assert!((&mut patience).now_or_never().is_none());
        });
    }
}
