//! Networks behind members, between real hosts: a LAN with two routers, and everything.
//! Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::path::Path;
use std::time::Duration;

use enishi_lab::{Daemon, Host, Lab, ensure_programs, until};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const A_WHILE: Duration = Duration::from_secs(20);
const SECRET: &str = "a secret of the office";

/// Two routers, a third member, and a host behind the routers that knows nothing of Enishi.
struct Office {
    routers: [(Host, Daemon); 2],
    member: (Host, Daemon),
    behind: Host,
    _lab: Lab,
    _directory: TempDir,
}

impl Office {
    /// None without root. The host behind has an address in this network, as the routers have.
    fn open(prefix: &str, network: &str) -> Option<Self> {
        if !enishi_lab::is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        ensure_programs(&[("nft", "nftables"), ("ping", "iputils-ping")]).unwrap();
        let mut lab = Lab::new(prefix).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let password = directory.path().join("password");
        std::fs::write(&password, SECRET).unwrap();
        let password = password.to_str().unwrap();
        let behind = lab.host("behind").unwrap();
        let addresses = format!(
            "ip link add br0 type bridge; ip link set br0 up; ip address add {network}.9/24 dev br0"
        );
        run(&behind, &addresses);
        let mut ticket: Option<String> = None;
        let mut hire = |name: &str| {
            let host = lab.host(name).unwrap();
            let data = directory.path().join(name);
            let bootstrap = ticket.iter().flat_map(|ticket| ["--bootstrap", ticket]);
            let bootstrap: Vec<&str> = bootstrap.collect();
            let daemon = Daemon::start(Path::new(PROGRAM), Some(&host), &data, &bootstrap).unwrap();
            let words: &[&str] = match &ticket {
                Some(_) => &["channel", "join", "--name", "office"],
                None => &["channel", "create", "office"],
            };
            let password = ["--password-file", password];
            daemon.text(&[words, &password].concat()).unwrap();
            ticket.get_or_insert_with(|| daemon.text(&["invite"]).unwrap());
            (host, daemon)
        };
        let routers = ["one", "two"].map(&mut hire);
        let member = hire("member");
        for (number, (host, _)) in routers.iter().enumerate() {
            let space = behind.namespace();
            run(
                host,
                &format!(
                    "ip link add lan0 type veth peer name port{number} netns {space}; \
                     ip address add {network}.{}/24 dev lan0; ip link set lan0 up",
                    number + 1
                ),
            );
            run(&behind, &format!("ip link set port{number} master br0 up"));
        }
        Some(Self {
            routers,
            member,
            behind,
            _lab: lab,
            _directory: directory,
        })
    }

    fn reaches(&self, address: &str) -> bool {
        let words = ["ping", "-c", "1", "-W", "1", address];
        self.member.0.run(&words, A_WHILE).unwrap().success()
    }

    fn wait_until_reached(&self, address: &str, limit: Duration) {
        let what = format!("{address} is reached");
        if until(limit, &what, || Ok(self.reaches(address))).is_err() {
            let told = |(host, daemon): &(Host, Daemon)| {
                let routes = run(host, "ip route; ip rule; nft list ruleset");
                let channels = daemon.text(&["channel", "list"]).unwrap_or_default();
                format!("{channels}\n{routes}\n{}", daemon.log())
            };
            let [one, two] = self.routers.each_ref().map(told);
            panic!("{what}: {}\n\n{one}\n\n{two}", told(&self.member));
        }
    }
}

fn run(host: &Host, line: &str) -> String {
    let output = host.run(&["sh", "-ec", line], A_WHILE).unwrap();
    assert!(output.success(), "{line}: {}", output.stderr);
    output.stdout
}

#[test]
fn a_lan_is_reached_through_either_of_two_routers() {
    let Some(mut office) = Office::open("lan", "192.168.7") else {
        return;
    };
    let lan = "192.168.7.0/24";
    assert!(!office.reaches("192.168.7.9"));
    for (_, router) in &office.routers {
        router.text(&["route", "share", "office", lan]).unwrap();
    }
    assert!(!office.reaches("192.168.7.9"), "nobody has accepted it");
    let member = &office.member.1;
    member.text(&["route", "use", "office", lan]).unwrap();
    office.wait_until_reached("192.168.7.9", A_WHILE);
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
    let used = via();
    let ids: Vec<String> = office
        .routers
        .iter()
        .map(|(_, router)| {
            let status = router.json(&["status"]).unwrap();
            status["node_id"].as_str().unwrap().to_owned()
        })
        .collect();
    let at = ids.iter().position(|id| *id == used).unwrap();
    office.routers[at].1.process().kill9().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    office.wait_until_reached("192.168.7.9", Duration::from_secs(12));
    // The network behind sees the router's own address, and needs no way back.
    let neighbours = run(&office.behind, "ip route");
    assert!(!neighbours.contains("10.77."), "{neighbours}");
    let (host, router) = &office.routers[1 - at];
    router.text(&["route", "unshare", "office", lan]).unwrap();
    until(A_WHILE, "nothing is left of it", || {
        Ok(!run(host, "nft list tables").contains("enishi"))
    })
    .unwrap();
    until(A_WHILE, "nobody offers it", || {
        Ok(!office.reaches("192.168.7.9"))
    })
    .unwrap();
}

#[test]
fn networks_that_could_not_be_told_apart_are_refused() {
    let Some(office) = Office::open("apart", "192.168.7") else {
        return;
    };
    let refused = |daemon: &Daemon, words: &[&str], why: &str| {
        let error = daemon.text(words).unwrap_err().to_string();
        assert!(error.contains(why), "{words:?}: {error}");
    };
    let member = &office.member.1;
    let router = &office.routers[0].1;
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
    let own = format!("{}/32", office.member.0.address());
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
    let Some(office) = Office::open("exit", "203.0.113") else {
        return;
    };
    let (host, router) = &office.routers[0];
    let member = &office.member.1;
    assert!(!office.reaches("203.0.113.9"));
    router
        .text(&["route", "share", "office", "everything"])
        .unwrap();
    let exit = router.address().unwrap().to_string();
    let words = ["route", "use", "office", "everything", "--by", &exit];
    until(A_WHILE, "the exit is offered", || {
        Ok(member.text(&words).is_ok())
    })
    .unwrap();
    office.wait_until_reached("203.0.113.9", A_WHILE);
    let way = run(&office.member.0, "ip route get 203.0.113.9");
    assert!(way.contains("enishi0"), "{way}");
    // The member's own network and its sessions go on as before.
    let underlay = host.address().to_string();
    assert!(office.reaches(&underlay) && office.reaches(&exit));
    std::thread::sleep(Duration::from_secs(6));
    assert!(office.reaches("203.0.113.9"));
    member
        .text(&["route", "unuse", "office", "everything"])
        .unwrap();
    until(A_WHILE, "the exit is not used", || {
        Ok(!office.reaches("203.0.113.9"))
    })
    .unwrap();
    until(A_WHILE, "nothing is left of it", || {
        let rules = run(&office.member.0, "ip rule; ip -6 rule");
        Ok(!rules.contains("25966") && !rules.contains("sport"))
    })
    .unwrap();
}
