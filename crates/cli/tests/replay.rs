//! A real daemon is recorded, stopped or killed, and replayed.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod node;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use node::{Node, PROGRAM, until};

fn replay(recording: &Path) -> (i32, Value) {
    let mut command = Command::new(PROGRAM);
    command.args(["sim", "replay", "--json"]).arg(recording);
    let output = command.output().unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), told)
}

/// Has two daemons store, read, ping and share a channel.
fn live(a: &Node, b: &Node) {
    let id = b.id();
    for (at, key) in [(a, "of a"), (b, "of b")] {
        at.ask(&["dht", "put", key, "some value"]);
        at.ask(&["dht", "put", key, "another value"]);
    }
    assert_eq!(a.ask(&["dht", "get", "of b"])["value"], "another value");
    assert_eq!(b.ask(&["dht", "get", "of a"])["value"], "another value");
    let ping = a.ask(&["ping", &id, "-c", "5", "--interval-ms", "10"]);
    assert_eq!(ping["received"], 5);
    a.ask(&["trace", &id]);
    a.ask(&["channel", "create", "office"]);
    let invitation = a.ask(&["channel", "invite", "office"]);
    b.ask(&["channel", "join", invitation["ticket"].as_str().unwrap()]);
}

#[test]
fn a_daemon_that_was_recorded_is_replayed_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let b = Node::start(&path("b"), &[]);
    let ticket = b.ask(&["invite"])["ticket"].as_str().unwrap().to_owned();

    // Stopped in good order.
    let first = text("first.recording");
    let mut a = Node::start(&path("a"), &["--bootstrap", &ticket, "--record", &first]);
    live(&a, &b);
    // A copy, as of a node that was killed in the middle of its life.
    until("a deadline was recorded", || {
        std::fs::copy(path("first.recording"), path("copy")).unwrap();
        replay(&path("copy")).1["kinds"]["timeout"].as_u64() >= Some(1)
    });
    let notices = a.ask(&["status"])["notices"].to_string();
    assert!(notices.contains("secret key"), "{notices}");
    assert!(a.log().contains("secret key"), "{}", a.log());
    a.stop();
    let mode = path("first.recording")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, told) = replay(&path("first.recording"));
    assert_eq!(
        (code, &told["identical"]),
        (0, &Value::Bool(true)),
        "{told:#}"
    );
    assert_eq!(told["ending"], "stopped");
    for (kind, least) in [
        ("message", 20),
        ("timeout", 1),
        ("command", 10),
        ("leave", 1),
    ] {
        assert!(
            told["kinds"][kind].as_u64() >= Some(least),
            "{kind}: {told:#}"
        );
    }

    // One recording is one life.
    let mut again = Command::new(PROGRAM);
    again
        .arg("--data")
        .arg(path("a"))
        .args(["up", "--no-tun", "--record", &first]);
    let refused = again.output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && said.contains("is there already"),
        "{said}"
    );

    // Killed in the middle of its life, after it had restored the one before.
    let second = text("second.recording");
    let mut a = Node::start(&path("a"), &["--record", &second]);
    a.ask(&["dht", "put", "of a", "third value"]);
    a.kill();
    let (code, told) = replay(&path("second.recording"));
    assert_eq!(
        (code, &told["identical"]),
        (0, &Value::Bool(true)),
        "{told:#}"
    );
    assert!(told["kinds"]["restored"].as_u64() >= Some(2), "{told:#}");
    assert!(
        ["killed", "torn"].contains(&told["ending"].as_str().unwrap()),
        "{told:#}"
    );

    parts_where_it_was_changed(&path("first.recording"), &path("changed"));
}

/// Takes out one frame in the middle.
fn parts_where_it_was_changed(recording: &Path, changed: &Path) {
    let octets = std::fs::read(recording).unwrap();
    // Magic number and format; then frames: length (4), checksum (4), payload.
    let mut starts = vec![9];
    while starts[starts.len() - 1] < octets.len() {
        let at = starts[starts.len() - 1];
        let length = u32::from_le_bytes(octets[at..at + 4].try_into().unwrap());
        starts.push(at + 8 + length as usize);
    }
    let gone = starts.len() / 2;
    let kept = [&octets[..starts[gone]], &octets[starts[gone + 1]..]].concat();
    std::fs::write(changed, kept).unwrap();
    let (code, told) = replay(changed);
    assert_eq!((code, &told["ending"]), (1, &Value::from("parted")));
    // The header's frame is the first; the input after the one that is gone is the one.
    assert_eq!(told["parted"]["input_number"], gone, "{told:#}");
}

#[test]
fn what_is_no_recording_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "something else").unwrap();
    for (path, why) in [
        (file, "not a recording"),
        (dir.path().join("no"), "No such file"),
    ] {
        let (code, told) = replay(&path);
        let message = told["error"]["message"].as_str().unwrap();
        assert!(code == 2 && message.contains(why), "{code} {message}");
    }
}
