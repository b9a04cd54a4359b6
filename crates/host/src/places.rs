//! Places that many share, so that none of them takes all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bounded number of places, of which each key gets a part at most.
#[derive(Debug)]
pub(crate) struct Places<K: Ord> {
    all_max: usize,
    each_max: usize,
    taken: Mutex<BTreeMap<K, usize>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Ord + Copy> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Ord + Copy> Places<K> {
    /// Makes `all_max` places, of which one key gets `each_max` at most.
    pub(crate) fn new(all_max: usize, each_max: usize) -> Arc<Self> {
        Arc::new(Self {
            all_max,
            each_max,
            taken: Mutex::default(),
        })
    }

    /// Takes a place; none when all are taken, or the part of this key.
    pub(crate) fn take(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        if all >= self.all_max || taken.get(&key) >= Some(&self.each_max) {
            return None;
        }
        *taken.entry(key).or_default() += 1;
        let places = Arc::clone(self);
        Some(Place { places, key })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Copy> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_takes_all_places() {
        let places = Places::new(64, 8);
        let mut taken = Vec::new();
        for key in 0..20 {
            taken.extend((0..64).map_while(|_| places.take(key)));
        }
        assert_eq!(taken.len(), 64);
        assert_eq!(taken[8].key, 1);
        assert!(places.take(30).is_none());
        taken.clear();
        assert!(places.take(0).is_some() && places.taken().is_empty());
    }
}
