//! `invite` and `channel invite`.

use enishi_api::{Answer, Failure};
use enishi_overlay::Contact;
use enishi_overlay::peers::Peer;
use enishi_services::Node;
use enishi_services::ticket::{CONTACTS_MAX, ChannelTicket, Ticket};

use super::channels::unknown;
use super::desk::Desk;
use crate::store::unix_s;

/// How many addresses of each node an invitation names: it has to fit into a QR code.
const ADDRESSES_MAX: usize = 3;

const DAY_S: u64 = 86_400;

pub(super) async fn overlay(desk: &Desk) -> Result<Answer, Failure> {
    let contacts = desk.look(contacts).await?;
    Ok(answer(desk, contacts, None))
}

pub(super) async fn channel(desk: &Desk, name: String) -> Result<Answer, Failure> {
    let asked = name.clone();
    let look = move |node: &Node| {
        let (_, channel) = node.vnet().by_name(&asked)?;
        let channel = ChannelTicket {
            name: asked,
            network: channel.network(),
            secret: **channel.secret(),
        };
        Some((contacts(node), channel))
    };
    let found = desk.look(look).await?;
    let (contacts, channel) = found.ok_or_else(|| unknown(&name))?;
    Ok(answer(desk, contacts, Some(channel)))
}

fn answer(desk: &Desk, contacts: Vec<Contact>, channel: Option<ChannelTicket>) -> Answer {
    let valid_s = u64::from(desk.shared.config.ticket_valid_days) * DAY_S;
    let ticket = Ticket {
        overlay: desk.shared.overlay,
        contacts,
        expires_unix_s: unix_s() + valid_s,
        channel,
    };
    Answer::Ticket {
        ticket: ticket.to_string(),
    }
}

/// This node and its nearest neighbours, in case that this one is away; of a client its
/// hosts.
pub(super) fn contacts(node: &Node) -> Vec<Contact> {
    let overlay = node.overlay();
    let near = overlay
        .near()
        .iter()
        .filter_map(|place| overlay.peer(place.id));
    let near = near.map(Peer::contact);
    // A client is no way into the ring; its hosts are.
    let me = (!overlay.is_client()).then_some(overlay.me());
    let hosts = overlay.peers().filter(|_| overlay.is_client());
    let contacts = me.into_iter().chain(near).chain(hosts.map(Peer::contact));
    let short = |contact: &Contact| {
        let addresses = contact.addresses().iter().copied();
        Contact::new(contact.id(), addresses.take(ADDRESSES_MAX))
    };
    contacts.take(CONTACTS_MAX).map(short).collect()
}
