//! WireGuard clients, with a program that we did not write in the place of the phone: its other
//! end of the tunnel is the daemon. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Daemon, Host, Lab, Process, ensure_programs, until};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const A_WHILE: Duration = Duration::from_secs(20);
const PAGE_BYTES: usize = 3 << 20;

/// A node that a phone attaches to, another member, and a host for the phone.
struct Office {
    node: (Host, Daemon),
    member: (Host, Daemon),
    phone: Host,
    directory: TempDir,
    _lab: Lab,
}

/// A running WireGuard.
struct Phone {
    host: Host,
    interface: String,
    addresses: Vec<String>,
    _process: Process,
}

impl Office {
    /// None without root.
    fn open(prefix: &str) -> Option<Self> {
        if !enishi_lab::is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        ensure_programs(&[
            ("wireguard-go", "wireguard-go"),
            ("wg-quick", "wireguard-tools"),
            ("ping", "iputils-ping"),
            ("curl", "curl"),
            ("python3", "python3"),
        ])
        .unwrap();
        let mut lab = Lab::new(prefix).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut start = |name: &str, arguments: &[&str]| {
            let host = lab.host(name).unwrap();
            let data = directory.path().join(name);
            let daemon = Daemon::start(Path::new(PROGRAM), Some(&host), &data, arguments).unwrap();
            (host, daemon)
        };
        let node = start("node", &[]);
        node.1.text(&["channel", "create", "office"]).unwrap();
        let ticket = node.1.text(&["channel", "invite", "office"]).unwrap();
        let member = start("member", &[]);
        member.1.text(&["channel", "join", &ticket]).unwrap();
        let phone = lab.host("phone").unwrap();
        Some(Self {
            node,
            member,
            phone,
            directory,
            _lab: lab,
        })
    }

    /// Adds a client and returns its configuration.
    fn add(&self, name: &str) -> String {
        let words = ["channel", "wireguard", "add", "office", name];
        self.node.1.text(&words).unwrap()
    }

    /// Runs WireGuard with a configuration, as `wg-quick` would.
    fn attach(&self, name: &str, configuration: &str) -> Phone {
        // The name is also that of a socket that all namespaces see.
        let interface = format!("{name}{}", std::process::id());
        let file = self.directory.path().join(format!("{interface}.conf"));
        std::fs::write(&file, configuration).unwrap();
        let host = self.phone.clone();
        let mut program = host.command("wireguard-go");
        program.args(["-f", &interface]);
        let log = self.directory.path().join(format!("{interface}.log"));
        let process = host.spawn(program, &log).unwrap();
        let socket = PathBuf::from(format!("/var/run/wireguard/{interface}.sock"));
        until(A_WHILE, "wireguard-go runs", || Ok(socket.exists())).unwrap();
        let file = file.display();
        run(
            &host,
            &format!(
                "wg-quick strip {file} > {file}.stripped; wg setconf {interface} {file}.stripped; \
                 ip link set {interface} mtu {} up",
                line(configuration, "MTU")
            ),
        );
        let list = |key| line(configuration, key).split(", ").map(str::to_owned);
        for address in list("Address") {
            run(&host, &format!("ip address add {address} dev {interface}"));
        }
        for network in list("AllowedIPs") {
            run(&host, &format!("ip route add {network} dev {interface}"));
        }
        let bare = |address: String| address.split('/').next().unwrap().to_owned();
        Phone {
            host,
            interface,
            addresses: list("Address").map(bare).collect(),
            _process: process,
        }
    }

    /// A web server on a host, with one page of [`PAGE_BYTES`].
    fn serve(&self, host: &Host) -> Process {
        let directory = self.directory.path().join(format!("www-{}", host.name()));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("page"), vec![b'x'; PAGE_BYTES]).unwrap();
        let mut server = host.command("python3");
        server.args(["-m", "http.server", "8080", "--bind", "::", "--directory"]);
        server.arg(&directory);
        let server = host
            .spawn(server, &directory.with_extension("log"))
            .unwrap();
        until(A_WHILE, "the page is served", || {
            Ok(fetched(host, "127.0.0.1") == PAGE_BYTES)
        })
        .unwrap();
        server
    }

    fn listed(&self) -> serde_json::Value {
        let words = ["channel", "wireguard", "list", "office"];
        self.node.1.json(&words).unwrap()["clients"].clone()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        // WireGuard ends with its socket.
        let _ = std::fs::remove_file(format!("/var/run/wireguard/{}.sock", self.interface));
    }
}

/// Returns the value of a line of a configuration.
fn line<'c>(configuration: &'c str, key: &str) -> &'c str {
    let mut lines = configuration.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    value.unwrap_or_else(|| panic!("no {key} in {configuration}"))
}

