//! Repair among holders, by range-based set reconciliation.
//!
//! Two holders compare a stretch of the ring: one sends the number of its records there
//! and the sum of their digests. Equal sums end it with one message. Otherwise the other
//! cuts the stretch into smaller ranges with a sum each, or, where few records are left,
//! lists them; who sees a list sends what the other lacks and asks for what it lacks
//! itself. The work is in proportion to the difference, times the logarithm of the whole
//! (A. Meyer, "Range-Based Set Reconciliation", 2023). Neither side keeps any state.
//!
//! What an owner asked a node to keep though it is not one of the nearest ([`super::sure`])
//! stays where it is until its lease ends.
//!
//! A node compares with every neighbour that shares keys with it after its neighbours
//! have changed, and with one of them, drawn by lot, every 31 seconds or so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enishi_overlay::near::NearSet;
use enishi_overlay::overlay::Density;
use enishi_overlay::ring::Arc;
use enishi_overlay::{NodeId, Position};

use super::holder::{Handover, Holder, WIDE_HELD_MAX};
use super::store::{Arrival, Store};
use super::wire::{
    self, Aged, Compare, DhtMessage, ITEMS_MAX, Item, Outcome, RANGES_MAX, Range, RangeContent,
};
use super::{Alarm, Cx, Dht, REPLICAS};
use crate::record::Key;

/// A prime like the six periods of the overlay, so that it falls together with none.
const COMPARE_INTERVAL: Duration = Duration::from_secs(31);
/// How long changes among the neighbours are gathered before the repair.
const REPAIR_DELAY: Duration = Duration::from_millis(1000);
/// Up to how many records a range is listed instead of cut.
const LIST_MAX: usize = 32;
/// Into how many ranges a range is cut.
const CUTS: u64 = 8;
/// The most records that are handed over at a time by a node that is no longer their
/// holder.
const HANDOVERS_MAX: usize = 64;

impl Dht {
    pub(super) fn schedule_compare(&mut self, cx: &mut Cx<'_>) {
        let wait = cx.rng().jitter(COMPARE_INTERVAL);
        self.deadlines.set(Alarm::Compare, cx.now() + wait);
    }

    pub(super) fn schedule_repair(&mut self, cx: &mut Cx<'_>) {
        let wait = cx.rng().jitter(REPAIR_DELAY);
        self.deadlines.set_no_later(Alarm::Repair, cx.now() + wait);
    }

    pub(super) fn neighbours_changed(&mut self, cx: &mut Cx<'_>) {
        self.schedule_repair(cx);
    }

    /// Compares with every neighbour that shares keys.
    pub(super) fn repair(&mut self, cx: &mut Cx<'_>) {
        let near = cx.overlay().near().clone();
        let shared = shared_arcs(&near, cx.overlay().position());
        for (id, arc) in &shared {
            // Old acquaintances see the same change: whoever of them has something begins.
            if self.compared_with.insert(*id) || self.holds_on(*arc) {
                self.compare_with(*id, *arc, cx);
            }
        }
        self.compared_with.retain(|id| shared.contains_key(id));
        self.hand_over(&near, cx);
    }

    /// Compares with one neighbour that shares keys.
    pub(super) fn compare_with_one(&mut self, cx: &mut Cx<'_>) {
        self.schedule_compare(cx);
        let near = cx.overlay().near().clone();
        let shared: Vec<(NodeId, Arc)> = shared_arcs(&near, cx.overlay().position())
            .into_iter()
            .collect();
        if !shared.is_empty() {
            let (id, arc) = shared[cx.rng().below(shared.len() as u64) as usize];
            if self.holds_on(arc) {
                self.compare_with(id, arc, cx);
            }
        }
        self.hand_over(&near, cx);
    }

    fn holds_on(&self, arc: Arc) -> bool {
        self.holder.store.on_arc(arc).next().is_some()
    }

