//! `channel offer`, `withdraw` and `offers`: services of members, to which names lead; and
//! `channel count`, whom a message to all reaches.

use std::time::Duration;

use enishi_api::{Answer, Count, Failure, Offer, OfferAsk};
use enishi_services::Node;
use enishi_services::vnet::wire::{Offers, SERVICE_TEXTS_BYTES_MAX, SERVICES_MAX, ServiceOffer};
use enishi_services::vnet::{Command, Event};
use tokio::sync::Semaphore;

use super::channels::{closed, unknown};
use super::desk::{Desk, no, usage};
use super::dns;
use super::government::wait_for;

/// How long receipts are waited for; the node gives up earlier.
const COUNT_TIME_MAX: Duration = Duration::from_secs(15);

/// One change after the other: each goes on from what the one before has left.
static CHANGING: Semaphore = Semaphore::const_new(1);

pub(super) async fn answer(desk: &Desk, ask: OfferAsk) -> Result<Answer, Failure> {
    let name = match ask {
        OfferAsk::List { channel } => channel,
        OfferAsk::Offer {
            channel,
            service,
            port,
            texts,
        } => {
            let offer = service_offer(&service, port, texts)?;
            change(desk, &channel, |offers| put(offers, offer)).await?;
            channel
        }
        OfferAsk::Withdraw { channel, service } => {
            let asked = parse(&service)?;
            let withdraw = |offers: &mut Offers| match take(offers, &asked) {
                true => Ok(()),
                false => Err(no(format!(
                    "This node does not offer `{service}` in channel `{channel}`."
                ))),
            };
            change(desk, &channel, withdraw).await?;
            channel
        }
    };
    list(desk, &name).await
}

/// Changes what this node offers to the members of a channel.
///
/// # Errors
/// There is no such channel, or `change` says why not.
pub(super) async fn change(
    desk: &Desk,
    name: &str,
    change: impl FnOnce(&mut Offers) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // The semaphore is never closed.
    let _turn = CHANGING.acquire().await.map_err(|_| closed())?;
    let asked = name.to_owned();
    let look = move |node: &Node| {
        let (id, channel) = node.vnet().by_name(&asked)?;
        Some((id, channel.offers().clone()))
    };
    let (channel, mut offers) = desk.look(look).await?.ok_or_else(|| unknown(name))?;
    change(&mut offers)?;
    desk.vnet(Command::Offer { channel, offers }).await
}

/// Adds a service, in place of what was said of it before.
fn put(offers: &mut Offers, offer: ServiceOffer) -> Result<(), Failure> {
    take(offers, &(offer.name.clone(), offer.udp));
    offers.services.push(offer);
    if offers.services.len() > SERVICES_MAX {
        return Err(usage(format!(
            "A node offers at most {SERVICES_MAX} services in a channel."
        )));
    }
    match offers.are_bounded() {
        true => Ok(()),
        false => Err(usage(format!(
            "The texts of all services of a node have at most {SERVICE_TEXTS_BYTES_MAX} octets \
             together."
        ))),
    }
}

/// Takes a service away; tells whether it was there.
fn take(offers: &mut Offers, (name, udp): &(String, bool)) -> bool {
    let before = offers.services.len();
    let is_meant = |known: &ServiceOffer| known.name == *name && known.udp == *udp;
    offers.services.retain(|known| !is_meant(known));
    offers.services.len() < before
}

fn service_offer(service: &str, port: u16, texts: Vec<String>) -> Result<ServiceOffer, Failure> {
    let (name, udp) = parse(service)?;
    if port == 0 {
        return Err(usage("A service has a port from 1 to 65535."));
    }
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|c| (0x20..0x7f).contains(&c));
    let is_text = |text: &String| text.len() <= 255 && text.split('=').next().is_some_and(is_key);
    if let Some(wrong) = texts.iter().find(|text| !is_text(text)) {
        return Err(usage(format!(
            "`{wrong}` is no text of a service, which is KEY or KEY=VALUE of at most 255 octets, \
             the key in ASCII."
        )));
    }
    Ok(ServiceOffer {
        name,
        udp,
        port,
        texts,
    })
}

