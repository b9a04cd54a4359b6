//! The server and the client with real programs of others: coturn's server, clients and peer.
//! Each has a host of its own. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod shell;

use std::net::{IpAddr, SocketAddr};

use enishi_lab::{Host, Lab, Output};
use enishi_stun::{
    ClientConfig, ClientEvent, ClientInput, Credentials, Family, Leg, Limits, Loss, Policy, Rate,
    ServerConfig,
};
use shell::{A_WHILE, Calling, Coturn, ECHO_PORT, PORT, Serving, USER, inside};

/// A client, a server and a peer, each in a network namespace.
struct Site {
    client: Host,
    server: Host,
    peer: Host,
    coturn: Coturn,
    _lab: Lab,
}

impl Site {
    /// None without root.
    fn open(prefix: &str) -> Option<Self> {
        let Some(mut lab) = enishi_lab::is_root().then(|| Lab::new(prefix).unwrap()) else {
            eprintln!("skipped: needs root");
            return None;
        };
        Some(Self {
            client: lab.host("c").unwrap(),
            server: lab.host("s").unwrap(),
            peer: lab.host("p").unwrap(),
            coturn: Coturn::new(),
            _lab: lab,
        })
    }

    /// A server that lets clients reach the lab, whose addresses are private.
    fn config(&self) -> ServerConfig {
        ServerConfig {
            realm: "lab".to_owned(),
            listen: (self.server.address(), PORT).into(),
            users: vec![Credentials::new(USER.0, USER.1).unwrap()],
            families: vec![Family::V4],
            policy: Policy {
                own: vec![IpAddr::from(self.server.address()).into()],
                extra: vec!["10.99.0.0/24".parse().unwrap()],
            },
            limits: Limits::default(),
        }
    }

    /// Runs `turnutils_uclient`, which sends twenty datagrams by each of two clients to the peer
    /// and waits for them to come back.
    fn uclient(&self, password: &str, more: &[&str]) -> Output {
        let program = self.coturn.program("turnutils_uclient");
        let (peer, server) = (self.peer.address(), self.server.address());
        let mut words = vec![program, "-u".into(), USER.0.into()];
        words.extend(["-w", password, "-n", "20", "-m", "2", "-e"].map(String::from));
        words.push(peer.to_string());
        words.extend(["-r", "3480", "-c"].map(String::from));
        words.extend(more.iter().map(|&word| word.to_owned()));
        words.push(server.to_string());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.client.run(&words, A_WHILE).unwrap()
    }

    fn calling(&self, password: &str) -> ClientConfig {
        ClientConfig {
            server: (self.server.address(), PORT).into(),
            local: (self.client.address(), 0).into(),
            credentials: Credentials::new(USER.0, password).unwrap(),
            family: Family::V4,
            leg: Leg::Udp,
        }
    }

