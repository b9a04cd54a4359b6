//! `trace`, `doctor` and `overlay map` as people and scripts meet them, before a node that
//! is played by the test.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]
#![allow(dead_code, reason = "the fake node has more than this file needs")]

mod fake;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use fake::Fake;

fn run(data: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enishi"));
    for name in ["LC_ALL", "LC_MESSAGES", "LANG"] {
        command.env_remove(name);
    }
    command
        .args(line.split_whitespace())
        .env("ENISHI_DATA", data)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(output: &[u8]) -> &str {
    std::str::from_utf8(output).unwrap()
}

fn json_of(data: &Path, line: &str) -> (i32, Value) {
    let output = run(data, &format!("{line} --json"));
    assert_eq!(text(&output.stderr), "", "{line}");
    let object = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), object)
}

#[test]
fn a_route_is_a_table_that_tells_declined_from_lost() {
    let fake = Fake::start();
    let output = run(fake.data(), "trace greeting --key");
    let expected = "\
HOP  NODE     STATE      ROUND TRIP      MEAN   LOSS  VERSION   LOAD  TO THE NEXT  PATH
  1  n2       reports       2.00 ms   2.50 ms    0 %  0.1.0    1.2 %  direct       direct 192.0.2.1:1
  2  n3       lost                -         -  100 %  -            -  -            direct 192.0.2.2:1
  2  n4       declined            -         -    0 %  -            -  -            direct 192.0.2.2:1
  3  unknown  declined            -         -    0 %  -            -  -            direct 192.0.2.3:1
  5  n6       in charge    10.00 ms  10.50 ms    0 %  0.1.0    1.2 %  -            direct 192.0.2.5:1

3 of 3 probes were answered, by n6.

1 of the 4 nodes nearest to the key hold it:
HOLDER  HOLDS
n6      version 7, its owner last heard 12 s ago
n7      the mark of a removal
n8      nothing
n9      no answer
";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(0));

    let output = run(fake.data(), "trace silent --probes 1 --lang ja");
    let expected = "\
ホップ  ノード  状態      往復時間     平均   損失  バージョン   負荷  次への経路  経路
     1  n2      報告あり   2.00 ms  2.50 ms    0 %  0.1.0       1.2 %  直接        direct 192.0.2.1:1
     2  n3      応答なし         -        -  100 %  -               -  -           direct 192.0.2.2:1
";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_route_has_a_form_for_scripts() {
    let fake = Fake::start();
    let (code, route) = json_of(fake.data(), "trace key:greeting --probes 2");
    assert_eq!(
        (code, &route["probes"], &route["answered"]),
        (0, &json!(2), &json!(2))
    );
    assert_eq!(route["hops"][1]["state"], "lost");
    assert_eq!(route["hops"][2]["state"], "declined");
    assert_eq!(
        route["hops"][0],
        json!({"place": 1, "node_id": "n2", "state": "reported", "sent": 3, "received": 3,
               "rtt_ms": 2.0, "rtt_ms_avg": 2.5, "path": "direct 192.0.2.1:1",
               "next_path": "direct",
               "remote": {"version": "0.1.0", "load_per_mille": 12, "class": null}})
    );
    assert_eq!(
        route["holders"][0],
        json!({"node_id": "n6", "held": "value", "seq": 7, "age_s": 12})
    );
    let (code, route) = json_of(fake.data(), "trace silent");
    assert_eq!((code, &route["complete"]), (1, &json!(false)));
}

