//! Inputs on their way to a service that is chosen at run time.

use bytes::Bytes;
use enishi_overlay::message::Reply;
use enishi_overlay::overlay::Asker;
use enishi_overlay::view::Entry;
use enishi_overlay::{HopReport, NodeId, Position};

use crate::calls::{Heard, Receipts};
use crate::dht;
use crate::service::ServiceInput;

/// An input that is the same for every service.
pub(super) enum Handed {
    Direct {
        from: NodeId,
        body: Bytes,
    },
    Asked {
        asker: Asker,
        target: Position,
        body: Bytes,
    },
    Answered {
        token: u64,
        from: NodeId,
        hops: u8,
        reply: Reply,
    },
    Failed {
        token: u64,
    },
    Searched {
        token: u64,
        found: Vec<Entry>,
        ends: Vec<Option<NodeId>>,
        asked: u32,
    },
    HopReport {
        token: u64,
        attempt: u8,
        by: NodeId,
        report: HopReport,
    },
    Got {
        token: u64,
        answer: dht::GetAnswer,
    },
    PutDone {
        token: u64,
        answer: dht::PutAnswer,
    },
    Heard(Heard),
    Receipts {
        token: u64,
        receipts: Option<Receipts>,
    },
    Restored {
        key: Vec<u8>,
        value: Vec<u8>,
        age_s: u64,
    },
}

impl Handed {
    pub(super) fn into_input<C>(self) -> ServiceInput<C> {
        match self {
            Self::Direct { from, body } => ServiceInput::Direct { from, body },
            Self::Asked {
                asker,
                target,
                body,
            } => ServiceInput::Asked {
                asker,
                target,
                body,
            },
            Self::Answered {
                token,
                from,
                hops,
                reply,
            } => ServiceInput::Answered {
                token,
                from,
                hops,
                reply,
            },
            Self::Failed { token } => ServiceInput::Failed { token },
            Self::Searched {
                token,
                found,
                ends,
                asked,
            } => ServiceInput::Searched {
                token,
                found,
                ends,
                asked,
            },
            Self::HopReport {
                token,
                attempt,
                by,
                report,
            } => ServiceInput::HopReport {
                token,
                attempt,
                by,
                report,
            },
            Self::Got { token, answer } => ServiceInput::Got { token, answer },
            Self::PutDone { token, answer } => ServiceInput::PutDone { token, answer },
            Self::Heard(heard) => ServiceInput::Heard(heard),
            Self::Receipts { token, receipts } => ServiceInput::Receipts { token, receipts },
            Self::Restored { key, value, age_s } => ServiceInput::Restored { key, value, age_s },
        }
    }
}
