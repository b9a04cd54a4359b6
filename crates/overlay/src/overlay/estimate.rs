//! How many nodes the ring has, from the lengths of its segments.
//!
//! Symphony (section 4.1) takes the sum of a few segments, s nodes' worth in a
//! stretch of length X, and estimates n = s / X. The paper uses the segments of a
//! node and its two neighbours. Peers tell their near neighbours anyway, so here every
//! peer's neighbourhood, most of them far away on the ring, adds its segments. The third
//! that sits closest together and the third that sits furthest apart are left out: what
//! peers tell of their neighbours may be invented.

use super::Overlay;

impl Overlay {
    /// Returns the estimated number of nodes, this one included; exact while the near
    /// neighbours are the whole ring.
    pub fn size_estimate(&self) -> u64 {
        if self.near.spans_ring() && !self.is_client() {
            return self.near.len() as u64 + 1;
        }
        self.size
    }

    /// Estimates the number of nodes anew.
    pub(super) fn estimate_size(&mut self) {
        if self.near.spans_ring() && !self.is_client() {
            self.size = self.near.len() as u64 + 1;
            return;
        }
        let peers = self
            .peers
            .values()
            .map(|peer| peer.view.near_span(peer.position));
        let spans = peers.chain([self.view.near_span(self.position)]).flatten();
        let mut spans: Vec<(u64, u64)> = spans.filter(|(_, gaps)| *gaps > 0).collect();
        spans.sort_unstable_by_key(|(span, gaps)| span / gaps);
        let third = spans.len() / 3;
        let middle = &spans[third..spans.len() - third];
        let (length, segments) = middle
            .iter()
            .fold((0, 0), |(length, segments), (span, gaps)| {
                (length + u128::from(*span), segments + u128::from(*gaps))
            });
        let estimate = (segments << 64) / length.max(1);
        self.size = u64::try_from(estimate)
            .unwrap_or(u64::MAX)
            .max(self.near.len() as u64 + 1);
    }
}
