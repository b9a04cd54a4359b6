//! `enishi up`: the daemon in the foreground.

use std::io::IsTerminal;
use std::path::PathBuf;

use enishi_host::config::Config;
use enishi_host::daemon::{Daemon, Options, StartError};
use enishi_host::turn::NOISY_LOG_TARGETS;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{Switch, Up};
use crate::output::Output;
use crate::problem::{Problem, Verdict};

/// The environment's word on what is logged, before the configuration's.
const LOG_VARIABLE: &str = "RUST_LOG";

/// How many threads run the daemon.
const THREADS: usize = 2;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`Problem`] says why it could not start.
pub(crate) fn run(out: &Output, data: PathBuf, up: Up) -> Result<Verdict, Problem> {
    let options = Options {
        data,
        config: up.config,
        no_tun: up.no_tun,
        no_dns: up.no_dns,
        device: up.device,
        socks: up.socks,
        http_proxy: up.http_proxy,
        listen: up.listen,
        mdns: up.mdns.map(|state| state == Switch::On),
        bootstrap: up.bootstrap,
        record: up.record,
        record_limit: up.record_limit,
        client: up.client,
    };
    let config = Config::load(options.config.as_deref(), &options.data);
    let config = config.map_err(|error| Problem::Usage(with_stop(&error.to_string())))?;
    start_log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| Problem::No(format!("The daemon cannot start its threads: {error}.")))?;
    let verdict = runtime.block_on(serve(out, options, config));
    // Whatever is left, such as open streams, ends with the daemon.
    runtime.shutdown_background();
    verdict
}

async fn serve(out: &Output, options: Options, config: Config) -> Result<Verdict, Problem> {
    let refused = |error| Problem::No(format!("Signals cannot be waited for: {error}."));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    // The terminal was closed.
    let mut hangup = signal(SignalKind::hangup()).map_err(refused)?;
    let daemon = Daemon::start(options, config)
        .await
        .map_err(|error| problem(&error))?;
    if ready(out, &daemon) == Err(Problem::OutputClosed) {
        tracing::debug!("nobody reads standard output");
    }
    let signalled = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    daemon.run(signalled).await;
    Ok(Verdict::Yes)
}

/// Tells that the daemon can be asked and dialled.
fn ready(out: &Output, daemon: &Daemon) -> Result<(), Problem> {
    let (node, listening) = (daemon.node_id(), daemon.listening());
    let control = daemon.control().display();
    if out.json {
        return out.object(&json!({
            "node_id": node.to_string(),
            "listening": listening,
            "control": control.to_string(),
        }));
    }
    let listening: Vec<String> = listening.iter().map(ToString::to_string).collect();
    let listening = listening.join(", ");
    out.line(&format!(
        "ready: node {node} listening on {listening}; control {control}"
    ))
}

/// Logs to standard error.
fn start_log(configured: &str) -> Result<(), Problem> {
    let filter = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| quiet(configured));
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Problem::Usage(format!(
            "What is to be logged, `{filter}`, is not understood: {error}."
        ))
    })?;
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Telling of a log that cannot be written, to the same place, would panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    started.map_err(|error| Problem::No(format!("The log cannot be started: {error}.")))
}

/// A level alone is meant for this program; its libraries tell only what is wrong.
fn quiet(configured: &str) -> String {
    match configured.contains(['=', ',']) {
        true => configured.to_owned(),
        false => {
            // A WireGuard client that is away is nothing wrong, nor is a strange datagram.
            let off = ["boringtun"].into_iter().chain(NOISY_LOG_TARGETS);
            let off: String = off.map(|target| format!("{target}=off,")).collect();
            format!("error,{off}enishi={configured},enishi_host={configured}")
        }
    }
}

fn problem(error: &StartError) -> Problem {
    let message = with_stop(&error.to_string());
    match error.is_usage() {
        true => Problem::Usage(message),
        false => Problem::No(message),
    }
}

fn with_stop(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.'))
}
