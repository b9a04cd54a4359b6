//! What may pass at present: asked of both daemons every second.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enishi_api::{Answer, Overlay, Request};
use enishi_host::audit::Event;
use enishi_host::gateway::{self, Opening, SIDES, Side};
use tokio::time::timeout;

use super::Shared;
use crate::client::Client;
use crate::output::Output;
use crate::problem::{Problem, sentence};

/// Between two looks; a revocation is acted on within this time and the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a daemon may take to answer before it counts as gone.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);

/// How often the consents are shown anew in the overlays, and for how long they stay there.
const SHOW_INTERVAL: Duration = Duration::from_secs(600);
const SHOW_LEASE_S: u32 = 3600;

/// Before it is tried again what could not be shown.
const SHOW_PAUSE: Duration = Duration::from_secs(30);

/// What may pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    /// The sides, at most [`SIDES`].
    pub(crate) sides: Vec<SideState>,
    /// What the consents name, by the side from which it is used and the gateway's port there.
    pub(crate) ports: BTreeMap<(usize, u16), Port>,
    /// The documents that are copied, each with the side into which.
    pub(crate) documents: BTreeSet<(usize, String)>,
    /// The same of those that the consents take, whether they count or not.
    pub(crate) wanted: BTreeSet<(usize, String)>,
    /// Why nothing passes, or less than the consents name.
    pub(crate) reason: Option<String>,
}

/// One side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SideState {
    /// The data directory of its daemon.
    pub(crate) data: PathBuf,
    /// The overlay's name; empty when its daemon never answered.
    pub(crate) name: String,
    pub(crate) overlay: String,
    pub(crate) channel: String,
    pub(crate) node: String,
    pub(crate) consent: String,
    pub(crate) expires_unix_s: u64,
    /// Why the consent does not count.
    pub(crate) objection: Option<String>,
    /// The nodes and names that the overlay's authority has revoked.
    pub(crate) revoked: BTreeSet<String>,
}

/// A port of the gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port {
    pub(crate) service: String,
    /// Where it leads; none while it may not be used.
    pub(crate) opening: Option<Opening>,
    /// Why not.
    pub(crate) reason: String,
}

impl State {
    /// Tells whether a member of a side may still use a port as it did: between these overlays, the
    /// user's first.
    pub(super) fn allows(
        &self,
        at: (usize, u16),
        overlays: &[String; 2],
        user: &str,
        before: &Opening,
    ) -> bool {
        let now = self.opening(at);
        let is_same = now.is_some_and(|now| {
            now.member == before.member && now.member_port == before.member_port
        });
        let admits = |now: &Opening| user.parse().is_ok_and(|user| now.admits(&user));
        let stays = |side: usize, overlay: &str, node: &str| {
            let side = self.sides.get(side);
            side.is_some_and(|side| side.overlay == overlay && !side.revoked.contains(node))
        };
        let [from, to] = overlays;
        is_same
            && now.is_some_and(admits)
            && stays(at.0, from, user)
            && stays(1 - at.0, to, &before.member.to_string())
    }

    /// Returns where a port leads at present.
    pub(super) fn opening(&self, at: (usize, u16)) -> Option<&Opening> {
        self.ports.get(&at).and_then(|port| port.opening.as_ref())
    }

    fn open(&self) -> Vec<String> {
        let open = self.ports.iter().filter(|(_, port)| port.opening.is_some());
        let words = |((side, _), port): (&(usize, u16), &Port)| {
            let overlay = |at: usize| self.sides.get(at).map_or("", |side| &side.overlay);
            format!(
                "{} {} -> {}",
                port.service,
                overlay(*side),
                overlay(1 - *side)
            )
        };
        let copied = |(taker, document): &(usize, String)| {
            let overlay = |at: usize| self.sides.get(at).map_or("", |side| &side.overlay);
            format!("{document} {} => {}", overlay(1 - *taker), overlay(*taker))
        };
        open.map(words)
            .chain(self.documents.iter().map(copied))
            .collect()
    }
}

