//! How many connections there may be, of whom, and how fast they pass.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enishi_host::gateway::Limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// How many connections a member may begin at once, and again after this time each.
const BEGUN_MAX: u32 = 40;
const BEGIN_INTERVAL: Duration = Duration::from_millis(50);

/// The most members whose beginnings are remembered; with more, all are forgotten.
const USERS_MAX: usize = 4096;

/// For how long as fast as it goes may be sent before the rate counts.
const BURST: Duration = Duration::from_millis(250);

/// How many connections to one service may wait for its host at a time; further ones wait for these.
/// Each has one of its daemon's 64 places for requests (`enishi_host::control`), and a consent names
/// eight services at most: enough places are left to ask the daemon for all else.
const PENDING_MAX: usize = 4;

/// Where connections wait that are not connected to their service yet.
#[derive(Default)]
pub(super) struct Pending(Mutex<BTreeMap<(usize, u16), Arc<Semaphore>>>);

impl Pending {
    /// Waits until one more connection to the service at a port of a side may be begun; it has been
    /// once the permit is dropped.
    pub(super) async fn turn(&self, at: (usize, u16)) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Ports of consents that are gone.
            services.retain(|_, places| Arc::strong_count(places) > 1);
            let places = services.entry(at);
            Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(PENDING_MAX))))
        };
        // It is never closed.
        places.acquire_owned().await.ok()
    }
}

/// Where connections get their places.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    flows: u16,
    by_user: BTreeMap<String, u16>,
    /// Up to when each user's beginnings count.
    begun: BTreeMap<String, Instant>,
    /// When the next octet may pass.
    free_at: Option<Instant>,
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    places: Places,
    user: String,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a user's connection a place. One user has half of them at most.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn take(&self, user: &str, limits: Limits) -> Result<Place, &'static str> {
        let mut taken = self.lock();
        if !taken.may_begin(user) {
            return Err("too many new connections of this member");
        }
        if taken.flows >= limits.flows {
            return Err("too many connections");
        }
        let own = taken.by_user.get(user).copied().unwrap_or(0);
        if own >= limits.flows.div_ceil(2) {
            return Err("too many connections of this member");
        }
        taken.flows += 1;
        taken.by_user.insert(user.to_owned(), own + 1);
        Ok(Place {
            places: self.clone(),
            user: user.to_owned(),
        })
    }

    /// Waits until so many octets may pass.
    pub(super) async fn pass(&self, octets: usize, limits: Limits) {
        let now = Instant::now();
        let at = {
            let mut taken = self.lock();
            let at = taken.free_at.unwrap_or(now).max(now);
            let us = (octets as u64).saturating_mul(1_000_000) / limits.octets_per_s;
            taken.free_at = Some(at + Duration::from_micros(us));
            at
        };
        if at > now + BURST {
            sleep_until(at - BURST).await;
        }
    }
}

impl Taken {
    fn may_begin(&mut self, user: &str) -> bool {
        let now = Instant::now();
        if self.begun.len() >= USERS_MAX {
            self.begun.clear();
        }
        let counted = self.begun.get(user).copied().unwrap_or(now).max(now);
        let next = counted + BEGIN_INTERVAL;
        let may = next <= now + BEGIN_INTERVAL * BEGUN_MAX;
        if may {
            self.begun.insert(user.to_owned(), next);
        }
        may
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.flows -= 1;
        match taken.by_user.get_mut(&self.user) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.by_user.remove(&self.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        flows: 5,
        octets_per_s: 100_000,
        idle_s: 1,
    };

    #[tokio::test(start_paused = true)]
    async fn one_member_has_half_of_the_places() {
        let places = Places::default();
        let mut held: Vec<Place> = (0..3).map(|_| places.take("a", LIMITS).unwrap()).collect();
        assert!(places.take("a", LIMITS).is_err());
        held.extend((0..2).map(|_| places.take("b", LIMITS).unwrap()));
        assert!(places.take("c", LIMITS).is_err());
        held.remove(0);
        assert!(places.take("c", LIMITS).is_ok());
        drop(held);
        assert_eq!(places.lock().flows, 0);
        assert!(places.lock().by_user.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_too_fast_waits() {
        let places = Places::default();
        for _ in 0..BEGUN_MAX {
            assert!(places.take("a", LIMITS).is_ok());
        }
        assert!(places.take("a", LIMITS).is_err());
        assert!(places.take("b", LIMITS).is_ok());
        tokio::time::advance(BEGIN_INTERVAL).await;
        assert!(places.take("a", LIMITS).is_ok());
        assert!(places.take("a", LIMITS).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn octets_pass_at_the_rate() {
        let places = Places::default();
        let started = Instant::now();
        for _ in 0..100 {
            places.pass(10_000, LIMITS).await;
        }
        let took = started.elapsed();
        // A million octets at 100,000 a second; the first of them at once.
        let least = Duration::from_secs(9);
        assert!(took > least && took < Duration::from_secs(11), "{took:?}");
    }
}
