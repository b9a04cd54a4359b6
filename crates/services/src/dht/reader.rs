//! The reader: this node's gets.
//!
//! A get goes to the node in charge of the key, and in the sure way where that does not help. What
//! it brought is remembered for a while: who reads the same key again and again, as members do the
//! pages of their channel's directory, says what it knows, and is sent it again only when there
//! is something else.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::Time;

use super::sure::Purpose;
use super::wire::{self, Found, Question, Summary};
use super::{Caller, Consistency, Cx, Dht, Event, GetAnswer};
use crate::record::{Key, Record};

/// The most gets that are under way.
const UNDER_WAY_MAX: usize = 512;
/// How many octets of records are remembered: the directory of a thousand members.
const REMEMBERED_BYTES_MAX: usize = 1 << 20;
/// How long what nobody reads is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// A get under way.
#[derive(Debug)]
struct Get {
    caller: Caller,
    key: Key,
    consistency: Consistency,
    /// What the node in charge was told that this one knows.
    known: Option<Summary>,
}

/// What a get brought.
#[derive(Debug)]
struct Remembered {
    /// Of all that was sent, but for marks of removals.
    summary: Summary,
    /// What of it is genuine, and no mark of a removal.
    records: Vec<Record>,
    until: Time,
}

/// The gets under way, and what earlier ones brought.
#[derive(Debug, Default)]
pub(super) struct Reader {
    open: BTreeMap<u64, Get>,
    remembered: BTreeMap<Key, Remembered>,
    /// How many octets these are.
    bytes: usize,
}

impl Dht {
    pub(super) fn start_get(
        &mut self,
        caller: Caller,
        key: Key,
        consistency: Consistency,
        cx: &mut Cx<'_>,
    ) {
        if self.reader.open.len() >= UNDER_WAY_MAX {
            return cx.emit(Event::Got {
                caller,
                answer: GetAnswer::Failed,
            });
        }
        if consistency == Consistency::Sure {
            return self.start_sure(Purpose::Get(caller, key), cx);
        }
        let token = self.holder.token();
        let remembered = self.reader.remembered.get(&key);
        let known = remembered.map(|remembered| remembered.summary);
        let get = Get {
            caller,
            key,
            consistency,
            known,
        };
        self.reader.open.insert(token, get);
        let question = Question {
            key,
            consistency,
            known,
        };
        cx.ask(
            token,
            key.position(),
            matches!(consistency, Consistency::Any | Consistency::Hasty),
            wire::encode(&question),
        );
    }

    pub(super) fn get_answered(&mut self, token: u64, body: &[u8], cx: &mut Cx<'_>) {
        let Ok(found) = wire::decode(body) else {
            return self.call_failed(token, cx);
        };
        let Some(get) = self.reader.open.remove(&token) else {
            // An answer to a question that was not asked: a put looks for its holder.
            return self.call_failed(token, cx);
        };
        let (caller, key) = (get.caller, get.key);
        let genuine = match found {
            Found::Records(found) => {
                let summary = Summary::of(&found);
                let known = self.reader.remembered.get(&key);
                let known = known.map_or(&[][..], |known| &known.records);
                let found = found.into_iter().map(|aged| aged.record);
                let genuine: Vec<Record> = found
                    .filter(|record| record.key() == key && !record.content().removed)
                    .filter(|record| known.contains(record) || record.verify())
                    .collect();
                self.reader.remember(key, summary, &genuine, cx.now());
                genuine
            }
            Found::Same => match self.reader.recall(&get, cx.now()) {
                Ok(records) => records,
                // Another get has brought something else meanwhile.
                Err(Forgotten::Replaced) => {
                    return self.start_get(caller, key, get.consistency, cx);
                }
                Err(Forgotten::NeverKnown) => return self.get_failed(&get, cx),
            },
        };
        if genuine.is_empty() && get.consistency != Consistency::Hasty {
            // Nothing proves that there is nothing.
            return self.start_sure(Purpose::Get(caller, key), cx);
        }
        let answer = GetAnswer::Records(genuine);
        cx.emit(Event::Got { caller, answer });
    }

    pub(super) fn call_failed(&mut self, token: u64, cx: &mut Cx<'_>) {
        match self.reader.open.remove(&token) {
            Some(get) => self.get_failed(&get, cx),
            None => self.try_again(token, cx),
        }
    }

