//! Takes connections at the ports that the consents name, also while they do not count: who is
//! refused is to be seen in the log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use enishi_api::{Answer, Request};
use tokio::task::JoinHandle;

use super::{Shared, flow};
use crate::client::Client;
use crate::problem::Problem;

/// Before a port is tried again that could not be had.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// A port. Sides are not named by their places: those change when a consent is accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The overlay, by its id.
    overlay: String,
    /// The data directory of the daemon.
    data: PathBuf,
    channel: String,
    port: u16,
}

/// Listens where it is to be listened, until the gateway stops.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut states = shared.state.subscribe();
    let mut ports: BTreeMap<Key, JoinHandle<()>> = BTreeMap::new();
    loop {
        let wanted: Vec<Key> = {
            let state = states.borrow_and_update();
            let key = |(side, port): &(usize, u16)| {
                let there = state.sides.get(*side)?;
                Some(Key {
                    overlay: there.overlay.clone(),
                    data: there.data.clone(),
                    channel: there.channel.clone(),
                    port: *port,
                })
            };
            state.ports.keys().filter_map(key).collect()
        };
        ports.retain(|key, task| {
            let stays = wanted.contains(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for key in wanted {
            let listen = || tokio::spawn(listen(Arc::clone(&shared), key.clone()));
            ports.entry(key.clone()).or_insert_with(listen);
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = shared.stop.cancelled() => break,
        }
    }
    for task in ports.into_values() {
        task.abort();
    }
}

async fn listen(shared: Arc<Shared>, key: Key) {
    let mut told = None;
    loop {
        let problem = take(&shared, &key, &mut told).await;
        let why = problem.message().unwrap_or_default().to_owned();
        // The same is said once.
        if told.as_ref() != Some(&why) {
            shared.out.notice(&format!("Port {}: {why}", key.port));
            told = Some(why);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Takes connections as long as that works; returns why it does not.
async fn take(shared: &Arc<Shared>, key: &Key, told: &mut Option<String>) -> Problem {
    let client = Client::new(key.data.clone(), shared.out);
    let request = Request::PortListen {
        channel: key.channel.clone(),
        port: key.port,
    };
    let mut answers = match client.call(&request).await {
        Ok(answers) => answers,
        Err(problem) => return problem,
    };
    loop {
        match answers.next().await {
            Ok(Some(Answer::PortOpen)) => *told = None,
            Ok(Some(Answer::PortConnection(arrived))) => {
                let overlay = key.overlay.clone();
                let flow = flow::run(Arc::clone(shared), overlay, key.port, arrived);
                let mut flows = shared.flows.lock().await;
                while flows.try_join_next().is_some() {}
                flows.spawn(flow);
            }
            Ok(_) => return Problem::No("The daemon has stopped.".to_owned()),
            Err(problem) => return problem,
        }
    }
}
