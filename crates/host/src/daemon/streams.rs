//! Byte streams between two members, over the session's bulk lane.
//!
//! ```text
//! connector -> acceptor     0        1        2
//!                          +--------+--------+------------------+
//!                          | 1      | length | service (length) |  then octets
//!                          +--------+--------+------------------+
//! acceptor -> connector    +--------+
//!                          | answer |  0 accepted, then octets; 1 nobody listens; 2 no member;
//!                          +--------+  3 the rules do not allow it
//! ```
//!
//! Both must be members of a common channel: before it connects, the connector has the
//! virtual network agree with the other node to exchange packets, in which both prove
//! their membership; the acceptor takes streams only from nodes with which it has agreed. Both
//! apply the channel's rules ([`passage`]).

mod passage;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use enishi_api::Failure;
use enishi_overlay::{Contact, NodeId};
use enishi_services::Node;
use enishi_services::vnet::{self, ChannelId};
use tokio::io::{self, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{broadcast, oneshot};

use super::channels::{is_name, sentence};
use super::desk::{Desk, no, usage};
use super::target::{self, Target};
use crate::control::Duplex;
use crate::places::Places;
use crate::session::{BulkReader, BulkWriter};
use passage::{Opener, Passage, Passages};

const VERSION: u8 = 1;
const ACCEPTED: u8 = 0;
const NOBODY: u8 = 1;
const NO_MEMBER: u8 = 2;
const NOT_ALLOWED: u8 = 3;

/// The most services that listen at one time.
const LISTENERS_MAX: usize = 64;

/// The most streams that are being accepted at one time, and of them from one member;
/// further ones are dropped.
const ACCEPTING_MAX: usize = 64;
const ACCEPTING_PER_PEER_MAX: usize = 8;

/// How long the other side may take for header or answer.
const OPEN_TIME_MAX: Duration = Duration::from_secs(5);

/// How long agreeing with a member may take.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(10);

type Taker = oneshot::Sender<Result<Duplex, Failure>>;

/// Who waits for a stream, by service.
pub(super) struct Listeners {
    waiting: Mutex<BTreeMap<String, Taker>>,
    /// For the streams that are being accepted, by who opened them.
    places: Arc<Places<NodeId>>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            places: Places::new(ACCEPTING_MAX, ACCEPTING_PER_PEER_MAX),
        }
    }
}

impl Listeners {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Taker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one who waits; gives him back with the reason when that cannot be.
    fn add(&self, service: String, taker: Taker) -> Result<(), (Taker, Failure)> {
        let mut waiting = self.waiting();
        waiting.retain(|_, taker| !taker.is_closed());
        if waiting.contains_key(&service) {
            let message = format!("Another program listens for `{service}` already.");
            return Err((taker, usage(message)));
        }
        if waiting.len() >= LISTENERS_MAX {
            let message = format!("{LISTENERS_MAX} services listen already; end one first.");
            return Err((taker, no(message)));
        }
        waiting.insert(service, taker);
        Ok(())
    }

    fn take(&self, service: &str) -> Option<Taker> {
        let taker = self.waiting().remove(service);
        taker.filter(|taker| !taker.is_closed())
    }
}

/// Waits for one stream to a service.
pub(super) fn listen(desk: &Desk, service: String, taker: Taker) {
    let added = match is_name(&service) {
        true => desk.shared.listeners.add(service, taker),
        false => Err((taker, bad_service())),
    };
    if let Err((taker, failure)) = added {
        // The caller may have gone just now.
        let _ = taker.send(Err(failure));
    }
}

/// Opens a stream to a service of another member.
pub(super) async fn connect(desk: &Desk, target: &str, service: &str) -> Result<Duplex, Failure> {
    if !is_name(service) {
        return Err(bad_service());
    }
    let target = Target::parse(target)?;
    let peer = target::node(desk, &target).await?;
    if peer == desk.sessions.me() {
        return Err(usage(
            "A stream goes to another member, not to this node itself.",
        ));
    }
    let events = desk.events();
    let (contact, passage) = attach_to(desk, peer).await?;
    let opened = desk.sessions.open_bulk(&contact).await;
    let (mut reader, mut writer) = opened.map_err(|error| no(sentence(&error.to_string())))?;
    let exchange = async {
        writer.write_all(&header(service)).await?;
        writer.flush().await?;
        reader.read_u8().await
    };
    match tokio::time::timeout(OPEN_TIME_MAX, exchange).await {
        Ok(Ok(ACCEPTED)) => Ok(duplex(desk, (reader, writer), passage, events)),
        Ok(Ok(NOBODY)) => Err(no(format!(
            "Nobody listens for `{service}` at that member."
        ))),
        Ok(Ok(NO_MEMBER)) => Err(no("That node does not take this one for a member.")),
        Ok(Ok(NOT_ALLOWED)) => Err(no(
            "The rules that the other member knows do not allow it a stream of this one.",
        )),
        Ok(Ok(_) | Err(_)) | Err(_) => Err(no("That member does not answer.")),
    }
}

/// Takes a stream that a peer opened, in a task of its own. One of a node that is no
/// member, or that the rules do not allow, is refused at once and takes nobody's place.
pub(super) fn accept(
    desk: &Desk,
    node: &Node,
    peer: NodeId,
    (reader, writer): (BulkReader, BulkWriter),
) {
    let events = desk.events();
    let passage = match Passages::find(node, peer, Opener::Member) {
        Passages::None => return refuse_at_once(writer, NO_MEMBER),
        Passages::Refused(_) => return refuse_at_once(writer, NOT_ALLOWED),
        Passages::Allowed(passage) => passage,
    };
    let Some(place) = desk.shared.listeners.places.take(peer) else {
        tracing::debug!(?peer, "a stream was refused: too many are being opened");
        return;
    };
    let desk = desk.clone();
    tokio::spawn(async move {
        let answer = hand_over(&desk, (reader, writer), passage, events);
        match tokio::time::timeout(OPEN_TIME_MAX, answer).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(?peer, %error, "a stream was not opened"),
            Err(_) => tracing::debug!(?peer, "a stream did not begin in time"),
        }
        drop(place);
    });
}

