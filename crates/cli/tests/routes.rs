//! Networks behind members, between real hosts: a LAN with two routers, and everything.
//! Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use enishi_lab::{Daemon, Host, until};

use office::{A_WHILE, Office, ping, reaches, shell};

/// The numbers of the routers, and of the member that uses them.
const ROUTERS: [usize; 2] = [0, 1];
const MEMBER: usize = 2;

/// Two routers, a third member, and a host behind the routers that knows nothing of Enishi.
struct Site {
    office: Office,
    behind: Host,
}

impl Site {
    /// None without root. The host behind has an address in this network, as the routers have.
    fn open(prefix: &str, network: &str) -> Option<Self> {
        let programs = [
            ("nft", "nftables"),
            ("ping", "iputils-ping"),
            ("python3", "python3"),
        ];
        let mut office = Office::open(prefix, &programs)?.with_password("a secret of the office");
        let behind = office.lab.host("behind").unwrap();
        let addresses = format!(
            "ip link add br0 type bridge; ip link set br0 up; ip address add {network}.9/24 dev br0"
        );
        shell(&behind, &addresses);
        for number in [ROUTERS[0], ROUTERS[1], MEMBER] {
            assert_eq!(office.hire(&[]), number);
        }
        for number in ROUTERS {
            let (space, last) = (behind.namespace(), number + 1);
            let cable = format!(
                "ip link add lan0 type veth peer name port{number} netns {space}; \
                 ip address add {network}.{last}/24 dev lan0; ip link set lan0 up"
            );
            shell(&office.hosts[number], &cable);
            let plug = format!("ip link set port{number} master br0 up");
            shell(&behind, &plug);
        }
        Some(Self { office, behind })
    }

    fn member(&self) -> &Daemon {
        &self.office.daemons[MEMBER]
    }

    /// Whether the member reaches an address.
    fn reaches(&self, address: &str) -> bool {
        reaches(&self.office.hosts[MEMBER], address)
    }

    fn wait_until_reached(&self, address: &str) {
        let what = format!("{address} is reached");
        if until(A_WHILE, &what, || Ok(self.reaches(address))).is_err() {
            let told = |number: usize| {
                let routes = "ip route; ip rule; nft list ruleset";
                let routes = shell(&self.office.hosts[number], routes);
                let daemon = &self.office.daemons[number];
                let channels = daemon.text(&["channel", "list"]).unwrap_or_default();
                format!("{channels}\n{routes}\n{}", daemon.log())
            };
            let [one, two] = ROUTERS.map(told);
            panic!("{what}: {}\n\n{one}\n\n{two}", told(MEMBER));
        }
    }
}

#[test]
fn a_lan_is_reached_through_either_of_two_routers() {
    let Some(mut site) = Site::open("lan", "192.168.7") else {
        return;
    };
    let lan = "192.168.7.0/24";
    assert!(!site.reaches("192.168.7.9"));
    for router in &site.office.daemons[..MEMBER] {
        router.text(&["route", "share", "office", lan]).unwrap();
    }
    assert!(!site.reaches("192.168.7.9"), "nobody has accepted it");
    let member = site.member();
    member.text(&["route", "use", "office", lan]).unwrap();
    site.wait_until_reached("192.168.7.9");
    // Both offer it; the one in use dies.
    let via = || {
        let told = member.json(&["route", "list", "office"]).unwrap();
        assert_eq!(told["routes"][0]["routers"].as_array().unwrap().len(), 2);
        told["routes"][0]["via"].as_str().unwrap().to_owned()
    };
    until(A_WHILE, "both offers are known", || {
        let told = member.json(&["route", "list", "office"])?;
        Ok(told["routes"][0]["routers"].as_array().map(Vec::len) == Some(2))
    })
    .unwrap();
    // A router's own programs meet each other as before: under the address that they asked for.
    let own = site.office.address(ROUTERS[0]);
    let meet = format!(
        "import socket; at = ('{own}', 9); server = socket.create_server(at); \
         client = socket.create_connection(at); print(server.accept()[1][0])"
    );
    let met = site.office.run(ROUTERS[0], &["python3", "-c", &meet]);
    assert_eq!(met.stdout.trim(), own, "{}", met.stderr);
    let used = via();
    let ids = ROUTERS.map(|number| {
        let status = site.office.daemons[number].json(&["status"]).unwrap();
        status["node_id"].as_str().unwrap().to_owned()
    });
    let at = ids.iter().position(|id| *id == used).unwrap();
    site.office.daemons[at].process().kill9().unwrap();
    site.wait_until_reached("192.168.7.9");
    // The network behind sees the router's own address, and needs no way back.
    let neighbours = shell(&site.behind, "ip route");
    assert!(!neighbours.contains("10.77."), "{neighbours}");
    let (host, router) = (&site.office.hosts[1 - at], &site.office.daemons[1 - at]);
    router.text(&["route", "unshare", "office", lan]).unwrap();
    until(A_WHILE, "nothing is left of it", || {
        Ok(!shell(host, "nft list tables").contains("enishi"))
    })
    .unwrap();
    until(A_WHILE, "nobody offers it", || {
        Ok(!site.reaches("192.168.7.9"))
    })
    .unwrap();
}

