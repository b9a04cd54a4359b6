//! How long a request may take whose reply may be long.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A deadline that moves as octets come: silence is seen soon, and what is slow is waited for.
#[derive(Debug)]
pub(crate) struct Patience {
    until: Mutex<Instant>,
    /// How much later it gets by each octet.
    each: Duration,
}

impl Patience {
    /// Ends after `within`, and what comes at `bytes_per_s` or faster moves it.
    pub(crate) fn new(within: Duration, bytes_per_s: Option<u32>) -> Self {
        Self {
            until: Mutex::new(Instant::now() + within),
            each: bytes_per_s.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1)),
        }
    }

    /// So many octets came.
    pub(crate) fn came(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) += self.each * bytes;
    }

    /// Waits for the end.
    pub(crate) async fn over(&self) {
        loop {
            let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_moves_the_end_and_nothing_else_does() {
        let (began, within) = (Instant::now(), Duration::from_millis(20));
        let silent = Patience::new(within, Some(1_000));
        silent.over().await;
        let slow = Patience::new(within, Some(1_000));
        // So many octets take a tenth of a second.
        slow.came(100);
        slow.over().await;
        assert!(began.elapsed() >= Duration::from_millis(20 + 120));
        let fixed = Patience::new(Duration::ZERO, None);
        fixed.came(1_000_000);
        fixed.over().await;
    }
}
