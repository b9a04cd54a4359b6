//! Three real daemons on loopback, without network devices, driven by the same commands
//! that a person types.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod node;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use node::{Node, PROGRAM, text, until};

/// Starts a daemon that joins by an invitation.
fn join(data: &Path, ticket: &str) -> Node {
    Node::start(data, &["--bootstrap", ticket])
}

fn channel(node: &Node) -> Value {
    node.ask(&["channel", "list"])["channels"][0].clone()
}

fn enishi(data: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--data").arg(data).args(words);
    command
}

#[test]
fn three_nodes_share_a_channel_values_and_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name);
    let password = data("password");
    std::fs::write(&password, "correct horse\n").unwrap();
    let password = password.to_str().unwrap();

    let a = Node::start(&data("a"), &[]);
    let ticket = text(&a.ask(&["invite"])["ticket"]).to_owned();
    let started = Instant::now();
    let b = join(&data("b"), &ticket);
    a.ask(&["channel", "create", "office", "--password-file", password]);
    let invitation = a.ask(&["channel", "invite", "office"]);
    let joined = b.ask(&["channel", "join", text(&invitation["ticket"])]);
    println!(
        "from `up` to an address in a channel: {:?}",
        started.elapsed()
    );
    let mut c = join(&data("c"), &ticket);
    let by_password = [
        "channel",
        "join",
        "--name",
        "office",
        "--password-file",
        password,
    ];
    assert_eq!(c.ask(&by_password)["members"], 3);
    assert_eq!(
        c.exit_code(&by_password),
        0,
        "joining again changes nothing"
    );
    assert_eq!(
        c.exit_code(&["channel", "create", "office"]),
        2,
        "another secret"
    );

    ping_and_trace(&a, &b, text(&joined["address"]));
    values(&a, &c);
    stream(&a, &b, text(&joined["address"]), dir.path());

    // Killed: its value stays; back: the same node, port and address.
    let (before, status) = (channel(&c), c.ask(&["status"]));
    c.kill();
    assert_eq!(a.ask(&["dht", "get", "of c"])["value"], "kept");
    c.up(&[]);
    let time = until("the address is back", || {
        channel(&c)["address"] == before["address"]
    });
    println!("from the start of a killed node to its address: {time:?}");
    let id = a.id();
    let reach = ["ping", &id, "-c", "1", "--timeout-ms", "1000"];
    let time = until("the node is among others again", || c.run(&reach).success());
    println!("and until it reaches another: {time:?}");
    let again = c.ask(&["status"]);
    assert_eq!(again["node_id"], status["node_id"]);
    assert_eq!(again["addresses"], status["addresses"]);

    assert_eq!(c.exit_code(&["channel", "leave", "office"]), 0);
    assert_eq!(
        c.ask(&["channel", "list"])["channels"],
        Value::Array(vec![])
    );
    broken_streams(a, &b, text(&joined["address"]));
    for node in [b, c] {
        stop(node);
    }
}

fn ping_and_trace(a: &Node, b: &Node, address: &str) {
    let id = b.id();
    for target in [&id, &id[..8], address] {
        let summary = a.ask(&["ping", target, "-c", "2", "--interval-ms", "10"]);
        assert_eq!(summary["received"], 2, "{target}: {summary}");
        assert!(text(&summary["path"]).starts_with("direct 127.0.0.1:"));
        assert_eq!(summary["remote"]["version"], env!("CARGO_PKG_VERSION"));
        let route = a.ask(&["trace", target]);
        let hops = route["hops"].as_array().unwrap();
        let last = hops.last().unwrap();
        assert_eq!(last["node_id"], id.as_str());
        assert_eq!(
            (&last["state"], &last["received"]),
            (&"reported".into(), &3.into())
        );
        assert_eq!(last["remote"]["version"], env!("CARGO_PKG_VERSION"));
    }
    assert_eq!(b.ask(&["ping", &id, "-c", "1"])["path"], "self");
    assert_eq!(b.ask(&["trace", &id])["hops"][0]["node_id"], id.as_str());
    assert!(a.ask(&["trace", "key:greeting"])["hops"].is_array());
    assert_eq!(a.exit_code(&["ping", "10.77.255.254", "-c", "1"]), 1);
    assert_eq!(a.exit_code(&["ping", "no such", "-c", "1"]), 2);
}

