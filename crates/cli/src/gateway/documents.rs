//! Copies documents: values of one overlay's DHT that its administrator gives, and the other's
//! takes.
//!
//! The copy has the name of the original, and belongs to the gateway's node in the overlay into
//! which it is put: whoever reads it there has the gateway's word for it, not the author's. It is
//! taken out again when a consent counts no more, when the gateway stops, and by a later run when this
//! one was killed ([`Copies`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enishi_api::{Answer, Request};
use enishi_host::audit::{Event, content_hash};
use enishi_host::gateway::{Copies, Place};
use tokio::time::{Instant, timeout};

use super::Shared;
use super::watch::{SideState, State};
use crate::client::Client;
use crate::problem::Problem;
use crate::problem::sentence;

/// How often originals are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a daemon may take.
const ASK_TIME_MAX: Duration = Duration::from_secs(30);

/// Before it is tried again what has failed, at first; and at most for what could not be put, and for
/// what could not be taken out.
const PAUSE: Duration = Duration::from_secs(5);
const PUT_PAUSE_MAX: Duration = Duration::from_secs(600);
const WITHDRAW_PAUSE_MAX: Duration = Duration::from_secs(60);

/// For how long a copy stays that is not renewed, in seconds.
const LEASE_S: u32 = 3600;

/// What was done about each document.
struct Done {
    /// What there may be of this run and of earlier ones.
    copies: Copies,
    /// The hash of what was copied.
    copied: BTreeMap<Place, String>,
    /// What could not be put, by its hash.
    failed: BTreeMap<Place, (String, Pause)>,
    /// What could not be taken out.
    stuck: BTreeMap<Place, Pause>,
    /// Which need not be taken out (again).
    withdrawn: BTreeSet<Place>,
}

/// When it is tried again: each time after twice as long.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Pause {
    fn after(before: Option<Self>, max: Duration) -> Self {
        let length = before.map_or(PAUSE, |before| (before.length * 2).min(max));
        let until = Instant::now() + length;
        Self { until, length }
    }

    fn is_over(self) -> bool {
        self.until <= Instant::now()
    }
}

/// Copies as long as the gateway runs, and takes all out at its end.
pub(super) async fn copy(shared: Arc<Shared>, copies: Copies) {
    let mut done = Done::new(copies);
    let mut states = shared.state.subscribe();
    loop {
        let state = states.borrow_and_update().clone();
        tokio::select! {
            () = done.work(&shared, &state) => {}
            () = shared.stop.cancelled() => break,
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            _ = states.changed() => {}
            () = shared.stop.cancelled() => break,
        }
    }
    done.end(&shared).await;
}

impl Done {
    fn new(copies: Copies) -> Self {
        Self {
            copies,
            copied: BTreeMap::new(),
            failed: BTreeMap::new(),
            stuck: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
        }
    }

    async fn work(&mut self, shared: &Shared, state: &State) {
        // Before both daemons were asked for the first time nothing is known.
        if state.sides.is_empty() && state.reason.is_none() {
            return;
        }
        // What was copied by a consent that is gone, and copies of an earlier run.
        let mut surplus: BTreeMap<Place, PathBuf> = self.copies.places().clone();
        for (taker, name) in &state.wanted {
            if let Some(side) = state.sides.get(*taker) {
                surplus.insert((side.overlay.clone(), name.clone()), side.data.clone());
            }
        }
        for (taker, name) in &state.documents {
            let sides = (state.sides.get(*taker), state.sides.get(1 - *taker));
            if let (Some(to), Some(from)) = sides {
                let place = (to.overlay.clone(), name.clone());
                surplus.remove(&place);
                // The gateway may have another node there now.
                let earlier = self.copies.places().get(&place).cloned();
                match earlier.filter(|data| *data != to.data) {
                    Some(data) => self.withdraw(shared, place, &data).await,
                    None => self.refresh(shared, (*taker, name), from, to).await,
                }
            }
        }
        for (place, data) in surplus {
            self.withdraw(shared, place, &data).await;
        }
    }