    fn compare_with(&self, id: NodeId, arc: Arc, cx: &mut Cx<'_>) {
        let content = sum_of(&self.holder.store, arc);
        let compare = Compare {
            arc,
            ranges: vec![Range {
                end: arc.end,
                content,
            }],
        };
        cx.send_to(id, DhtMessage::Compare(compare).encode());
    }

    pub(super) fn on_compare(&mut self, from: NodeId, compare: &Compare, cx: &mut Cx<'_>) {
        if !cx.overlay().near().contains(from) {
            return;
        }
        let difference = compare_ranges(&self.holder.store, compare);
        if let Some(reply) = difference.reply {
            cx.send_to(from, DhtMessage::Compare(reply).encode());
        }
        if !difference.want.is_empty() {
            cx.send_to(
                from,
                DhtMessage::Want {
                    items: difference.want,
                }
                .encode(),
            );
        }
        self.send_items(from, &difference.lacking, cx);
    }

    pub(super) fn on_want(&mut self, from: NodeId, items: &[Item], cx: &mut Cx<'_>) {
        if cx.overlay().near().contains(from) {
            self.send_items(from, items, cx);
        }
    }

    fn send_items(&self, to: NodeId, items: &[Item], cx: &mut Cx<'_>) {
        let now = cx.now();
        let held = items
            .iter()
            .filter_map(|item| self.holder.store.one(item.key, item.owner));
        for records in wire::fill(held.map(|held| held.aged(now))) {
            cx.send_to(to, DhtMessage::Records { records }.encode());
        }
    }

    pub(super) fn on_records(&mut self, from: NodeId, records: Vec<Aged>, cx: &mut Cx<'_>) {
        let near = cx.overlay().near();
        if !near.contains(from) {
            return;
        }
        let arc = near.arc_held(REPLICAS);
        for aged in records {
            if arc.contains(aged.record.key().position()) {
                // What is refused is older than what is here, or over a quota.
                let _ = self.accept(aged, from, Arrival::Repair, cx);
            }
        }
    }

    /// Gives records for which this node is no longer a holder to the nearest node that
    /// it knows, and forgets them when that one has them.
    fn hand_over(&mut self, near: &NearSet, cx: &mut Cx<'_>) {
        let held = near.arc_held(REPLICAS);
        if held == Arc::ALL {
            return;
        }
        self.holder.handovers.clear();
        self.mistrust_crowds(near, held, cx);
        let now = cx.now();
        let outside = Arc {
            start: held.end,
            end: held.start,
        };
        let moving: Vec<(Item, Aged)> = self
            .holder
            .store
            .on_arc(outside)
            .filter(|(item, _)| !self.holder.wide.contains(&(item.key, item.owner)))
            .take(HANDOVERS_MAX)
            .map(|(item, held)| (item, held.aged(now)))
            .collect();
        for (item, aged) in moving {
            let nearest = near.nearest(item.key.position(), 1);
            let Some(to) = nearest.first().map(|place| place.id) else {
                continue;
            };
            let token = self.holder.token();
            let (key, owner) = (item.key, item.owner);
            self.holder
                .handovers
                .insert(token, Handover { to, key, owner });
            cx.send_to(to, DhtMessage::Store { token, aged }.encode());
        }
    }

    /// Keeps what would be handed over to nodes that sit unnaturally close to its key: they
    /// may have come to make it vanish.
    fn mistrust_crowds(&mut self, near: &NearSet, held: Arc, cx: &Cx<'_>) {
        let outside = Arc {
            start: held.end,
            end: held.start,
        };
        let Holder { wide, store, .. } = &mut self.holder;
        let room = WIDE_HELD_MAX.saturating_sub(wide.len());
        let crowded = |item: &Item| {
            let position = item.key.position();
            let nearest = near.nearest(position, REPLICAS);
            let places = nearest.iter().map(|place| place.position);
            cx.overlay().density_of(position, places) == Density::Dense
        };
        let moving = store.on_arc(outside).map(|(item, _)| item);
        let moving = moving.filter(|item| !wide.contains(&(item.key, item.owner)));
        let kept = moving.take(HANDOVERS_MAX).filter(crowded).take(room);
        let kept: Vec<(Key, NodeId)> = kept.map(|item| (item.key, item.owner)).collect();
        wide.extend(kept);
    }

