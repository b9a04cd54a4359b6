//! Networks behind members, between real hosts: a LAN with two routers, and everything.
//! Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::fs;
use std::path::Path;
use std::time::Duration;

use enishi_lab::{Daemon, Host, until};

use office::{A_WHILE, Office, PROGRAM, ping, reaches, shell};

/// The numbers of the routers, and of the member that uses them.
const ROUTERS: [usize; 2] = [0, 1];
const MEMBER: usize = 2;

/// At which addresses the member listens: one port, by both versions of IP.
const LISTEN: &str = r#"listen = ["0.0.0.0:4242", "[::]:4242"]"#;

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
            ("dig", "bind9-dnsutils"),
        ];
        let mut office = Office::open(prefix, &programs)?.with_password("a secret of the office");
        let behind = office.lab.host("behind").unwrap();
        let addresses = format!(
            "ip link add br0 type bridge; ip link set br0 up; ip address add {network}.9/24 dev br0"
        );
        shell(&behind, &addresses);
        for number in ROUTERS {
            assert_eq!(office.hire(&[]), number);
        }
        assert_eq!(office.add_host(), MEMBER);
        let config = fs::read_to_string(office.config(MEMBER)).unwrap();
        fs::write(office.config(MEMBER), format!("{LISTEN}\n{config}")).unwrap();
        office.employ(MEMBER, Path::new(PROGRAM), &[]);
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

    /// Has everything of the member go by way of the first router, once that offers it.
    fn use_exit(&self) {
        let exit = self.office.address(ROUTERS[0]);
        let words = ["route", "use", "office", "everything", "--by", &exit];
        until(A_WHILE, "the exit is offered", || {
            Ok(self.member().text(&words).is_ok())
        })
        .unwrap();
    }

    /// Ends the member's daemon in good order, and starts another program in its place.
    fn restart_member_as(&mut self, program: &Path) {
        let daemon = self.office.daemons[MEMBER].process();
        daemon.terminate(A_WHILE).unwrap();
        self.office.restart_as(MEMBER, program, &[]);
    }

    /// Whether the member reaches an address.
    fn reaches(&self, address: &str) -> bool {
        reaches(&self.office.hosts[MEMBER], address)
    }

    fn wait_until_reached(&self, address: &str, limit: Duration) {
        let what = format!("{address} is reached");
        if until(limit, &what, || Ok(self.reaches(address))).is_err() {
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
    let hosts = site.office.hosts.clone();
    let forwards = |number: usize| {
        let file = "cat /proc/sys/net/ipv4/ip_forward";
        shell(&hosts[number], file).trim() == "1"
    };
    for number in ROUTERS {
        // A new namespace may have it from its machine.
        let off = "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0";
        shell(&hosts[number], off);
        let router = &site.office.daemons[number];
        router.text(&["route", "share", "office", lan]).unwrap();
    }
    assert!(!site.reaches("192.168.7.9"), "nobody has accepted it");
    let member = site.member();
    member.text(&["route", "use", "office", lan]).unwrap();
    site.wait_until_reached("192.168.7.9", A_WHILE);
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
    site.wait_until_reached("192.168.7.9", Duration::from_secs(15));
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
    assert!(!forwards(1 - at), "as it was before");
    // The one that was killed offers it again, and switches off what its last run left on.
    assert!(forwards(at), "as the crash left it");
    site.office.restart(at, &[]);
    site.wait_until_reached("192.168.7.9", A_WHILE);
    site.office.daemons[at]
        .process()
        .terminate(A_WHILE)
        .unwrap();
    assert!(!forwards(at), "as it was before");
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
    site.use_exit();
    let shop = ["channel", "create", "shop", "--network", "10.78.0.0/16"];
    member.text(&shop).unwrap();
    let second = ["route", "use", "shop", "everything", "--by", &exit];
    let refused = member.text(&second).unwrap_err().to_string();
    assert!(
        refused.contains("`enishi route unuse office everything`"),
        "{refused}"
    );
    site.wait_until_reached("203.0.113.9", A_WHILE);
    let told = member.json(&["status"]).unwrap()["channels"][0].clone();
    assert_eq!(
        (
            told["exit"].as_str(),
            told["routes"].as_array().map(Vec::len)
        ),
        (Some("h0"), Some(0))
    );
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

/// Where the host behind the routers is.
const FAR: [&str; 2] = ["203.0.113.9", "2001:db8:7::9"];

/// A DNS server that has the same answer to every question, and says who asked.
const DNS_SERVER: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 53))
while True:
    q, who = s.recvfrom(4096)
    print(who[0], flush=True)
    end = q.index(b"\0", 12) + 5
    a = q[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, 1, 0, 0) + q[12:end]
    s.sendto(a + b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 80]), who)
