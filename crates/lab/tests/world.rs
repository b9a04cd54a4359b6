//! The lab's Internet: what hosts see of it, asked by ordinary programs and sockets.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use enishi_lab::wire::{Dependence, INTERNET, LinkKind, NatKind, Outward, Ports};
use enishi_lab::{Host, Stack, World, is_root, until};

use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

const DELAY: Duration = Duration::from_millis(10);
const A_WHILE: Duration = Duration::from_secs(20);
/// How long nothing must come for it to count as refused.
const SILENCE: Duration = Duration::from_millis(700);
const PORT: u16 = 4000;

fn world(prefix: &str) -> Option<World> {
    if !is_root() {
        eprintln!("skipped: network namespaces need root");
        return None;
    }
    Some(World::new(prefix, LinkKind::of_delay(DELAY)).unwrap())
}

/// Runs something in a host's network.
fn on<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            host.enter().unwrap();
            work()
        });
        inside.join().unwrap()
    })
}

fn socket(host: &Host, port: u16) -> UdpSocket {
    socket_of(host, Ipv4Addr::UNSPECIFIED.into(), port)
}

fn socket_of(host: &Host, address: IpAddr, port: u16) -> UdpSocket {
    on(host, || {
        let socket = UdpSocket::bind((address, port)).unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket
    })
}

/// Sends, and returns from where the other one sees it come; none when it does not.
fn send(from: &UdpSocket, to: &UdpSocket, address: SocketAddr) -> Option<SocketAddr> {
    from.send_to(b"word", address).unwrap();
    let mut buffer = [0; 16];
    let (length, source) = to.recv_from(&mut buffer).ok()?;
    assert_eq!(&buffer[..length], b"word");
    Some(source)
}

fn at(host: &Host, port: u16) -> SocketAddr {
    (host.address(), port).into()
}

/// What a router does, found out from outside: RFC 4787's two questions, as STUN asks them (RFC
/// 5780, section 4).
fn classified(client: &UdpSocket, first: &Host, second: &Host) -> (Dependence, Dependence) {
    let servers = [(first, 1000), (first, 1001), (second, 1000)];
    let sockets = servers.map(|(host, port)| socket(host, port));
    let ask = |number: usize| {
        let (host, port) = servers[number];
        send(client, &sockets[number], at(host, port)).unwrap()
    };
    let seen = ask(0);
    // Before anybody else was spoken to.
    let answers = |number: usize| send(&sockets[number], client, seen).is_some();
    assert!(answers(0));
    let filtering = match (answers(2), answers(1)) {
        (true, _) => EndpointIndependent,
        (false, true) => AddressDependent,
        (false, false) => AddressAndPortDependent,
    };
    let mapping = match (ask(2) == seen, ask(1) == seen) {
        (true, _) => EndpointIndependent,
        (false, true) => AddressDependent,
        (false, false) => AddressAndPortDependent,
    };
    assert_eq!(ask(0), seen);
    (mapping, filtering)
}

#[test]
fn routers_are_of_the_kind_that_was_asked_for() {
    let Some(mut world) = world("kinds") else {
        return;
    };
    let servers = ["s1", "s2"].map(|name| world.public(name).unwrap());
    let all = [
        EndpointIndependent,
        AddressDependent,
        AddressAndPortDependent,
    ];
    for (number, mapping) in all.into_iter().enumerate() {
        for (other, filtering) in all.into_iter().enumerate() {
            let ports = [Ports::Preserving, Ports::Sequential(1), Ports::Random][other];
            let home = world.home(NatKind {
                mapping,
                filtering,
                ports,
                ..NatKind::port_restricted()
            });
            let host = world.host(&format!("h{number}{other}"), home.unwrap());
            let client = socket(&host.unwrap(), PORT);
            let found = classified(&client, &servers[0], &servers[1]);
            assert_eq!(found, (mapping, filtering), "{ports:?}");
        }
    }
}

#[test]
fn the_kernels_router_is_of_the_kind_that_its_manual_says() {
    let Some(mut world) = world("kernel") else {
        return;
    };
    enishi_lab::ensure_programs(&[("nft", "nftables")]).unwrap();
    let servers = ["s1", "s2"].map(|name| world.public(name).unwrap());
    for (name, random, expected) in [
        ("k1", "", (EndpointIndependent, AddressAndPortDependent)),
        (
            "k2",
            "fully-random",
            (AddressAndPortDependent, AddressAndPortDependent),
        ),
    ] {
        let router = world.public(name).unwrap();
        let host = world.behind_kernel(&format!("{name}h"), &router, random);
        let client = socket(&host.unwrap(), PORT);
        let found = classified(&client, &servers[0], &servers[1]);
        assert_eq!(found, expected, "masquerade {random}");
    }
}

