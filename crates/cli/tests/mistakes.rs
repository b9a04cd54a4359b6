//! What people do wrong, and what becomes of it: a clear error, and nothing lost.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Daemon, Output};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");
const LOOPBACK: [&str; 3] = ["--no-tun", "--listen", "127.0.0.1:0"];

fn start(data: &Path, more: &[&str]) -> Daemon {
    Daemon::start(Path::new(PROGRAM), None, data, &[&LOOPBACK, more].concat()).unwrap()
}

/// Runs `enishi up` that is to end by itself.
fn up(data: &Path, arguments: &[&str]) -> Output {
    let mut command = enishi_lab::command(PROGRAM);
    command.arg("up").arg("--data").arg(data).args(arguments);
    let output = enishi_lab::run(command, Duration::from_secs(20)).unwrap();
    assert!(
        !output.timed_out,
        "it was to end by itself: {}",
        output.stderr
    );
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    output
}

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("a");
    (directory, data)
}

/// The exit code, and that the message holds a word.
fn says(output: &Output, code: i32, word: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", output.stderr);
    assert!(
        output.stderr.contains(word),
        "{word:?} in {}",
        output.stderr
    );
}

#[test]
fn a_log_that_is_not_there_has_no_hash_to_be_noted() {
    let (_keep, data) = directory();
    let audit = |more: &[&str]| {
        let mut command = enishi_lab::command(PROGRAM);
        command.arg("--data").arg(&data);
        command.args(["gateway", "audit"]).args(more);
        enishi_lab::run(command, Duration::from_secs(20)).unwrap()
    };
    let told = audit(&[]);
    assert!(told.success(), "{}", told.stderr);
    assert!(told.stdout.contains("no audit log"), "{}", told.stdout);
    assert!(!told.stdout.contains("--expect"), "{}", told.stdout);
    let expected = audit(&["--expect", "00"]);
    assert_eq!(expected.status.code(), Some(1), "{}", expected.stdout);
}

#[test]
fn a_turn_server_that_is_none_is_told_before_a_password_is_wanted() {
    let (_keep, data) = directory();
    for wrong in ["nonsense", "turns:aki@192.0.2.1", "turn:192.0.2.1"] {
        let mut command = enishi_lab::command(PROGRAM);
        command
            .arg("--data")
            .arg(&data)
            .args(["turn", "use", wrong]);
        let output = enishi_lab::run(command, Duration::from_secs(20)).unwrap();
        says(&output, 2, "turn:user@host");
    }
}

#[test]
fn a_data_directory_has_one_daemon() {
    let (_keep, data) = directory();
    let _first = start(&data, &[]);
    let second = up(&data, &LOOPBACK);
    says(&second, 1, data.to_str().unwrap());
}

#[test]
fn a_port_in_use_is_named() {
    let (_keep, data) = directory();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let output = up(&data, &["--no-tun", "--listen", &address]);
    says(&output, 1, &address);
}

#[test]
fn tickets_that_are_none_are_told_apart() {
    let (_keep, data) = directory();
    let daemon = start(&data, &[]);
    daemon.text(&["channel", "create", "office"]).unwrap();
    let good = daemon.text(&["channel", "invite", "office"]).unwrap();
    let newer = good.replacen("enishi1", "enishi7", 1);
    for (ticket, word) in [
        ("hello", "not an invitation"),
        (&good[..good.len() - 5], "damaged"),
        (newer.as_str(), "version 7"),
    ] {
        let output = daemon.call(&["channel", "join", ticket]).unwrap();
        says(&output, 2, word);
        let elsewhere = data.with_file_name("b");
        says(
            &up(
                &elsewhere,
                &[&LOOPBACK[..], &["--bootstrap", ticket]].concat(),
            ),
            2,
            word,
        );
    }
    let again = daemon.call(&["channel", "join", &good]).unwrap();
    assert!(again.success(), "a member may join again: {}", again.stderr);
}

#[test]
fn whom_to_ask_is_a_name_with_a_port() {
    let (_keep, data) = directory();
    for wrong in [
        "boot",
        "boot:",
        "boot:x",
        "boot:0",
        "https://boot.example.org",
    ] {
        let output = up(&data, &[&LOOPBACK[..], &["--bootstrap", wrong]].concat());
        says(&output, 2, "boot.example.org:4242");
    }
}

#[test]
fn an_unreachable_bootstrap_is_no_reason_to_give_up() {
    let (_keep, data) = directory();
    let ticket = {
        let daemon = start(&data.with_file_name("gone"), &[]);
        daemon.text(&["invite"]).unwrap()
    };
    let daemon = start(&data, &["--bootstrap", &ticket]);
    let status = daemon.json(&["status"]).unwrap();
    assert_eq!(status["joined"], false, "{status}");
    // Alone, but at work.
    daemon.text(&["dht", "put", "key", "value"]).unwrap();
    assert_eq!(daemon.text(&["dht", "get", "key"]).unwrap(), "value");
}