    /// Takes the answer to a handover; tells whether it was one.
    pub(super) fn handover_answered(
        &mut self,
        from: NodeId,
        token: u64,
        outcome: Outcome,
        cx: &mut Cx<'_>,
    ) -> bool {
        let asked = self.holder.handovers.get(&token);
        let Some(Handover { key, owner, .. }) = asked.filter(|asked| asked.to == from).copied()
        else {
            return false;
        };
        self.holder.handovers.remove(&token);
        match outcome {
            Outcome::Stored { .. } | Outcome::Stale { .. } | Outcome::Taken => {
                self.holder.store.remove(key, owner);
                cx.persist(super::holder::held_key(key, owner), None);
            }
            Outcome::Full | Outcome::Invalid | Outcome::TooFew => {}
        }
        true
    }
}

/// The neighbours that share keys with this node, each with the stretch that both hold.
///
/// The holders of a key are a run of [`REPLICAS`] successive nodes. Nodes M and N, d
/// places after it, are both in the run for the keys from half way between N and the node
/// `REPLICAS` places before it, to half way between M and the node `REPLICAS` places after.
fn shared_arcs(near: &NearSet, me: Position) -> BTreeMap<NodeId, Arc> {
    let (up, down) = (near.successors(), near.predecessors());
    let mut shared = BTreeMap::new();
    if near.arc_held(REPLICAS) == Arc::ALL {
        shared.extend(near.iter().map(|place| (place.id, Arc::ALL)));
        return shared;
    }
    for distance in 1..REPLICAS {
        let other = REPLICAS - distance - 1;
        if let (Some(n), Some(before), Some(end)) =
            (up.get(distance - 1), down.get(other), up.get(REPLICAS - 1))
        {
            let start = before.position.midpoint(n.position);
            shared.insert(
                n.id,
                Arc {
                    start,
                    end: me.midpoint(end.position),
                },
            );
        }
        if let (Some(n), Some(after), Some(start)) = (
            down.get(distance - 1),
            up.get(other),
            down.get(REPLICAS - 1),
        ) {
            let end = n.position.midpoint(after.position);
            shared.insert(
                n.id,
                Arc {
                    start: start.position.midpoint(me),
                    end,
                },
            );
        }
    }
    shared
}

fn sum_of(store: &Store, arc: Arc) -> RangeContent {
    let (count, sum) = store
        .on_arc(arc)
        .fold((0_u32, 0_u128), |(count, sum), (item, _)| {
            (count + 1, sum.wrapping_add(item.digest))
        });
    RangeContent::Sum { count, sum }
}

/// What a comparison came to.
#[derive(Debug, Default)]
struct Difference {
    /// What to ask back; none when all is settled.
    reply: Option<Compare>,
    /// What the other lacks.
    lacking: Vec<Item>,
    /// What this node lacks.
    want: Vec<Item>,
}

