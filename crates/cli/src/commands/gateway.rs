//! `enishi gateway consent | read | accept | forget | run | show | audit | list`.
//!
//! | part | does |
//! |---|---|
//! | `consent` | signs consents, and shows what one says |
//! | `state` | what a gateway may pass on |
//! | `log` | the audit log |
//! | `seen` | the gateways among the members of channels |

mod consent;
mod log;
mod seen;
mod state;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use enishi_host::gateway::{self, GatewayError, read_consent};
use serde_json::json;

use super::Context;
use super::channel::read_ticket;
use crate::args;
use crate::gateway as runtime;
use crate::problem::sentence;
use crate::problem::{Problem, Verdict};
use crate::text::{Gateway as Text, Message};

const DAY_S: u64 = 86_400;

pub(super) async fn run(cx: &Context, command: args::Gateway) -> Result<Verdict, Problem> {
    let dir = cx.client.data();
    match command {
        args::Gateway::Consent(options) => consent::sign(cx, options).await,
        args::Gateway::Read { consent } => {
            let consent = read_consent(&read_ticket(&cx.out, consent)?);
            let consent = consent.map_err(|error| Problem::Usage(sentence(&error.to_string())))?;
            consent::tell(cx, &consent)
        }
        args::Gateway::Accept { side, consent } => {
            let text = read_ticket(&cx.out, consent)?;
            make_dir(dir)?;
            let side = gateway::accept(dir, &side, &text).map_err(|error| problem(&error))?;
            let overlay = side.consent.overlay().to_string();
            let message = Message::Gateway(Text::Accepted { overlay: &overlay });
            cx.out.result(&consent::object(&side.consent), &message)?;
            Ok(Verdict::Yes)
        }
        args::Gateway::Forget { overlay } => {
            let overlay = gateway::forget(dir, &overlay).map_err(|error| problem(&error))?;
            let overlay = overlay.to_string();
            let message = Message::Gateway(Text::Forgotten { overlay: &overlay });
            cx.out.result(&json!({ "forgotten": overlay }), &message)?;
            Ok(Verdict::Yes)
        }
        args::Gateway::Run => runtime::run(cx.out, dir).await,
        args::Gateway::Show => state::show(cx).await,
        args::Gateway::Audit(options) => log::tell(cx, &options),
        args::Gateway::List => seen::list(cx).await,
    }
}

fn make_dir(dir: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|error| Problem::No(format!("{} cannot be made: {error}.", dir.display())))
}

fn ends(unix_s: u64) -> String {
    let left = unix_s.saturating_sub(now_s());
    match left {
        0..DAY_S => format!("{} h {} min", left / 3600, left % 3600 / 60),
        _ => format!("{} d {} h", left / DAY_S, left % DAY_S / 3600),
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn problem(error: &GatewayError) -> Problem {
    let text = sentence(&error.to_string());
    match error {
        GatewayError::Terms(_) | GatewayError::Text(_) => Problem::Usage(text),
        GatewayError::DataDir(_)
        | GatewayError::Closed(_)
        | GatewayError::NoAuthority
        | GatewayError::OtherOverlay(..)
        | GatewayError::OtherNode(..)
        | GatewayError::Full(..)
        | GatewayError::Unknown(_)
        | GatewayError::CopiesFull
        | GatewayError::Random(_) => Problem::No(text),
    }
}