#[test]
fn a_doctor_says_what_is_wrong_and_what_to_do() {
    let fake = Fake::start();
    let output = run(fake.data(), "doctor");
    let expected = "\
ok       daemon                it runs and answers
ok       data directory        /data can be written; 1.5 GiB free
warning  addresses             10.0.0.1:9; peers see it at 192.0.2.9:9 (2 peers); the router \
maps no ports on request
         -> The node is behind a NAT: others reach it once it has dialled them. If it is to be \
dialled by anybody, forward the UDP port on the router.
problem  storage               a value could not be stored in the overlay
         -> Too few of the nodes in charge answer, or they have no room. See the checks of \
neighbours and position; try again in a minute.

2 well, 1 warning and 1 problem.
";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(1));

    let (code, object) = json_of(fake.data(), "doctor");
    assert_eq!(
        (code, &object["problems"], &object["ok"]),
        (1, &json!(1), &json!(2))
    );
    assert_eq!(object["checks"][3]["check"], "values");
    assert_eq!(object["checks"][3]["failed"], "put");
    assert_eq!(object["checks"][3]["outcome"], "problem");
    assert!(object["checks"][3]["advice"].is_string());

    let output = run(fake.data(), "doctor --lang ja");
    assert!(text(&output.stdout).contains("問題  保存"), "{output:?}");
}

#[test]
fn a_doctor_without_a_daemon_is_a_problem_and_not_an_accident() {
    let data = tempfile::tempdir().unwrap();
    let output = run(data.path(), "doctor");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.starts_with("problem  daemon"), "{said}");
    assert!(said.contains("enishi up --data"), "{said}");
    let (code, object) = json_of(data.path(), "doctor");
    assert_eq!(
        (code, &object["checks"][0]["outcome"]),
        (1, &json!("problem"))
    );
}

#[test]
fn the_ring_is_a_table_or_a_drawing() {
    let fake = Fake::start();
    let output = run(fake.data(), "overlay map");
    let expected = "\
3 nodes known, about 3 in the overlay

POSITION          NODE  ROLE               CLASS  ROUND TRIP  PATH
0000000000000000  n0    this node          -               -  direct
4000000000000000  n1    near neighbour     -         1.50 ms  direct
8000000000000000  n2    known from a peer  -               -  direct
";
    assert_eq!(text(&output.stdout), expected);
    let (code, map) = json_of(fake.data(), "overlay map");
    assert_eq!((code, &map["nodes"][1]["role"]), (0, &json!("near")));

    let file = fake.data().join("ring.svg");
    let line = format!("overlay map --svg {}", file.display());
    let output = run(fake.data(), &line);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let drawing = std::fs::read_to_string(&file).unwrap();
    assert!(drawing.starts_with("<svg ") && drawing.contains("</title></circle>"));
    assert_eq!(
        text(&run(fake.data(), "overlay map --svg -").stdout),
        drawing
    );
    let refused = run(fake.data(), "overlay map --svg /nowhere/at/all");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--svg"), "{refused:?}");
}

#[test]
fn what_paths_agree_on_is_told_with_what_to_do() {
    let fake = Fake::start();
    let output = run(fake.data(), "verify n1");
    let expected = "\
Confirmed: the node with this id is where its id puts it, and proved its key there.

node           n1
paths          none needed: this node knows all nodes of the overlay
nodes asked    41
nodes near it  as close as elsewhere
nearest        n6
               n7
";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!((text(&output.stderr), output.status.code()), ("", Some(0)));

    let output = run(fake.data(), "verify greeting --key --paths 4");
    let expected = "\
Disputed: somebody shows a record, but most of the nodes in charge do not.

key            greeting
paths          3 of 8 agree
nodes asked    41
record         version 7, which 3 nodes show
owner          o1
nodes near it  unnaturally close to it, or far from it
nearest        n6
               n7
";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("telephone") && said.contains("surround"),
        "{said}"
    );

    let output = run(fake.data(), "verify n9 --lang ja");
    assert!(
        text(&output.stdout).starts_with("見つかりません"),
        "{output:?}"
    );
    assert!(text(&output.stderr).contains("enishi ping"), "{output:?}");
    let (code, told) = json_of(fake.data(), "verify key:greeting");
    assert_eq!(
        (code, &told["verdict"], &told["key"]),
        (1, &json!("disputed"), &json!("greeting"))
    );
    assert_eq!(
        told["record"],
        json!({ "owner": "o1", "seq": 7, "holders": 3 })
    );
    assert_eq!(
        run(fake.data(), "verify n1 --paths 9").status.code(),
        Some(2)
    );
}