/// Compares what the other has with what is here. The work is in proportion to the
/// records on the stretch.
fn compare_ranges(store: &Store, compare: &Compare) -> Difference {
    let mut difference = Difference::default();
    let mut ranges = Vec::new();
    let mut listed = 0;
    let mut start = compare.arc.start;
    for range in &compare.ranges {
        let arc = Arc {
            start,
            end: range.end,
        };
        start = range.end;
        match &range.content {
            RangeContent::Same => same(&mut ranges, range.end),
            RangeContent::Items(items) => {
                list_difference(store, arc, items, &mut difference);
                same(&mut ranges, range.end);
            }
            sum @ RangeContent::Sum { count, .. } => {
                if sum_of(store, arc) == *sum {
                    same(&mut ranges, range.end);
                    continue;
                }
                let here = store.on_arc(arc).count();
                let short = here.max(*count as usize) <= LIST_MAX || arc_width(arc) < CUTS;
                // One place stays free: settled ranges at the end become one.
                let room = (RANGES_MAX - 1).saturating_sub(ranges.len());
                if short && listed + here <= ITEMS_MAX && room >= 1 {
                    listed += here;
                    let items = store.on_arc(arc).map(|(item, _)| item).collect();
                    ranges.push(Range {
                        end: range.end,
                        content: RangeContent::Items(items),
                    });
                } else if room >= CUTS as usize {
                    cut(store, arc, &mut ranges);
                } else {
                    // Left for the next comparison.
                    same(&mut ranges, range.end);
                }
            }
        }
    }
    difference.lacking.truncate(ITEMS_MAX);
    difference.want.truncate(ITEMS_MAX);
    if ranges
        .iter()
        .any(|range| range.content != RangeContent::Same)
    {
        difference.reply = Some(Compare {
            arc: compare.arc,
            ranges,
        });
    }
    difference
}

/// Adds a settled range, joined to the one before it where that is settled too.
fn same(ranges: &mut Vec<Range>, end: Position) {
    match ranges.last_mut() {
        Some(last) if last.content == RangeContent::Same => last.end = end,
        _ => ranges.push(Range {
            end,
            content: RangeContent::Same,
        }),
    }
}

/// The length of a stretch; 2^64 − 1 for the whole ring.
fn arc_width(arc: Arc) -> u64 {
    if arc.start == arc.end {
        u64::MAX
    } else {
        arc.start.clockwise(arc.end)
    }
}

fn cut(store: &Store, arc: Arc, ranges: &mut Vec<Range>) {
    let step = arc_width(arc) / CUTS;
    let mut start = arc.start;
    for piece in 1..=CUTS {
        let end = if piece == CUTS {
            arc.end
        } else {
            arc.start.advance(step * piece)
        };
        let content = sum_of(store, Arc { start, end });
        ranges.push(Range { end, content });
        start = end;
    }
}

