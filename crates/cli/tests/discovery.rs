//! Programs that look for others by broadcast and multicast and choose no device: a lobby, SSDP,
//! and the real avahi. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::fs;
use std::path::Path;

use enishi_lab::until;

use office::{A_WHILE, Office, PROGRAM, reaches, shell, system_bus, wait_for_line};

/// What the hosts have in common besides the channel: a LAN whose way leads everywhere, as
/// everybody's does.
const DEFAULT: &str = "ip route add default via 10.99.0.250";

/// Joins a group as a program does that leaves the device to the system, or a lobby, which has
/// none; answers each question to who asked.
const ANSWERER: &str = r#"
import socket, sys
group, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", port))
if group != "255.255.255.255":
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                 socket.inet_aton(group) + socket.inet_aton("0.0.0.0"))
print("listens", flush=True)
while True:
    question, who = s.recvfrom(2000)
    if b"M-SEARCH" in question or b"who is there" in question:
        s.sendto(b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:" + name + b"\r\n\r\n", who)
"#;

/// Asks a group or everybody, without choosing a device; prints who has answered within a
/// second, and what.
const ASKER: &str = r#"
import socket, sys
to, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.settimeout(1)
question = (b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n"
            b"MX: 1\r\nST: upnp:rootdevice\r\n\r\n") if port == 1900 else b"who is there"
s.sendto(question, (to, port))
try:
    while True:
        answer, who = s.recvfrom(2000)
        print(who[0], answer.decode().split("USN: ")[1].strip(), flush=True)
except TimeoutError:
    pass
"#;

/// So many members with discovery, whose other way leads elsewhere; none without root.
fn open(prefix: &str, size: usize, programs: &[(&str, &str)]) -> Option<Office> {
    let mut office = Office::open(prefix, programs)?;
    for _ in 0..size {
        let number = office.add_host();
        shell(&office.hosts[number], DEFAULT);
        office.employ(number, Path::new(PROGRAM), &[]);
    }
    Some(office)
}

impl Office {
    fn switch(&self, number: usize, state: &str) {
        let words = ["channel", "discovery", "office", state];
        self.daemons[number].text(&words).unwrap();
    }

    fn answer(&mut self, number: usize, group: &str, port: &str) {
        let name = format!("h{number}");
        let log = self.serve(number, &["python3", "-c", ANSWERER, group, port, &name]);
        wait_for_line(&log, "listens");
    }

    /// Who answers the first host's question, in the order of their names.
    fn ask(&self, to: &str, port: &str) -> Vec<String> {
        let told = self.run(0, &["python3", "-c", ASKER, to, port]);
        assert!(told.success(), "{}", told.stderr);
        let mut answers: Vec<String> = told.stdout.lines().map(str::to_owned).collect();
        answers.sort_by_key(|answer| answer.split(' ').nth(1).map(str::to_owned));
        answers
    }
}

const SSDP: [&str; 2] = ["239.255.255.250", "1900"];
const LOBBY: [&str; 2] = ["255.255.255.255", "6112"];

#[test]
fn programs_that_choose_no_device_find_each_other_where_that_is_wanted() {
    let Some(mut office) = open("find", 3, &[("python3", "python3")]) else {
        return;
    };
    let others =
        |office: &Office| [1, 2].map(|number| format!("{} uuid:h{number}", office.address(number)));
    // Without it the system leads them to the way that is everybody's.
    for [to, port] in [SSDP, LOBBY] {
        assert!(office.ask(to, port).is_empty());
    }
    for number in 0..3 {
        office.switch(number, "on");
    }
    for number in [1, 2] {
        for [group, port] in [SSDP, LOBBY] {
            office.answer(number, group, port);
        }
    }
    let wait = |office: &Office, [to, port]: [&str; 2]| {
        let mut answers = Vec::new();
        until(A_WHILE, "both answer", || {
            answers = office.ask(to, port);
            Ok(answers.len() >= 2)
        })
        .unwrap();
        assert_eq!(answers, others(office), "each once");
    };
    wait(&office, SSDP);
    wait(&office, LOBBY);

    // A second channel cannot have it too.
    let home = ["channel", "create", "home", "--network", "10.78.0.0/16"];
    office.daemons[0].text(&home).unwrap();
    let second = ["channel", "discovery", "home", "on"];
    let refused = office.daemons[0].call(&second).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("`office`"), "{}", refused.stderr);

    // It outlives the daemon, whose routes do not.
    let routes = |office: &Office| shell(&office.hosts[0], "ip route show metric 2000");
    assert_eq!(routes(&office).lines().count(), 2, "{}", routes(&office));
    office.daemons[0].process().kill9().unwrap();
    until(
        A_WHILE,
        "nothing is left",
        || Ok(routes(&office).is_empty()),
    )
    .unwrap();
    office.restart(0, &[]);
    wait(&office, SSDP);
    office.switch(0, "off");
    assert!(routes(&office).is_empty(), "{}", routes(&office));
    // The lobby is again that of the LAN in which they all are.
    let answers = office.ask(LOBBY[0], LOBBY[1]);
    assert!(
        answers.iter().all(|answer| answer.starts_with("10.99.")),
        "{answers:?}"
    );
}