/// Looks again and again, and notes what has changed.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut told = None;
    loop {
        let state = look(&shared.out, &shared.dir).await;
        let now = (state.open(), state.reason.clone());
        shared.state.send_if_modified(|before| {
            let is_other = *before != state;
            *before = state;
            is_other
        });
        if told.as_ref() != Some(&now) {
            let (open, reason) = now.clone();
            match &reason {
                Some(reason) => shared.out.notice(&sentence(reason)),
                None => shared.out.notice(&format!("{}.", open.join(", "))),
            }
            let written = shared.journal.write(Event::Changed { open, reason }).await;
            if let Err(error) = written {
                shared.out.notice(&sentence(&error.to_string()));
            }
            told = Some(now);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Asks both daemons, and says what may pass.
pub(crate) async fn look(out: &Output, dir: &Path) -> State {
    let sides = match gateway::sides(dir) {
        Ok(sides) => sides,
        Err(error) => {
            return State {
                reason: Some(error.to_string()),
                ..State::default()
            };
        }
    };
    let [one, other] = [sides.first(), sides.get(1)].map(|side| ask(out, side));
    let (one, other) = tokio::join!(one, other);
    let states = [one, other].into_iter().flatten().collect();
    judge(&sides, states)
}

async fn ask(out: &Output, side: Option<&Side>) -> Option<SideState> {
    let side = side?;
    let mut state = SideState {
        data: side.data.clone(),
        name: String::new(),
        overlay: side.consent.overlay().to_string(),
        channel: side.consent.terms().channel.clone(),
        node: side.consent.terms().gateway.to_string(),
        consent: side.consent.name().to_string(),
        expires_unix_s: side.consent.expires_unix_s(),
        objection: None,
        revoked: BTreeSet::new(),
    };
    let client = Client::new(side.data.clone(), *out);
    match timeout(LOOK_TIME_MAX, overlay(&client)).await {
        Ok(Ok(overlay)) => {
            state.objection = gateway::objection(side, &overlay);
            state.name = overlay.name;
            let revoked = overlay.gate.map(|gate| gate.revoked);
            state.revoked = revoked.unwrap_or_default().into_iter().collect();
        }
        Ok(Err(problem)) => {
            let why = problem.message().unwrap_or_default();
            state.objection = Some(format!("its daemon cannot be asked: {why}"));
        }
        Err(_) => state.objection = Some("its daemon does not answer".to_owned()),
    }
    Some(state)
}

async fn overlay(client: &Client) -> Result<Overlay, Problem> {
    match client.call(&Request::OverlayShow).await?.next().await? {
        Some(Answer::Overlay(overlay)) => Ok(overlay),
        _ => Err(Problem::No("it gives another answer".to_owned())),
    }
}

fn judge(sides: &[Side], states: Vec<SideState>) -> State {
    let mut state = State {
        reason: reason(sides, &states),
        sides: states,
        ..State::default()
    };
    let counts = state.sides.iter().all(|side| side.objection.is_none());
    for (at, user) in sides.iter().enumerate() {
        // Of two, the other one.
        let openings = match (sides.len(), counts, sides.iter().rev().nth(at)) {
            (SIDES, true, Some(owner)) => gateway::openings(user, owner),
            _ => Vec::new(),
        };
        let take = |name: &str| (at, name.to_owned());
        let taken = user.consent.terms().takes.iter();
        state.wanted.extend(taken.map(|name| take(name)));
        if let (SIDES, true, Some(giver)) = (sides.len(), counts, sides.iter().rev().nth(at)) {
            let given = gateway::documents(user, giver);
            state.documents.extend(given.into_iter().map(take));
        }
        for out in &user.consent.terms().lets_out {
            let mut openings = openings.iter();
            let opening = openings.find(|opening| opening.service == out.service);
            let reason = match (&state.reason, opening) {
                (_, Some(_)) => String::new(),
                (Some(reason), None) => reason.clone(),
                (None, None) => "the other administrator does not let this service in".to_owned(),
            };
            let port = Port {
                service: out.service.clone(),
                opening: opening.cloned(),
                reason,
            };
            state.ports.insert((at, out.port), port);
        }
    }
    state
}

/// Why nothing may pass at all.
fn reason(sides: &[Side], states: &[SideState]) -> Option<String> {
    let [one, other] = sides else {
        let count = sides.len();
        return Some(format!(
            "{count} of {SIDES} consents are here: one of each overlay's administrator is \
             needed (`enishi gateway accept`)"
        ));
    };
    let objection = states.iter().find_map(|side| {
        let objection = side.objection.as_ref()?;
        Some(format!("overlay {}: {objection}", short(&side.overlay)))
    });
    if objection.is_some() {
        return objection;
    }
    let names = |one: &Side, other: &Side| one.consent.terms().other == other.consent.overlay();
    if !names(one, other) || !names(other, one) {
        return Some("the two consents do not name each other's overlay".to_owned());
    }
    let is_nothing = [(one, other), (other, one)].iter().all(|(user, owner)| {
        let documents = gateway::documents(user, owner);
        gateway::openings(user, owner).is_empty() && documents.is_empty()
    });
    is_nothing.then(|| "the two consents have no service and no document in common".to_owned())
}

pub(crate) fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// Shows each consent in the overlay that it is of, so that the members can see it.
pub(super) async fn show(shared: Arc<Shared>) {
    let mut shown = BTreeSet::new();
    let mut renew = tokio::time::Instant::now() + SHOW_INTERVAL;
    loop {
        if tokio::time::Instant::now() >= renew {
            shown.clear();
            renew += SHOW_INTERVAL;
        }
        for side in gateway::sides(&shared.dir).unwrap_or_default() {
            let name = side.consent.name().to_string();
            if shown.contains(&name) {
                continue;
            }
            let request = Request::DhtPut {
                key: gateway::public_name(&side.consent.terms().gateway.to_string()),
                value: gateway::write_consent(&side.consent).into_bytes(),
                lease_s: SHOW_LEASE_S,
            };
            let client = Client::new(side.data, shared.out);
            let put = async { client.call(&request).await?.next().await };
            if let Ok(Ok(Some(Answer::Stored { .. }))) = timeout(SHOW_PAUSE, put).await {
                shown.insert(name);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(SHOW_PAUSE / 10) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}