/// Four nodes, of which one declines to be traced.
#[test]
fn diagnostics_tell_how_nodes_values_and_the_ring_are() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name);
    let a = Node::start(&data("a"), &[]);
    let ticket = text(&a.ask(&["invite"])["ticket"]).to_owned();
    std::fs::create_dir(data("d")).unwrap();
    std::fs::write(data("d").join("config.toml"), "reports_hops = false").unwrap();
    let others = ["b", "c", "d"].map(|name| join(&data(name), &ticket));
    until("all know each other", || {
        let size = |daemon: &Node| daemon.ask(&["status"])["overlay_size_estimate"].clone();
        others.iter().chain([&a]).all(|daemon| size(daemon) == 4)
    });
    let reticent = others[2].id();
    let summary = a.ask(&["ping", &reticent, "-c", "1"]);
    assert_eq!(
        (&summary["received"], &summary["remote"]),
        (&1.into(), &Value::Null)
    );
    assert_eq!(summary["path_kind"], "direct");
    let route = a.ask(&["trace", &reticent]);
    let hop = &route["hops"][0];
    assert_eq!(
        (&hop["state"], &hop["remote"]),
        (&"declined".into(), &Value::Null)
    );
    assert_eq!(
        (&hop["received"], &route["answered"]),
        (&3.into(), &3.into())
    );

    a.ask(&["dht", "put", "greeting", "hello"]);
    let route = others[0].ask(&["trace", "greeting", "--key"]);
    let holders = route["holders"].as_array().unwrap();
    let with = holders
        .iter()
        .filter(|holder| holder["held"] == "value")
        .count();
    assert!(holders.len() == 4 && with >= 3, "{route}");

    verify(&a, &reticent);
    a.ask(&["channel", "create", "office"]);
    let health = a.ask(&["doctor"]);
    assert_eq!(health["problems"], 0, "{health}");
    let check = |name: &str| {
        let checks = health["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"] == name).unwrap()
    };
    // The one that declines does not look for this node.
    assert_eq!(
        (&check("position")["agree"], &check("position")["disagree"]),
        (&2.into(), &0.into())
    );
    assert_eq!(check("values")["failed"], Value::Null);
    assert_eq!(check("neighbours")["near"], 3);
    assert_eq!(
        check("clock")["ahead_s"]
            .as_i64()
            .map(i64::abs)
            .map(|s| s < 3),
        Some(true)
    );
    assert_eq!(check("addresses")["outcome"], "warning", "only loopback");
    assert_eq!(check("addresses")["seen"][0]["peers"], 2);
    assert_eq!(check("sessions")["direct"], 3);
    assert_eq!(check("channel")["outcome"], "ok");
    // Nothing is left of what the doctor stored.
    assert_eq!(a.ask(&["doctor"])["problems"], 0);

    let drawing = dir.path().join("ring.svg");
    let map = a.ask(&[
        "overlay",
        "map",
        "--svg",
        drawing.to_str().unwrap(),
        "--crawl",
        "10",
    ]);
    assert_eq!(map["nodes"].as_array().unwrap().len(), 4);
    let drawing = std::fs::read_to_string(&drawing).unwrap();
    assert_eq!(drawing.matches("</title></circle>").count(), 4);
    assert!(drawing.contains(&reticent[..6]));

    // Alone, and it knows that there should be others.
    drop(others);
    until("the others are given up", || {
        let health = a.run(&["doctor", "--json"]);
        let problems: Value = serde_json::from_str(&health.stdout).unwrap();
        let sick = problems["problems"].as_u64() > Some(0);
        assert_eq!(health.status.code(), Some(i32::from(sick)));
        sick
    });
}

