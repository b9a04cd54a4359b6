//! Channels for programs on hosts without a network device, and with one for Ethernet, used by
//! programs that we did not write. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Daemon, Host, Lab, Process, ensure_programs, until};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const A_WHILE: Duration = Duration::from_secs(20);
/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

/// Hosts in one lab, with a daemon each that is a member of one channel; the host of number N
/// calls itself hN.
struct Office {
    lab: Lab,
    hosts: Vec<Host>,
    daemons: Vec<Daemon>,
    servers: Vec<Process>,
    directory: TempDir,
    ticket: String,
}

impl Office {
    /// Starts a daemon for each list of arguments; none without root.
    fn open(prefix: &str, arguments: &[&[&str]]) -> Option<Self> {
        if !enishi_lab::is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        ensure_programs(&[
            ("curl", "curl"),
            ("python3", "python3"),
            ("socat", "socat"),
            ("iperf3", "iperf3"),
            ("ping", "iputils-ping"),
            ("arping", "arping"),
        ])
        .unwrap();
        let mut office = Self {
            lab: Lab::new(prefix).unwrap(),
            hosts: Vec::new(),
            daemons: Vec::new(),
            servers: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
            ticket: String::new(),
        };
        let open = Permissions::from_mode(0o755);
        std::fs::set_permissions(office.directory.path(), open).unwrap();
        for arguments in arguments {
            office.hire(Path::new(PROGRAM), arguments);
        }
        Some(office)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Adds a host and its daemon, and lets it join.
    fn hire(&mut self, program: &Path, arguments: &[&str]) {
        let number = self.hosts.len();
        let name = format!("h{number}");
        let host = self.lab.host(&name).unwrap();
        let config = self.path(&format!("{name}.toml"));
        std::fs::write(&config, format!("host_name = \"{name}\"\n")).unwrap();
        let mut words = vec!["--config", config.to_str().unwrap()];
        words.extend(arguments);
        let ticket = self.ticket.clone();
        if number > 0 {
            words.extend(["--bootstrap", &ticket]);
        }
        let daemon = Daemon::start(program, Some(&host), &self.path(&name), &words).unwrap();
        if number == 0 {
            daemon.text(&["channel", "create", "office"]).unwrap();
            self.ticket = daemon
                .text(&["channel", "invite", "office", "--uses", "any"])
                .unwrap();
        } else {
            daemon.text(&["channel", "join", &self.ticket]).unwrap();
        }
        self.hosts.push(host);
        self.daemons.push(daemon);
    }

    fn address(&self, number: usize) -> String {
        self.daemons[number].address().unwrap().to_string()
    }

    /// Runs a program that goes on, on a host.
    fn serve(&mut self, number: usize, words: &[&str]) {
        let mut command = self.hosts[number].command(words[0]);
        command.args(&words[1..]);
        let log = self.path(&format!("server{}.log", self.servers.len()));
        self.servers
            .push(self.hosts[number].spawn(command, &log).unwrap());
    }

    /// Starts a web server on a host, with a file `name` that holds the host's name and one,
    /// `large`, of ten million octets.
    fn serve_web(&mut self, number: usize, at: &str, port: &str) {
        let pages = self.path(&format!("pages{number}"));
        std::fs::create_dir_all(&pages).unwrap();
        std::fs::write(pages.join("name"), format!("h{number}")).unwrap();
        std::fs::write(pages.join("large"), vec![b'x'; 10_000_000]).unwrap();
        let pages = pages.to_str().unwrap().to_owned();
        self.serve(
            number,
            &[
                "python3",
                "-m",
                "http.server",
                "--bind",
                at,
                "--directory",
                &pages,
                port,
            ],
        );
    }

    /// Runs a program on a host; what it printed.
    fn run(&self, number: usize, words: &[&str]) -> (bool, String) {
        let output = self.hosts[number].run(words, A_WHILE).unwrap();
        (output.success(), output.stdout + &output.stderr)
    }

    /// Gets a page with curl; waits for servers and members that come up.
    fn get(&self, number: usize, words: &[&str], expected: &str) {
        let words = [&["curl", "-s", "-S", "--max-time", "10"], words].concat();
        let mut told = (false, String::new());
        let got = until(A_WHILE, "the page is there", || {
            told = self.run(number, &words);
            Ok(told.0 && told.1 == expected)
        });
        got.unwrap_or_else(|error| panic!("{error}: {words:?} {told:?}"));
    }

    /// Tells with which code curl ends.
    fn status(&self, number: usize, words: &[&str]) -> String {
        let status = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "--max-time",
            "10",
            "-w",
            "%{http_code}",
        ];
        self.run(number, &[&status, words].concat()).1
    }