    fn get_failed(&mut self, get: &Get, cx: &mut Cx<'_>) {
        let (caller, answer) = (get.caller, GetAnswer::Failed);
        match get.consistency {
            Consistency::Hasty => cx.emit(Event::Got { caller, answer }),
            Consistency::Any | Consistency::Majority | Consistency::Sure => {
                self.start_sure(Purpose::Get(caller, get.key), cx);
            }
        }
    }
}

/// Why it cannot be said what was the same.
#[derive(Debug)]
enum Forgotten {
    /// Something else is remembered now.
    Replaced,
    /// Nothing was claimed to be known.
    NeverKnown,
}

impl Reader {
    /// Remembers what a get brought, if there is room.
    fn remember(&mut self, key: Key, summary: Summary, records: &[Record], now: Time) {
        self.forget(key);
        let size = bytes(records);
        // What nobody has yet replaces nothing: who reads more than there is room for in turn
        // would find none of it again.
        if records.is_empty() || self.bytes + size > REMEMBERED_BYTES_MAX {
            return;
        }
        self.bytes += size;
        let remembered = Remembered {
            summary,
            records: records.to_vec(),
            until: now + REMEMBERED_FOR,
        };
        self.remembered.insert(key, remembered);
    }

    /// Forgets what nobody has read for long.
    pub(super) fn expire(&mut self, now: Time) {
        let old = self.remembered.iter().filter(|(_, r)| r.until <= now);
        let old: Vec<Key> = old.map(|(key, _)| *key).collect();
        old.into_iter().for_each(|key| self.forget(key));
    }

    fn forget(&mut self, key: Key) {
        if let Some(remembered) = self.remembered.remove(&key) {
            self.bytes -= bytes(&remembered.records);
        }
    }

    fn recall(&mut self, get: &Get, now: Time) -> Result<Vec<Record>, Forgotten> {
        let known = get.known.ok_or(Forgotten::NeverKnown)?;
        match self.remembered.get_mut(&get.key) {
            Some(remembered) if remembered.summary == known => {
                remembered.until = now + REMEMBERED_FOR;
                Ok(remembered.records.clone())
            }
            Some(_) | None => Err(Forgotten::Replaced),
        }
    }
}

fn bytes(records: &[Record]) -> usize {
    records.iter().map(Record::size).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use enishi_overlay::Keypair;

    use super::*;
    use crate::record::{Content, Kind};

    fn records(writer: u32, bytes: usize) -> (Key, Vec<Record>) {
        let mut seed = [1; 32];
        seed[..4].copy_from_slice(&writer.to_le_bytes());
        let writer = Keypair::from_seed(&seed);
        let content = Content {
            kind: Kind::Set,
            writer: writer.id(),
            owner: writer.id(),
            seq: 1,
            since_unix_s: 0,
            lease_s: 3600,
            removed: false,
            value: Bytes::from(vec![7; bytes]),
        };
        let record = Record::sign(content, &writer, &writer);
        (record.key(), vec![record])
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_nobody_reads_goes() {
        let mut reader = Reader::default();
        let start = Time::from_secs(1);
        let summary = Summary::of(&[]);
        for writer in 0..500 {
            let (key, records) = records(writer, 4000);
            reader.remember(key, summary, &records, start);
            reader.remember(key, summary, &records, start);
            assert!(reader.bytes <= REMEMBERED_BYTES_MAX);
        }
        let kept = reader.remembered.len();
        assert!((200..300).contains(&kept), "{kept}");
        // Those that were first stay, and one of them is read again.
        let (key, first) = records(0, 4000);
        let get = Get {
            caller: Caller::Host(1),
            key,
            consistency: Consistency::Majority,
            known: Some(summary),
        };
        let later = start + REMEMBERED_FOR / 2;
        assert_eq!(reader.recall(&get, later).unwrap(), first);
        reader.expire(start + REMEMBERED_FOR);
        assert_eq!((reader.remembered.len(), reader.bytes), (1, bytes(&first)));
        reader.expire(later + REMEMBERED_FOR);
        assert_eq!((reader.remembered.len(), reader.bytes), (0, 0));
        assert!(matches!(
            reader.recall(&get, later),
            Err(Forgotten::Replaced)
        ));
    }
}