fn list_difference(store: &Store, arc: Arc, theirs: &[Item], difference: &mut Difference) {
    let theirs: BTreeSet<Item> = theirs.iter().copied().collect();
    let mine: BTreeSet<Item> = store.on_arc(arc).map(|(item, _)| item).collect();
    difference.lacking.extend(mine.difference(&theirs));
    difference.want.extend(theirs.difference(&mine));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Content, Kind, Record};
    use bytes::Bytes;
    use enishi_overlay::{Keypair, Time};
    use proptest::prelude::*;

    fn aged(number: u16) -> Aged {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&number.to_le_bytes());
        let keypair = Keypair::from_seed(&seed);
        let content = Content {
            kind: Kind::Lease,
            writer: keypair.id(),
            owner: keypair.id(),
            seq: 1,
            since_unix_s: 1,
            lease_s: 600,
            removed: false,
            value: Bytes::new(),
        };
        Aged {
            record: Record::sign(content, &keypair, &keypair),
            age_s: 0,
        }
    }

    fn store(numbers: &BTreeSet<u16>) -> Store {
        let mut store = Store::default();
        let source = Keypair::from_seed(&[1; 32]).id();
        for number in numbers {
            store
                .accept(Time::ZERO, aged(*number), source, Arrival::Repair)
                .unwrap();
        }
        store
    }

    fn copy(from: &Store, to: &mut Store, items: &[Item]) {
        let source = Keypair::from_seed(&[2; 32]).id();
        for item in items {
            let held = from.one(item.key, item.owner).unwrap().aged(Time::ZERO);
            to.accept(Time::ZERO, held, source, Arrival::Repair)
                .unwrap();
        }
    }

    /// Runs a comparison to its end; returns how many messages it took.
    fn settle(a: &mut Store, b: &mut Store, arc: Arc) -> usize {
        let mut messages = 1;
        let mut next = Some(Compare {
            arc,
            ranges: vec![Range {
                end: arc.end,
                content: sum_of(a, arc),
            }],
        });
        let mut here_is_b = true;
        while let Some(compare) = next {
            messages += 1;
            assert!(messages < 30, "a comparison must end");
            let (here, there) = if here_is_b {
                (&mut *b, &mut *a)
            } else {
                (&mut *a, &mut *b)
            };
            let difference = compare_ranges(here, &compare);
            copy(here, there, &difference.lacking);
            copy(there, here, &difference.want);
            next = difference.reply;
            here_is_b = !here_is_b;
        }
        messages
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn both_sides_end_with_the_union_on_the_stretch(
            a in proptest::collection::btree_set(0..300_u16, 0..120),
            b in proptest::collection::btree_set(0..300_u16, 0..120),
            start in any::<u64>(),
            end in any::<u64>(),
        ) {
            let arc = Arc { start: Position::from_number(start), end: Position::from_number(end) };
            let (mut store_a, mut store_b) = (store(&a), store(&b));
            settle(&mut store_a, &mut store_b, arc);
            let union: BTreeSet<u16> = a.union(&b).copied().collect();
            let expected: Vec<Item> = store(&union).on_arc(arc).map(|(item, _)| item).collect();
            for store in [&store_a, &store_b] {
                let items: Vec<Item> = store.on_arc(arc).map(|(item, _)| item).collect();
                prop_assert_eq!(&items, &expected);
            }
        }
    }

    #[test]
    fn equal_stores_settle_with_one_message_each_way() {
        let numbers = (0..200).collect();
        let (mut a, mut b) = (store(&numbers), store(&numbers));
        assert_eq!(settle(&mut a, &mut b, Arc::ALL), 2);
    }

    #[test]
    fn answers_to_many_ranges_are_never_longer_than_allowed() {
        let here = store(&(0..4).collect());
        let sum = |number: u64| Range {
            end: Position::from_number((number + 1) << 56),
            // Too many to list, and then few.
            content: RangeContent::Sum {
                count: if number < 15 { 1000 } else { 1 },
                sum: 1,
            },
        };
        let mut compare = Compare {
            arc: Arc::ALL,
            ranges: (0..RANGES_MAX as u64).map(sum).collect(),
        };
        for settled in 0..4 {
            // Settled ranges between the others cannot be joined.
            let sparse = compare.ranges.iter_mut().skip(15).step_by(settled + 2);
            sparse.for_each(|range| range.content = RangeContent::Same);
            let reply = compare_ranges(&here, &compare).reply.unwrap();
            let octets = DhtMessage::Compare(reply).encode();
            assert!(DhtMessage::decode(&octets).is_ok());
        }
    }

    #[test]
    fn shared_stretches_are_where_both_hold() {
        let place = |number: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let id = NodeId::from_bytes(id);
            enishi_overlay::near::Place {
                position: Position::from_number(number),
                id,
            }
        };
        let places: Vec<_> = (0..40)
            .map(|i: u64| place(i * (u64::MAX / 40) + i * i * 77_777))
            .collect();
        let me = places[11];
        let mut near = NearSet::new(me, REPLICAS);
        places.iter().for_each(|place| {
            near.insert(*place);
        });
        let shared = shared_arcs(&near, me.position);
        assert_eq!(shared.len(), 2 * (REPLICAS - 1));
        for step in 0..4000 {
            let key = Position::from_number(step * (u64::MAX / 4000));
            let mut nearest = places.clone();
            nearest.sort_by_key(|place| key.rank(place.position));
            let holders: Vec<NodeId> = nearest[..REPLICAS].iter().map(|p| p.id).collect();
            for (id, arc) in &shared {
                let both = holders.contains(id) && holders.contains(&me.id);
                assert_eq!(arc.contains(key), both, "{key:?}");
            }
        }
    }
}