#[test]
fn networks_that_could_not_be_told_apart_are_refused() {
    let Some(site) = Site::open("apart", "192.168.7") else {
        return;
    };
    let refused = |daemon: &Daemon, words: &[&str], why: &str| {
        let error = daemon.text(words).unwrap_err().to_string();
        assert!(error.contains(why), "{words:?}: {error}");
    };
    let member = site.member();
    let router = &site.office.daemons[ROUTERS[0]];
    let inside = "10.77.3.0/24";
    refused(
        router,
        &["route", "share", "office", inside],
        "the channel's own",
    );
    refused(
        member,
        &["route", "use", "office", inside],
        "could not be told apart",
    );
    let own = format!("{}/32", site.office.hosts[MEMBER].address());
    refused(
        member,
        &["route", "use", "office", &own],
        "an address of this host",
    );
    let wide = ["route", "use", "office", "192.168.0.0/16"];
    member.text(&wide).unwrap();
    let narrow = ["route", "use", "office", "192.168.7.0/24"];
    refused(member, &narrow, "could not be told apart");
    refused(
        member,
        &["route", "use", "office", "0.0.0.0/0"],
        "everything",
    );
    refused(member, &["route", "use", "office", "everything"], "--by");
    let by_member = ["route", "use", "office", "everything", "--by", "nobody"];
    assert!(member.text(&by_member).is_err());
    refused(
        member,
        &["route", "use", "shop", "192.168.9.0/24"],
        "no channel",
    );
}

#[test]
fn everything_goes_by_way_of_the_exit_and_sessions_do_not() {
    let Some(site) = Site::open("exit", "203.0.113") else {
        return;
    };
    let router = &site.office.daemons[ROUTERS[0]];
    let member = site.member();
    assert!(!site.reaches("203.0.113.9"));
    router
        .text(&["route", "share", "office", "everything"])
        .unwrap();
    let exit = site.office.address(ROUTERS[0]);
    let words = ["route", "use", "office", "everything", "--by", &exit];
    until(A_WHILE, "the exit is offered", || {
        Ok(member.text(&words).is_ok())
    })
    .unwrap();
    site.wait_until_reached("203.0.113.9");
    let way = shell(&site.office.hosts[MEMBER], "ip route get 203.0.113.9");
    assert!(way.contains("enishi0"), "{way}");
    // The member's own network and its sessions go on as before.
    let member = &site.office.hosts[MEMBER];
    let underlay = site.office.hosts[ROUTERS[0]].address().to_string();
    for address in [&underlay, &exit] {
        ping(member, &["-c", "1"], address);
    }
    // Longer than a session lasts that has lost its way.
    ping(member, &["-c", "31", "-i", "0.2"], "203.0.113.9");
    let member = site.member();
    member
        .text(&["route", "unuse", "office", "everything"])
        .unwrap();
    until(A_WHILE, "the exit is not used", || {
        Ok(!site.reaches("203.0.113.9"))
    })
    .unwrap();
    until(A_WHILE, "nothing is left of it", || {
        let rules = shell(&site.office.hosts[MEMBER], "ip rule; ip -6 rule");
        Ok(!rules.contains("25966") && !rules.contains("sport"))
    })
    .unwrap();
}