/// Among four that all know each other; with many, `fifty` does it over paths.
fn verify(a: &Node, other: &str) {
    let told = a.ask(&["verify", other]);
    assert_eq!(
        (&told["verdict"], &told["all_known"], &told["node"]),
        (&"confirmed".into(), &true.into(), &other.into())
    );
    let told = a.ask(&["verify", "greeting", "--key"]);
    assert_eq!(told["verdict"], "confirmed");
    assert!(told["record"]["holders"].as_u64() >= Some(3), "{told}");
    // A change of the last character of a node's id.
    let end = if other.ends_with('a') { "i" } else { "a" };
    let stranger = format!("{}{end}", &other[..other.len() - 1]);
    assert_ne!(a.exit_code(&["verify", &stranger]), 0);
    assert_eq!(a.exit_code(&["verify", "key:nothing"]), 1);
    let own = a.id();
    assert_eq!(a.exit_code(&["verify", &own]), 2);
}

fn values(a: &Node, c: &Node) {
    c.ask(&["dht", "put", "of c", "kept"]);
    assert_eq!(a.ask(&["dht", "get", "of c"])["value"], "kept");
    assert_eq!(a.exit_code(&["dht", "put", "of c", "mine"]), 1, "taken");
    assert_eq!(a.exit_code(&["dht", "remove", "of c"]), 1, "not a's");
    assert_eq!(a.exit_code(&["dht", "get", "nothing"]), 1);
    assert_eq!(a.exit_code(&["dht", "put", "", "x"]), 2);
    a.ask(&["dht", "put", "of a", "gone"]);
    a.ask(&["dht", "remove", "of a"]);
    assert_eq!(c.exit_code(&["dht", "get", "of a"]), 1);
}