    fn iperf(&self, number: usize, words: &[&str]) -> f64 {
        let words = [&["iperf3", "-J", "-t", "2"], words].concat();
        let mut told = Value::Null;
        until(A_WHILE, "iperf3 is answered", || {
            let (done, text) = self.run(number, &words);
            told = serde_json::from_str(&text).unwrap_or_default();
            Ok(done)
        })
        .unwrap_or_else(|error| panic!("{error}: {told}"));
        let rate = told["end"]["sum_received"]["bits_per_second"].as_f64();
        rate.unwrap_or_else(|| panic!("{told}")) / 1e6
    }
}

#[test]
fn programs_without_a_device_reach_members_by_proxies() {
    let arguments = [
        "--no-tun",
        "--socks",
        "127.0.0.1:1080",
        "--http-proxy",
        "127.0.0.1:8118",
    ];
    let open = ["--no-tun", "--socks", "0.0.0.0:1080"];
    let Some(mut office) = Office::open("proxy", &[&[], &arguments, &open]) else {
        return;
    };
    let there = office.address(0);
    office.serve_web(0, &there, "80");
    let page = format!("http://{there}/name");
    let by_name = "http://h0.office.enishi/name";
    let (socks, socks_name) = ("--socks5", "--socks5-hostname");
    for (proxy, at, page) in [
        (socks_name, "127.0.0.1:1080", by_name),
        (socks_name, "127.0.0.1:1080", "http://h0.office/name"),
        (socks, "127.0.0.1:1080", page.as_str()),
        ("--proxy", "http://127.0.0.1:8118", by_name),
        ("--proxy", "http://127.0.0.1:8118", page.as_str()),
    ] {
        office.get(1, &[proxy, at, page], "h0");
    }
    let tunnel = ["--proxy", "http://127.0.0.1:8118", "--proxytunnel", by_name];
    office.get(1, &tunnel, "h0");
    let large = "http://h0.office/large";
    let proxy = [socks_name, "127.0.0.1:1080", "-w", "%{size_download}"];
    office.get(
        1,
        &[&proxy[..], &["-o", "/dev/null", large]].concat(),
        "10000000",
    );

    // Another member without a device, which passes connections to a program of its host.
    office.serve_web(2, "127.0.0.1", "8000");
    let add = ["forward", "add", "office", "remote", "80", "127.0.0.1:8000"];
    office.daemons[2].text(&add).unwrap();
    office.get(
        1,
        &[socks_name, "127.0.0.1:1080", "http://h2.office.enishi/name"],
        "h2",
    );
    let here = format!("http://{}/name", office.address(2));
    office.get(0, &[&here], "h2");

    // Nobody but members is reached, and nobody but this host is served.
    let wire = office.hosts[0].address();
    let outside = format!("http://{wire}/name");
    let http = ["--proxy", "http://127.0.0.1:8118"];
    assert_eq!(office.status(1, &[http[0], http[1], &outside]), "403");
    let nobody = "http://nobody.office/";
    assert_eq!(office.status(1, &[http[0], http[1], nobody]), "404");
    let (done, told) = office.run(1, &["curl", "-sS", socks, "127.0.0.1:1080", &outside]);
    assert!(!done && told.contains("(2)"), "{told}");
    let closed = format!("http://{there}:81/");
    let (done, told) = office.run(1, &["curl", "-sS", socks, "127.0.0.1:1080", &closed]);
    assert!(!done && told.contains("(5)"), "{told}");
    let absent = "http://10.77.200.7/";
    let (done, told) = office.run(1, &["curl", "-sS", socks, "127.0.0.1:1080", absent]);
    assert!(!done && told.contains("(4)"), "{told}");
    let elsewhere = format!("{}:1080", office.hosts[2].address());
    let (done, told) = office.run(1, &["curl", "-sS", socks_name, &elsewhere, by_name]);
    assert!(!done, "{told}");
    office.get(2, &[socks_name, "127.0.0.1:1080", by_name], "h0");

    // A node in user space answers echo requests of the system's ping.
    for size in ["56", "1392", "8000"] {
        let words = ["ping", "-c", "2", "-i", "0.2", "-W", "2", "-s", size];
        let (done, told) = office.run(0, &[&words[..], &[&office.address(1)]].concat());
        assert!(done, "{told}");
    }
}

