//! Copies documents: values of one overlay's DHT that its administrator gives, and the other's
//! takes.
//!
//! The copy has the name of the original, and belongs to the gateway's node in the overlay into
//! which it is put: whoever reads it there has the gateway's word for it, not the author's. It is
//! taken out again when a consent counts no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use enishi_api::{Answer, Request};
use enishi_host::audit::{Event, content_hash};
use tokio::time::timeout;

use super::watch::{SideState, State};
use super::{Shared, sentence};
use crate::client::Client;
use crate::problem::Problem;

/// How often originals are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a daemon may take.
const ASK_TIME_MAX: Duration = Duration::from_secs(30);

/// For how long a copy stays that is not renewed, in seconds.
const LEASE_S: u32 = 3600;

/// The overlay into which a document is put, and its name.
type Document = (String, String);

/// What was done about each document.
#[derive(Default)]
struct Done {
    /// The hash of what was copied, and where it was put.
    copied: BTreeMap<Document, (String, SideState)>,
    /// Why not, as it was told.
    failed: BTreeMap<Document, String>,
    /// Which need not be taken out (again).
    withdrawn: BTreeSet<Document>,
}

/// Copies as long as the gateway runs.
pub(super) async fn copy(shared: Arc<Shared>) {
    let mut done = Done::default();
    let mut states = shared.state.subscribe();
    loop {
        let state = states.borrow_and_update().clone();
        done.work(&shared, &state).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            _ = states.changed() => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

impl Done {
    async fn work(&mut self, shared: &Shared, state: &State) {
        // What was copied by a consent that is gone, and copies of an earlier run.
        let mut surplus: BTreeMap<Document, SideState> = BTreeMap::new();
        for (document, (_, side)) in &self.copied {
            surplus.insert(document.clone(), side.clone());
        }
        for (taker, name) in &state.wanted {
            if let Some(side) = state.sides.get(*taker) {
                surplus.insert((side.overlay.clone(), name.clone()), side.clone());
            }
        }
        for (taker, name) in &state.documents {
            let sides = (state.sides.get(*taker), state.sides.get(1 - *taker));
            if let (Some(to), Some(from)) = sides {
                surplus.remove(&(to.overlay.clone(), name.clone()));
                self.refresh(shared, (*taker, name), from, to).await;
            }
        }
        for (document, side) in surplus {
            self.withdraw(shared, document, &side).await;
        }
    }

    async fn refresh(
        &mut self,
        shared: &Shared,
        (taker, name): (usize, &String),
        from: &SideState,
        to: &SideState,
    ) {
        let key = name.clone();
        // What is not there now was not there yet, or nobody could be asked.
        let Ok(Answer::Value { value, .. }) = ask(shared, from, Request::DhtGet { key }).await
        else {
            return;
        };
        let document = (to.overlay.clone(), name.clone());
        let hash = content_hash(&value);
        if self
            .copied
            .get(&document)
            .is_some_and(|(copied, _)| *copied == hash)
        {
            return;
        }
        let copied = Event::Copied {
            document: name.clone(),
            from_overlay: from.overlay.clone(),
            to_overlay: to.overlay.clone(),
            octets: value.len() as u64,
            content_hash: hash.clone(),
            consents: vec![to.consent.clone(), from.consent.clone()],
        };
        let is_again = self.failed.contains_key(&document);
        if !is_again && !tell(shared, copied).await {
            return;
        }
        // It may have been revoked meanwhile.
        let is_open = |state: &State| state.documents.contains(&(taker, name.clone()));
        if !is_open(&shared.state.borrow()) {
            return;
        }
        let put = Request::DhtPut {
            key: name.clone(),
            value,
            lease_s: LEASE_S,
        };
        self.withdrawn.remove(&document);
        match ask(shared, to, put).await {
            Ok(_) => {
                self.failed.remove(&document);
                self.copied.insert(document, (hash, to.clone()));
            }
            Err(problem) => {
                let reason = problem.message().unwrap_or_default().to_owned();
                if self.failed.get(&document) != Some(&reason) {
                    let (document, reason) = (name.clone(), reason.clone());
                    tell(shared, Event::NotCopied { document, reason }).await;
                }
                self.failed.insert(document, reason);
            }
        }
    }

    async fn withdraw(&mut self, shared: &Shared, document: Document, to: &SideState) {
        if self.withdrawn.contains(&document) {
            return;
        }
        let key = document.1.clone();
        match ask(shared, to, Request::DhtRemove { key }).await {
            Ok(_) => {
                let (to_overlay, document) = document.clone();
                tell(
                    shared,
                    Event::Withdrawn {
                        document,
                        to_overlay,
                    },
                )
                .await;
            }
            // Nothing is there, or it is another's. Otherwise it is tried again.
            Err(Problem::No(_)) if !self.copied.contains_key(&document) => {}
            Err(_) => return,
        }
        self.copied.remove(&document);
        self.failed.remove(&document);
        self.withdrawn.insert(document);
    }
}

async fn ask(shared: &Shared, side: &SideState, request: Request) -> Result<Answer, Problem> {
    let client = Client::new(side.data.clone(), shared.out);
    let asked = async { client.call(&request).await?.next().await };
    match timeout(ASK_TIME_MAX, asked).await {
        Ok(answer) => answer?.ok_or_else(|| Problem::No("no answer".to_owned())),
        Err(_) => Err(Problem::NoDaemon("no answer in time".to_owned())),
    }
}

/// Writes a line; tells whether it is written.
async fn tell(shared: &Shared, event: Event) -> bool {
    let written = shared.journal.write(event).await;
    if let Err(error) = &written {
        shared.out.notice(&sentence(&error.to_string()));
    }
    written.is_ok()
}