#[test]
fn links_take_their_time_and_routers_are_hops() {
    let Some(mut world) = world("hops") else {
        return;
    };
    let public = world.public("p").unwrap();
    let carrier = world.home(NatKind::symmetric(Ports::Random)).unwrap();
    let home = world.behind(carrier, NatKind::port_restricted()).unwrap();
    let hosts = ["a", "b"].map(|name| world.host(name, home).unwrap());
    let to = public.address().to_string();
    let ping = |from: &Host, to: &str| {
        let words = ["ping", "-c", "5", "-i", "0.1", "-W", "2", to];
        from.run(&words, A_WHILE).unwrap().stdout
    };
    let there = ping(&hosts[0], &to);
    // Both ways over the public host's cable and the carrier's; the home's takes no time.
    let least = there.split("min/avg/max/mdev = ").nth(1).unwrap();
    let least: f64 = least.split('/').next().unwrap().parse().unwrap();
    assert!((40.0..400.0).contains(&least), "{there}");
    // Two routers on the way.
    assert!(there.contains("ttl=62"), "{there}");
    let beside = ping(&hosts[0], &hosts[1].address().to_string());
    assert!(
        beside.contains("ttl=64") && beside.contains(" 0% packet loss"),
        "{beside}"
    );

    world.cut_area(carrier, true);
    assert!(ping(&hosts[0], &to).contains("100% packet loss"));
    assert!(ping(&hosts[0], &hosts[1].address().to_string()).contains(" 0% packet loss"));
    world.cut_area(carrier, false);
    until(A_WHILE, "it is mended", || {
        Ok(ping(&hosts[0], &to).contains(" 0% packet loss"))
    })
    .unwrap();
}

#[test]
fn two_homes_of_a_carrier_look_alike_and_meet_where_it_hairpins() {
    let Some(mut world) = world("alike") else {
        return;
    };
    let server = world.public("s").unwrap();
    let seen_by = socket(&server, 53);
    for (number, hairpin) in [true, false].into_iter().enumerate() {
        let carrier = world.carrier(NatKind {
            hairpin,
            ..NatKind::port_restricted()
        });
        let carrier = carrier.unwrap();
        let [(a, of_a), (b, of_b)] = ["a", "b"].map(|name| {
            let home = world.behind(carrier, NatKind::port_restricted()).unwrap();
            let host = world.host(&format!("{name}{number}"), home).unwrap();
            assert_eq!(host.address().to_string(), "192.168.1.2");
            let client = socket(&host, PORT);
            let seen = send(&client, &seen_by, at(&server, 53)).unwrap();
            (client, seen)
        });
        assert_eq!(of_a.ip(), of_b.ip());
        assert_eq!(send(&a, &b, of_b), None);
        assert_eq!(send(&b, &a, of_a), hairpin.then_some(of_b));
    }
}

#[test]
fn streams_arrive_whole_through_two_routers_that_lose_packets() {
    const BYTES: usize = 300_000;
    let Some(mut world) = world("streams") else {
        return;
    };
    let public = world.public("p").unwrap();
    let home = world
        .home(NatKind::symmetric(Ports::Sequential(2)))
        .unwrap();
    let host = world.host("h", home).unwrap();
    world.set_area_link(
        home,
        LinkKind {
            loss_ppm: 20_000,
            jitter: Duration::from_millis(3),
            ..LinkKind::of_delay(DELAY)
        },
    );
    let listener = on(&public, || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap()
    });
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip().to_string(), "11.0.2.1");
            stream.write_all(&sent).unwrap();
        });
        let mut stream = on(&host, || TcpStream::connect(at(&public, 80)).unwrap());
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == sent, "{} of {BYTES} octets", received.len());
    assert!(world.counts().lost > 0, "{:?}", world.counts());
}

