//! What replies take until they are written: nobody has to read them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::AskId;

/// The part of the room that one address has: others must find some too.
const PLACE_PART: usize = 4;

/// Octets of replies that were handed on, and not written yet.
#[derive(Debug)]
pub(super) struct Replies {
    bytes_max: usize,
    bytes: usize,
    /// Where requests came from whose replies are not written to their end, and what of these is not.
    asks: BTreeMap<AskId, (IpAddr, usize)>,
    places: BTreeMap<IpAddr, usize>,
}

impl Replies {
    /// Has room for `bytes_max` octets, beside replies that are short.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            asks: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// A request came, and is to be answered.
    pub(super) fn asked(&mut self, ask: AskId, place: IpAddr) {
        self.asks.insert(ask, (place, 0));
    }

    /// Returns how long a reply to a request may be, in octets.
    pub(super) fn room(&self, ask: AskId) -> usize {
        let Some((place, _)) = self.asks.get(&ask) else {
            return 0;
        };
        let used = self.places.get(place).copied().unwrap_or_default();
        let place = (self.bytes_max / PLACE_PART).saturating_sub(used);
        place.min(self.bytes_max.saturating_sub(self.bytes))
    }

    /// Returns how long a reply may be to who has no session, in octets: sessions have half of the room alone.
    pub(super) fn room_for_strangers(&self, ask: AskId) -> usize {
        let kept = self.bytes_max - self.bytes_max / 2;
        let here = kept / PLACE_PART;
        let Some((place, _)) = self.asks.get(&ask) else {
            return 0;
        };
        let used = self.places.get(place).copied().unwrap_or_default();
        let place = (self.bytes_max / PLACE_PART).saturating_sub(used + here);
        place.min(self.bytes_max.saturating_sub(self.bytes + kept))
    }

    /// So much was handed on.
    pub(super) fn handed(&mut self, ask: AskId, bytes: usize) {
        if let Some((place, unwritten)) = self.asks.get_mut(&ask) {
            *unwritten += bytes;
            *self.places.entry(*place).or_default() += bytes;
            self.bytes += bytes;
        }
    }

    /// So much of it was written, or is no longer to be.
    pub(super) fn written(&mut self, ask: AskId, bytes: usize) {
        let Some((place, unwritten)) = self.asks.get_mut(&ask) else {
            return;
        };
        let bytes = bytes.min(*unwritten);
        *unwritten -= bytes;
        self.bytes -= bytes;
        if let Some(used) = self.places.get_mut(place) {
            *used -= bytes;
            if *used == 0 {
                self.places.remove(place);
            }
        }
    }

    /// Returns what was handed on and not written, in octets.
    pub(super) fn unwritten(&self, ask: AskId) -> usize {
        self.asks.get(&ask).map_or(0, |(_, bytes)| *bytes)
    }

    /// Nothing more is handed on, and all was written.
    pub(super) fn forget(&mut self, ask: AskId) {
        let bytes = self.unwritten(ask);
        self.written(ask, bytes);
        self.asks.remove(&ask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_bounded_for_each_address_and_in_all() {
        let mut replies = Replies::new(4_000);
        let place = |last: u64| IpAddr::from([192, 0, 2, last as u8]);
        for ask in 0..5 {
            replies.asked(ask, place(ask));
        }
        replies.asked(9, place(0));
        for ask in 0..4 {
            assert_eq!(replies.room(ask), 1_000);
            replies.handed(ask, 900);
            assert_eq!(replies.room(ask), 100);
        }
        assert_eq!((replies.room(9), replies.room(4)), (100, 400));
        assert_eq!(replies.room_for_strangers(4), 0);
        replies.written(0, 500);
        assert_eq!((replies.room(9), replies.unwritten(0)), (600, 400));
        (0..4).for_each(|ask| replies.forget(ask));
        assert_eq!((replies.room(9), replies.bytes), (1_000, 0));
        assert_eq!(replies.room_for_strangers(9), 500);
        assert!(replies.places.is_empty() && replies.asks.len() == 2);
        // Of what is not known nothing is kept.
        replies.handed(77, 1_000);
        replies.written(77, 1_000);
        assert_eq!((replies.room(77), replies.bytes), (0, 0));
    }
}
