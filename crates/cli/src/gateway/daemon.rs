//! For tests: a daemon that answers as told.

use std::path::Path;
use std::sync::Arc;

use enishi_api::{Answer, Failure, FailureKind, Overlay, Request};
use enishi_host::control::{Control, StreamCall};
use tokio::sync::{Mutex, mpsc, watch as channel};
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::limits::{Pending, Places};
use super::watch::SideState;
use super::{Shared, State};
use crate::output::Output;
use crate::text::Language;

pub(super) const OUT: Output = Output {
    json: false,
    language: Language::En,
};

/// Answers on the control socket of a directory.
pub(super) fn serve(
    data: &Path,
    mut answer: impl FnMut(Request) -> Answer + Send + 'static,
) -> mpsc::Receiver<StreamCall> {
    let control = Control::bind(data).unwrap();
    let (calls, mut asked) = mpsc::channel::<enishi_host::control::Call>(64);
    let (streams, opened) = mpsc::channel(1024);
    tokio::spawn(control.serve(calls, streams, std::future::pending()));
    tokio::spawn(async move {
        while let Some(call) = asked.recv().await {
            let _ = call.answers.send(answer(call.request)).await;
        }
    });
    opened
}

pub(super) fn no(message: &str) -> Answer {
    Answer::Failure(Failure {
        kind: FailureKind::No,
        message: message.to_owned(),
    })
}

/// What a daemon says of its overlay.
pub(super) fn overlay(id: &str) -> Answer {
    Answer::Overlay(Overlay {
        name: id.to_owned(),
        overlay_id: id.to_owned(),
        node_id: String::new(),
        form: String::new(),
        authority: None,
        is_authority: false,
        is_member: true,
        refusal: None,
        expires_unix_s: None,
        gate: None,
    })
}

/// A side whose daemon has this data directory.
pub(super) fn side(data: &Path, overlay: &str) -> SideState {
    SideState {
        data: data.to_owned(),
        name: overlay.to_owned(),
        overlay: overlay.to_owned(),
        channel: "office".to_owned(),
        node: String::new(),
        consent: String::new(),
        expires_unix_s: u64::MAX,
        objection: None,
        revoked: std::collections::BTreeSet::new(),
    }
}

/// A gateway with an audit log in a directory.
pub(super) fn shared(dir: &Path, state: State) -> Arc<Shared> {
    Arc::new(Shared {
        out: OUT,
        dir: dir.to_owned(),
        journal: Journal::open(dir).unwrap(),
        places: Places::default(),
        pending: Pending::default(),
        state: channel::Sender::new(state),
        flows: Mutex::default(),
        stop: CancellationToken::new(),
    })
}
