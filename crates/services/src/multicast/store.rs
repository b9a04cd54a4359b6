//! The messages of late, for those who missed one.

use std::collections::VecDeque;
use std::time::Duration;

use enishi_overlay::Time;
use enishi_overlay::small_map::SmallMap;

use super::wire::{Data, Flow, millis};

/// How long after it was said a message can be had again.
pub(super) const RETENTION: Duration = Duration::from_secs(60);
/// The most messages of one group.
const MESSAGES_MAX: usize = 512;
/// The most octets of one group.
const BYTES_MAX: usize = 1 << 20;

/// The messages of one group.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// And when each came.
    kept: SmallMap<(Flow, u64), (Time, Data)>,
    /// In the order in which they came.
    order: VecDeque<(Time, Flow, u64)>,
    bytes: usize,
}

impl Store {
    /// Keeps a message; the oldest go for it.
    pub(super) fn keep(&mut self, now: Time, data: Data) {
        let slot = (data.flow, data.number);
        self.bytes += data.sealed.len();
        if let Some((_, before)) = self.kept.insert(slot, (now, data)) {
            self.bytes -= before.sealed.len();
            return;
        }
        self.order.push_back((now, slot.0, slot.1));
        while self.order.len() > MESSAGES_MAX || self.bytes > BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// Returns a message of late, as old as it is by now.
    pub(super) fn find(&self, flow: Flow, number: u64, now: Time) -> Option<Data> {
        let (came_at, data) = self.kept.get(&(flow, number))?;
        let age = Duration::from_millis(data.age_ms.into()) + now.since(*came_at);
        (age <= RETENTION).then(|| Data {
            age_ms: millis(age),
            ..data.clone()
        })
    }

    /// Forgets what is old.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some((at, ..)) = self.order.front()
            && now.since(*at) > RETENTION
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.order.pop_front();
        let data = oldest.and_then(|(_, flow, number)| self.kept.remove(&(flow, number)));
        self.bytes -= data.map_or(0, |(_, data)| data.sealed.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(number: u64, bytes: usize) -> Data {
        Data {
            flow: Flow([1; 8]),
            number,
            hops: 0,
            age_ms: 0,
            direct: false,
            receipts: false,
            sealed: vec![0; bytes].into(),
        }
    }

    #[test]
    fn the_oldest_go_by_number_by_size_and_by_age() {
        let mut store = Store::default();
        let has = |store: &Store, number, at| store.find(Flow([1; 8]), number, at).is_some();
        for number in 0..=MESSAGES_MAX as u64 {
            store.keep(Time::ZERO, data(number, 1));
        }
        assert!(!has(&store, 0, Time::ZERO) && has(&store, 1, Time::ZERO));
        let later = Time::ZERO + RETENTION;
        store.keep(later, data(9999, BYTES_MAX));
        assert!(!has(&store, 1, later) && has(&store, 9999, later));
        store.expire(Time::ZERO + RETENTION * 3);
        assert_eq!((store.bytes, store.kept.len()), (0, 0));
    }

    #[test]
    fn a_message_grows_old_wherever_it_is_kept() {
        let (half, mut age_ms) = (RETENTION / 2, 0);
        for keeper in 0..3 {
            let mut store = Store::default();
            let kept = Data {
                age_ms,
                ..data(1, 1)
            };
            store.keep(Time::ZERO, kept);
            let found = store.find(Flow([1; 8]), 1, Time::ZERO + half);
            assert_eq!(found.is_some(), keeper < 2, "keeper {keeper}");
            age_ms = found.map_or(age_ms, |data| data.age_ms);
        }
        assert_eq!(age_ms, millis(RETENTION));
    }
}