"#;

impl Site {
    /// Gives the member a way to the host behind that has nothing to do with its channel: by the
    /// second router, as by any of the Internet. What takes it is counted.
    fn lay_other_way(&self) {
        let [_, router] = ROUTERS;
        let [here, there] = [MEMBER, router].map(|number| &self.office.hosts[number]);
        shell(
            there,
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; \
             ip -6 address add fd99::2/64 dev eth0 nodad; \
             ip -6 address add 2001:db8:7::2/64 dev lan0 nodad",
        );
        let exit = &self.office.hosts[ROUTERS[0]];
        shell(exit, "ip -6 address add 2001:db8:7::1/64 dev lan0 nodad");
        shell(
            &self.behind,
            "ip -6 address add 2001:db8:7::9/64 dev br0 nodad; \
             ip -6 route add fd99::/64 via 2001:db8:7::2",
        );
        let line = format!(
            "ip -6 address add fd99::3/64 dev eth0 nodad; ip route add default via {}; \
             ip -6 route add default via fd99::2; \
             nft 'add table inet count; \
                  add counter inet count four; add counter inet count six; \
                  add chain inet count out {{ type filter hook output priority 0; }}; \
                  add rule inet count out oifname eth0 ip daddr {} counter name four; \
                  add rule inet count out oifname eth0 ip6 daddr {} counter name six'",
            there.address(),
            FAR[0],
            FAR[1],
        );
        shell(here, &line);
        for far in FAR {
            self.wait_until_reached(far, A_WHILE);
        }
    }

    /// How many packets to the host behind have left the member by that way, since it was asked
    /// before: of either version of IP.
    fn left(&self) -> Vec<u64> {
        let member = &self.office.hosts[MEMBER];
        let told = shell(member, "nft -j reset counters table inet count");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let objects = told["nftables"].as_array().unwrap().iter();
        let counts = objects.filter_map(|object| object["counter"]["packets"].as_u64());
        counts.collect()
    }

    /// Asks for the host behind by both versions of IP: whether it answers, always by way of the
    /// channel or not at all.
    fn reaches_safely(&self) -> [bool; 2] {
        let reached = FAR.map(|far| self.reaches(far));
        assert_eq!(self.left(), [0, 0], "past the exit");
        reached
    }
}

#[test]
fn what_goes_by_an_exit_goes_nowhere_when_that_is_gone() {
    let Some(mut site) = Site::open("gone", "203.0.113") else {
        return;
    };
    site.lay_other_way();
    let share = |site: &Site, verb: &str| {
        let words = ["route", verb, "office", "everything"];
        site.office.daemons[ROUTERS[0]].text(&words).unwrap();
    };
    share(&site, "share");
    site.use_exit();
    let router = &site.office.daemons[ROUTERS[0]];
    let itself = router.address().unwrap().to_string();
    let words = ["route", "use", "office", "everything", "--by", &itself];
    let refused = router.text(&words).unwrap_err().to_string();
    assert!(refused.contains("by way of itself"), "{refused}");
    site.left();
    let wait = |site: &Site, what: &str, reached: bool| {
        let told = until(A_WHILE, what, || Ok(site.reaches_safely() == [reached; 2]));
        told.unwrap_or_else(|error| panic!("{error}: {}", site.member().log()));
    };
    wait(&site, "all goes by the exit", true);

    // The exit offers it no more, and then again.
    share(&site, "unshare");
    wait(&site, "what the exit refuses is refused", false);
    until(A_WHILE, "the person is told", || {
        let told = site.member().text(&["status"])?;
        Ok(told.contains("`enishi route unuse office everything`"))
    })
    .unwrap();
    share(&site, "share");
    wait(&site, "the exit is back", true);

    // The member's own daemon crashes, and comes back.
    site.office.daemons[MEMBER].process().kill9().unwrap();
    assert_eq!(site.reaches_safely(), [false; 2]);
    let resolver = format!("nameserver {}\n", FAR[0]);
    let member = &site.office.hosts[MEMBER];
    member.set_etc("resolv.conf", &resolver).unwrap();
    site.office.restart(MEMBER, &[]);
    wait(&site, "all goes by the exit again", true);

    // So do questions to a DNS server that is not of the host's own networks.
    let log = site.office.path("dns.log");
    let mut server = site.behind.command("python3");
    server.args(["-c", DNS_SERVER]);
    let _server = site.behind.spawn(server, &log).unwrap();
    let ask = [
        "dig",
        "+short",
        "+timeout=2",
        "@127.77.0.53",
        "www.example.org",
    ];
    until(A_WHILE, "a name is looked up", || {
        Ok(site.office.run(MEMBER, &ask).stdout.trim() == "192.0.2.80")
    })
    .unwrap();
    assert_eq!(site.left(), [0, 0], "past the exit");
    let asked = fs::read_to_string(&log).unwrap();
    assert!(asked.starts_with("203.0.113.1\n"), "{asked}");

    // It crashes again; the next node of this host wants no exit, and clears what was left.
    site.office.daemons[MEMBER].process().kill9().unwrap();
    assert_eq!(site.reaches_safely(), [false; 2]);
    let (program, data) = (Path::new(PROGRAM), site.office.path("another"));
    let host = site.office.hosts[MEMBER].clone();
    let host = Some(&host);
    drop(Daemon::start(program, host, &data, &[]).unwrap());
    let others = FAR.map(|far| site.reaches(far));
    assert_eq!(others, [true; 2], "{:?}", site.left());
    site.left();
    site.office.restart(MEMBER, &[]);
    wait(&site, "the exit is used after every start", true);

    // The exit crashes; another node of the member's host, which wants none, comes and goes.
    site.office.daemons[ROUTERS[0]].process().kill9().unwrap();
    wait(&site, "the exit is gone", false);
    let mut other = Daemon::start(program, host, &data, &[]).unwrap();
    assert_eq!(site.reaches_safely(), [false; 2]);
    other.process().terminate(A_WHILE).unwrap();
    assert_eq!(site.reaches_safely(), [false; 2]);
    let words = ["route", "unuse", "office", "everything"];
    site.member().text(&words).unwrap();
    for far in FAR {
        site.wait_until_reached(far, A_WHILE);
    }
    assert!(
        site.left().iter().all(|count| *count > 0),
        "by the other way"
    );
}

