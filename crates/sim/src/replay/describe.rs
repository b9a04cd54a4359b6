//! Inputs and outputs in a line each, for people. What a service keeps on disk is told by
//! its length alone, for some of it is secret.

use std::fmt::Debug;

use enishi_services::service::ServiceId;
use enishi_services::{Command, Event, Input, Output};

/// The longest description, in characters.
const CHARACTERS_MAX: usize = 400;

/// The longest key that is shown, in octets.
const KEY_BYTES_SHOWN_MAX: usize = 64;

/// Returns the name of an input's kind.
pub(super) const fn kind(input: &Input) -> &'static str {
    match input {
        Input::Message { .. } => "message",
        Input::Unreachable(_) => "unreachable",
        Input::Closed(_) => "closed",
        Input::Bootstrap(_) => "bootstrap",
        Input::Addresses(_) => "addresses",
        Input::Restored { .. } => "restored",
        Input::Storage { .. } => "storage",
        Input::Path { .. } => "path",
        Input::Load(_) => "load",
        Input::Command(_) => "command",
        Input::Leave => "leave",
        Input::Timeout => "timeout",
        Input::Measured(_) => "measured",
    }
}

/// Describes an input.
pub(super) fn input(input: &Input) -> String {
    match input {
        Input::Message { from, message } => short(&format!("{message:?} from {from:?}")),
        Input::Restored {
            service,
            key,
            value,
            age_s,
        } => format!(
            "restored {}, {} octets, written {age_s} s ago",
            slot(*service, key),
            value.len()
        ),
        Input::Command(Command::Dht(command)) => told("command", command),
        Input::Command(Command::Diag(command)) => told("command", command),
        Input::Command(Command::Vnet(command)) => told("command", command),
        Input::Command(Command::Admission(command)) => told("command", command),
        Input::Command(Command::Multicast(command)) => told("command", command),
        Input::Command(Command::Reach(command)) => told("command", command),
        other => short(&format!("{other:?}")),
    }
}

/// Describes an output.
pub(super) fn output(output: &Output) -> String {
    match output {
        Output::Persist {
            service,
            key,
            value: Some(value),
        } => format!("keep {}, {} octets", slot(*service, key), value.len()),
        Output::Persist {
            service,
            key,
            value: None,
        } => format!("forget {}", slot(*service, key)),
        Output::Remember(contacts) => format!("remember {} contacts", contacts.len()),
        Output::Send { to, message } => short(&format!("send {message:?} to {:?}", to.id())),
        Output::Dial(contact) => told("dial", contact),
        Output::GiveUp(peer) => told("give up the session with", peer),
        Output::Drop(peer) => told("drop the session with", peer),
        Output::Event(Event::Joined) => "event: joined".to_owned(),
        Output::Event(Event::Dht(event)) => told("event:", event),
        Output::Event(Event::Diag(event)) => told("event:", event),
        Output::Event(Event::Vnet(event)) => told("event:", event),
        Output::Event(Event::Multicast(event)) => told("event:", event),
        Output::Event(Event::Reach(event)) => told("event:", event),
    }
}

fn slot(service: ServiceId, key: &[u8]) -> String {
    let shown = &key[..key.len().min(KEY_BYTES_SHOWN_MAX)];
    format!("{service:?} \"{}\"", shown.escape_ascii())
}

fn told(what: &str, thing: &impl Debug) -> String {
    short(&format!("{what} {thing:?}"))
}

fn short(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}
