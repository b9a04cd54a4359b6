//! An ordered map for few entries: two vectors, sorted by key.
//!
//! A node has a dozen tables, most of them empty or with a few dozen entries, and a world
//! of the simulator has them a hundred thousand times over. Keys lie side by side, so that
//! a look-up reads few cache lines; there is hardly more room than entries, and none when
//! there are none. The price: putting in and taking out moves what lies behind.

use std::borrow::Borrow;

/// How much room is made at least when there is none.
const ROOM_MIN: usize = 4;

/// An ordered map. Looking up takes O(log n), changing O(n); meant for up to some hundred
/// entries, correct for any number. The methods are those of [`BTreeMap`].
///
/// [`BTreeMap`]: std::collections::BTreeMap
#[derive(Clone, Debug)]
pub struct SmallMap<K, V> {
    /// Ascending, none twice.
    keys: Vec<K>,
    /// In the order of their keys.
    values: Vec<V>,
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> SmallMap<K, V> {
    /// Makes an empty map, which takes no room of its own.
    pub const fn new() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Visits the keys upwards.
    pub fn keys(&self) -> std::slice::Iter<'_, K> {
        self.keys.iter()
    }

    /// Visits the values in the order of their keys.
    pub fn values(&self) -> std::slice::Iter<'_, V> {
        self.values.iter()
    }

    /// Visits the entries upwards.
    pub fn iter(&self) -> std::iter::Zip<std::slice::Iter<'_, K>, std::slice::Iter<'_, V>> {
        self.keys.iter().zip(&self.values)
    }

    /// Visits the entries upwards; the values may be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.keys.iter().zip(&mut self.values)
    }

    /// Removes all entries and gives the room back.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Removes the entry with the least key.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        (!self.is_empty()).then(|| self.take(0))
    }

    /// Returns the entry with the least key.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.keys.first().zip(self.values.first())
    }

    /// Keeps the entries that `keep` wants kept; it hears of them upwards.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut kept = 0;
        for index in 0..self.keys.len() {
            if keep(&self.keys[index], &mut self.values[index]) {
                self.keys.swap(kept, index);
                self.values.swap(kept, index);
                kept += 1;
            }
        }
        self.keys.truncate(kept);
        self.values.truncate(kept);
        self.give_back();
    }

    fn take(&mut self, index: usize) -> (K, V) {
        let entry = (self.keys.remove(index), self.values.remove(index));
        self.give_back();
        entry
    }

    /// A quarter more than there is, so that growing stays cheap and little lies idle.
    fn make_room(&mut self) {
        let len = self.keys.len();
        if len == self.keys.capacity() || len == self.values.capacity() {
            let more = ROOM_MIN.max(len / 4);
            self.keys.reserve_exact(more);
            self.values.reserve_exact(more);
        }
    }

    fn give_back(&mut self) {
        let len = self.keys.len();
        if len == 0 {
            self.clear();
        } else if self.keys.capacity() > 4 * len + ROOM_MIN {
            self.keys.shrink_to(2 * len);
            self.values.shrink_to(2 * len);
        }
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// Returns a value.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|index| &self.values[index])
    }

    /// Returns a value to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|index| &mut self.values[index])
    }

    /// Tells whether there is an entry with this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Puts a value in; returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(index) => Some(std::mem::replace(&mut self.values[index], value)),
            Err(index) => {
                self.put(index, key, value);
                None
            }
        }
    }

    /// Returns a value to be changed, which is put in first if there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let index = self.find(&key).unwrap_or_else(|index| {
            self.put(index, key, make());
            index
        });
        &mut self.values[index]
    }

    /// Removes an entry.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let index = self.find(key).ok()?;
        Some(self.take(index).1)
    }

    fn put(&mut self, index: usize, key: K, value: V) {
        self.make_room();
        self.keys.insert(index, key);
        self.values.insert(index, value);
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.keys.binary_search_by(|other| other.borrow().cmp(key))
    }
}

impl<'a, K, V> IntoIterator for &'a SmallMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Zip<std::slice::Iter<'a, K>, std::slice::Iter<'a, V>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_map(
            changes in proptest::collection::vec((0..6_u8, any::<u8>(), any::<u8>()), 0..400),
        ) {
            let (mut map, mut model) = (SmallMap::new(), BTreeMap::new());
            for (what, key, value) in changes {
                match what {
                    0 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    1 => prop_assert_eq!(map.pop_first(), model.pop_first()),
                    2 if key < 30 => {
                        map.retain(|key, value| (*key ^ *value) % 4 > 0);
                        model.retain(|key, value| (*key ^ *value) % 4 > 0);
                    }
                    3 => {
                        let least = *map.get_or_insert_with(key, || value);
                        prop_assert_eq!(least, *model.entry(key).or_insert(value));
                    }
                    _ => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.first_key_value(), model.first_key_value());
                prop_assert!(map.iter().eq(&model));
                prop_assert!(map.keys.capacity() <= 4 * map.len() + 2 * ROOM_MIN);
            }
        }
    }
}