/// Reads `_http._tcp`: the service's name, in small letters, and whether it is not by TCP.
fn parse(service: &str) -> Result<(String, bool), Failure> {
    let parts = service
        .strip_prefix('_')
        .and_then(|service| service.split_once("._"));
    let read = parts.and_then(|(name, protocol)| {
        let udp = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => false,
            "udp" => true,
            _ => return None,
        };
        ServiceOffer::is_name(name).then(|| (name.to_ascii_lowercase(), udp))
    });
    read.ok_or_else(|| {
        usage(format!(
            "`{service}` names no service, as `_http._tcp` or `_sip._udp` do: 1 to 15 letters, \
             digits and `-` (RFC 6335), and `_tcp` or `_udp`."
        ))
    })
}

async fn list(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    let hosts = dns::hosts(desk, name).await?;
    let asked = name.to_owned();
    let look = move |node: &Node| {
        let (_, channel) = node.vnet().by_name(&asked)?;
        let me = node.id();
        let others = channel
            .members()
            .map(|claim| (claim.contact.id(), &claim.offers));
        let others = others.filter(|(id, _)| *id != me);
        let all = others.chain([(me, channel.offers())]);
        let all = all.flat_map(|(id, offers)| offers.services.iter().map(move |of| (id, of)));
        let mut all: Vec<_> = all.map(|(id, of)| (id, of.clone(), id == me)).collect();
        all.sort();
        Some(all)
    };
    let all = desk.look(look).await?.ok_or_else(|| unknown(name))?;
    let offer = |(id, offer, own): (_, ServiceOffer, bool)| Offer {
        service: format!("_{}._{}", offer.name, if offer.udp { "udp" } else { "tcp" }),
        port: offer.port,
        texts: offer.texts,
        node_id: format!("{id}"),
        host: hosts
            .iter()
            .find(|host| host.node == id)
            .map(|host| host.name.clone()),
        own,
    };
    Ok(Answer::Offers {
        offers: all.into_iter().map(offer).collect(),
    })
}

/// Counts whom a message to all members of a channel reaches.
pub(super) async fn count(desk: &Desk, name: String) -> Result<Answer, Failure> {
    let asked = name.clone();
    let look = move |node: &Node| node.vnet().by_name(&asked).map(|(id, _)| id);
    let id = desk.look(look).await?.ok_or_else(|| unknown(&name))?;
    let mut events = desk.events();
    desk.vnet(Command::Count(id)).await?;
    let counted = wait_for(&mut events, COUNT_TIME_MAX, |event| match event {
        Event::Counted { channel, count } if *channel == id => Some(*count),
        _ => None,
    });
    match counted.await.flatten() {
        Some(count) => Ok(Answer::Counted(Count {
            channel: name,
            members: count.expected,
            received: count.received,
        })),
        None => Err(no(
            "The message could not be sent: the node is not among the members yet, or sends more \
             to all than it may; try again in a few seconds.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_their_texts_are_read() {
        assert_eq!(parse("_HTTP._tcp").unwrap(), ("http".to_owned(), false));
        assert_eq!(parse("_sip._UDP").unwrap(), ("sip".to_owned(), true));
        for wrong in [
            "http",
            "_http",
            "_http._sctp",
            "_._tcp",
            "_a b._tcp",
            "_a._b._tcp",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let with = |text: &str| service_offer("_http._tcp", 80, vec![text.to_owned()]);
        for text in ["path=/wiki", "path=", "printer", "who=阿木"] {
            assert!(with(text).is_ok(), "{text}");
        }
        for wrong in ["", "=x", "鍵=x", &"x".repeat(256)] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(service_offer("_http._tcp", 0, vec![]).is_err());
    }

    #[test]
    fn a_service_is_offered_once_and_within_bounds() {
        let mut offers = Offers::default();
        let offer = |service: &str, port| service_offer(service, port, vec![]).unwrap();
        put(&mut offers, offer("_http._tcp", 80)).unwrap();
        put(&mut offers, offer("_http._tcp", 81)).unwrap();
        put(&mut offers, offer("_http._udp", 80)).unwrap();
        assert_eq!(offers.services.len(), 2);
        assert!(take(&mut offers, &("http".to_owned(), false)));
        assert!(!take(&mut offers, &("http".to_owned(), false)));
        for number in 1..SERVICES_MAX {
            put(&mut offers, offer(&format!("_s{number}._tcp"), 80)).unwrap();
        }
        assert!(put(&mut offers.clone(), offer("_more._tcp", 80)).is_err());
        let long = vec!["x".repeat(200); 3];
        assert!(put(&mut offers, service_offer("_s1._tcp", 80, long).unwrap()).is_err());
    }
}
