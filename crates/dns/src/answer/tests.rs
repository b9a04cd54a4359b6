//! Queries and what comes of them.

use proptest::prelude::*;

use super::*;
use crate::zone::tests::{channel, member};
use crate::zone::{Protocol, Service};

const NOTHING_FORWARDED: Policy = Policy {
    domains: false,
    channels: false,
};

fn zone() -> Zone {
    let mut other = channel(2, "other", vec![member(1, "aki")]);
    other.network.0 = [10, 78, 0, 0].into();
    other.network6.0 = "fd01::".parse().unwrap();
    other.members[0].addresses = vec!["10.78.0.1".parse().unwrap()];
    let mut many: Vec<_> = (1..=100).map(|n| member(n, &format!("h{n}"))).collect();
    for host in &mut many {
        host.services.push(Service {
            name: "ssh".to_owned(),
            protocol: Protocol::Tcp,
            port: 22,
            texts: Vec::new(),
        });
    }
    Zone::new(1, &[channel(1, "office", many), other])
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(asker: Asker, transport: Transport, query: &Message) -> Message {
    let octets = query.to_vec().unwrap();
    match answer(&zone(), &octets, asker, transport, NOTHING_FORWARDED) {
        Reply::Answer(octets) => {
            assert!(is_answer_to(&octets, &query.to_vec().unwrap()) || query.queries.len() != 1);
            Message::from_vec(&octets).unwrap()
        }
        reply => panic!("{reply:?}"),
    }
}

fn ask_host(name: &str, kind: RecordType) -> Message {
    ask(Asker::Host, Transport::Udp, &query(name, kind))
}

fn codes(message: &Message) -> (ResponseCode, usize, usize) {
    let code = message.metadata.response_code;
    (code, message.answers.len(), message.authorities.len())
}

#[test]
fn answers_keep_the_letters_and_the_number_of_the_question() {
    let message = ask_host("H1.oFFice.ENISHI.", RecordType::A);
    assert_eq!(codes(&message), (ResponseCode::NoError, 1, 0));
    assert_eq!(message.metadata.id, 4711);
    assert!(message.metadata.authoritative && message.metadata.recursion_desired);
    assert!(!message.metadata.recursion_available);
    let record = &message.answers[0];
    assert_eq!(record.name.to_string(), "H1.oFFice.ENISHI.");
    assert_eq!(
        (record.ttl, record.data.to_string()),
        (TTL_S, "10.77.0.1".to_owned())
    );
    let message = ask_host("1.0.77.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(message.answers[0].data.to_string(), "h1.office.enishi.");
}

#[test]
fn no_comes_with_the_record_of_the_zone() {
    let absent = ask_host("nobody.office.enishi.", RecordType::A);
    assert_eq!(codes(&absent), (ResponseCode::NXDomain, 0, 1));
    assert_eq!(absent.authorities[0].name.to_string(), "office.enishi.");
    let empty = ask_host("h1.office.enishi.", RecordType::MX);
    assert_eq!(codes(&empty), (ResponseCode::NoError, 0, 1));
    let unknown = ask_host("h1.elsewhere.enishi.", RecordType::A);
    assert_eq!(codes(&unknown), (ResponseCode::NXDomain, 0, 1));
    assert_eq!(unknown.authorities[0].name.to_string(), "enishi.");
    let nobodys = ask_host("9.9.77.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(codes(&nobodys), (ResponseCode::NXDomain, 0, 1));
    let soa = ask_host("office.enishi.", RecordType::SOA);
    assert_eq!(codes(&soa), (ResponseCode::NoError, 1, 0));
    let ns = ask_host("office.enishi.", RecordType::NS);
    assert_eq!((ns.answers.len(), ns.additionals.len()), (1, 2));
}

#[test]
fn what_is_not_for_the_asker_is_refused() {
    for kind in [RecordType::ANY, RecordType::AXFR, RecordType::IXFR] {
        let message = ask_host("office.enishi.", kind);
        assert_eq!(codes(&message), (ResponseCode::Refused, 0, 0));
    }
    let foreign = ask_host("example.org.", RecordType::A);
    assert_eq!(codes(&foreign), (ResponseCode::Refused, 0, 0));
    let member = |name: &str| {
        let query = query(name, RecordType::A);
        let message = ask(Asker::Member(1), Transport::Udp, &query);
        message.metadata.response_code
    };
    assert_eq!(member("h1.office.enishi."), ResponseCode::NoError);
    assert_eq!(member("nobody.office.enishi."), ResponseCode::NXDomain);
    // Not even whether there is such a channel.
    for other in [
        "aki.other.enishi.",
        "aki.nowhere.enishi.",
        "enishi.",
        "example.org.",
    ] {
        assert_eq!(member(other), ResponseCode::Refused, "{other}");
    }
}

#[test]
fn other_domains_are_forwarded_for_this_host_alone() {
    let all = Policy {
        domains: true,
        channels: true,
    };
    let judge = |name: &str, asker, policy| {
        let octets = query(name, RecordType::ANY).to_vec().unwrap();
        answer(&zone(), &octets, asker, Transport::Udp, policy)
    };
    assert_eq!(judge("example.org.", Asker::Host, all), Reply::Forward);
    assert_eq!(
        judge("a.b.enishi.", Asker::Host, all),
        Reply::ForwardChannel
    );
    let domains = Policy {
        channels: false,
        ..all
    };
    for (name, asker, policy) in [
        ("a.b.enishi.", Asker::Host, domains),
        ("enishi.", Asker::Host, all),
        ("h1.office.enishi.", Asker::Host, all),
        ("example.org.", Asker::Member(1), all),
        ("a.b.enishi.", Asker::Member(1), all),
    ] {
        let reply = judge(name, asker, policy);
        assert!(matches!(reply, Reply::Answer(_)), "{name} {reply:?}");
    }
    let octets = query("example.org.", RecordType::A).to_vec().unwrap();
    let Reply::Answer(octets) = failed(&octets) else {
        panic!("a failure is answered");
    };
    let message = Message::from_vec(&octets).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn what_does_not_fit_is_asked_for_again_by_tcp() {
    let mut query = query("_ssh._tcp.office.enishi.", RecordType::SRV);
    let short = ask(Asker::Host, Transport::Udp, &query);
    assert!(short.metadata.truncation && short.answers.is_empty());
    assert!(short.to_vec().unwrap().len() <= 512);
    let whole = ask(Asker::Host, Transport::Tcp, &query);
    assert!(!whole.metadata.truncation);
    assert_eq!((whole.answers.len(), whole.additionals.len()), (100, 200));
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    query.set_edns(edns);
    let short = ask(Asker::Host, Transport::Udp, &query);
    assert!(short.metadata.truncation);
    assert_eq!(short.edns.unwrap().max_payload(), UDP_BYTES_MAX);
}

#[test]
fn edns_is_answered_and_its_future_versions_are_not() {
    let mut query = query("h1.office.enishi.", RecordType::A);
    assert!(ask(Asker::Host, Transport::Udp, &query).edns.is_none());
    let mut edns = Edns::new();
    edns.set_version(1);
    query.set_edns(edns);
    let message = ask(Asker::Host, Transport::Udp, &query);
    // The number is that of BADSIG too, whose place is elsewhere.
    let code = u16::from(message.metadata.response_code);
    assert_eq!(code, u16::from(ResponseCode::BADVERS));
    assert_eq!(
        (message.answers.len(), message.edns.unwrap().version()),
        (0, 0)
    );
}

#[test]
fn only_queries_with_one_question_are_answered_with_more_than_an_error() {
    let mut update = query("office.enishi.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    let octets = update.to_vec().unwrap();
    let reply = answer(
        &zone(),
        &octets,
        Asker::Host,
        Transport::Udp,
        NOTHING_FORWARDED,
    );
    let Reply::Answer(octets) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(octets[3] & 15, 4, "not implemented");
    let mut two = query("h1.office.enishi.", RecordType::A);
    two.add_query(Query::query(Name::root(), RecordType::A));
    assert_eq!(
        codes(&ask(Asker::Host, Transport::Udp, &two)).0,
        ResponseCode::FormErr
    );
    let mut response = query("h1.office.enishi.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let octets = response.to_vec().unwrap();
    let judge = |octets: &[u8]| {
        answer(
            &zone(),
            octets,
            Asker::Host,
            Transport::Udp,
            NOTHING_FORWARDED,
        )
    };
    assert_eq!(judge(&octets), Reply::Nothing);
    assert_eq!(judge(&octets[..11]), Reply::Nothing);
}

proptest! {
    #[test]
    fn octets_of_any_kind_are_answered_within_bounds(
        changes in prop::collection::vec((0_usize..64, any::<u8>()), 0..4),
        length in 0_usize..64,
    ) {
        let mut octets = query("h1.office.enishi.", RecordType::A).to_vec().unwrap();
        octets.resize(length, 0);
        for (at, octet) in changes {
            octets.get_mut(at).into_iter().for_each(|there| *there = octet);
        }
        for asker in [Asker::Host, Asker::Member(1)] {
            let reply = ZONE.with(|zone| {
                answer(zone, &octets, asker, Transport::Udp, NOTHING_FORWARDED)
            });
            if let Reply::Answer(reply) = reply {
                prop_assert!(reply.len() <= usize::from(UDP_BYTES_MAX));
                prop_assert_eq!(&reply[..2], &octets[..2]);
                prop_assert!(reply[2] & 0x80 != 0);
            }
        }
    }
}

thread_local! {
    static ZONE: Zone = zone();
}