async fn hand_over(
    desk: &Desk,
    (mut reader, mut writer): (BulkReader, BulkWriter),
    passage: Passage,
    events: broadcast::Receiver<vnet::Event>,
) -> io::Result<()> {
    let service = read_header(&mut reader).await?;
    let Some(taker) = desk.shared.listeners.take(&service) else {
        return refuse(writer, NOBODY).await;
    };
    writer.write_all(&[ACCEPTED]).await?;
    writer.flush().await?;
    // If the caller has gone just now, the peer sees the stream end.
    let _ = taker.send(Ok(duplex(desk, (reader, writer), passage, events)));
    Ok(())
}

/// The two halves of a stream, as long as it is allowed.
fn duplex(
    desk: &Desk,
    (reader, writer): (BulkReader, BulkWriter),
    passage: Passage,
    events: broadcast::Receiver<vnet::Event>,
) -> Duplex {
    Duplex {
        reader: Box::new(reader),
        writer: Box::new(writer),
        forbidden: Box::pin(passage.end(desk.clone(), events)),
    }
}

/// Tells a node why it is refused, if that needs no waiting.
fn refuse_at_once(mut writer: BulkWriter, answer: u8) {
    let mut context = Context::from_waker(Waker::noop());
    // Otherwise it sees the stream break off without an answer.
    let _ = Pin::new(&mut writer).poll_write(&mut context, &[answer]);
    let _ = Pin::new(&mut writer).poll_shutdown(&mut context);
}

async fn refuse(mut writer: BulkWriter, answer: u8) -> io::Result<()> {
    writer.write_all(&[answer]).await?;
    writer.shutdown().await
}

fn header(service: &str) -> Vec<u8> {
    // A service's name has 63 octets at most.
    [&[VERSION, service.len() as u8], service.as_bytes()].concat()
}

async fn read_header(reader: &mut (impl io::AsyncRead + Unpin)) -> io::Result<String> {
    if reader.read_u8().await? != VERSION {
        return Err(io::Error::other("unknown version"));
    }
    let mut service = vec![0; reader.read_u8().await?.into()];
    reader.read_exact(&mut service).await?;
    let service = String::from_utf8(service).map_err(io::Error::other)?;
    match is_name(&service) {
        true => Ok(service),
        false => Err(io::Error::other("no name of a service")),
    }
}

/// Agrees with a node to exchange packets in a channel that both are in, and that allows it.
async fn attach_to(desk: &Desk, peer: NodeId) -> Result<(Contact, Passage), Failure> {
    let look = move |node: &Node| Passages::find(node, peer, Opener::Me);
    let passage = match desk.look(look).await? {
        Passages::Allowed(passage) => passage,
        Passages::Refused(channel) => {
            return Err(no(format!(
                "The rules of channel `{channel}` do not allow this node a stream to that \
                 member: a stream has no port, so it takes a rule without ports (`enishi \
                 channel rules {channel}`)."
            )));
        }
        Passages::None => {
            return Err(no(
                "That node is in no channel of this one; streams go between members only.",
            ));
        }
    };
    let attached = attach(desk, passage.channel, passage.claim.address.into()).await?;
    match attached == Some(peer) {
        true => Ok((passage.claim.contact.clone(), passage)),
        false => Err(no("That member does not answer.")),
    }
}

/// Agrees with the holder of an address to exchange packets; none when there is none or
/// it does not answer.
pub(super) async fn attach(
    desk: &Desk,
    channel: ChannelId,
    address: IpAddr,
) -> Result<Option<NodeId>, Failure> {
    let mut events = desk.events();
    desk.vnet(vnet::Command::Resolve { channel, address })
        .await?;
    let wait = async {
        loop {
            match events.recv().await {
                Ok(vnet::Event::Attached {
                    channel: there,
                    peer,
                    addresses,
                    ..
                }) if there == channel && addresses.contains(&address) => {
                    return Some(peer);
                }
                Ok(vnet::Event::Unresolved {
                    channel: there,
                    address: which,
                }) if there == channel && which == address => {
                    return None;
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    Ok(tokio::time::timeout(ATTACH_TIME_MAX, wait)
        .await
        .ok()
        .flatten())
}

fn bad_service() -> Failure {
    usage("A service's name has 1 to 63 letters, digits, `-` and `_`.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn headers_are_read_back_and_others_refused() {
        let name = "a".repeat(63);
        assert_eq!(read_header(&mut &header(&name)[..]).await.unwrap(), name);
        for octets in [
            &b"\x02\x01a"[..],
            b"\x01\x02a",
            b"\x01\x00",
            b"\x01\x01 ",
            b"",
        ] {
            assert!(read_header(&mut &octets[..]).await.is_err());
        }
    }

    #[test]
    fn one_listens_for_a_service() {
        let listeners = Listeners::default();
        let (first, receiver) = oneshot::channel();
        assert!(listeners.add("a".to_owned(), first).is_ok());
        let (second, _second) = oneshot::channel();
        assert!(listeners.add("a".to_owned(), second).is_err());
        drop(receiver);
        let (third, _third) = oneshot::channel();
        assert!(listeners.add("a".to_owned(), third).is_ok());
        assert!(listeners.take("a").is_some() && listeners.take("a").is_none());
    }
}
