//! Channels for programs on hosts without a network device, and with one for Ethernet, used by
//! programs that we did not write. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};

use enishi_lab::until;
use serde_json::Value;

use office::{A_WHILE, Office, PROGRAM, ping, shell};

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

const PROGRAMS: [(&str, &str); 7] = [
    ("curl", "curl"),
    ("python3", "python3"),
    ("socat", "socat"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
    ("arping", "arping"),
    ("socksify", "dante-client"),
];

/// A client of SOCKS that sends a datagram to an address or a name by way of the proxy, prints
/// from where the echo came, and waits until the association has ended with its connection.
const ASSOCIATE: &str = r#"
import ipaddress, socket, struct, sys
def endpoint(host, port):
    try:
        address = ipaddress.ip_address(host)
        kind = b"\1" if address.version == 4 else b"\4"
        return kind + address.packed + struct.pack(">H", port)
    except ValueError:
        return b"\3" + bytes([len(host)]) + host.encode() + struct.pack(">H", port)
def read(octets):
    size = {1: 4, 4: 16}[octets[3]]
    address = ipaddress.ip_address(octets[4:4 + size])
    port, = struct.unpack(">H", octets[4 + size:6 + size])
    return str(address), port, octets[6 + size:]
control = socket.create_connection(("127.0.0.1", 1080))
control.sendall(b"\5\1\0")
assert control.recv(2) == b"\5\0"
control.sendall(b"\5\3\0" + endpoint("0.0.0.0", 0))
relay = read(control.recv(64))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.settimeout(15)
datagrams.connect(relay[:2])
datagram = b"\0\0\0" + endpoint(sys.argv[1], 7) + b"x" * int(sys.argv[2])
datagrams.send(datagram)
source, port, data = read(datagrams.recv(65535))
print(source, port, len(data))
control.close()
datagrams.settimeout(0.1)
while True:
    try:
        datagrams.send(datagram)
        datagrams.recv(65535)
    except TimeoutError:
        pass # It came just before the end.
    except ConnectionRefusedError:
        print("ended")
        break
"#;

/// An office with a daemon for each list of arguments; none without root.
fn open(prefix: &str, arguments: &[&[&str]]) -> Option<Office> {
    let mut office = Office::open(prefix, &PROGRAMS)?;
    for arguments in arguments {
        office.hire(arguments);
    }
    Some(office)
}

impl Office {
    /// Starts a web server on a host, with a file `name` that holds the host's name and one,
    /// `large`, of ten million octets.
    fn serve_web(&mut self, number: usize, at: &str, port: &str) {
        let pages = self.path(&format!("pages{number}"));
        std::fs::create_dir_all(&pages).unwrap();
        std::fs::write(pages.join("name"), format!("h{number}")).unwrap();
        std::fs::write(pages.join("large"), vec![b'x'; 10_000_000]).unwrap();
        let server = ["python3", "-m", "http.server", "--bind", at, "--directory"];
        let words = [&server[..], &[pages.to_str().unwrap(), port]].concat();
        self.serve(number, &words);
    }

    /// Runs a program on a host; whether it succeeded, and what it said.
    fn told(&self, number: usize, words: &[&str]) -> (bool, String) {
        let output = self.run(number, words);
        (output.success(), output.stdout + &output.stderr)
    }

    /// Gets a page with curl; waits for servers and members that come up.
    fn get(&self, number: usize, words: &[&str], expected: &str) {
        let words = [&["curl", "-s", "-S", "--max-time", "50"], words].concat();
        let mut told = (false, String::new());
        let got = until(A_WHILE, "the page is there", || {
            told = self.told(number, &words);
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
        self.run(number, &[&status, words].concat()).stdout
    }

    /// Has iperf3 run for two seconds; returns Mbit/s.
    fn iperf(&self, number: usize, words: &[&str]) -> f64 {
        let words = [&["iperf3", "-J", "-t", "2"], words].concat();
        let mut told = Value::Null;
        until(A_WHILE, "iperf3 is answered", || {
            let (done, text) = self.told(number, &words);
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
    let to_all = ["--no-tun", "--socks", "0.0.0.0:1080"];
    let Some(mut office) = open("proxy", &[&[], &arguments, &to_all]) else {
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
    let told = |at: usize| office.daemons[at].json(&["status"]).unwrap();
    assert_eq!(told(1)["proxies"]["http"], "127.0.0.1:8118");
    assert_eq!(told(2)["proxies"]["socks"], "0.0.0.0:1080");
    assert_eq!(told(2)["forwards"][0]["port"], 80);

    // Nobody but members is reached, and nobody but this host is served.
    let wire = office.hosts[0].address();
    let outside = format!("http://{wire}/name");
    let http = ["--proxy", "http://127.0.0.1:8118"];
    assert_eq!(office.status(1, &[http[0], http[1], &outside]), "403");
    let nobody = "http://nobody.office/";
    assert_eq!(office.status(1, &[http[0], http[1], nobody]), "404");
    let (done, told) = office.told(1, &["curl", "-sS", socks, "127.0.0.1:1080", &outside]);
    assert!(!done && told.contains("(2)"), "{told}");
    let closed = format!("http://{there}:81/");
    let (done, told) = office.told(1, &["curl", "-sS", socks, "127.0.0.1:1080", &closed]);
    assert!(!done && told.contains("(5)"), "{told}");
    let absent = "http://10.77.200.7/";
    let (done, told) = office.told(1, &["curl", "-sS", socks, "127.0.0.1:1080", absent]);
    assert!(!done && told.contains("(4)"), "{told}");
    let elsewhere = format!("{}:1080", office.hosts[2].address());
    let (done, told) = office.told(1, &["curl", "-sS", socks_name, &elsewhere, by_name]);
    assert!(!done, "{told}");
    office.get(2, &[socks_name, "127.0.0.1:1080", by_name], "h0");

    // A node in user space answers echo requests of the system's ping.
    for size in ["56", "1392", "8000"] {
        let options = ["-c", "2", "-i", "0.2", "-s", size];
        ping(&office.hosts[0], &options, office.address(1));
    }
}

#[test]
fn datagrams_and_both_families_pass_the_proxies() {
    let proxies = [
        "--no-tun",
        "--socks",
        "[::]:1080",
        "--http-proxy",
        "[::1]:8118",
    ];
    let Some(mut office) = open("socks", &[&[], &proxies]) else {
        return;
    };
    let (there, there6) = (office.address(0), office.address6(0));
    office.serve_web(0, &there6, "80");
    let page = format!("http://[{there6}]/name");
    for proxy in [
        &["--socks5", "127.0.0.1:1080"][..],
        &["--socks5-hostname", "[::1]:1080"],
        &["--proxy", "http://[::1]:8118"],
        &["--proxy", "http://[::1]:8118", "--proxytunnel"],
    ] {
        office.get(1, &[proxy, &[&page]].concat(), "h0");
    }
    // The node in user space has an address of this family, too.
    office.serve_web(1, "127.0.0.1", "8000");
    let add = ["forward", "add", "office", "remote", "80", "127.0.0.1:8000"];
    office.daemons[1].text(&add).unwrap();
    let here = format!("http://[{}]/name", office.address6(1));
    office.get(0, &[&here], "h1");

    for (family, at) in [("4", there.clone()), ("6", format!("[{there6}]"))] {
        let listen = format!("UDP{family}-LISTEN:7,bind={at},fork");
        office.serve(0, &["socat", &listen, "EXEC:cat"]);
        until(A_WHILE, "the server has its socket", || {
            let sockets = shell(&office.hosts[0], "ss -Hlun sport = 7");
            Ok(sockets.contains(&format!("{at}:7")))
        })
        .unwrap();
    }
    // Dante takes the calls of a program that knows nothing of proxies; of IPv4 only.
    let config = office.path("dante.conf");
    let lines = "route { from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = 1080\n\
                 proxyprotocol: socks_v5\nmethod: none\ncommand: udpassociate }\n";
    std::fs::write(&config, lines).unwrap();
    let ask = format!(
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(15); \
         s.connect(('{there}', 7)); s.send(b'hello'); print(s.recv(9))"
    );
    let config = format!("SOCKS_CONF={}", config.display());
    let words = ["env", &config, "socksify", "python3", "-c", &ask];
    let (done, told) = office.told(1, &words);
    assert!(done && told == "b'hello'\n", "{told}");
    for (to, size, from) in [
        (there.as_str(), "1200", &there),
        (&there6, "1200", &there6),
        ("h0.office.enishi", "5000", &there),
    ] {
        let (done, told) = office.told(1, &["python3", "-c", ASSOCIATE, to, size]);
        assert!(done, "{to}: {told}");
        assert_eq!(told, format!("{from} 7 {size}\nended\n"), "{to}");
    }
}

#[test]
fn forwards_lead_both_ways_and_stay() {
    let Some(mut office) = open("forward", &[&[], &["--no-tun"]]) else {
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
            Ok(office.run(number, &["sh", "-c", &line]).stdout == "hello\n")
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
    office.restart(1, &["--no-tun"]);
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
    office.serve_web(0, "127.0.0.1", "8001");
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
    let Some(mut office) = open("nobody", &[&[]]) else {
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
    let user = office.add_host();
    let data = office.data(user);
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    office.employ(user, &program, &["--no-tun", "--socks", "127.0.0.1:1080"]);
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
    let Some(office) = open("tap", &[&[], &["--device", "tap"]]) else {
        return;
    };
    let (there, here) = (office.address(0), office.address(1));
    for (number, other) in [(0, &here), (1, &there)] {
        for size in ["56", "1400", "8000"] {
            let options = ["-c", "3", "-i", "0.2", "-s", size];
            ping(&office.hosts[number], &options, other);
        }
    }
    let status = office.daemons[1].json(&["status"]).unwrap();
    let device = status["channels"][0]["interface"]
        .as_str()
        .unwrap()
        .to_owned();
    let (done, told) = office.told(1, &["ip", "-d", "link", "show", &device]);
    assert!(
        done && told.contains("link/ether") && told.contains("tun type tap"),
        "{told}"
    );
    let (_, told) = office.told(1, &["ip", "neigh", "show", "dev", &device]);
    assert!(
        told.contains(&format!("{there} lladdr 02:65:6e:69:73:68")),
        "{told}"
    );
    let mut told = String::new();
    until(A_WHILE, "ARP is answered", || {
        told = office
            .told(1, &["arping", "-c", "1", "-I", &device, &there])
            .1;
        Ok(told.contains("02:65:6e:69:73:68"))
    })
    .unwrap_or_else(|error| panic!("{error}: {told}"));
    // Nobody has the address: ARP is answered all the same, and packets with an ICMP error.
    let absent = ["ping", "-c", "1", "-W", "15", "10.77.200.7"];
    let (done, told) = office.told(1, &absent);
    assert!(
        !done && told.contains("Destination Host Unreachable"),
        "{told}"
    );
    // A frame of neither IP nor ARP is dropped and counted.
    let send = format!(
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); \
         s.bind(('{device}', 0)); s.send(b'\\xff' * 12 + b'\\x88\\xb5' + b'x' * 46)"
    );
    let (done, told) = office.told(1, &["python3", "-c", &send]);
    assert!(done, "{told}");
    until(A_WHILE, "the frame is counted", || {
        let refused = &office.daemons[1].json(&["status"])?["refused"];
        Ok(refused["foreign_frames"].as_u64() > Some(0))
    })
    .unwrap();
    ping(&office.hosts[1], &["-6", "-c", "2"], office.address6(0));
}
