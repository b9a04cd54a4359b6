//! One file for each family of commands; this one only tells which.

mod channel;
pub(crate) mod closed;
pub(crate) mod completions;
mod connect;
mod dht;
mod doctor;
mod forward;
mod gateway;
mod governed;
pub(crate) mod map;
mod names;
mod offered;
mod ping;
mod proxy;
mod replay;
mod route;
mod show;
pub(crate) mod sim;
mod status;
mod ticket;
mod trace;
mod turn;
mod verify;
mod wireguard;

use enishi_api::{Answer, Request};
use serde_json::json;

use crate::args::{
    Channel, Connect, Dht, DoctorPart, Forward, Gateway, Overlay, Ping, Proxy, Route, Trace, Turn,
    Verify,
};
use crate::client::{Client, strange};
use crate::output::Output;
use crate::problem::{Problem, Verdict};
use crate::text::Message;

/// A command that talks to the daemon.
#[derive(Debug)]
pub(crate) enum DaemonCommand {
    Down,
    Status,
    Peers,
    Invite,
    Overlay(Overlay),
    Channel(Channel),
    Route(Route),
    Resolve(String),
    Proxy(Proxy),
    Turn(Turn),
    Forward(Forward),
    Gateway(Gateway),
    Ping(Ping),
    Trace(Trace),
    Verify(Verify),
    Doctor(Option<DoctorPart>),
    Dht(Dht),
    Connect(Connect),
}

/// What such a command works with.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The daemon.
    pub(crate) client: Client,
    /// Where results go.
    pub(crate) out: Output,
}

/// Carries out a command.
///
/// # Errors
/// [`Problem`] says why it could not be done, and decides the exit code.
pub(crate) async fn run(cx: &Context, command: DaemonCommand) -> Result<Verdict, Problem> {
    match command {
        DaemonCommand::Down => down(cx).await,
        DaemonCommand::Status => status::status(cx).await,
        DaemonCommand::Peers => status::peers(cx).await,
        DaemonCommand::Invite => ticket::overlay(cx).await,
        DaemonCommand::Overlay(command) => closed::run(cx, command).await,
        DaemonCommand::Channel(command) => channel::run(cx, command).await,
        DaemonCommand::Resolve(name) => names::resolve(cx, name).await,
        DaemonCommand::Proxy(options) => proxy::run(cx, options).await,
        DaemonCommand::Turn(command) => turn::run(cx, command).await,
        DaemonCommand::Forward(command) => forward::run(cx, command).await,
        DaemonCommand::Gateway(command) => gateway::run(cx, command).await,
        DaemonCommand::Ping(options) => ping::run(cx, options).await,
        DaemonCommand::Trace(options) => trace::run(cx, options).await,
        DaemonCommand::Route(command) => route::run(cx, command).await,
        DaemonCommand::Verify(options) => verify::run(cx, options).await,
        DaemonCommand::Doctor(part) => doctor::run(cx, part).await,
        DaemonCommand::Dht(command) => dht::run(cx, command).await,
        DaemonCommand::Connect(options) => connect::run(cx, options).await,
    }
}

async fn down(cx: &Context) -> Result<Verdict, Problem> {
    let Answer::Done = cx.client.ask(&Request::Shutdown).await? else {
        return Err(strange(&cx.out));
    };
    cx.out
        .result(&json!({ "stopped": true }), &Message::Stopped)?;
    Ok(Verdict::Yes)
}