    /// Takes all out.
    async fn end(&mut self, shared: &Shared) {
        self.stuck.clear();
        for (place, data) in self.copies.places().clone() {
            self.withdraw(shared, place, &data).await;
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
        let get = Request::DhtGet { key };
        let Ok(Answer::Value { value, .. }) = ask(shared, &from.data, get).await else {
            return;
        };
        let place = (to.overlay.clone(), name.clone());
        let hash = content_hash(&value);
        if self.copied.get(&place) == Some(&hash) {
            return;
        }
        let failed = self.failed.get(&place);
        let failed = failed.filter(|(failed, _)| *failed == hash);
        let pause = failed.map(|(_, pause)| *pause);
        if pause.is_some_and(|pause| !pause.is_over()) {
            return;
        }
        // Each time: whatever comes of it, the document may be there then.
        let copied = Event::Copied {
            document: name.clone(),
            from_overlay: from.overlay.clone(),
            to_overlay: to.overlay.clone(),
            octets: value.len() as u64,
            content_hash: hash.clone(),
            consents: vec![to.consent.clone(), from.consent.clone()],
        };
        if !tell(shared, copied).await {
            return;
        }
        // It may have been revoked meanwhile, or be another overlay's.
        let is_open = |state: &State| {
            let is_same = |at: usize, side: &SideState| {
                let now = state.sides.get(at);
                now.is_some_and(|now| now.overlay == side.overlay && now.data == side.data)
            };
            state.documents.contains(&(taker, name.clone()))
                && is_same(taker, to)
                && is_same(1 - taker, from)
        };
        if !is_open(&shared.state.borrow()) {
            return;
        }
        let put = Request::DhtPut {
            key: name.clone(),
            value,
            lease_s: LEASE_S,
        };
        // What is there after that is not known before the answer.
        self.withdrawn.remove(&place);
        self.copied.remove(&place);
        let done = match self.copies.add(&place, &to.data) {
            Ok(()) => ask(shared, &to.data, put).await.map(drop),
            Err(error) => Err(Problem::No(sentence(&error.to_string()))),
        };
        match done {
            Ok(()) => {
                self.failed.remove(&place);
                self.copied.insert(place, hash);
            }
            Err(problem) => {
                let reason = problem.message().unwrap_or_default().to_owned();
                let document = name.clone();
                tell(shared, Event::NotCopied { document, reason }).await;
                self.failed
                    .insert(place, (hash, Pause::after(pause, PUT_PAUSE_MAX)));
            }
        }
    }

    async fn withdraw(&mut self, shared: &Shared, place: Place, data: &Path) {
        let pause = self.stuck.get(&place).copied();
        if self.withdrawn.contains(&place) || pause.is_some_and(|pause| !pause.is_over()) {
            return;
        }
        let (overlay, document) = place.clone();
        let key = document.clone();
        let removed = match is_in(shared, data, &overlay).await {
            Ok(()) => ask(shared, data, Request::DhtRemove { key })
                .await
                .map(drop),
            Err(problem) => Err(problem),
        };
        match removed {
            Ok(()) => {
                let to_overlay = overlay;
                let withdrawn = Event::Withdrawn {
                    document,
                    to_overlay,
                };
                tell(shared, withdrawn).await;
            }
            // Nothing is there, or it is another's. What was put is tried again.
            Err(Problem::No(_)) if !self.copies.places().contains_key(&place) => {}
            Err(_) => {
                let pause = Pause::after(pause, WITHDRAW_PAUSE_MAX);
                self.stuck.insert(place, pause);
                return;
            }
        }
        if let Err(error) = self.copies.remove(&place) {
            shared.out.notice(&sentence(&error.to_string()));
        }
        self.copied.remove(&place);
        self.failed.remove(&place);
        self.stuck.remove(&place);
        self.withdrawn.insert(place);
    }
}

/// Tells whether the node of a data directory is in an overlay now: a name belongs to somebody else
/// in another one.
async fn is_in(shared: &Shared, data: &Path, overlay: &str) -> Result<(), Problem> {
    match ask(shared, data, Request::OverlayShow).await? {
        Answer::Overlay(now) if now.overlay_id == overlay => Ok(()),
        _ => Err(Problem::NoDaemon("it is in another overlay".to_owned())),
    }
}

async fn ask(shared: &Shared, data: &Path, request: Request) -> Result<Answer, Problem> {
    let client = Client::new(data.to_owned(), shared.out);
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

#[cfg(test)]
mod tests;