#[test]
fn an_exit_of_which_a_part_cannot_be_put_up_cuts_off_until_it_can() {
    let Some(mut site) = Site::open("half", "203.0.113") else {
        return;
    };
    site.lay_other_way();
    let [program, fails] = site.office.with_failing_ip("sport");
    site.restart_member_as(&program);

    let router = &site.office.daemons[ROUTERS[0]];
    let share = |verb| router.text(&["route", verb, "office", "everything"]);
    share("share").unwrap();
    site.use_exit();
    let notice = || site.member().json(&["status"]).unwrap()["channels"][0]["notice"].clone();
    let rules = || shell(&site.office.hosts[MEMBER], "ip rule; ip -6 rule");
    let told = notice();
    assert!(
        told.as_str()
            .is_some_and(|told| told.contains("does not want to")),
        "{told}"
    );
    assert_eq!(rules().matches("lookup 25966").count(), 2, "{}", rules());
    share("unshare").unwrap();
    site.left();
    until(A_WHILE, "what the exit refuses is refused", || {
        Ok(site.reaches_safely() == [false; 2])
    })
    .unwrap();

    // It is tried again with the next change.
    fs::remove_file(&fails).unwrap();
    share("share").unwrap();
    until(A_WHILE, "all goes by the exit", || {
        Ok(site.reaches_safely() == [true; 2])
    })
    .unwrap();
    assert_eq!(notice(), serde_json::Value::Null);
    assert_eq!(rules().matches("sport 4242").count(), 2, "{}", rules());
}

#[test]
fn what_is_to_go_by_an_exit_is_refused_without_a_device() {
    let Some(mut site) = Site::open("nodev", "203.0.113") else {
        return;
    };
    site.lay_other_way();
    // In the file systems that the program alone sees.
    let program = site.office.wrap("mount --bind /dev/null /dev/net/tun");
    site.restart_member_as(&program);
    let words = ["route", "share", "office", "everything"];
    site.office.daemons[ROUTERS[0]].text(&words).unwrap();
    site.use_exit();
    site.left();
    until(A_WHILE, "everything is refused", || {
        Ok(site.reaches_safely() == [false; 2])
    })
    .unwrap_or_else(|error| {
        let told = shell(
            &site.office.hosts[MEMBER],
            "ip rule; ip -6 rule; ip route show table 25966; ip link; ip route get 203.0.113.9",
        );
        panic!("{error}: {told}\n{}", site.member().log())
    });
    let status = site.member().json(&["status"]).unwrap();
    let told = &status["channels"][0];
    assert_eq!(told["interface"], serde_json::Value::Null, "{told}");
    let words = ["route", "unuse", "office", "everything"];
    site.member().text(&words).unwrap();
    for far in FAR {
        site.wait_until_reached(far, A_WHILE);
    }
}