#[test]
fn a_damaged_state_file_is_kept_aside() {
    let (_keep, data) = directory();
    let id = {
        let daemon = start(&data, &[]);
        daemon.json(&["status"]).unwrap()["node_id"].clone()
    };
    let state = data.join("state.redb");
    std::fs::write(&state, b"this is no database").unwrap();
    let daemon = start(&data, &[]);
    assert_eq!(
        daemon.json(&["status"]).unwrap()["node_id"],
        id,
        "the identity is apart"
    );
    let kept: Vec<String> = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("state.redb.damaged"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(
        std::fs::read(data.join(&kept[0])).unwrap(),
        b"this is no database"
    );
    assert!(daemon.log().contains("state.redb"), "{}", daemon.log());
}

#[test]
fn a_damaged_identity_is_never_replaced() {
    let (_keep, data) = directory();
    drop(start(&data, &[]));
    std::fs::write(data.join("node.key"), b"short").unwrap();
    let output = up(&data, &LOOPBACK);
    says(&output, 1, "node.key");
    assert_eq!(std::fs::read(data.join("node.key")).unwrap(), b"short");
}

#[test]
fn wrong_configuration_names_the_key() {
    let (_keep, data) = directory();
    let file = data.with_file_name("config.toml");
    std::fs::write(&file, "lisen = [\"127.0.0.1:0\"]\n").unwrap();
    let config = ["--no-tun", "--config", file.to_str().unwrap()];
    says(&up(&data, &config), 2, "lisen");
    std::fs::write(&file, "host_name = \"aki\"\ntun = 1\n").unwrap();
    says(&up(&data, &config), 2, "line 2, `tun = 1`");
    let missing = ["--no-tun", "--config", "/nowhere/at/all.toml"];
    says(&up(&data, &missing), 2, "/nowhere/at/all.toml");
}

#[test]
fn channels_asked_for_wrongly_are_refused() {
    let (_keep, data) = directory();
    let daemon = start(&data, &[]);
    for (words, word) in [
        (vec!["channel", "create", "no spaces"], "letters"),
        (
            vec!["channel", "create", "x", "--network", "10.77.0.0"],
            "10.77.0.0/16",
        ),
        (
            vec!["channel", "create", "x", "--network", "10.77.0.1/16"],
            "10.77.0.0/16",
        ),
        (
            vec!["channel", "create", "x", "--address", "10.78.0.1"],
            "10.78.0.1",
        ),
    ] {
        says(&daemon.call(&words).unwrap(), 2, word);
    }
    says(
        &daemon.call(&["channel", "invite", "nothing"]).unwrap(),
        1,
        "nothing",
    );
    says(
        &daemon.call(&["channel", "leave", "nothing"]).unwrap(),
        1,
        "nothing",
    );
    says(
        &daemon.call(&["ping", "10.77.9.9", "-c", "1"]).unwrap(),
        1,
        "10.77.9.9",
    );
    let stranger = "a".repeat(52);
    let ping = daemon.call(&["ping", &stranger]).unwrap();
    says(&ping, 1, "Nobody knows");
    let ping = daemon.call(&["ping", &stranger, "-c", "-3"]).unwrap();
    says(&ping, 2, "-3 is not in 1..=1000");
    assert_eq!(
        daemon
            .call(&["dht", "get", "nothing"])
            .unwrap()
            .status
            .code(),
        Some(1)
    );
    let long = "x".repeat(5000);
    says(
        &daemon.call(&["dht", "put", "key", &long]).unwrap(),
        2,
        "4096",
    );
}

#[test]
fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let (_keep, data) = directory();
    let mut written: Vec<String> = Vec::new();
    for round in 0..6_usize {
        let mut daemon = start(&data, &[]);
        for key in &written {
            assert_eq!(daemon.text(&["dht", "get", key]).unwrap(), *key);
        }
        let id = daemon.process().id();
        // In the middle of a put, after as many as the number of the round.
        let (acknowledge, acknowledged) = std::sync::mpsc::channel();
        let killer = std::thread::spawn(move || {
            acknowledged.iter().take(round).for_each(drop);
            std::thread::sleep(Duration::from_millis(5 * round as u64));
            let mut kill = enishi_lab::command("kill");
            kill.args(["-9", &id.to_string()]);
            enishi_lab::run(kill, Duration::from_secs(20))
        });
        for number in 0.. {
            let key = format!("key-{round}-{number}");
            if !daemon.call(&["dht", "put", &key, &key]).unwrap().success() {
                break;
            }
            written.push(key);
            // The killer hears no more once it is about to kill.
            let _ = acknowledge.send(());
        }
        killer.join().unwrap().unwrap();
        let ended = daemon.process().wait(Duration::from_secs(20)).unwrap();
        assert!(ended.is_some(), "it was killed");
    }
    assert!(
        written.len() >= 15,
        "one, two, three, four and five: {written:?}"
    );
}
