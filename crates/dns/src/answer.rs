//! What is answered to the octets of a query, and to whom.
//!
//! Programs of this host may ask for everything; a member of a channel for the names of that
//! channel, and for nothing else. What is asked of other domains is refused, or to be
//! forwarded, as [`Policy`] says.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::TTL_S;
use crate::zone::{Found, Zone};

/// The length of a message's header, in octets (RFC 1035, section 4.1.1).
pub const HEADER_BYTES: usize = 12;

/// The longest answer by UDP, in octets, whatever the asker would take: it fits every path
/// whole (RFC 9715).
pub const UDP_BYTES_MAX: u16 = 1232;

/// The longest answer by UDP to who says nothing else (RFC 1035, section 4.2.1).
const UDP_BYTES_USUAL: u16 = 512;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A program of this host.
    Host,
    /// A member of the channel with this number.
    Member(u32),
}

/// By what the query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream, which holds messages of any length.
    Tcp,
}

/// Which questions of this host are forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Those for other domains; otherwise they are refused.
    pub domains: bool,
    /// Those for channels that this node is not in, which another node of this host may
    /// be in; otherwise there is no such name.
    pub channels: bool,
}

/// What to do with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send these octets.
    Answer(Vec<u8>),
    /// Ask a server of the domain of all channels.
    ForwardChannel,
    /// Ask any other server.
    Forward,
    /// Nothing: it was not a query.
    Nothing,
}

/// Judges the octets that came from somebody. Takes time in proportion to their number and
/// to the number of records under one name.
pub fn answer(
    zone: &Zone,
    octets: &[u8],
    asker: Asker,
    transport: Transport,
    policy: Policy,
) -> Reply {
    let Some(header) = header(octets) else {
        return Reply::Nothing;
    };
    let refusal = |code| refuse(&header, code);
    if header.metadata.op_code != OpCode::Query {
        return refusal(ResponseCode::NotImp);
    }
    let Ok(request) = Message::from_vec(octets) else {
        return refusal(ResponseCode::FormErr);
    };
    let [query] = request.queries.as_slice() else {
        return refusal(ResponseCode::FormErr);
    };
    let found = zone.find(&LowerName::new(query.name()));
    let may_ask = |found: &Found<'_>| match asker {
        Asker::Host => true,
        Asker::Member(channel) => found.channel == Some(channel),
    };
    let forwards = asker == Asker::Host;
    let mut response = Response::new(&request, query, forwards && policy.domains);
    match found.filter(may_ask) {
        None if forwards && policy.domains => return Reply::Forward,
        None => response.message.metadata.response_code = ResponseCode::Refused,
        Some(found) if forwards && policy.channels && is_of_another_node(&found, query) => {
            return Reply::ForwardChannel;
        }
        Some(found) => response.fill(zone, &found, query),
    }
    Reply::Answer(response.encode(transport))
}

/// Makes the answer that something went wrong of a query that was to be forwarded.
pub fn failed(octets: &[u8]) -> Reply {
    match header(octets) {
        Some(header) => refuse(&header, ResponseCode::ServFail),
        None => Reply::Nothing,
    }
}

/// Tells whether an answer that was asked for is one to this query: the same question, and
/// an answer at all. The number and where it came from are for the caller to see to.
pub fn is_answer_to(octets: &[u8], query: &[u8]) -> bool {
    let (Some(question), Some(answered)) = (first_question(query), first_question(octets)) else {
        return false;
    };
    let is_response = octets.get(2).is_some_and(|flags| flags & 0x80 != 0);
    is_response && question.name.eq_case(&answered.name) && question == answered
}

fn first_question(octets: &[u8]) -> Option<Query> {
    let mut decoder = BinDecoder::new(octets);
    let header = Header::read(&mut decoder).ok()?;
    (header.counts.queries == 1).then(|| Query::read(&mut decoder).ok())?
}

/// Nothing is below the domain of all channels but channels: a name there that is not found
/// belongs to one that this node is not in.
fn is_of_another_node(found: &Found<'_>, query: &Query) -> bool {
    let is_domain = query.name().num_labels() == 1;
    found.channel.is_none() && !is_domain
}

