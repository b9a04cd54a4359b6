//! `enishi channel create | join | leave | list | count | discovery`; [`governed`] has what
//! administrators do.

use std::io::{self, Read};

use enishi_api::{Answer, ChannelCreate, ChannelJoin, Request};
use serde_json::json;
use zeroize::Zeroize;

use super::{Context, governed, names, offered, show, status, wireguard};
use crate::args::{Channel, Join, NETWORK_DEFAULT, Switch};
use crate::client::strange;
use crate::output::Output;
use crate::password;
use crate::problem::{Problem, Verdict};
use crate::text::Message;

/// The longest invitation, in octets.
const TICKET_BYTES_MAX: u64 = 16 * 1024;

pub(super) async fn run(cx: &Context, command: Channel) -> Result<Verdict, Problem> {
    match command {
        Channel::Create {
            name,
            network,
            password_file,
            address,
        } => {
            let password = match password_file {
                Some(file) => Some(password::read(&cx.out, &file)?.to_string()),
                None => None,
            };
            let request = ChannelCreate {
                name,
                network,
                password,
                address,
            };
            let is_founder = request.password.is_none();
            let name = request.name.clone();
            enter(cx, Request::ChannelCreate(request)).await?;
            if is_founder {
                cx.out.hint(&Message::ChannelFounded { name: &name });
            }
            Ok(Verdict::Yes)
        }
        Channel::Join(options) => {
            let join = join(cx, options)?;
            enter(cx, Request::ChannelJoin(join)).await
        }
        Channel::Leave { name, force } => leave(cx, name, force).await,
        Channel::List => list(cx).await,
        Channel::Show { name, svg } => show::run(cx, name, svg).await,
        Channel::Governed(command) => governed::run(cx, command).await,
        Channel::Names { name } => names::channel(cx, name).await,
        Channel::Offered(command) => offered::run(cx, command).await,
        Channel::Count { name } => count(cx, name).await,
        Channel::Discovery { name, state } => discovery(cx, name, state).await,
        Channel::WireGuard(command) => wireguard::run(cx, command).await,
    }
}

fn join(cx: &Context, options: Join) -> Result<ChannelJoin, Problem> {
    let address = options.address;
    match (options.ticket, options.name, options.password_file) {
        (Some(ticket), _, _) => Ok(ChannelJoin::Ticket {
            ticket: read_ticket(&cx.out, ticket)?,
            address,
        }),
        (None, Some(name), Some(file)) => Ok(ChannelJoin::Password {
            name,
            password: password::read(&cx.out, &file)?.to_string(),
            network: options
                .network
                .unwrap_or_else(|| NETWORK_DEFAULT.to_owned()),
            address,
        }),
        (None, _, _) => unreachable!("clap requires a ticket, or a name and a password file"),
    }
}

/// Gives an invitation as it was typed, or from standard input for `-`.
pub(super) fn read_ticket(out: &Output, ticket: String) -> Result<String, Problem> {
    if ticket != "-" {
        return Ok(ticket);
    }
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(TICKET_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Problem::Usage(out.text(&Message::InputUnreadable { error: &error })))?;
    match text.trim() {
        "" => Err(Problem::Usage(out.text(&Message::TicketEmpty))),
        ticket => Ok(ticket.to_owned()),
    }
}

/// Asks to make or join a channel, and wipes the password afterwards.
async fn enter(cx: &Context, mut request: Request) -> Result<Verdict, Problem> {
    let answer = cx.client.ask(&request).await;
    wipe(&mut request);
    let Answer::Channel(channel) = answer? else {
        return Err(strange(&cx.out));
    };
    let message = Message::ChannelReady {
        name: &channel.name,
        address: channel.address,
        interface: channel.interface.as_deref(),
    };
    cx.out.result(&channel, &message)?;
    if let (false, Some(notice)) = (cx.out.json, &channel.notice) {
        cx.out.line(notice)?;
    }
    Ok(Verdict::Yes)
}

fn wipe(request: &mut Request) {
    match request {
        Request::ChannelCreate(ChannelCreate { password, .. }) => password.zeroize(),
        Request::ChannelJoin(ChannelJoin::Password { password, .. }) => password.zeroize(),
        Request::ChannelJoin(ChannelJoin::Ticket { ticket, .. }) => ticket.zeroize(),
        _ => {}
    }
}

async fn leave(cx: &Context, name: String, force: bool) -> Result<Verdict, Problem> {
    let request = Request::ChannelLeave {
        name: name.clone(),
        force,
    };
    let answer = match cx.client.ask(&request).await {
        Err(Problem::Founder(_)) => {
            let message = Message::FounderLeaves { name: &name };
            return Err(Problem::Founder(cx.out.text(&message)));
        }
        answer => answer?,
    };
    let Answer::Done = answer else {
        return Err(strange(&cx.out));
    };
    cx.out.result(
        &json!({ "left": name }),
        &Message::ChannelLeft { name: &name },
    )?;
    Ok(Verdict::Yes)
}

async fn list(cx: &Context) -> Result<Verdict, Problem> {
    let Answer::Channels { channels } = cx.client.ask(&Request::ChannelList).await? else {
        return Err(strange(&cx.out));
    };
    if cx.out.json {
        cx.out.object(&json!({ "channels": channels }))?;
    } else if channels.is_empty() {
        cx.out.hint(&Message::NoChannels);
    } else {
        cx.out.line(&status::channels(cx, &channels))?;
    }
    Ok(Verdict::Yes)
}

/// Counts whom a message to all reaches; the answer is no unless that is everybody.
async fn count(cx: &Context, name: String) -> Result<Verdict, Problem> {
    let Answer::Counted(count) = cx.client.ask(&Request::ChannelCount { name }).await? else {
        return Err(strange(&cx.out));
    };
    let message = Message::Counted {
        received: count.received,
        members: count.members,
    };
    cx.out.result(&count, &message)?;
    match count.received == count.members {
        true => Ok(Verdict::Yes),
        false => Ok(Verdict::No),
    }
}

/// Tells whether programs that choose no device look for others in a channel, or decides it.
async fn discovery(cx: &Context, name: String, state: Option<Switch>) -> Result<Verdict, Problem> {
    let on = state.map(|state| state == Switch::On);
    let request = Request::ChannelDiscovery { name, on };
    let Answer::Discovery(discovery) = cx.client.ask(&request).await? else {
        return Err(strange(&cx.out));
    };
    let message = Message::Discovery {
        name: &discovery.channel,
        on: discovery.on,
    };
    cx.out.result(&discovery, &message)?;
    Ok(Verdict::Yes)
}