#[test]
fn what_the_system_refuses_is_told_and_can_be_tried_again() {
    let Some(mut office) = Office::open("refuse", &[]) else {
        return;
    };
    let number = office.add_host();
    let [program, fails] = office.with_failing_ip("224.0.0.0");
    office.employ(number, &program, &[]);
    let switch = ["channel", "discovery", "office", "on"];
    let refused = office.daemons[number].text(&switch).unwrap_err();
    assert!(refused.to_string().contains("does not want to"));
    let routes = || shell(&office.hosts[number], "ip route");
    assert!(!routes().contains("metric 2000"), "{}", routes());
    fs::remove_file(&fails).unwrap();
    office.switch(number, "on");
    assert_eq!(routes().matches("metric 2000").count(), 2, "{}", routes());
}

impl Office {
    /// Starts avahi on a host, with a bus of its own, as Debian ships it but for the name. Returns
    /// how its programs find the bus.
    fn start_avahi(&mut self, number: usize) -> String {
        let text = format!(
            "[server]\nhost-name=printer{number}\nuse-ipv6=no\nallow-point-to-point=yes\n\
             deny-interfaces=eth0\n[publish]\npublish-workstation=no\n[rlimits]\n"
        );
        let socket = self.path(&format!("bus{number}"));
        let (bus, address) = system_bus(&self.hosts[number], &socket);
        let (avahi, log) = self.avahi(number, &text, &address);
        self.servers.extend([bus, avahi]);
        wait_for_line(&log, "Server startup complete");
        address
    }
}

#[test]
fn a_service_that_avahi_publishes_is_browsed_on_another_host() {
    let programs = [
        ("avahi-daemon", "avahi-daemon"),
        ("avahi-browse", "avahi-utils"),
        ("dbus-daemon", "dbus-daemon"),
    ];
    let Some(mut office) = open("browse", 2, &programs) else {
        return;
    };
    let [here, there] = [0, 1].map(|number| office.start_avahi(number));
    let publish = [
        "env",
        &here,
        "avahi-publish-service",
        "Wiki",
        "_http._tcp",
        "8080",
        "path=/x",
    ];
    let log = office.serve(0, &publish);
    wait_for_line(&log, "Established");
    let browse = ["env", &there, "avahi-browse", "-rpt", "_http._tcp"];
    let address = office.address(0);
    let mut found = String::new();
    until(A_WHILE, "the service is found", || {
        found = office.run(1, &browse).stdout;
        Ok(found.lines().any(|line| line.starts_with('=')))
    })
    .unwrap_or_else(|error| panic!("{error}: {found}"));
    let line = found.lines().find(|line| line.starts_with('=')).unwrap();
    let fields: Vec<&str> = line.split(';').collect();
    assert_eq!(fields[1..4], ["enishi0", "IPv4", "Wiki"], "{found}");
    assert_eq!(
        fields[6..],
        ["printer0.local", &address, "8080", "\"path=/x\""],
        "{found}"
    );
    assert!(reaches(&office.hosts[1], &address));
}