    fn echo(&self) -> SocketAddr {
        (self.peer.address(), ECHO_PORT).into()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

fn allocated(event: &ClientEvent) -> Option<(SocketAddr, Option<SocketAddr>)> {
    match event {
        ClientEvent::Allocated { relayed, mapped } => Some((*relayed, *mapped)),
        _ => None,
    }
}

fn lost(event: &ClientEvent) -> Option<Loss> {
    match event {
        ClientEvent::Lost(loss) => Some(*loss),
        _ => None,
    }
}

fn data(event: &ClientEvent) -> Option<(SocketAddr, Vec<u8>)> {
    match event {
        ClientEvent::Data { peer, octets } => Some((*peer, octets.clone())),
        _ => None,
    }
}

#[test]
fn coturns_stun_client_learns_its_address() {
    let Some(site) = Site::open("stun-a") else {
        return;
    };
    let serving = Serving::start(&site.server, site.config());
    let program = site.coturn.program("turnutils_stunclient");
    let server = site.server.address().to_string();
    let output = site.client.run(&[&program, &server], A_WHILE).unwrap();
    let address = format!("reflexive addr: {}:", site.client.address());
    assert!(said(&output).contains(&address), "{}", said(&output));
    serving.stop();
}

#[test]
fn coturns_client_is_relayed() {
    let Some(site) = Site::open("stun-b") else {
        return;
    };
    let serving = Serving::start(&site.server, site.config());
    let _echo = site.coturn.echo(&site.peer);
    for more in [&[][..], &["-s"]] {
        let output = site.uclient(USER.1, more);
        let said = said(&output);
        assert!(output.success(), "{said}");
        assert!(said.contains("Total lost packets 0 "), "{more:?}: {said}");
    }
    let counters = serving.stop();
    assert!(counters.to_peers_octets > 0, "{counters:?}");
    assert_eq!(counters.to_peers_octets, counters.to_clients_octets);
}

#[test]
fn coturns_client_is_refused_what_it_may_not() {
    let Some(site) = Site::open("stun-c") else {
        return;
    };
    let _echo = site.coturn.echo(&site.peer);
    let serving = Serving::start(&site.server, site.config());
    let output = site.uclient("a wrong password", &[]);
    assert!(!output.success(), "{}", said(&output));
    let counters = serving.stop();
    assert_eq!(counters.to_peers_octets, 0);
    assert!(counters.challenged_messages > 1);

    let policy = Policy::default();
    let serving = Serving::start(
        &site.server,
        ServerConfig {
            policy,
            ..site.config()
        },
    );
    let output = site.uclient(USER.1, &[]);
    assert!(said(&output).contains("403"), "{}", said(&output));
    let counters = serving.stop();
    assert!(
        counters.denied_messages > 0,
        "{counters:?} {}",
        said(&output)
    );
    assert_eq!(counters.to_peers_octets, 0);

    let limits = Limits {
        allocations_per_user_max: 1,
        ..Limits::default()
    };
    let serving = Serving::start(
        &site.server,
        ServerConfig {
            limits,
            ..site.config()
        },
    );
    let output = site.uclient(USER.1, &[]);
    assert!(said(&output).contains("486"), "{}", said(&output));
    assert!(serving.stop().refused_allocations > 0);

    let rate = Rate {
        per_s: 100,
        burst: 200,
    };
    let limits = Limits {
        octets_each: rate,
        ..Limits::default()
    };
    let serving = Serving::start(
        &site.server,
        ServerConfig {
            limits,
            ..site.config()
        },
    );
    let output = site.uclient(USER.1, &[]);
    assert!(!said(&output).contains("Total lost packets 0 "));
    let counters = serving.stop();
    assert!(counters.dropped_octets > 0, "{counters:?}");
}

#[test]
fn a_client_is_relayed_by_coturn() {
    let Some(site) = Site::open("stun-d") else {
        return;
    };
    let mut turnserver = site.coturn.serve(&site.server);
    let _echo = site.coturn.echo(&site.peer);
    let (echo, peer_ip) = (site.echo(), IpAddr::from(site.peer.address()));
    inside(&site.client, || {
        let mut calling = Calling::start(site.calling(USER.1));
        let (relayed, mapped) = calling.until("allocated", allocated);
        assert_eq!(relayed.ip(), IpAddr::from(site.server.address()));
        assert_eq!(mapped.unwrap().ip(), IpAddr::from(site.client.address()));

        calling.tell(ClientInput::Send {
            peer: echo,
            octets: b"too early",
        });
        calling.until("not sent", |event| {
            (*event == ClientEvent::NotSent(echo)).then_some(())
        });
        calling.tell(ClientInput::Permit(peer_ip));
        let permitted = ClientEvent::Permitted(peer_ip);
        calling.until("permitted", |event| (*event == permitted).then_some(()));
        calling.tell(ClientInput::Send {
            peer: echo,
            octets: b"by Send",
        });
        assert_eq!(calling.until("an echo", data), (echo, b"by Send".to_vec()));

        calling.tell(ClientInput::Bind(echo));
        calling.until("bound", |event| {
            (*event == ClientEvent::Bound(echo)).then_some(())
        });
        for number in 0..100_u8 {
            let octets = vec![number; 10 * usize::from(number) + 1];
            calling.tell(ClientInput::Send {
                peer: echo,
                octets: &octets,
            });
            assert_eq!(calling.until("an echo by channel", data), (echo, octets));
        }

        turnserver.kill9().unwrap();
        calling.tell(ClientInput::Send {
            peer: echo,
            octets: b"to nobody",
        });
        let since = std::time::Instant::now();
        assert_eq!(calling.until("lost", lost), Loss::Silent);
        assert!(since.elapsed().as_secs() < 8, "{:?}", since.elapsed());
    });
}

#[test]
fn a_client_notices_what_coturn_says() {
    let Some(site) = Site::open("stun-e") else {
        return;
    };
    let mut turnserver = site.coturn.serve(&site.server);
    let echo = site.echo();
    let restarted = inside(&site.client, || {
        let mut calling = Calling::start(site.calling("a wrong password"));
        let loss = calling.until("refused", lost);
        assert_eq!(loss, Loss::Refused(401));

        let mut calling = Calling::start(site.calling(USER.1));
        calling.until("allocated", allocated);
        calling.tell(ClientInput::Release);
        assert_eq!(calling.until("released", lost), Loss::Released);

        let mut calling = Calling::start(site.calling(USER.1));
        calling.until("allocated", allocated);
        calling.tell(ClientInput::Permit(echo.ip()));
        let permitted = ClientEvent::Permitted(echo.ip());
        calling.until("permitted", |event| (*event == permitted).then_some(()));
        calling
    });
    turnserver.kill9().unwrap();
    let _turnserver = site.coturn.serve(&site.server);
    inside(&site.client, || {
        let mut calling = restarted;
        // Nobody at the peer's port: the server is asked all the same.
        calling.tell(ClientInput::Send {
            peer: echo,
            octets: b"lost",
        });
        assert_eq!(calling.until("lost", lost), Loss::Forgotten);
    });
}

#[test]
fn a_client_is_relayed_by_the_server() {
    let Some(site) = Site::open("stun-f") else {
        return;
    };
    let serving = Serving::start(&site.server, site.config());
    let _echo = site.coturn.echo(&site.peer);
    let echo = site.echo();
    inside(&site.client, || {
        let mut calling = Calling::start(site.calling(USER.1));
        calling.until("allocated", allocated);
        calling.tell(ClientInput::Bind(echo));
        calling.until("bound", |event| {
            (*event == ClientEvent::Bound(echo)).then_some(())
        });
        calling.tell(ClientInput::Send {
            peer: echo,
            octets: b"hello",
        });
        assert_eq!(calling.until("an echo", data), (echo, b"hello".to_vec()));
    });
    serving.stop();
}