fn stream(a: &Node, b: &Node, address: &str, dir: &Path) {
    assert_eq!(a.exit_code(&["connect", address, "nobody"]), 1);
    let sent: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let received = dir.join("received");
    let mut listener = enishi(&b.data, &["connect", "--listen", "files"])
        .stdin(Stdio::null())
        .stdout(File::create(&received).unwrap())
        .spawn()
        .unwrap();
    // Nobody tells when the other side has begun to listen.
    until("the stream opens", || {
        let mut connector = enishi(&a.data, &["connect", address, "files"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = connector.stdin.take().unwrap();
        let copied = input.write_all(&sent);
        drop(input);
        connector.wait().unwrap().success() && copied.is_ok()
    });
    assert!(listener.wait().unwrap().success());
    assert!(std::fs::read(received).unwrap() == sent);
}

/// The listener is told when what it got is not all: after the death of the other program, and
/// of the other node.
fn broken_streams(mut a: Node, b: &Node, address: &str) {
    let listen = || {
        enishi(&b.data, &["connect", "--listen", "cut"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let connect = |listener: &mut Child, a: &Node| {
        let mut heard = [0; 4];
        let mut connector = None;
        until("the stream opens", || {
            let mut child = enishi(&a.data, &["connect", address, "cut"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let said = child.stdin.as_mut().unwrap().write_all(b"part");
            std::thread::sleep(Duration::from_millis(300));
            let open = said.is_ok() && child.try_wait().unwrap().is_none();
            connector = open.then_some(child);
            open
        });
        listener
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut heard)
            .unwrap();
        assert_eq!(&heard, b"part");
        connector.unwrap()
    };
    let told = |listener: Child| {
        let output = listener.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("broke off"), "{said}");
    };
    let mut listener = listen();
    let mut connector = connect(&mut listener, &a);
    connector.kill().unwrap();
    connector.wait().unwrap();
    told(listener);

    let mut listener = listen();
    let mut connector = connect(&mut listener, &a);
    a.kill();
    told(listener);
    assert_eq!(connector.wait().unwrap().code(), Some(1));
}

fn stop(mut node: Node) {
    node.stop();
    assert_eq!(node.exit_code(&["status"]), 3);
    assert!(!node.data.join("control.sock").exists());
}

#[test]
fn what_is_in_the_way_of_a_start_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let daemon = Node::start(&data, &[]);
    let refused = |data: &Path, words: &[&str]| {
        let output = enishi(data, &[&["up", "--no-tun"], words].concat())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    };
    let (code, said) = refused(&data, &[]);
    assert!(
        code == 1 && said.contains(data.to_str().unwrap()),
        "{code} {said}"
    );
    let other = dir.path().join("other");
    let status = daemon.ask(&["status"]);
    let (code, said) = refused(&other, &["--listen", text(&status["addresses"][0])]);
    assert!(code == 1 && said.contains("in use"), "{code} {said}");
    let (code, said) = refused(&other, &["--bootstrap", "enishi1aaaa"]);
    assert!(code == 2 && said.contains("damaged"), "{code} {said}");
    let config = dir.path().join("config");
    std::fs::write(&config, "lisen = []").unwrap();
    let (code, said) = refused(&other, &["--config", config.to_str().unwrap()]);
    assert!(code == 2 && said.contains("lisen"), "{code} {said}");
    std::fs::write(other.join("node.key"), "half a k").unwrap();
    let (code, said) = refused(&other, &[]);
    assert!(code == 1 && said.contains("damaged"), "{code} {said}");
}

#[test]
fn a_client_uses_everything_through_its_peers() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name);
    let config = data("a.toml");
    std::fs::write(&config, "policy = \"reputation\"\n").unwrap();
    let a = Node::start(&data("a"), &["--config", config.to_str().unwrap()]);
    let ticket = text(&a.ask(&["invite"])["ticket"]).to_owned();
    let b = join(&data("b"), &ticket);
    let c = Node::start(&data("c"), &["--bootstrap", &ticket, "--client"]);
    until("the client has two hosts", || {
        let hosts = c.ask(&["peers"]);
        let hosts = hosts["peers"].as_array().unwrap().iter();
        hosts.filter(|peer| peer["role"] == "host").count() == 2
    });
    let status = c.ask(&["status"]);
    assert_eq!(
        (&status["class"], &status["joined"]),
        (&"client".into(), &true.into())
    );
    for host in [&a, &b] {
        assert_eq!(host.ask(&["status"])["clients"], 1);
        assert_eq!(host.ask(&["status"])["overlay_size_estimate"], 2);
    }

    c.ask(&["dht", "put", "tea", "green"]);
    assert_eq!(text(&a.ask(&["dht", "get", "tea"])["value"]), "green");
    a.ask(&["dht", "put", "cake", "lemon"]);
    assert_eq!(text(&c.ask(&["dht", "get", "cake"])["value"]), "lemon");
    assert_eq!(c.ask(&["status"])["records_held"], 0);

    assert_eq!(c.exit_code(&["ping", &b.id(), "--count", "1"]), 0);
    until("others find the client", || {
        b.exit_code(&["ping", &c.id(), "--count", "1"]) == 0
    });

    a.ask(&["channel", "create", "home"]);
    let invitation = text(&a.ask(&["channel", "invite", "home"])["ticket"]).to_owned();
    c.ask(&["channel", "join", &invitation]);
    let address = text(&channel(&a)["address"]).to_owned();
    until("the client reaches a member", || {
        c.exit_code(&["ping", &address, "--count", "1"]) == 0
    });

    until("a message to all of the client reaches the member", || {
        let count = c.ask(&["channel", "count", "home"]);
        (&count["received"], &count["members"]) == (&1.into(), &1.into())
    });
    assert_eq!(c.exit_code(&["trace", &b.id()]), 0);

    // What was done for the client is on its account.
    assert_eq!(a.ask(&["status"])["service"]["policy"], "reputation");
    let client = c.id();
    let done = |of: &str| {
        let peers = [&a, &b].map(|host| host.ask(&["peers"])["peers"].clone());
        let peers = peers.iter().flat_map(|peers| peers.as_array().unwrap());
        let accounts = peers.filter(|peer| peer["node_id"] == client.as_str());
        let figures = accounts.filter_map(|peer| peer["account"][of].as_u64());
        figures.sum::<u64>()
    };
    for of in ["stored_bytes", "carried_messages"] {
        assert!(done(of) > 0, "{of}");
    }

    drop(a);
    c.ask(&["dht", "put", "tea", "black"]);
    assert_eq!(text(&b.ask(&["dht", "get", "tea"])["value"]), "black");
}
