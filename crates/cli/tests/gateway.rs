//! Two offices with closed overlays of their own, joined by a gateway: what both administrators
//! allow passes and nothing else, and all of it is written down.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use enishi_lab::{Daemon, Host, Lab, Output, Process, command, ensure_programs, is_root, until};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const A_WHILE: Duration = Duration::from_secs(60);

/// Longer than the slow download may go on after what allowed it is gone.
const LARGE_BYTES: u64 = 60_000_000;

/// How fast the gateway lets it pass: it takes ten minutes.
const RATE: &str = "100000";

/// Asks, and reads to the end of the stream; exit code 7 when it is reset before.
const READER: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], 8080))
s.sendall(sys.argv[2].encode())
try:
    while s.recv(65536): pass
except ConnectionResetError:
    sys.exit(7)
";

/// Two offices, `a` with a second member `c`, and `b`; the gateway stands on `g` with a node in
/// each. The channels have the same network.
struct Offices {
    // The programs go before their network, and that before their data.
    gateway: Option<Process>,
    servers: Vec<Process>,
    a: Daemon,
    c: Daemon,
    b: Daemon,
    ga: Daemon,
    gb: Daemon,
    hosts: [Host; 4],
    _lab: Lab,
    dir: TempDir,
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value}"))
        .to_owned()
}

/// Runs Enishi where no daemon is needed.
fn enishi(data: &Path, words: &[&str]) -> Output {
    let mut enishi = command(PROGRAM);
    enishi.arg("--data").arg(data).args(words);
    enishi_lab::run(enishi, A_WHILE).unwrap()
}

fn done(output: &Output) -> Value {
    assert!(output.success(), "{}{}", output.stdout, output.stderr);
    serde_json::from_str(&output.stdout).unwrap_or_default()
}

/// The first member of an overlay and of the channel `office` in it; invitations to both.
fn found(host: &Host, data: &Path, config: &Path, name: &str) -> (Daemon, [String; 2]) {
    done(&enishi(data, &["overlay", "create", name, "--json"]));
    let daemon = start(host, data, config, &[]);
    daemon.text(&["channel", "create", "office"]).unwrap();
    let invite = |words: &[&str]| text(&daemon.json(words).unwrap()["ticket"]);
    let tickets = [
        invite(&["overlay", "invite", "--uses", "any"]),
        invite(&["channel", "invite", "office", "--uses", "any"]),
    ];
    (daemon, tickets)
}

