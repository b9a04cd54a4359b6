//! The forwards that a person set up: adding, removing, listing, and keeping them over restarts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enishi_api::{Answer, Failure, Forward, ForwardAdd, ForwardWay, Protocol};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::super::channels::{sentence, unknown};
use super::super::desk::{Desk, no, usage};
use super::{destination, forwarding};
use crate::data_dir::{DataDirError, read_settings, write_private};

/// The file in the data directory.
const FILE_NAME: &str = "forwards.json";

/// The most forwards of a node.
const FORWARDS_MAX: usize = 64;

/// The longest file, in octets.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// All forwards of a node.
#[derive(Default)]
pub(in super::super) struct Forwards {
    data: PathBuf,
    table: Mutex<BTreeMap<u32, Entry>>,
}

struct Entry {
    forward: ForwardAdd,
    state: Arc<State>,
    /// Carries it; none before the daemon has started.
    task: Option<JoinHandle<()>>,
}

/// A forward on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: u32,
    #[serde(flatten)]
    forward: ForwardAdd,
}

/// How a forward is.
#[derive(Default)]
pub(super) struct State {
    open: AtomicU32,
    total: AtomicU64,
    notice: Mutex<Option<String>>,
}

/// A connection or flow that counts as long as it is there.
pub(super) struct Carried(Arc<State>);

impl State {
    pub(super) fn carry(self: &Arc<Self>) -> Carried {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        Carried(Arc::clone(self))
    }