fn run(host: &Host, line: &str) -> String {
    let output = host.run(&["sh", "-ec", line], A_WHILE).unwrap();
    assert!(output.success(), "{line}: {}", output.stderr);
    output.stdout
}

fn reaches(host: &Host, address: &str) -> bool {
    let words = ["ping", "-c", "1", "-W", "1", address];
    host.run(&words, A_WHILE).unwrap().success()
}

/// How many octets of the page another host serves.
fn fetched(host: &Host, address: &str) -> usize {
    let url = match address.contains(':') {
        true => format!("http://[{address}]:8080/page"),
        false => format!("http://{address}:8080/page"),
    };
    let words = ["curl", "-s", "-g", "-m", "15", &url];
    host.run(&words, A_WHILE).unwrap().stdout.len()
}

fn virtual_addresses(daemon: &Daemon) -> [String; 2] {
    let told = daemon.json(&["channel", "list"]).unwrap();
    let channel = &told["channels"][0];
    ["address", "address6"].map(|key| channel[key].as_str().unwrap().to_owned())
}

#[test]
fn a_phone_takes_part_in_the_channel_by_way_of_a_node() {
    let Some(mut office) = Office::open("phone") else {
        return;
    };
    let phone = office.attach("wgp", &office.add("phone"));
    let (node, member) = (&office.node, &office.member);
    let servers = [&node.0, &member.0, &office.phone].map(|host| office.serve(host));
    for (host, daemon) in [member, node] {
        for (theirs, its) in virtual_addresses(daemon).iter().zip(&phone.addresses) {
            let what = format!("{theirs} and {its} reach each other");
            let told = until(A_WHILE, &what, || {
                Ok(reaches(&phone.host, theirs) && reaches(host, its))
            });
            told.unwrap_or_else(|error| panic!("{error}: {}\n{}", node.1.log(), member.1.log()));
            assert_eq!(fetched(&phone.host, theirs), PAGE_BYTES, "{what}");
            assert_eq!(fetched(host, its), PAGE_BYTES, "{what}");
        }
    }
    let listed = office.listed();
    let client = &listed[0];
    assert_eq!(client["client"], "phone");
    let bytes = client["received_bytes"].as_u64().unwrap();
    assert!(bytes > 4 * PAGE_BYTES as u64, "{listed}");
    let endpoint = client["endpoint"].as_str().unwrap();
    assert!(endpoint.starts_with(&office.phone.address().to_string()));
    assert!(client["handshake_s"].as_u64().unwrap() < 60, "{listed}");

    // What the client is called, and its address, outlive the daemon.
    let data = office.directory.path().join("node");
    office.node.1.process().kill9().unwrap();
    office.node.1 = Daemon::start(Path::new(PROGRAM), Some(&office.node.0), &data, &[]).unwrap();
    let there = virtual_addresses(&office.member.1);
    until(Duration::from_secs(60), "the phone is back", || {
        Ok(reaches(&phone.host, &there[0]))
    })
    .unwrap();
    drop(servers);
}

#[test]
fn who_has_another_key_or_was_removed_gets_nothing() {
    let Some(office) = Office::open("removed") else {
        return;
    };
    let configuration = office.add("phone");
    let there = virtual_addresses(&office.member.1)[0].clone();
    let key = run(&office.phone, "wg genkey");
    let wrong = configuration.replace(line(&configuration, "PrivateKey"), key.trim());
    let stranger = office.attach("wgs", &wrong);
    assert!(!reaches(&stranger.host, &there) && !reaches(&stranger.host, &there));
    assert_eq!(office.listed()[0]["handshake_s"], serde_json::Value::Null);
    run(
        &stranger.host,
        &format!("ip link del {}", stranger.interface),
    );
    drop(stranger);

    let phone = office.attach("wgr", &configuration);
    until(A_WHILE, "the phone attaches", || {
        Ok(reaches(&phone.host, &there) && reaches(&office.member.0, &phone.addresses[0]))
    })
    .unwrap();
    let daemon = &office.node.1;
    let add = ["channel", "wireguard", "add", "office", "phone"];
    assert!(daemon.text(&add).is_err(), "there is one of that name");
    let remove = ["channel", "wireguard", "remove", "office", "phone"];
    daemon.text(&remove).unwrap();
    assert!(!reaches(&phone.host, &there) && !reaches(&phone.host, &there));
    assert!(!reaches(&office.member.0, &phone.addresses[0]));
    assert_eq!(office.listed().as_array().map(Vec::len), Some(0));
    assert!(daemon.text(&remove).is_err(), "there is none any more");
}
