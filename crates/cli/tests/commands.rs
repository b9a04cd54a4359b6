//! The commands as a script meets them, before a node that is played by the test.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod fake;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use enishi_api::{ChannelCreate, ChannelJoin, Password, Request, TurnAsk};
use serde_json::{Value, json};

use fake::Fake;

fn enishi(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enishi"));
    command.args(words);
    for name in ["ENISHI_DATA", "LC_ALL", "LC_MESSAGES", "LANG"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn run(fake: &Fake, line: &str) -> Output {
    run_with(fake, line, b"")
}

fn run_with(fake: &Fake, line: &str, input: &[u8]) -> Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut child = enishi(&words)
        .env("ENISHI_DATA", fake.data())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that is refused may not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs a command with `--json` and gives its exit code and the object.
fn json_of(fake: &Fake, line: &str) -> (i32, Value) {
    let output = run(fake, &format!("{line} --json"));
    assert_eq!(stdout(&output).lines().count(), 1, "{line}: {output:?}");
    assert_eq!(stderr(&output), "", "{line}");
    (
        output.status.code().unwrap(),
        serde_json::from_str(stdout(&output)).unwrap(),
    )
}

#[test]
fn every_command_has_a_form_for_scripts() {
    let fake = Fake::start();
    let channel = fake::channel_json();
    let host = json!({"name": "aki.office.enishi", "node_id": "n1",
                      "addresses": ["10.77.0.9", "fd00::9"]});
    let offer = json!({"service": "_http._tcp", "port": 8080, "texts": ["path=/wiki"],
                       "node_id": "n1", "host": "aki.office.enishi", "own": false});
    for (line, code, expected) in [
        ("peers", 0, json!({"peers": [fake::peer_json()]})),
        ("invite", 0, json!({"ticket": "enishi-overlay"})),
        (
            "channel invite office",
            0,
            json!({"ticket": "enishi-office", "invitation": "abcdefghijkl", "uses": 1,
                   "expires_unix_s": 2_000_000_000, "role": null, "stored": true}),
        ),
        (
            "channel invite office --uses any --role guest",
            0,
            json!({"ticket": "enishi-office", "invitation": "abcdefghijkl", "uses": null,
                   "expires_unix_s": 2_000_000_000, "role": "guest", "stored": true}),
        ),
        (
            "channel invitations office",
            0,
            json!({"invitations": [{"invitation": "abcdefghijkl", "uses": null, "role": "guest",
                                    "expires_unix_s": 0, "members": ["other"]}]}),
        ),
        (
            "channel remove office other",
            0,
            json!({"node_id": "n1", "host": "other", "epoch": 2, "invitation": "abcdefghijkl"}),
        ),
        (
            "channel rules office",
            0,
            json!({"rules": [{"number": 1, "from": "role:guest", "from_host": null, "to": "n1",
                              "to_host": "other", "ports": ["tcp/22", "icmp"]}]}),
        ),
        ("channel show office", 0, channel.clone()),
        ("channel create office", 0, channel.clone()),
        ("channel join enishi-office", 0, channel.clone()),
        ("channel list", 0, json!({"channels": [channel]})),
        ("channel names office", 0, json!({"names": [host]})),
        ("resolve aki", 0, json!({"names": [host]})),
        ("channel leave office", 0, json!({"left": "office"})),
        (
            "channel leave founded --force",
            0,
            json!({"left": "founded"}),
        ),
        (
            "channel count office",
            1,
            json!({"channel": "office", "members": 60, "received": 57}),
        ),
        (
            "channel discovery office",
            0,
            json!({"channel": "office", "on": true}),
        ),
        (
            "channel discovery office off",
            0,
            json!({"channel": "office", "on": false}),
        ),
        (
            "channel offer office _http._tcp 8080 --text path=/wiki",
            0,
            json!({"offers": [offer]}),
        ),
        (
            "channel withdraw office _http._tcp",
            0,
            json!({"offers": [offer]}),
        ),
        ("channel offers office", 0, json!({"offers": [offer]})),
        (
            "ping near -c 2",
            0,
            json!({"node_id": "n1", "sent": 2, "received": 1, "path": "direct 192.0.2.1:1",
                   "path_kind": "direct",
                   "remote": {"version": "0.1.0", "load_per_mille": 12, "class": null},
                   "rtt_ms": {"min": 1.5, "avg": 1.5, "mdev": 0.25, "p99": 1.5, "max": 1.5}}),
        ),
        (
            "ping silent -c 2",
            1,
            json!({"node_id": "n1", "sent": 2, "received": 0, "rtt_ms": null, "path": "-",
                   "path_kind": "unconnected", "remote": null}),
        ),
        ("dht put k v", 0, json!({"replicas": 3, "seq": 1})),
        (
            "dht get k",
            0,
            json!({"value": "v\n", "value_base64": "dgo=", "seq": 1}),
        ),
        (
            "dht get octets",
            0,
            json!({"value": null, "value_base64": "/wA=", "seq": 1}),
        ),
        ("dht remove k", 0, json!({"removed": "k"})),
        (
            "forward add office local 127.0.0.1:8080 aki:80",
            0,
            json!({"id": 3, "channel": "office", "direction": "local", "listen": "127.0.0.1:8080",
                   "to": "aki:80", "protocol": "tcp", "open": 2, "total": 5, "notice": null}),
        ),
        (
            "forward add office remote 53 127.0.0.1:5353 --udp",
            0,
            json!({"id": 3, "channel": "office", "direction": "remote", "port": 53,
                   "to": "127.0.0.1:5353", "protocol": "udp", "open": 2, "total": 5,
                   "notice": null}),
        ),
        ("forward list", 0, json!({"forwards": []})),
        ("forward remove 3", 0, json!({"removed": 3})),
        ("down", 0, json!({"stopped": true})),
    ] {
        assert_eq!(json_of(&fake, line), (code, expected), "{line}");
    }
}

#[test]
fn the_status_has_the_fields_that_scripts_rely_on() {
    let fake = Fake::start();
    let (code, status) = json_of(&fake, "status");
    assert_eq!(code, 0);
    for name in [
        "node_id",
        "version",
        "uptime_s",
        "peers",
        "overlay_size_estimate",
    ] {
        assert!(status.get(name).is_some(), "{name}");
    }
    for name in [
        "name",
        "network",
        "address",
        "address6",
        "interface",
        "members",
    ] {
        assert!(status["channels"][0].get(name).is_some(), "{name}");
    }
    assert_eq!(
        status["proxies"],
        json!({"socks": "127.0.0.1:1080", "http": null})
    );
    assert_eq!(status["forwards"][0]["open"], 2);
    assert_eq!(status["discovery"], "office");
    let ways = [
        ("direct", json!(1)),
        ("relayed", json!(0)),
        ("in_session", json!(0)),
        ("exit", json!("other")),
        ("routes", json!(["192.168.7.0/24", "10.9.0.0/16"])),
        ("wireguard_clients", json!(2)),
        ("wireguard_attached", json!(1)),
        ("founder", json!(true)),
        ("admin", json!(true)),
    ];
    for (name, value) in ways {
        assert_eq!(status["channels"][0][name], value, "{name}");
    }
}

#[test]
fn people_get_text() {
    let fake = Fake::start();
    for (line, expected) in [
        (
            "channel list",
            "CHANNEL  NETWORK       ADDRESS    ADDRESS6  DEVICE   IN TOUCH  MEMBERS\n\
             office   10.77.0.0/16  10.77.0.2  fd00::2   enishi0         2        2\n\
             office: the address moved\n",
        ),
        (
            "ping near -c 2",
            "answer 0: 1.50 ms, direct 192.0.2.1:1\n\
             answer 1: none\n\
             n1: 2 sent, 1 received, 50 % lost\n\
             round trip: min 1.50 ms, mean 1.50 ms, deviation 0.25 ms, 99 % 1.50 ms, max 1.50 ms\n\
             the node: version 0.1.0, load 1.2 % of a core\n",
        ),
        ("dht put k v", "Stored as version 1; 3 nodes hold it.\n"),
        ("dht get k", "v\n"),
        ("invite", "enishi-overlay\n"),
        ("channel invite office", "enishi-office\n"),
        (
            "channel invitations office",
            "INVITATION  USES  ENDS IN  ROLE   CAME BY IT\n\
             abcdefghij   any      0 s  guest  other\n",
        ),
        (
            "channel revoke office abc",
            "Revoked: nobody can join by it any more. Who came by it stays; `enishi channel remove` \
             removes a member.\n",
        ),
        (
            "channel remove office other",
            "other is removed from channel office, which has a new secret; members that are away \
             hear of it when they come back.\n\
             The invitation by which it came is open: whoever has it can come by it with another \
             node. To end it:\n  enishi channel revoke office abcdefghij\n",
        ),
        (
            "channel role office other guest",
            "other is a member with the role guest.\n",
        ),
        (
            "channel admin office other",
            "other is an administrator without a role.\n",
        ),
        (
            "channel allow office --from role:guest --to other --ports tcp/22,icmp",
            "RULE  FROM        TO          PORTS\n   1  role:guest  other (n1)  tcp/22, icmp\n",
        ),
        (
            "channel show office",
            "channel    office (governed)\n\
             network    10.77.0.0/16\n\
             address    10.77.0.2, fd00::2\n\
             device     enishi0\n\
             this node  founder\n\
             charter    version 7, with secret number 2\n\
             rules      1\n\
             members    2 known, in touch with 2, this node included\n\
             \n\
             HOST   ADDRESS    ADDRESS6  NODE  STANDING  ROLE  ROUND TRIP     SENT  RECEIVED  \
             PATH\n\
             other  10.77.0.3  -         n1    member    -        1.50 ms  2.0 KiB       0 B  \
             direct 192.0.2.1:2\n\
             \n\
             the address moved\n",
        ),
        (
            "resolve aki",
            "NAME               ADDRESS    ADDRESS6  NODE\n\
             aki.office.enishi  10.77.0.9  fd00::9   n1\n",
        ),
        (
            "channel offers office",
            "SERVICE     PORT  OFFERED BY         TO KNOW\n\
             _http._tcp  8080  aki.office.enishi  path=/wiki\n",
        ),
        (
            "channel discovery office off",
            "Programs of this host that choose no device do not look for others in channel office.\n",
        ),
        (
            "channel discovery office --lang ja",
            "デバイスを選ばないプログラムは、チャンネル office の中で相手を探します。\n",
        ),
        ("down --lang ja", "デーモンを停止します。\n"),
    ] {
        let output = run(&fake, line);
        assert_eq!(stdout(&output), expected, "{line}");
        assert_eq!(output.status.code(), Some(0), "{line}");
    }
    let output = run(&fake, "channel count office");
    assert_eq!(
        stdout(&output),
        "57 of 60 other members received a message to all.\n"
    );
    assert_eq!(output.status.code(), Some(1));
    let output = run(&fake, "channel leave founded");
    assert!(stderr(&output).contains("--force"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    let output = run(&fake, "status");
    assert!(
        stdout(&output).starts_with("node ") && stdout(&output).contains(" n0\n"),
        "{output:?}"
    );
    for line in [
        "discovery             office\n",
        "proxies               SOCKS 127.0.0.1:1080\n",
        "takes proxy           PROXY proxy.example:3128 (desktop)\n",
        "forwards              2, with 2 connections; 4: the port is taken\n",
        "CHANNEL  STANDING  DIRECT  RELAYED  IN THE SESSION  EXIT   ROUTES                       WIREGUARD\n\
         office   founder        1        0               0  other  192.168.7.0/24, 10.9.0.0/16  1/2\n",
    ] {
        assert!(stdout(&output).contains(line), "{line}{}", stdout(&output));
    }
    let output = run(&fake, "status --lang ja");
    for part in ["プロキシ", "2（接続 2）", "創設者", "出口"] {
        assert!(stdout(&output).contains(part), "{output:?}");
    }
    // The name that another member gives itself must not steer the terminal.
    assert!(!stdout(&run(&fake, "peers")).contains('\u{1b}'));
}

#[test]
fn octets_of_a_value_pass_unchanged() {
    let fake = Fake::start();
    assert_eq!(run(&fake, "dht get octets").stdout, [0xff, 0x00]);
    let value: Vec<u8> = (0..4096_u32).map(|i| i as u8).collect();
    let output = run_with(&fake, "dht put big - --lease 12h", &value);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let request = Request::DhtPut {
        key: "big".to_owned(),
        value,
        lease_s: 43_200,
    };
    assert_eq!(
        fake.requests(),
        [
            Request::DhtGet {
                key: "octets".to_owned()
            },
            request
        ]
    );
}

#[test]
fn a_value_that_is_too_long_is_refused_before_it_is_sent() {
    let fake = Fake::start();
    let output = run_with(&fake, "dht put big -", &[b'x'; 4097]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("4096 octets"), "{output:?}");
    assert_eq!(fake.requests(), []);
}

#[test]
fn passwords_come_from_files_and_standard_input() {
    let fake = Fake::start();
    let file = fake.data().join("password");
    std::fs::write(&file, "縁 secret\n").unwrap();
    let create = format!("channel create office --password-file {}", file.display());
    assert_eq!(run(&fake, &create).status.code(), Some(0));
    let join =
        "channel join --name office --password-file - --network 10.1.0.0/16 --address 10.1.0.9";
    assert_eq!(run_with(&fake, join, b"other").status.code(), Some(0));
    let output = run_with(&fake, "channel join -", b"enishi-office\n");
    assert_eq!(output.status.code(), Some(0));
    let created = ChannelCreate {
        name: "office".to_owned(),
        network: "10.77.0.0/16".to_owned(),
        password: Some("縁 secret".to_owned()),
        address: None,
    };
    let joined = ChannelJoin::Password {
        name: "office".to_owned(),
        password: "other".to_owned(),
        network: "10.1.0.0/16".to_owned(),
        address: Some("10.1.0.9".parse().unwrap()),
    };
    let invited = ChannelJoin::Ticket {
        ticket: "enishi-office".to_owned(),
        address: None,
    };
    let expected = [
        Request::ChannelCreate(created),
        Request::ChannelJoin(joined),
        Request::ChannelJoin(invited),
    ];
    assert_eq!(fake.requests(), expected);

    for line in [
        "channel create office --password-file /nowhere/at/all",
        "channel create office --password-file -",
        "channel join -",
    ] {
        assert_eq!(run(&fake, line).status.code(), Some(2), "{line}");
    }
}

#[test]
fn exit_codes_tell_what_happened() {
    let fake = Fake::start();
    let no = run(&fake, "dht get nothing");
    assert_eq!((no.status.code(), stdout(&no)), (Some(1), ""));
    assert_eq!(stderr(&no), "enishi: There is no value under nothing.\n");
    let (code, object) = json_of(&fake, "dht get nothing");
    let error = json!({"error": {"kind": "no", "message": "There is no value under nothing."}});
    assert_eq!((code, object), (1, error));

    let usage = run(&fake, "channel create bad/name");
    assert_eq!(usage.status.code(), Some(2));
    let (code, object) = json_of(&fake, "make tea");
    assert_eq!((code, &object["error"]["kind"]), (2, &json!("usage")));
    assert_eq!(run(&fake, "make tea").status.code(), Some(2));
    assert_eq!(run(&fake, "").status.code(), Some(2));
    assert_eq!(run(&fake, "--help").status.code(), Some(0));
    assert_eq!(run(&fake, "--version").status.code(), Some(0));
}

#[test]
fn a_daemon_that_is_not_there_is_told_with_the_remedy() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap();
    for command in ["status", "peers", "invite", "down"] {
        let output = enishi(&["--data", path, command]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{command}");
        let remedy = format!("enishi up --data {path}");
        assert!(stderr(&output).contains(&remedy), "{output:?}");
    }
    let output = enishi(&["--json", "status", "--data", path])
        .output()
        .unwrap();
    let object: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(
        (output.status.code(), &object["error"]["kind"]),
        (Some(3), &json!("no_daemon"))
    );
}

#[test]
fn a_daemon_that_answers_nothing_or_nonsense_is_a_failure() {
    let fake = Fake::start();
    let silent = run(&fake, "ping mute");
    assert_eq!(silent.status.code(), Some(1));
    assert!(stderr(&silent).contains("before it answered"), "{silent:?}");
    let strange = run(&fake, "ping strange");
    assert_eq!(strange.status.code(), Some(1));
    assert!(stderr(&strange).contains("another version"), "{strange:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let fake = Fake::start();
    for line in ["ping flood", "completions bash", "--help", "status"] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut child = enishi(&words)
            .env("ENISHI_DATA", fake.data())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.code().is_some(), "{line}: {output:?}");
        assert!(!stderr(&output).contains("panic"), "{line}: {output:?}");
    }
}

#[test]
fn connect_joins_standard_input_and_output_to_a_service() {
    let fake = Fake::start();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7) as u8).collect();
    for line in ["connect 10.77.0.2 echo", "connect --listen echo"] {
        let input = sent.clone();
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut child = enishi(&words)
            .env("ENISHI_DATA", fake.data())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        assert!(
            output.stdout == sent,
            "{line}: {} octets",
            output.stdout.len()
        );
    }
    let refused = run(&fake, "connect 10.77.0.2 nothing");
    assert_eq!((refused.status.code(), stdout(&refused)), (Some(1), ""));
    assert_eq!(stderr(&refused), "enishi: No such service.\n");
}

#[test]
fn what_is_sent_arrives_although_the_other_direction_ended_first() {
    let fake = Fake::start();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7) as u8).collect();
    let output = run_with(&fake, "connect 10.77.0.2 sink", &sent);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), ""));
    assert!(fake.sunk() == sent);
}