    /// Notes why the forward does not work; none when it does.
    pub(super) fn note(&self, notice: Option<String>) {
        *self.notice.lock().unwrap_or_else(PoisonError::into_inner) = notice;
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Forwards {
    /// Reads those that were kept.
    pub(in super::super) fn load(data: &Path) -> Result<Self, DataDirError> {
        let path = data.join(FILE_NAME);
        let kept = read_settings(&path, FILE_BYTES_MAX, |text| {
            serde_json::from_str::<Vec<Kept>>(text).map_err(|error| error.to_string())
        })?;
        let entries = kept.unwrap_or_default().into_iter().take(FORWARDS_MAX);
        let table = entries.map(|kept| (kept.id, Entry::new(kept.forward)));
        Ok(Self {
            data: data.to_owned(),
            table: Mutex::new(table.collect()),
        })
    }

    /// Carries them from now on.
    pub(in super::super) fn start(&self, desk: &Desk) {
        for entry in self.table().values_mut() {
            entry.start(desk);
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, table: &BTreeMap<u32, Entry>) -> Result<(), Failure> {
        let kept: Vec<Kept> = table
            .iter()
            .map(|(id, entry)| Kept {
                id: *id,
                forward: entry.forward.clone(),
            })
            .collect();
        let text = serde_json::to_string_pretty(&kept).unwrap_or_default() + "\n";
        let written = write_private(&self.data, &self.data.join(FILE_NAME), &text);
        written.map_err(|error| no(sentence(&error.to_string())))
    }
}

impl Entry {
    fn new(forward: ForwardAdd) -> Self {
        Self {
            forward,
            state: Arc::default(),
            task: None,
        }
    }

    fn start(&mut self, desk: &Desk) {
        let (forward, state) = (self.forward.clone(), Arc::clone(&self.state));
        self.task = Some(tokio::spawn(forwarding::run(desk.clone(), forward, state)));
    }

    fn show(&self, id: u32) -> Forward {
        let notice = self.state.notice.lock();
        Forward {
            id,
            forward: self.forward.clone(),
            open: self.state.open.load(Ordering::Relaxed),
            total: self.state.total.load(Ordering::Relaxed),
            notice: notice.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Adds a forward.
pub(in super::super) async fn add(desk: &Desk, add: ForwardAdd) -> Result<Answer, Failure> {
    check(desk, &add).await?;
    let forwards = &desk.shared.forwards;
    let mut table = forwards.table();
    if table.len() >= FORWARDS_MAX {
        return Err(no(format!(
            "A node has at most {FORWARDS_MAX} forwards; remove one first."
        )));
    }
    if let Some((id, _)) = table
        .iter()
        .find(|(_, entry)| overlap(&entry.forward, &add))
    {
        return Err(usage(format!(
            "Forward {id} takes that port already; remove it first (`enishi forward remove {id}`)."
        )));
    }
    let id = table.keys().next_back().map_or(1, |last| last + 1);
    table.insert(id, Entry::new(add));
    if let Err(failure) = forwards.keep(&table) {
        table.remove(&id);
        return Err(failure);
    }
    let entry = table.entry(id).and_modify(|entry| entry.start(desk));
    Ok(Answer::Forward(match entry {
        std::collections::btree_map::Entry::Occupied(entry) => entry.get().show(id),
        std::collections::btree_map::Entry::Vacant(_) => unreachable!("it was put there"),
    }))
}

/// Removes a forward.
pub(in super::super) fn remove(desk: &Desk, id: u32) -> Result<Answer, Failure> {
    let forwards = &desk.shared.forwards;
    let mut table = forwards.table();
    let entry = table.remove(&id).ok_or_else(|| {
        no(format!(
            "There is no forward {id}; `enishi forward list` shows them."
        ))
    })?;
    if let Err(failure) = forwards.keep(&table) {
        table.insert(id, entry);
        return Err(failure);
    }
    Ok(Answer::Done)
}

/// Lists the forwards.
pub(in super::super) fn list(desk: &Desk) -> Answer {
    let forwards = all(desk);
    Answer::Forwards { forwards }
}

/// Returns how all forwards are.
pub(in super::super) fn all(desk: &Desk) -> Vec<Forward> {
    let table = desk.shared.forwards.table();
    table.iter().map(|(id, entry)| entry.show(*id)).collect()
}

/// Checks whether a forward makes sense and its port can be had.
async fn check(desk: &Desk, add: &ForwardAdd) -> Result<(), Failure> {
    let name = add.channel.clone();
    let is_known = desk.look(move |node| node.vnet().by_name(&name).is_some());
    if !is_known.await? {
        return Err(unknown(&add.channel));
    }
    match &add.way {
        ForwardWay::Local { listen, to } => {
            if destination::parse(to).is_none() {
                return Err(usage(format!(
                    "`{to}` is no member and port; write HOST:80, 10.77.0.9:80 or [fd00::9]:80."
                )));
            }
            let bound = match add.protocol {
                Protocol::Tcp => TcpListener::bind(listen).await.map(drop),
                Protocol::Udp => UdpSocket::bind(listen).await.map(drop),
            };
            bound.map_err(|error| no(format!("This host cannot listen at {listen}: {error}.")))
        }
        ForwardWay::Remote { port, to } => match (*port, to.port()) {
            (1.., 1..) => Ok(()),
            _ => Err(usage("A port is a number from 1 to 65535.")),
        },
    }
}

/// Tells whether two forwards would take the same port.
fn overlap(one: &ForwardAdd, other: &ForwardAdd) -> bool {
    one.protocol == other.protocol
        && match (&one.way, &other.way) {
            (ForwardWay::Local { listen: one, .. }, ForwardWay::Local { listen: other, .. }) => {
                one == other && one.port() != 0
            }
            (ForwardWay::Remote { port: a, .. }, ForwardWay::Remote { port: b, .. }) => {
                a == b && one.channel == other.channel
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16, to: &str) -> ForwardAdd {
        ForwardAdd {
            channel: "office".to_owned(),
            way: ForwardWay::Local {
                listen: ([127, 0, 0, 1], port).into(),
                to: to.to_owned(),
            },
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let data = tempfile::tempdir().unwrap();
        let forwards = Forwards::load(data.path()).unwrap();
        let mut table = forwards.table();
        assert!(table.is_empty());
        table.insert(3, Entry::new(local(8080, "aki:80")));
        let remote = ForwardAdd {
            way: ForwardWay::Remote {
                port: 53,
                to: ([127, 0, 0, 1], 5353).into(),
            },
            protocol: Protocol::Udp,
            ..local(1, "a:1")
        };
        table.insert(5, Entry::new(remote.clone()));
        forwards.keep(&table).unwrap();
        let again = Forwards::load(data.path()).unwrap();
        let again = again.table();
        assert_eq!(again.keys().copied().collect::<Vec<_>>(), [3, 5]);
        assert_eq!(again[&5].forward, remote);
        std::fs::write(data.path().join(FILE_NAME), "[{}]").unwrap();
        let error = Forwards::load(data.path()).err().unwrap().to_string();
        assert!(error.contains("move it away"), "{error}");
    }

    #[test]
    fn a_port_is_forwarded_once() {
        assert!(overlap(&local(80, "a:1"), &local(80, "b:2")));
        assert!(!overlap(&local(80, "a:1"), &local(81, "a:1")));
        let udp = ForwardAdd {
            protocol: Protocol::Udp,
            ..local(80, "a:1")
        };
        assert!(!overlap(&local(80, "a:1"), &udp));
    }
}
