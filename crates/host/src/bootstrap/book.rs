//! Which source found whom: for people who ask where a node's neighbours come from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use enishi_api::BootstrapSource;
use enishi_overlay::{Contact, NodeId};

/// Of how many nodes is remembered who found them.
const NODES_MAX: usize = 256;

/// Where nodes are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Invitations, given at the start.
    Invitation,
    /// The contacts of earlier runs.
    EarlierRuns,
    /// mDNS.
    LocalNetwork,
    /// Nodes that the configuration or the command line names by their addresses.
    Servers,
    /// TXT records of DNS names.
    DnsList,
    /// The Mainline DHT.
    Mainline,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Invitation => "invitation",
            Self::EarlierRuns => "earlier-runs",
            Self::LocalNetwork => "local-network",
            Self::Servers => "servers",
            Self::DnsList => "dns-list",
            Self::Mainline => "mainline",
        }
    }
}

/// What is known of a source.
#[derive(Debug, Default)]
struct Entry {
    found: BTreeSet<NodeId>,
    error: Option<String>,
}

/// What the sources did.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<BTreeMap<Source, Entry>>);

impl Book {
    /// A source begins to look.
    pub(crate) fn begin(&self, source: Source) {
        self.lock().entry(source).or_default();
    }

    /// A source found nodes. What was wrong with it is over.
    pub(crate) fn found(&self, source: Source, contacts: &[Contact]) {
        if contacts.is_empty() {
            return;
        }
        let mut entries = self.lock();
        let entry = entries.entry(source).or_default();
        entry.error = None;
        let new = contacts.iter().map(Contact::id);
        let room = NODES_MAX.saturating_sub(entry.found.len());
        entry.found.extend(new.take(room));
    }

    /// A source looked and did not fail; it may have found nobody.
    pub(crate) fn worked(&self, source: Source) {
        self.lock().entry(source).or_default().error = None;
    }

    /// A source failed.
    pub(crate) fn failed(&self, source: Source, error: String) {
        tracing::debug!(source = source.name(), error, "looking for nodes");
        self.lock().entry(source).or_default().error = Some(error);
    }

    /// Returns what to tell of each source, when these are the node's peers.
    pub(crate) fn told(&self, peers: &BTreeSet<NodeId>) -> Vec<BootstrapSource> {
        let entries = self.lock();
        let told = entries.iter().map(|(source, entry)| BootstrapSource {
            source: source.name().to_owned(),
            found: entry.found.len() as u64,
            peers: entry.found.intersection(peers).count() as u64,
            error: entry.error.clone(),
        });
        told.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Source, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