/// Reads the header of a query; none when there is none, or it is that of an answer: two
/// servers that answer answers would never end.
fn header(octets: &[u8]) -> Option<Header> {
    let octets = octets.get(..HEADER_BYTES)?;
    let header = Header::read(&mut BinDecoder::new(octets)).ok()?;
    (header.metadata.message_type == MessageType::Query).then_some(header)
}

fn refuse(header: &Header, code: ResponseCode) -> Reply {
    let asked = &header.metadata;
    let mut message = Message::error_msg(asked.id, asked.op_code, code);
    message.metadata.recursion_desired = asked.recursion_desired;
    message.to_vec().map_or(Reply::Nothing, Reply::Answer)
}

/// An answer being made.
struct Response {
    message: Message,
    /// The longest that the asker takes by UDP.
    bytes_max: u16,
}

impl Response {
    fn new(request: &Message, query: &Query, recursion: bool) -> Self {
        let asked = &request.metadata;
        let mut message = Message::response(asked.id, asked.op_code);
        message.metadata.recursion_desired = asked.recursion_desired;
        message.metadata.checking_disabled = asked.checking_disabled;
        message.metadata.recursion_available = recursion;
        message.add_query(query.clone());
        let bytes_max = match &request.edns {
            None => UDP_BYTES_USUAL,
            Some(edns) => {
                let mut own = Edns::new();
                own.set_max_payload(UDP_BYTES_MAX);
                own.set_dnssec_ok(edns.flags().dnssec_ok);
                message.set_edns(own);
                edns.max_payload().clamp(UDP_BYTES_USUAL, UDP_BYTES_MAX)
            }
        };
        let is_new = request.edns.as_ref().is_some_and(|edns| edns.version() > 0);
        if is_new {
            message.metadata.response_code = ResponseCode::BADVERS;
        }
        Self { message, bytes_max }
    }

    fn fill(&mut self, zone: &Zone, found: &Found<'_>, query: &Query) {
        let metadata = &mut self.message.metadata;
        if metadata.response_code == ResponseCode::BADVERS {
            return;
        }
        // ANY is refused as RFC 8482 allows; transfers of zones are for nobody.
        let refused = [RecordType::ANY, RecordType::AXFR, RecordType::IXFR];
        if query.query_class() != DNSClass::IN || refused.contains(&query.query_type()) {
            metadata.response_code = ResponseCode::Refused;
            return;
        }
        metadata.authoritative = true;
        if found.records.is_none() {
            metadata.response_code = ResponseCode::NXDomain;
        }
        let answers: Vec<RData> = found.of_type(query.query_type()).cloned().collect();
        if answers.is_empty() {
            // RFC 2308: how long the no may be kept.
            self.message.add_authority(found.soa.clone());
        }
        for data in answers {
            if let RData::SRV(_) | RData::NS(_) = data {
                self.add_addresses(zone, &data);
            }
            let record = Record::from_rdata(query.name().clone(), TTL_S, data);
            self.message.add_answer(record);
        }
    }

    /// Whoever is told of a host will ask for its addresses.
    fn add_addresses(&mut self, zone: &Zone, data: &RData) {
        let target: &Name = match data {
            RData::SRV(srv) => &srv.target,
            RData::NS(ns) => &ns.0,
            _ => return,
        };
        let Some(found) = zone.find(&LowerName::new(target)) else {
            return;
        };
        for kind in [RecordType::A, RecordType::AAAA] {
            for data in found.of_type(kind) {
                let record = Record::from_rdata(target.clone(), TTL_S, data.clone());
                self.message.add_additional(record);
            }
        }
    }

    /// What does not fit is left out, first what was not asked for; then the asker is told to
    /// come back by TCP.
    fn encode(mut self, transport: Transport) -> Vec<u8> {
        let bytes_max = match transport {
            Transport::Udp => usize::from(self.bytes_max),
            Transport::Tcp => usize::from(u16::MAX),
        };
        let fits = |octets: &Vec<u8>| octets.len() <= bytes_max;
        if let Some(octets) = self.message.to_vec().ok().filter(fits) {
            return octets;
        }
        self.message.additionals.clear();
        if let Some(octets) = self.message.to_vec().ok().filter(fits) {
            return octets;
        }
        self.message.truncate().to_vec().unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "answer/tests.rs"]
mod tests;