#[test]
fn completions_are_a_script() {
    let output = enishi(&["completions", "bash"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("complete -F"));
}

#[test]
fn a_wireguard_configuration_is_alone_on_standard_output() {
    let fake = Fake::start();
    let added = run(&fake, "channel wireguard add office");
    assert_eq!(stdout(&added), "[Interface]\nMTU = 1280\n");
    let said = stderr(&added);
    assert!(said.contains("wireguard remove office phone") && said.contains("no public address"));
    let (code, added) = json_of(&fake, "channel wireguard add office tablet");
    assert_eq!((code, &added["client"]), (0, &json!("tablet")));
    let listed = run(&fake, "channel wireguard list");
    for word in ["phone", "10.77.0.9", "192.0.2.1:4000", "7 s", "2.0 KiB"] {
        assert!(stdout(&listed).contains(word), "{listed:?}");
    }
    let (code, removed) = json_of(&fake, "channel wireguard remove office phone");
    assert_eq!((code, removed), (0, json!({"clients": []})));
}

#[test]
fn passwords_of_turn_come_by_standard_input_and_troubles_are_told() {
    let fake = Fake::start();
    let used = run_with(&fake, "turn use turn:aki@host", b"correct horse\n");
    assert_eq!(used.status.code(), Some(1), "{used:?}");
    let hint = stderr(&used);
    assert!(hint.contains("turn forget turn:aki@host:3478"), "{hint}");
    assert!(hint.contains("refuses name or password (401)"), "{hint}");
    let ask = Request::Turn(TurnAsk::Use {
        url: "turn:aki@host".to_owned(),
        password: Password("correct horse".to_owned()),
    });
    assert_eq!(fake.requests().last(), Some(&ask));
    let told = stdout(&used);
    assert!(told.contains("refuses name or password (401)"), "{told}");
    let used = run_with(&fake, "turn use turn:aki@host --json", b"correct horse\n");
    assert_eq!(used.status.code(), Some(1), "{used:?}");
    assert_eq!(stderr(&used), "");
    let told = run(&fake, "turn show --lang ja");
    assert_eq!(told.status.code(), Some(0));
    assert!(stdout(&told).contains("401"), "{told:?}");
    let added = run(&fake, "turn add yui");
    assert_eq!(stdout(&added), "yui drawn\n");
    assert!(stderr(&added).contains("[turn]"), "{added:?}");
}
