//! A closed overlay of real daemons on loopback, made and joined by the commands that a
//! person types.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod node;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use node::{Node, text, until};

fn gets(node: &Node, key: &str) -> bool {
    node.run(&["dht", "get", key]).success()
}

#[test]
fn an_office_lets_in_whom_it_invites_and_removes_whom_it_revokes() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| Node::new(&dir.path().join(name)));

    let made = a.ask(&["overlay", "create", "office"]);
    let key = PathBuf::from(text(&made["authority_key"]));
    assert!(key.exists() && made["is_authority"] == true);
    a.up(&[]);
    let running = a.fail(&["overlay", "leave"], 1);
    assert!(running.contains("enishi down"), "{running}");

    // Invited and in.
    let invitation = a.ask(&["overlay", "invite", "--uses", "1", "--expires", "1h"]);
    let joined = b.ask(&["overlay", "join", text(&invitation["ticket"])]);
    assert_eq!(joined["is_member"], true);
    assert_eq!(joined["overlay_id"], made["overlay_id"]);
    b.up(&[]);
    until("b has joined", || b.ask(&["status"])["joined"] == true);
    a.ask(&["dht", "put", "greeting", "from a"]);
    assert_eq!(b.ask(&["dht", "get", "greeting"])["value"], "from a");
    assert_eq!(a.ask(&["overlay", "show"])["gate"]["admitted"], 1);
    let only = b.fail(&["overlay", "invite"], 1);
    assert!(only.contains("authority"), "{only}");

    // Not invited: a plain invitation names the nodes and the overlay, and does not help.
    let plain = a.ask(&["invite"]);
    let open = c.fail(&["up", "--bootstrap", text(&plain["ticket"])], 2);
    assert!(open.contains("another overlay"), "{open}");
    let other = c.ask(&["overlay", "create", "office"]);
    assert_ne!(other["overlay_id"], made["overlay_id"]);
    c.ask(&["overlay", "leave"]);
    // A copy of the membership file with another identity has the right overlay id.
    std::fs::copy(a.data.join("overlay.member"), c.data.join("overlay.member")).unwrap();
    c.up(&["--bootstrap", text(&plain["ticket"])]);
    let refused = || a.ask(&["overlay", "show"])["gate"]["proofs_refused"].clone();
    until("a has refused c", || refused().as_u64() > Some(0));
    assert_eq!(c.ask(&["status"])["joined"], false);
    assert!(!gets(&c, "greeting"), "it reads nothing");
    assert_eq!(c.ask(&["overlay", "show"])["is_member"], false);
    let c_id = c.ask(&["status"])["node_id"].clone();
    let peers = a.ask(&["peers"])["peers"].clone();
    let mut shown = peers.as_array().unwrap().iter();
    // A session is all it can have: it tries again and again.
    let known = shown.find(|peer| peer["node_id"] == c_id && peer["role"] != "session");
    assert_eq!(known, None);

    // Removed and out.
    let b_id = b.ask(&["status"])["node_id"].clone();
    let shown = a.ask(&["overlay", "revoke", text(&b_id)]);
    assert_eq!(shown["gate"]["revoked"], serde_json::json!([b_id]));
    until("a has dropped b", || {
        a.ask(&["overlay", "show"])["gate"]["admitted"] == 0
    });
    a.ask(&["dht", "put", "later", "not for b"]);
    // It tries to come back at once, and every second.
    thread::sleep(Duration::from_secs(3));
    assert!(!gets(&b, "later"), "b is out");
    assert_eq!(a.ask(&["overlay", "show"])["gate"]["admitted"], 0);
}

#[test]
fn the_simple_form_needs_one_secret() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|name| Node::new(&dir.path().join(name)));
    a.ask(&["overlay", "create", "club", "--secret"]);
    a.up(&[]);
    let counted = a.fail(&["overlay", "invite", "--uses", "2"], 2);
    assert!(counted.contains("secret"), "{counted}");
    let invitation = a.ask(&["overlay", "invite"]);
    b.ask(&["overlay", "join", text(&invitation["ticket"])]);
    // The membership counts for more than the configuration, and says so.
    std::fs::write(b.data.join("config.toml"), "overlay = \"elsewhere\"").unwrap();
    b.up(&[]);
    until("b has joined", || b.ask(&["status"])["joined"] == true);
    let notices = b.ask(&["status"])["notices"].to_string();
    assert!(notices.contains("elsewhere") && notices.contains("club"));
    let notices = a.ask(&["status"])["notices"].to_string();
    assert!(!notices.contains("no effect"), "{notices}");
    assert!(a.run(&["overlay", "show"]).success());
    let never = a.fail(&["overlay", "revoke", "abc"], 2);
    assert!(never.contains("secret"), "{never}");
}

#[test]
fn who_makes_a_mistake_with_a_gateway_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let [open, secret, member, gateway] =
        ["open", "secret", "member", "gateway"].map(|name| Node::new(&dir.path().join(name)));
    let id = "a".repeat(52);
    let consent = |words: &[&str]| -> Vec<String> {
        let usual = [
            "gateway",
            "consent",
            "--node",
            &id,
            "--other",
            &id,
            "--channel",
            "c",
        ];
        [&usual, words]
            .concat()
            .iter()
            .map(|&word| word.to_owned())
            .collect()
    };
    let fail = |node: &Node, words: &[String], code: i32, part: &str| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = node.fail(&words, code);
        assert!(said.contains(part), "{words:?}: {said}");
    };
    let out = consent(&["--out", "wiki=8080"]);
    fail(&open, &out, 1, "in no closed overlay");
    secret.ask(&["overlay", "create", "club", "--secret"]);
    fail(&secret, &out, 1, "authority");
    let made = member.ask(&["overlay", "create", "office"]);
    fail(&member, &consent(&[]), 2, "one of all these at least");
    fail(
        &member,
        &consent(&["--in", "wiki=ben:80"]),
        1,
        "whole node id",
    );
    let short = [
        "gateway",
        "consent",
        "--node",
        "abc",
        "--other",
        &id,
        "--channel",
        "c",
    ];
    let said = member.fail(&[&short[..], &["--out", "w=1"]].concat(), 2);
    assert!(said.contains("--node takes a whole id"), "{said}");

    let words: Vec<&str> = out.iter().map(String::as_str).collect();
    let signed = member.ask(&words);
    assert_eq!(signed["overlay_id"], made["overlay_id"]);
    let told = gateway.ask(&["gateway", "read", text(&signed["consent"])]);
    assert_eq!(told, signed);
    let said = gateway.fail(&["gateway", "read", "enishi1abc"], 2);
    assert!(said.contains("enishiconsent1"), "{said}");
    let accept = ["gateway", "accept", "--side", member.data.to_str().unwrap()];
    let said = gateway.fail(&[&accept[..], &[text(&signed["consent"])]].concat(), 1);
    assert!(said.contains("gateway consent --node"), "{said}");
    let said = gateway.fail(&["gateway", "show"], 1);
    assert!(
        said.contains("0 of 2") && said.contains("gateway accept"),
        "{said}"
    );
    let said = gateway.fail(&["gateway", "forget", "abc"], 1);
    assert!(said.contains("abc"), "{said}");
    let said = gateway
        .run(&["gateway", "audit", "--verify", "--lang", "ja"])
        .stdout;
    assert!(said.contains("監査ログはまだありません"), "{said}");
    assert_eq!(gateway.exit_code(&["gateway", "list"]), 3);
}
