//! The sorts of messages under which a node's traffic is counted.

use enishi_overlay::Message;
use enishi_overlay::admission::Admission;
use enishi_overlay::message::{Query, Reply, Returned, Routed};
use enishi_services::service::ServiceId;

/// The sort of questions on behalf of lookups, and of their answers.
pub(crate) const LOOKUP: &str = "routed, lookup";
pub(crate) const LOOKUP_ANSWER: &str = "answer, lookup";
/// The sort of questions that nodes ask for their own places and links.
pub(crate) const UPKEEP: &str = "routed, upkeep";
/// The sort of reports on the way of a traced question.
pub(crate) const REPORT: &str = "hop report";
/// Sorts that belong to lookups and to upkeep as the questions do.
pub(crate) const SHARED: [&str; 4] = ["hop ack", "hop nack", "find", "found"];

/// Messages of the DHT in the order of their numbers on the wire.
const DHT: [&str; 12] = [
    "dht put",
    "dht put reply",
    "dht store",
    "dht store reply",
    "dht fetch",
    "dht fetch reply",
    "dht compare",
    "dht want",
    "dht records",
    "dht near",
    "dht near reply",
    "dht keep",
];

/// Messages of multicast in the order of their numbers on the wire.
pub(crate) const MULTICAST: [&str; 10] = [
    "multicast data",
    "multicast prune",
    "multicast graft",
    "multicast digest",
    "multicast receipt",
    "multicast link",
    "multicast exchange",
    "multicast join",
    "multicast joined",
    "multicast leave",
];

/// Names the sort of a message.
pub(crate) fn sort(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "hello",
        Message::Welcome(_) => "welcome",
        Message::Leave => "leave",
        Message::Ping { .. } => "ping",
        Message::Pong { .. } => "pong",
        Message::ViewRequest { .. } => "view request",
        Message::ViewUpdate(_) => "view update",
        Message::Introduce { .. } => "introduce",
        Message::Introduced { .. } => "introduced",
        Message::Summon { .. } => "summon",
        Message::Routed(Routed {
            query: Query::Service { .. },
            ..
        }) => "routed, service",
        Message::Routed(Routed {
            query: Query::Register { .. },
            ..
        }) => "routed, register",
        Message::Routed(Routed {
            query: Query::Nodes { .. },
            ..
        }) => LOOKUP,
        Message::Routed(Routed {
            query: Query::Place { .. } | Query::Links { .. },
            ..
        }) => UPKEEP,
        Message::HopAck { .. } => "hop ack",
        Message::HopNack { .. } => "hop nack",
        Message::Back {
            returned: Returned::Report(_),
            ..
        } => REPORT,
        Message::Answer(answer)
        | Message::Back {
            returned: Returned::Answer(answer),
            ..
        } => match answer.reply {
            Reply::Service(_) => "answer, service",
            Reply::Nodes(_) => LOOKUP_ANSWER,
            Reply::Acquaintances(_) => "answer, upkeep",
        },
        Message::Find { .. } => "find",
        Message::Found { .. } => "found",
        Message::Direct { service, body } => direct(*service, body),
        Message::Admission(admission) => match **admission {
            Admission::Ask => "admission, ask",
            Admission::Present(_) => "admission, present",
            Admission::Revoked(_) => "admission, revoked",
        },
    }
}

fn direct(service: u8, body: &[u8]) -> &'static str {
    match ServiceId::from_wire(service) {
        // The octet after the version is the number of the message.
        Some(ServiceId::Dht) => {
            let number = body.get(1).map(|number| usize::from(*number));
            let name = number.and_then(|number| DHT.get(number));
            name.copied().unwrap_or("dht")
        }
        Some(ServiceId::Diag) => "diag",
        Some(ServiceId::Vnet) => "vnet",
        Some(ServiceId::Reach) => "reach",
        // The number follows the version and the group's tag.
        Some(ServiceId::Multicast) => {
            let number = body.get(17).map(|number| usize::from(*number));
            let name = number.and_then(|number| MULTICAST.get(number));
            name.copied().unwrap_or("multicast")
        }
        // The gate is not addressed in this way.
        Some(ServiceId::Admission) | None => "unknown service",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use enishi_services::dht::wire::{DhtMessage, Outcome};

    #[test]
    fn messages_of_the_dht_are_told_apart_by_their_numbers() {
        let outcome = Outcome::Taken;
        for (message, name) in [
            (DhtMessage::PutReply { token: 1, outcome }, "dht put reply"),
            (
                DhtMessage::StoreReply { token: 1, outcome },
                "dht store reply",
            ),
            (DhtMessage::Want { items: Vec::new() }, "dht want"),
            (
                DhtMessage::NearReply {
                    token: 1,
                    nodes: Vec::new(),
                },
                "dht near reply",
            ),
            (
                DhtMessage::Records {
                    records: Vec::new(),
                },
                "dht records",
            ),
        ] {
            let body = Bytes::from(message.encode());
            let service = ServiceId::Dht as u8;
            assert_eq!(sort(&Message::Direct { service, body }), name);
        }
    }
}