#[test]
fn forwards_lead_both_ways_and_stay() {
    let Some(mut office) = Office::open("forward", &[&[], &["--no-tun"]]) else {
        return;
    };
    let there = office.address(0);
    office.serve_web(0, &there, "80");
    office.serve(0, &["iperf3", "-s", "-B", &there]);
    let echo = format!("UDP4-LISTEN:7,bind={there},fork");
    office.serve(0, &["socat", &echo, "EXEC:cat"]);
    office.serve(
        1,
        &["socat", "UDP4-LISTEN:5300,bind=127.0.0.1,fork", "EXEC:cat"],
    );
    office.serve_web(1, "127.0.0.1", "8000");
    for words in [
        "local 127.0.0.1:8080 h0:80",
        "local 127.0.0.1:5201 h0.office.enishi:5201",
        "local 127.0.0.1:5353 h0:7 --udp",
        "remote 80 127.0.0.1:8000",
        "remote 7 127.0.0.1:5300 --udp",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let add = [&["forward", "add", "office"][..], &words].concat();
        office.daemons[1].text(&add).unwrap();
    }
    let here = format!("http://{}/name", office.address(1));
    let ask = |office: &Office, number: usize, at: &str| {
        let line = format!("echo hello | socat -t 2 - UDP4:{at}");
        until(A_WHILE, "the datagram comes back", || {
            Ok(office.run(number, &["sh", "-c", &line]).1 == "hello\n")
        })
        .unwrap();
    };
    let works = |office: &Office| {
        office.get(1, &["http://127.0.0.1:8080/name"], "h0");
        office.get(0, &[&here], "h1");
        ask(office, 1, "127.0.0.1:5353");
        ask(office, 0, &format!("{}:7", office.address(1)));
    };
    works(&office);
    for words in [&["-c", "127.0.0.1"][..], &["-c", "127.0.0.1", "-R"]] {
        let rate = office.iperf(1, words);
        eprintln!("{words:?}: {rate:.0} Mbit/s");
        assert!(rate > 10.0, "{rate} Mbit/s");
    }

    // What makes no sense is refused.
    for words in [
        "add office local 127.0.0.1:8080 h0:81",
        "add office remote 80 127.0.0.1:1",
        "add office local 127.0.0.1:8081 h0",
        "add nowhere remote 81 127.0.0.1:1",
        "remove 9",
    ] {
        let words: Vec<&str> = ["forward"].into_iter().chain(words.split(' ')).collect();
        assert!(
            !office.daemons[1].call(&words).unwrap().success(),
            "{words:?}"
        );
    }

    // After a crash they are there again; a removed one is not.
    office.daemons[1].text(&["forward", "remove", "2"]).unwrap();
    office.daemons[1].process().kill9().unwrap();
    let data = office.path("h1");
    let config = office.path("h1.toml");
    let words = ["--no-tun", "--config", config.to_str().unwrap()];
    let daemon = Daemon::start(Path::new(PROGRAM), Some(&office.hosts[1]), &data, &words);
    office.daemons[1] = daemon.unwrap();
    works(&office);
    let list = office.daemons[1].json(&["forward", "list"]).unwrap();
    let forwards = list["forwards"].as_array().unwrap();
    let ids: Vec<u64> = forwards.iter().map(|f| f["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 3, 4, 5], "{list}");
    assert!(
        forwards
            .iter()
            .all(|f| f["notice"].is_null() && f["total"] != 0),
        "{list}"
    );

    // Where there is a network device, the kernel's sockets serve as well.
    let add = [
        "forward",
        "add",
        "office",
        "remote",
        "8000",
        "127.0.0.1:8001",
    ];
    office.daemons[0].text(&add).unwrap();
    let pages = office.path("pages0");
    let pages = pages.to_str().unwrap();
    office.serve(
        0,
        &[
            "python3",
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            "--directory",
            pages,
            "8001",
        ],
    );
    let add = [
        "forward",
        "add",
        "office",
        "local",
        "127.0.0.1:8002",
        "h0:8000",
    ];
    office.daemons[1].text(&add).unwrap();
    office.get(1, &["http://127.0.0.1:8002/name"], "h0");
    let add = [
        "forward",
        "add",
        "office",
        "local",
        "127.0.0.1:8003",
        "h1:80",
    ];
    office.daemons[0].text(&add).unwrap();
    office.get(0, &["http://127.0.0.1:8003/name"], "h1");
}

#[test]
fn an_ordinary_user_needs_no_right_at_all() {
    let Some(mut office) = Office::open("nobody", &[&[]]) else {
        return;
    };
    // The program where anyone may read it.
    let copy = office.path("enishi");
    std::fs::copy(PROGRAM, &copy).unwrap();
    let program = office.path("enishi-as-nobody");
    let lines = format!(
        "#!/bin/sh\nexec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \
         --inh-caps -all --bounding-set -all --no-new-privs -- {} \"$@\"\n",
        copy.display()
    );
    std::fs::write(&program, lines).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let data = office.path("h1");
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    office.hire(&program, &["--no-tun", "--socks", "127.0.0.1:1080"]);
    let there = office.address(0);
    office.serve_web(0, &there, "80");
    let by_name = "http://h0.office.enishi/name";
    office.get(1, &["--socks5-hostname", "127.0.0.1:1080", by_name], "h0");
    let status = format!("/proc/{}/status", office.daemons[1].process().id());
    let status = std::fs::read_to_string(status).unwrap();
    let has = |line: &str| status.lines().any(|there| there == line);
    assert!(has("CapEff:\t0000000000000000"), "{status}");
    assert!(
        has(&format!("Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}")),
        "{status}"
    );
}

#[test]
fn a_node_with_an_ethernet_device_is_a_member_like_any() {
    let Some(office) = Office::open("tap", &[&[], &["--device", "tap"]]) else {
        return;
    };
    let (there, here) = (office.address(0), office.address(1));
    for (number, other) in [(0, &here), (1, &there)] {
        for size in ["56", "1400", "8000"] {
            let words = ["ping", "-c", "3", "-i", "0.2", "-W", "3", "-s", size, other];
            let (done, told) = office.run(number, &words);
            assert!(done, "{told}");
        }
    }
    let status = office.daemons[1].json(&["status"]).unwrap();
    let device = status["channels"][0]["interface"]
        .as_str()
        .unwrap()
        .to_owned();
    let (done, told) = office.run(1, &["ip", "-d", "link", "show", &device]);
    assert!(
        done && told.contains("link/ether") && told.contains("tun type tap"),
        "{told}"
    );
    let (_, told) = office.run(1, &["ip", "neigh", "show", "dev", &device]);
    assert!(
        told.contains(&format!("{there} lladdr 02:65:6e:69:73:68")),
        "{told}"
    );
    let (done, told) = office.run(1, &["arping", "-c", "1", "-I", &device, &there]);
    assert!(done && told.contains("02:65:6e:69:73:68"), "{told}");
    // Nobody has the address: ARP is answered all the same, and packets with an ICMP error.
    let absent = ["ping", "-c", "1", "-W", "3", "10.77.200.7"];
    let (done, told) = office.run(1, &absent);
    assert!(
        !done && told.contains("Destination Host Unreachable"),
        "{told}"
    );
    // A frame of neither IP nor ARP is dropped and counted.
    let send = format!(
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); \
         s.bind(('{device}', 0)); s.send(b'\\xff' * 12 + b'\\x88\\xb5' + b'x' * 46)"
    );
    let (done, told) = office.run(1, &["python3", "-c", &send]);
    assert!(done, "{told}");
    let refused = &office.daemons[1].json(&["status"]).unwrap()["refused"];
    assert!(refused["foreign_frames"].as_u64() > Some(0), "{refused}");
    let there6 = office.daemons[0].json(&["status"]).unwrap();
    let there6 = there6["channels"][0]["address6"]
        .as_str()
        .unwrap()
        .to_owned();
    let (done, told) = office.run(1, &["ping", "-6", "-c", "2", "-W", "3", &there6]);
    assert!(done, "{told}");
}
