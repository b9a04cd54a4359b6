//! A node whose sessions go by IPv6 shows where its IPv4 comes out, and is met there.

use std::collections::VecDeque;

use super::punch::{Offer, Plan, Ports};
use super::*;

/// Where they are: P, whose IPv4 a router translates; V, whom it wants to meet; and W, whom both know.
const P: usize = 0;
const V: usize = 1;
const W: usize = 2;
const P_V6: &str = "[2600:7::7]:5000";
const P_V4: &str = "198.51.100.7:5001";
const V_V4: &str = "203.0.113.9:6000";
const W_AT: [&str; 2] = ["20.0.3.1:7000", "[2600:3::1]:7000"];
const VICTIM: &str = "192.0.2.66:7000";

/// The ticket that W gave to P's address of IPv4.
const TICKET: u64 = 77;

/// Three nodes, and what their hosts do.
struct Three {
    nodes: [Node; 3],
    now: Time,
    /// Where P says that it comes out, and the ticket that it shows of it when it has asked W.
    offer: Offer,
    shows: Option<(IpAddr, u64)>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Three {
    fn new(offer: &str) -> Self {
        let mut nodes = [node(1), node(2), node(3)];
        let now = Time::from_secs(1);
        let ids = [P, V, W].map(|number| nodes[number].id());
        let offer = Offer {
            at: at(offer),
            ports: Ports::Random,
        };
        for (node, peer, seen) in [(P, W, W_AT[1]), (V, W, W_AT[0]), (W, P, P_V6), (W, V, V_V4)] {
            let path = path(ids[peer], seen);
            nodes[node].handle(now, path).for_each(drop);
        }
        for (node, peer) in [(P, V), (V, P)] {
            let relayed = Input::Path {
                peer: ids[peer],
                kind: PathKind::Relayed,
                address: None,
            };
            nodes[node].handle(now, relayed).for_each(drop);
        }
        Self {
            nodes,
            now,
            offer,
            shows: None,
        }
    }

    fn id(&self, of: usize) -> NodeId {
        self.nodes[of].id()
    }

    /// What a host does about an event.
    fn host(&self, of: usize, event: &Event) -> Option<Command> {
        match event {
            Event::Look(peer) if of == P => Some(Command::Looked(*peer, Some(self.offer))),
            Event::Look(peer) => {
                let (at, ports) = (at(V_V4), Ports::Kept);
                Some(Command::Looked(*peer, Some(Offer { at, ports })))
            }
            Event::Ask(servers) if of == P => {
                let (by, (at, ticket)) = (servers[0].0, self.shows?);
                Some(Command::Ticket { by, at, ticket })
            }
            Event::Shown { peer, at, ticket } => {
                let is_given = *at == self::at(P_V4).ip() && *ticket == TICKET;
                is_given.then_some(Command::Shown(*peer, *at))
            }
            _ => None,
        }
    }

    /// Has one do something, and all whatever follows; returns who was told what.
    fn go(&mut self, first: usize, input: Input) -> Vec<(usize, Event)> {
        let mut events = Vec::new();
        let mut inputs = VecDeque::from([(first, input)]);
        while let Some((of, input)) = inputs.pop_front() {
            let from = self.id(of);
            let (said, happened) = asked_for(self.nodes[of].handle(self.now, input));
            for event in happened {
                let command = self.host(of, &event).map(crate::Command::Reach);
                inputs.extend(command.map(|command| (of, Input::Command(command))));
                events.push((of, event));
            }
            for (to, message) in said {
                let to = self.nodes.iter().position(|node| node.id() == to);
                inputs.extend(to.map(|to| (to, Input::Message { from, message })));
            }
        }
        events
    }

    fn tell(&mut self, of: usize, command: Command) -> Vec<(usize, Event)> {
        self.go(of, Input::Command(crate::Command::Reach(command)))
    }

    /// Lets so many seconds pass.
    fn pass(&mut self, seconds: u64) -> Vec<(usize, Event)> {
        self.now = self.now + Duration::from_secs(seconds);
        let happened = [P, V, W].map(|of| self.go(of, Input::Timeout));
        happened.into_iter().flatten().collect()
    }

    /// W, which has these addresses, answers STUN's questions, and tells P where.
    fn serve(&mut self, local: &[&str]) {
        let local = local.iter().map(|local| at(local)).collect();
        self.tell(W, Command::Local(local));
        self.tell(W, Command::Packets(7001));
        self.pass(11);
        let peer = self.id(P);
        self.tell(W, Command::Restarted(peer));
        // P asks by itself, and hears nothing.
        self.pass(2);
    }

    /// Has V try to meet P; returns what its host is to do.
    fn meet(&mut self) -> Vec<Plan> {
        let peer = self.id(P);
        let mut events = self.tell(V, Command::Punch(peer));
        for _ in 0..6 {
            events.extend(self.pass(1));
        }
        let plans = events.into_iter().filter_map(|(of, event)| match event {
            Event::Punch { plan, .. } if of == V => Some(plan),
            _ => None,
        });
        plans.collect()
    }
}

fn is_search_at(plans: &[Plan], at: SocketAddr) -> bool {
    matches!(plans, [Plan::Search { ip, .. }] if *ip == at.ip())
}

#[test]
fn who_was_given_a_ticket_is_met_where_that_came() {
    let mut three = Three::new(P_V4);
    assert_eq!(three.meet(), [], "nobody sees its IPv4");
    let by = three.id(W);
    let (at, ticket) = (at(P_V4).ip(), TICKET);
    let shown = three.tell(P, Command::Ticket { by, at, ticket });
    let peer = three.id(P);
    assert_eq!(shown, [(W, Event::Shown { peer, at, ticket })]);
    // P has ended its first attempt, and rested.
    for _ in 0..2 {
        three.pass(30);
    }
    let plans = three.meet();
    assert!(is_search_at(&plans, three.offer.at), "{plans:?}");
}

#[test]
fn who_is_asked_about_a_node_seen_by_ipv6_alone_has_it_show_its_ipv4() {
    let mut three = Three::new(P_V4);
    three.serve(&W_AT);
    let peer = three.id(P);
    let events = three.tell(V, Command::Punch(peer));
    let w = three.id(W);
    let asks = |event: &(usize, Event)| {
        let asked = matches!(event, (P, Event::Ask(servers)) if servers[0].0 == w);
        usize::from(asked)
    };
    assert_eq!(events.iter().map(asks).sum::<usize>(), 1, "{events:?}");
    // P has ended its first attempt, and rested.
    for _ in 0..2 {
        three.pass(30);
    }
    three.shows = Some((at(P_V4).ip(), TICKET));
    let plans = three.meet();
    assert!(is_search_at(&plans, three.offer.at), "{plans:?}");
}

#[test]
fn who_has_no_ipv4_itself_asks_nobody_to_show_it_one() {
    for (local, is_asked) in [(&W_AT[..], true), (&W_AT[1..], false)] {
        let mut three = Three::new(P_V4);
        three.serve(local);
        let peer = three.id(P);
        let events = three.tell(V, Command::Punch(peer));
        let asks = |event: &(usize, Event)| matches!(event, (P, Event::Ask(_)));
        assert_eq!(events.iter().any(asks), is_asked, "{local:?} {events:?}");
    }
}

#[test]
fn nobody_has_ports_of_a_stranger_searched_by_showing_what_it_was_not_given() {
    let victim = at(VICTIM).ip();
    let lies = [
        (victim, 0),
        // Given, but to another address.
        (victim, TICKET),
        (at(P_V4).ip(), TICKET + 1),
        (at(P_V4).ip(), TICKET),
    ];
    for (at, ticket) in lies {
        let mut three = Three::new(VICTIM);
        let by = three.id(W);
        three.shows = Some((at, ticket));
        three.tell(P, Command::Ticket { by, at, ticket });
        assert_eq!(three.meet(), [], "{at} {ticket}");
    }
    // Not by naming an address of the house, either.
    let mut three = Three::new(VICTIM);
    let (by, at, ticket) = (three.id(W), IpAddr::from([192, 168, 1, 1]), TICKET);
    assert_eq!(three.tell(P, Command::Ticket { by, at, ticket }), []);
}

#[test]
fn what_was_shown_ends_with_the_session() {
    let mut three = Three::new(P_V4);
    let (by, at, ticket) = (three.id(W), at(P_V4).ip(), TICKET);
    three.tell(P, Command::Ticket { by, at, ticket });
    let peer = three.id(P);
    three.go(W, Input::Closed(peer));
    three.go(W, path(peer, P_V6));
    assert_eq!(three.meet(), []);
}

#[test]
fn what_was_shown_is_of_where_the_session_went_and_of_ipv4() {
    let peer = |three: &Three| three.id(P);
    let shown = |three: &mut Three| {
        let (by, at, ticket) = (three.id(W), at(P_V4).ip(), TICKET);
        three.tell(P, Command::Ticket { by, at, ticket });
    };
    let mut three = Three::new(P_V4);
    shown(&mut three);
    let at_p = peer(&three);
    three.go(W, path(at_p, "[2600:8::8]:5000"));
    assert_eq!(three.meet(), [], "it is elsewhere");

    let mut three = Three::new(P_V4);
    let (by, ticket) = (three.id(W), TICKET);
    let at = at("[2600:7::9]:1").ip();
    assert_eq!(three.tell(P, Command::Ticket { by, at, ticket }), []);
}

#[test]
fn of_what_goes_by_a_nat64_of_hearsay_others_are_told_nothing() {
    let (mut here, peer, asker) = (node(1), node(2).id(), node(3).id());
    let now = Time::from_secs(1);
    let command = |command| Input::Command(crate::Command::Reach(command));
    let asks = || {
        let body = ReachMessage::Where(peer).encode().into();
        let service = ServiceId::Reach as u8;
        let message = Message::Direct { service, body };
        let from = asker;
        Input::Message { from, message }
    };
    let mut all = Vec::new();
    for input in [
        command(Command::Packets(7001)),
        command(Command::Hearsay(peer, true)),
        path(peer, VICTIM),
        asks(),
        Input::Timeout,
    ] {
        all.extend(told(here.handle(now, input)));
    }
    assert_eq!(all, []);
    // By another way it is as any other.
    for input in [command(Command::Hearsay(peer, false)), path(peer, P_V4)] {
        all.extend(told(here.handle(now + TELLING_PAUSE, input)));
    }
    all.extend(told(here.handle(now + TELLING_PAUSE, asks())));
    let said = |message: &ReachMessage| all.iter().any(|(_, said, _)| said == message);
    assert!(said(&ReachMessage::Seen(at(P_V4))));
    assert!(said(&ReachMessage::Sees(peer, at(P_V4).ip(), None)));
}

/// Who knows the older kind of message alone ends with what that says; who knows both has heard both.
#[test]
fn of_two_addresses_both_are_told_before_the_one_of_the_session() {
    let (mut here, peer, asker) = (node(1), node(2).id(), node(3).id());
    let now = Time::from_secs(1);
    let shown = Command::Shown(peer, at(P_V4).ip());
    for input in [
        path(peer, P_V6),
        Input::Command(crate::Command::Reach(shown)),
    ] {
        here.handle(now, input).for_each(drop);
    }
    let body = ReachMessage::Where(peer).encode().into();
    let service = ServiceId::Reach as u8;
    let from = asker;
    let message = Message::Direct { service, body };
    let said = told(here.handle(now, Input::Message { from, message }));
    let said: Vec<ReachMessage> = said.into_iter().map(|(_, said, _)| said).collect();
    let [six, four] = [P_V6, P_V4].map(|text| at(text).ip());
    let wanted = [
        ReachMessage::Sees(peer, six, Some(four)),
        ReachMessage::Sees(peer, six, None),
    ];
    assert_eq!(said, wanted);
}

#[test]
fn who_is_heard_by_a_nat64_of_hearsay_is_of_one_network_and_says_nothing_of_ipv6() {
    let honest = at(V_V4);
    for (offer, liars, is_searched) in [
        // Two that seem to be in two networks against one.
        (VICTIM, 2, false),
        ("[2600:66::1]:7", 2, false),
        // With one of another network they are two.
        (V_V4, 2, true),
    ] {
        let mut here = node(1);
        let now = Time::from_secs(1);
        let (peer, said) = (node(9).id(), at(offer));
        let command = |command| Input::Command(crate::Command::Reach(command));
        let witnesses: Vec<NodeId> = (2..5).map(|number| node(number).id()).collect();
        for (number, witness) in witnesses.iter().enumerate() {
            let hearsay = command(Command::Hearsay(*witness, number < 2));
            here.handle(now, hearsay).for_each(drop);
            let place = format!("20.0.{number}.1:7000");
            here.handle(now, path(*witness, &place)).for_each(drop);
        }
        let relayed = Input::Path {
            peer,
            kind: PathKind::Relayed,
            address: None,
        };
        here.handle(now, relayed).for_each(drop);
        here.handle(now, command(Command::Punch(peer)))
            .for_each(drop);
        let mine = match said.is_ipv4() {
            true => honest,
            false => at("[2600:9::9]:7"),
        };
        let (ports, at) = (Ports::Kept, mine);
        let looked = command(Command::Looked(peer, Some(Offer { at, ports })));
        let number =
            told(here.handle(now, looked))
                .into_iter()
                .find_map(|(_, said, _)| match said {
                    ReachMessage::Punch(number, _) => Some(number),
                    _ => None,
                });
        let theirs = Offer {
            at: said,
            ports: Ports::Random,
        };
        let mut says = vec![(peer, ReachMessage::Meet(number.unwrap(), theirs))];
        let sees = |at| ReachMessage::Sees(peer, at, None);
        says.extend(witnesses[..liars].iter().map(|id| (*id, sees(said.ip()))));
        says.push((witnesses[2], sees(honest.ip())));
        let mut events = Vec::new();
        for (from, message) in says {
            let (service, body) = (ServiceId::Reach as u8, message.encode().into());
            let message = Message::Direct { service, body };
            let heard = Input::Message { from, message };
            events.extend(asked_for(here.handle(now, heard)).1);
        }
        let late = now + Duration::from_secs(1);
        events.extend(asked_for(here.handle(late, Input::Timeout)).1);
        let searches = events
            .iter()
            .any(|event| matches!(event, Event::Punch { .. }));
        assert_eq!(searches, is_searched, "{offer}: {events:?}");
    }
}

#[test]
fn only_who_has_a_session_shows_something_and_it_is_asked_to_rarely() {
    let mut three = Three::new(P_V4);
    let message = |message: ReachMessage| Message::Direct {
        service: ServiceId::Reach as u8,
        body: message.encode().into(),
    };
    let stranger = node(9).id();
    let shows = ReachMessage::Shows(at(P_V4).ip(), TICKET);
    let heard = Input::Message {
        from: stranger,
        message: message(shows),
    };
    assert_eq!(three.go(W, heard), []);
    three.serve(&W_AT);
    let w = three.id(W);
    let mut asked = 0;
    for _ in 0..100 {
        let prompt = Input::Message {
            from: w,
            message: message(ReachMessage::Show),
        };
        let events = three.go(P, prompt);
        let asks = |(of, event): &&(usize, Event)| *of == P && matches!(event, Event::Ask(_));
        asked += events.iter().filter(asks).count();
    }
    assert_eq!(asked, 1, "once in a while");
}
