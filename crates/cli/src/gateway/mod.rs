//! `enishi gateway run`: joins two closed overlays as their administrators allow.
//!
//! ```text
//!   daemon in A                      gateway                       daemon in B
//!   port of a channel --connection--> flow --connection--> port of a member
//!                                      |
//!   consent, revocations <-- watch ----+---- watch --> consent, revocations
//!                                      |
//!                                   journal --> audit log
//! ```
//!
//! | part | does |
//! |---|---|
//! | `watch` | asks both daemons every second whether the consents count, and says what is open |
//! | `listen` | takes connections at the ports that the consents name |
//! | `flow` | decides about a connection, carries it, and cuts it when it is allowed no more |
//! | `documents` | copies values of one overlay's DHT into the other's |
//! | `limits` | how many connections, from whom, how fast |
//! | `journal` | writes the audit log, and that nothing may pass without it |
//!
//! The gateway is a process of its own that talks to the control sockets of two daemons, as any
//! program of the same user could. What it is told by a daemon it takes for true.

#[cfg(test)]
mod daemon;
mod documents;
mod flow;
mod journal;
mod limits;
mod listen;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enishi_host::audit::Event;
use enishi_host::data_dir::DataDir;
use enishi_host::gateway::Copies;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch as channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::output::Output;
use crate::problem::{Problem, Verdict, sentence};
use crate::text::{Gateway as Text, Message};
use journal::Journal;
use limits::{Pending, Places};
pub(crate) use watch::{SideState, State, look, short};

/// How long connections may take to be written to the log when the gateway stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// How long taking documents out may take then; what is left, a later run takes out.
const WITHDRAW_TIME_MAX: Duration = Duration::from_secs(5);

/// What all parts of a gateway share.
struct Shared {
    out: Output,
    dir: PathBuf,
    journal: Journal,
    places: Places,
    pending: Pending,
    state: channel::Sender<State>,
    /// The connections that are carried or decided about.
    flows: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

/// Runs the gateway of a directory until it is told to stop.
///
/// # Errors
/// [`Problem`] says why it could not start.
pub(crate) async fn run(out: Output, dir: &Path) -> Result<Verdict, Problem> {
    let failed = |error: &dyn std::fmt::Display| Problem::No(sentence(&error.to_string()));
    let refused = |error| Problem::No(format!("Signals cannot be waited for: {error}."));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    // The terminal was closed.
    let mut hangup = signal(SignalKind::hangup()).map_err(refused)?;
    let lock = DataDir::open(dir).map_err(|error| failed(&error))?;
    let shared = Arc::new(Shared {
        out,
        dir: dir.to_owned(),
        journal: Journal::open(dir).map_err(|error| failed(&error))?,
        places: Places::default(),
        pending: Pending::default(),
        state: channel::Sender::default(),
        flows: Mutex::default(),
        stop: CancellationToken::new(),
    });
    let copies = Copies::open(dir).map_err(|error| failed(&error))?;
    let started = shared.journal.write(Event::Started).await;
    started.map_err(|error| failed(&error))?;
    out.hint(&Message::Gateway(Text::Runs));
    let mut followed = tokio::spawn(watch::follow(Arc::clone(&shared)));
    tokio::spawn(watch::show(Arc::clone(&shared)));
    let copied = tokio::spawn(documents::copy(Arc::clone(&shared), copies));
    tokio::spawn(journal::count(Arc::clone(&shared)));
    tokio::spawn(listen::keep(Arc::clone(&shared)));
    let ended = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
        // Without it nobody would see that a consent was revoked.
        ended = &mut followed => ended,
    };
    shared.stop.cancel();
    let through = async { while shared.flows.lock().await.join_next().await.is_some() {} };
    // What is not through by then has no last line, as after a crash.
    let through = tokio::time::timeout(STOP_TIME_MAX, through);
    let withdrawn = tokio::time::timeout(WITHDRAW_TIME_MAX, copied);
    let _ = tokio::join!(through, withdrawn);
    let stopped = shared.journal.stop().await;
    drop(lock);
    stopped.map_err(|error| failed(&error))?;
    ended.map_err(|error| failed(&error))?;
    Ok(Verdict::Yes)
}