#[test]
fn a_firewall_a_restart_and_a_move_are_noticed() {
    let Some(mut world) = world("changes") else {
        return;
    };
    let public = world.public("p").unwrap();
    let server = socket(&public, 53);
    let kind = NatKind {
        outward: Outward::NoUdp,
        ..NatKind::full_cone()
    };
    let closed = world.home(kind).unwrap();
    let behind = socket(&world.host("c", closed).unwrap(), PORT);
    assert_eq!(send(&behind, &server, at(&public, 53)), None);

    let home = world.home(NatKind::full_cone()).unwrap();
    let host = world.host("h", home).unwrap();
    let client = socket(&host, PORT);
    let before = send(&client, &server, at(&public, 53)).unwrap();
    assert!(send(&server, &client, before).is_some());
    world.restart_router(home, true).unwrap();
    assert_eq!(send(&server, &client, before), None);
    let after = send(&client, &server, at(&public, 53)).unwrap();
    assert_ne!(after.ip(), before.ip());

    let moved = world.readdress(&host, INTERNET).unwrap();
    let now = send(&client, &server, at(&public, 53)).unwrap();
    assert_eq!(now, at(&moved, PORT));
    assert_eq!(send(&server, &client, after), None);
}

fn at_v6(host: &Host, port: u16) -> SocketAddr {
    (host.address_v6().unwrap(), port).into()
}

#[test]
fn firewalls_of_ipv6_open_for_answers_alone() {
    let Some(mut world) = world("firewalls") else {
        return;
    };
    let any = Ipv6Addr::UNSPECIFIED.into();
    let public = world.host_of("p", INTERNET, Stack::Dual).unwrap();
    let server = socket_of(&public, any, 53);
    let homes = ["a", "b"].map(|name| {
        let home = world.home_v6(NatKind::port_restricted()).unwrap();
        let host = world.host_of(name, home, Stack::Dual).unwrap();
        (socket_of(&host, any, PORT), at_v6(&host, PORT))
    });
    let [(a, at_a), (b, at_b)] = &homes;
    assert_eq!(send(&server, a, *at_a), None);
    assert_eq!(send(a, &server, at_v6(&public, 53)), Some(*at_a));
    assert_eq!(send(&server, a, *at_a), Some(at_v6(&public, 53)));
    // Two homes meet when both have sent.
    assert_eq!(send(a, b, *at_b), None);
    assert_eq!(send(b, a, *at_a), Some(*at_b));
    assert_eq!(send(a, b, *at_b), Some(*at_a));
    assert!(world.host_of("c", INTERNET, Stack::Ipv6).is_err());
    let without = world.home(NatKind::full_cone()).unwrap();
    assert!(world.host_of("d", without, Stack::Dual).is_err());
}

#[test]
fn programs_with_ipv6_alone_reach_those_with_ipv4_alone_by_the_nat64() {
    const BYTES: usize = 300_000;
    let Some(mut world) = world("nat64") else {
        return;
    };
    let public = world.public("p").unwrap();
    let home = world.home_v6(NatKind::port_restricted()).unwrap();
    let host = world.host_of("h", home, Stack::Ipv6).unwrap();
    let (client, server) = (
        socket_of(&host, Ipv6Addr::UNSPECIFIED.into(), PORT),
        socket(&public, 53),
    );
    let translated = |port: u16| -> SocketAddr {
        format!("[64:ff9b::{}]:{port}", public.address())
            .parse()
            .unwrap()
    };
    let seen = send(&client, &server, translated(53)).unwrap();
    assert_eq!(seen.to_string(), format!("11.0.2.1:{PORT}"));
    assert_eq!(send(&server, &client, seen), Some(translated(53)));

    let to = translated(53).ip().to_string();
    let echoed = host.run(&["ping", "-c", "2", "-i", "0.2", "-W", "2", &to], A_WHILE);
    let echoed = echoed.unwrap().stdout;
    assert!(
        echoed.contains(" 0% packet loss") && echoed.contains("ttl=63"),
        "{echoed}"
    );
    // Nothing of IPv4 leaves the host.
    let four = ["ping", "-c", "1", "-W", "1", &public.address().to_string()];
    assert!(!host.run(&four, A_WHILE).unwrap().success());

    let listener = on(&public, || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap()
    });
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip().to_string(), "11.0.2.1");
            stream.write_all(&sent).unwrap();
        });
        let mut stream = on(&host, || TcpStream::connect(translated(80)).unwrap());
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == sent, "{} of {BYTES} octets", received.len());
}