fn join(host: &Host, data: &Path, config: &Path, tickets: &[String; 2], up: &[&str]) -> Daemon {
    done(&enishi(data, &["overlay", "join", &tickets[0], "--json"]));
    let daemon = start(host, data, config, up);
    until(A_WHILE, "it joins the channel", || {
        Ok(daemon.call(&["channel", "join", &tickets[1]])?.success())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", daemon.log()));
    daemon
}

fn start(host: &Host, data: &Path, config: &Path, up: &[&str]) -> Daemon {
    let words = [&["--config", config.to_str().unwrap()], up].concat();
    Daemon::start(Path::new(PROGRAM), Some(host), data, &words).unwrap()
}

fn id(daemon: &Daemon) -> String {
    text(&daemon.json(&["status"]).unwrap()["node_id"])
}

fn overlay(daemon: &Daemon) -> String {
    text(&daemon.json(&["overlay", "show"]).unwrap()["overlay_id"])
}

fn members(daemon: &Daemon) -> Vec<String> {
    let channel = daemon.json(&["channel", "show", "office"]).unwrap();
    let members = channel["member_list"].as_array().unwrap().iter();
    members.map(|member| text(&member["node_id"])).collect()
}

impl Offices {
    fn open() -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        ensure_programs(&[("curl", "curl"), ("python3", "python3")]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut lab = Lab::new("gateway").unwrap();
        let hosts = ["a", "c", "g", "b"].map(|name| lab.host(name).unwrap());
        let [a, c, g, b] = &hosts;
        for (from, to) in [(a, b), (c, b), (b, a), (b, c)] {
            let to = format!("{}/32", to.address());
            let cut = from.run(&["ip", "route", "add", "unreachable", &to], A_WHILE);
            assert!(cut.unwrap().success());
        }
        let config = |name: &str| {
            let file = path(&format!("{name}.toml"));
            fs::write(&file, format!("host_name = \"{name}\"\n")).unwrap();
            file
        };
        let (in_a, tickets_a) = found(a, &path("a"), &config("a"), "alpha");
        let in_c = join(c, &path("c"), &config("c"), &tickets_a, &[]);
        let (in_b, tickets_b) = found(b, &path("b"), &config("b"), "beta");
        let ga = join(g, &path("ga"), &config("ga"), &tickets_a, &["--no-tun"]);
        let gb = join(g, &path("gb"), &config("gb"), &tickets_b, &["--no-tun"]);
        let mut offices = Self {
            gateway: None,
            servers: Vec::new(),
            a: in_a,
            c: in_c,
            b: in_b,
            ga,
            gb,
            hosts,
            _lab: lab,
            dir,
        };
        offices.serve();
        Some(offices)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Two web servers at `b`, of which only the first is meant for `a`.
    fn serve(&mut self) {
        let root = self.path("www");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("hello"), "hello from b\n").unwrap();
        let large = fs::File::create(root.join("large")).unwrap();
        large.set_len(LARGE_BYTES).unwrap();
        for port in ["80", "81"] {
            let mut server: Command = self.hosts[3].command("python3");
            server
                .args(["-m", "http.server", port, "--directory"])
                .arg(&root);
            let log = self.path(&format!("www{port}.log"));
            self.servers
                .push(self.hosts[3].spawn(server, &log).unwrap());
        }
        until(A_WHILE, "b serves", || {
            let words = ["curl", "-sf", "http://127.0.0.1:80/hello"];
            Ok(self.hosts[3].run(&words, A_WHILE)?.success())
        })
        .unwrap();
    }

    /// A consent that an administrator signs, with these words after the usual ones.
    fn consent(&self, of: &Daemon, node: &Daemon, other: &Daemon, words: &[&str]) -> Value {
        let (node, other) = (id(node), overlay(other));
        let usual = [
            "gateway",
            "consent",
            "--node",
            &node,
            "--other",
            &other,
            "--channel",
            "office",
        ];
        of.json(&[&usual, words].concat()).unwrap()
    }

    fn accept(&self, side: &str, consent: &Value) {
        let (side, text) = (self.path(side), text(&consent["consent"]));
        let words = ["accept", "--side", side.to_str().unwrap(), &text];
        assert!(self.gateway(&words).success());
    }

    fn gateway(&self, words: &[&str]) -> Output {
        enishi(
            &self.path("gateway"),
            &[&["gateway"], words, &["--json"]].concat(),
        )
    }

    fn run_gateway(&mut self) {
        let mut run = self.hosts[2].command(PROGRAM);
        run.arg("--data")
            .arg(self.path("gateway"))
            .args(["gateway", "run"]);
        let process = self.hosts[2].spawn(run, &self.path("gateway.log"));
        self.gateway = Some(process.unwrap());
    }

    /// What `a` or `c` gets from a port of the gateway.
    fn get(&self, host: usize, port: u16, file: &str, time_s: u32) -> Output {
        let address = self.ga.address().unwrap();
        let (url, time) = (
            format!("http://{address}:{port}/{file}"),
            time_s.to_string(),
        );
        let words = ["curl", "-sS", "--no-keepalive", "-m", &time, &url];
        self.hosts[host].run(&words, A_WHILE).unwrap()
    }

    /// Sends a text from a host to the wiki, and reads what comes ([`READER`]).
    fn reads(&self, host: usize, log: &str, text: &str) -> Process {
        let address = self.ga.address().unwrap().to_string();
        let mut client = self.hosts[host].command("python3");
        client.args(["-c", READER, &address, text]);
        self.hosts[host].spawn(client, &self.path(log)).unwrap()
    }

    fn wait_for_hello(&self) {
        until(A_WHILE, "a reads what b serves", || {
            Ok(self.get(0, 8080, "hello", 5).stdout == "hello from b\n")
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.told()));
    }

    /// What is to be seen when something went wrong.
    fn told(&self) -> String {
        let log = fs::read_to_string(self.path("gateway.log")).unwrap_or_default();
        let audit = fs::read_to_string(self.path("gateway/audit.log")).unwrap_or_default();
        let show = self.gateway(&["show"]).stdout;
        format!("{log}\n{audit}\n{show}\n{}", self.ga.log())
    }

    /// The lines of the audit log, which must be whole.
    fn audit(&self) -> Vec<Value> {
        let audit = done(&self.gateway(&["audit", "--last", "1000"]));
        audit["lines"].as_array().unwrap().clone()
    }

    fn wait_for_line(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        until(A_WHILE, what, || {
            found = self.audit().into_iter().rev().find(&fits);
            Ok(found.is_some())
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.told()));
        found.unwrap()
    }

    fn wait_until_open(&self, open: bool) {
        let code = if open { 0 } else { 1 };
        until(A_WHILE, "the gateway is open, or is not", || {
            Ok(self.gateway(&["show"]).status.code() == Some(code))
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.told()));
    }
}

fn is(event: &str) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == event
}

#[test]
fn a_gateway_passes_what_both_administrators_allow_and_nothing_else() {
    let Some(mut offices) = Offices::open() else {
        return;
    };
    let (a, c) = (id(&offices.a), id(&offices.c));

    // Without the word of one administrator nothing passes, and who tried is written down.
    let of_a = offices.consent(
        &offices.a,
        &offices.ga,
        &offices.b,
        &["--out", "wiki=8080:a", "--out", "news=8081"],
    );
    let of_b = offices.consent(
        &offices.b,
        &offices.gb,
        &offices.a,
        &["--in", "wiki=b:80", "--in", "mail=b:81", "--idle", "3s"],
    );
    let wrong = (offices.path("ga"), text(&of_b["consent"]));
    let words = ["accept", "--side", wrong.0.to_str().unwrap(), &wrong.1];
    assert_eq!(
        offices.gateway(&words).status.code(),
        Some(1),
        "another overlay's"
    );
    offices.run_gateway();
    offices.accept("ga", &of_a);
    let refused =
        until(A_WHILE, "a is refused", || {
            Ok(!offices.get(0, 8080, "hello", 5).success()
                && offices.audit().iter().any(is("refused")))
        });
    refused.unwrap_or_else(|error| panic!("{error}: {}", offices.told()));
    let line = offices.wait_for_line("it is written down", is("refused"));
    assert_eq!(
        (&line["from_node"], &line["service"]),
        (&Value::from(&*a), &Value::from("wiki"))
    );
    assert!(text(&line["reason"]).contains("1 of 2"), "{line}");

    // With both it does, by the port and for the member that are named.
    offices.accept("gb", &of_b);
    offices.wait_for_hello();
    let opened = offices.wait_for_line("it is opened", is("opened"));
    assert_eq!(opened["from_node"], *a);
    assert_eq!(opened["to_node"], *id(&offices.b));
    assert_eq!(opened["to_port"], 80);
    assert_eq!(
        opened["consents"],
        serde_json::json!([of_a["name"], of_b["name"]])
    );
    let flow = opened["flow"].clone();
    let closed = offices.wait_for_line("it is closed", |line| {
        is("closed")(line) && line["flow"] == flow
    });
    assert!(closed["octets_in"].as_u64() > Some(50) && closed["octets_out"].as_u64() > Some(13));
    assert!(
        !offices.get(1, 8080, "hello", 5).success(),
        "c is not named"
    );
    offices.wait_for_line("c is refused", |line| {
        is("refused")(line) && line["from_node"] == *c
    });
    assert!(
        !offices.get(0, 8081, "hello", 5).success(),
        "only a's side lets it out"
    );
    offices.wait_for_line("news is refused", |line| {
        is("refused")(line) && line["service"] == "news"
    });
    for port in [80, 81, 22] {
        assert!(!offices.get(0, port, "hello", 5).success(), "{port}");
    }

    // Who says nothing is not waited for.
    let mut silent = offices.reads(0, "silent.log", "");
    let line = offices.wait_for_line("it is idle", |line| {
        is("closed")(line) && line["reason"] == "idle"
    });
    assert!(line["open_ms"].as_u64() >= Some(3000), "{line}");
    let ended = silent
        .wait(A_WHILE)
        .unwrap()
        .and_then(|status| status.code());
    assert_eq!(ended, Some(7));

    // Neither office knows the other's members; both see the gateway.
    let [in_a, in_b] = [&offices.a, &offices.b].map(members);
    assert!(
        in_a.contains(&a) && in_a.contains(&c) && in_a.len() == 3,
        "{in_a:?}"
    );
    assert_eq!(in_b.len(), 2, "{in_b:?}");
    let peers = offices.b.json(&["peers"]).unwrap().to_string();
    assert!(!peers.contains(&a) && !peers.contains(&c), "{peers}");
    for (member, node, other) in [
        (&offices.a, &offices.ga, &offices.b),
        (&offices.b, &offices.gb, &offices.a),
    ] {
        let (node, other) = (id(node), overlay(other));
        until(A_WHILE, "the gateway is seen", || {
            let seen = member.json(&["gateway", "list"])?;
            let seen = &seen["gateways"][0];
            Ok(seen["node_id"] == *node && seen["other_overlay_id"] == *other)
        })
        .unwrap();
    }

    // The channel's rules bind the gateway as any member, whatever its program does.
    let gate = id(&offices.gb);
    let allow = |ports: &str| {
        let words = [
            "channel", "allow", "office", "--from", &gate, "--to", "b", "--ports", ports,
        ];
        offices.b.json(&words).unwrap();
    };
    allow("tcp/81");
    until(A_WHILE, "the rule holds", || {
        Ok(!offices.get(0, 8080, "hello", 5).success())
    })
    .unwrap();
    offices.wait_for_line("the service is not reached", |line| {
        is("closed")(line) && text(&line["reason"]).contains("not reached")
    });
    allow("tcp/80");
    offices.wait_for_hello();

    // Killed and started again.
    offices.gateway.as_mut().unwrap().kill9().unwrap();
    assert!(!offices.get(0, 8080, "hello", 5).success());
    offices.run_gateway();
    offices.wait_for_hello();
    offices.audit();

    // One of its daemons killed and started again.
    offices.gb.process().kill9().unwrap();
    offices.wait_for_line("it is noticed", |line| {
        is("changed")(line) && text_or_empty(&line["reason"]).contains("daemon")
    });
    let (data, config) = (offices.path("gb"), offices.path("gb.toml"));
    offices.gb = start(&offices.hosts[2], &data, &config, &["--no-tun"]);
    offices.wait_for_hello();
}

fn text_or_empty(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn a_gateway_cuts_what_is_allowed_no_more_and_its_log_shows_changes() {
    let Some(mut offices) = Offices::open() else {
        return;
    };
    let give = ["--in", "wiki=b:80", "--rate", RATE, "--give", "notice"];
    let take = ["--out", "wiki=8080", "--take", "notice"];
    let of_a = offices.consent(&offices.a, &offices.ga, &offices.b, &take);
    let of_b = offices.consent(&offices.b, &offices.gb, &offices.a, &give);
    offices.accept("ga", &of_a);
    offices.accept("gb", &of_b);
    offices.run_gateway();
    offices.wait_for_hello();

    // A document, and a newer one of its name; another one stays where it is.
    let read = |offices: &Offices, name: &str| {
        let got = offices.a.call(&["dht", "get", name]).unwrap();
        got.success().then_some(got.stdout)
    };
    offices.b.json(&["dht", "put", "secret", "of b"]).unwrap();
    for notice in ["closed on Monday", "open on Monday"] {
        offices.b.json(&["dht", "put", "notice", notice]).unwrap();
        until(A_WHILE, "a reads the notice of b", || {
            Ok(read(&offices, "notice").as_deref() == Some(notice))
        })
        .unwrap_or_else(|error| panic!("{error}: {}", offices.told()));
    }
    assert_eq!(read(&offices, "secret"), None);
    let copied = offices.wait_for_line("it is written down", is("copied"));
    assert_eq!(
        (&copied["document"], &copied["octets"]),
        (&Value::from("notice"), &Value::from(14))
    );

    // One that shows no length of what it sends: the end in good order is one, a cut is none.
    let mut whole = offices.reads(0, "whole.log", "GET /hello HTTP/1.0\r\n\r\n");
    assert!(
        whole
            .wait(A_WHILE)
            .unwrap()
            .is_some_and(|status| status.success())
    );
    let mut torn = offices.reads(0, "torn.log", "GET /large HTTP/1.0\r\n\r\n");

    // Revoked in mid-transfer.
    let download = |offices: &Offices, log: &str| {
        let url = format!("http://{}:8080/large", offices.ga.address().unwrap());
        let mut curl = offices.hosts[0].command("curl");
        curl.args(["-sS", "-o", "/dev/null", &url]);
        let before = offices.audit().len();
        let curl = offices.hosts[0].spawn(curl, &offices.path(log)).unwrap();
        offices.wait_for_line("it is opened", |line| {
            is("opened")(line) && line["seq"].as_u64() > Some(before as u64)
        });
        curl
    };
    let mut curl = download(&offices, "revoked.log");
    let text_of_b = text(&of_b["consent"]);
    let elsewhere = offices.a.call(&["overlay", "revoke", &text_of_b]).unwrap();
    assert_eq!(elsewhere.status.code(), Some(1), "a cannot revoke b's");
    offices
        .b
        .json(&["overlay", "revoke", &text(&of_b["name"])])
        .unwrap();
    let ended = curl.wait(A_WHILE).unwrap();
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    let cut = offices.wait_for_line("it is cut", |line| {
        is("closed")(line) && text(&line["reason"]).starts_with("cut")
    });
    let torn = torn.wait(A_WHILE).unwrap().and_then(|status| status.code());
    assert_eq!(torn, Some(7), "it is reset, not ended");
    assert!(text(&cut["reason"]).contains("revoked"), "{cut}");
    assert!(cut["octets_out"].as_u64() < Some(LARGE_BYTES));
    offices.wait_until_open(false);
    assert!(!offices.get(0, 8080, "hello", 5).success());

    until(A_WHILE, "the notice is taken out", || {
        Ok(read(&offices, "notice").is_none())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", offices.told()));
    offices.wait_for_line("that is written down", is("withdrawn"));

    // Another consent, and one that takes no document and ends in mid-transfer.
    let again = offices.consent(&offices.b, &offices.gb, &offices.a, &give);
    offices.accept("gb", &again);
    offices.wait_for_hello();
    until(A_WHILE, "the notice is there again", || {
        Ok(read(&offices, "notice").is_some())
    })
    .unwrap();

    // The gateway leaves none when it stops.
    let gateway = offices.gateway.as_mut().unwrap();
    assert!(gateway.terminate(A_WHILE).unwrap().success());
    assert_eq!(read(&offices, "notice"), None, "{}", offices.told());
    offices.run_gateway();
    until(A_WHILE, "the notice is copied again", || {
        Ok(read(&offices, "notice").is_some())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", offices.told()));
    let words = ["--out", "wiki=8080", "--expires", "25s"];
    let ending = offices.consent(&offices.a, &offices.ga, &offices.b, &words);
    let ends = ending["expires_unix_s"].as_u64().unwrap();
    offices.accept("ga", &ending);
    let mut curl = download(&offices, "ended.log");
    let ended = curl.wait(A_WHILE).unwrap();
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(now.unwrap().as_secs() >= ends, "not before its time");
    offices.wait_for_line("it is cut", |line| {
        is("closed")(line) && text(&line["reason"]).contains("past its time")
    });

    until(A_WHILE, "the notice is taken out again", || {
        Ok(read(&offices, "notice").is_none())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", offices.told()));

    // Stopped in good order; a changed line is found.
    let stopped = offices
        .gateway
        .as_mut()
        .unwrap()
        .terminate(A_WHILE)
        .unwrap();
    assert!(stopped.success());
    assert_eq!(offices.audit().last().unwrap()["event"], "stopped");
    let head = done(&offices.gateway(&["audit", "--verify"]));
    let expect = ["audit", "--verify", "--expect", &text(&head["last_hash"])];
    assert!(offices.gateway(&expect).success());
    let unknown = ["audit", "--verify", "--expect", "00"];
    assert_eq!(offices.gateway(&unknown).status.code(), Some(1));
    let log = offices.path("gateway/audit.log");
    let told = fs::read_to_string(&log).unwrap();
    assert!(told.contains("past its time"));
    fs::write(&log, told.replacen("past its time", "past its tine", 1)).unwrap();
    let verified = offices.gateway(&["audit", "--verify"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(
        verified.stdout.contains("not what was written"),
        "{}",
        verified.stdout
    );
    let refused = offices.gateway(&["run"]);
    assert_eq!(
        refused.status.code(),
        Some(1),
        "it does not run on such a log"
    );
}
