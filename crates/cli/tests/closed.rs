//! A closed overlay of real daemons on loopback, made and joined by the commands that a
//! person types.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");

/// How long anything here may take.
const TIME_MAX: Duration = Duration::from_secs(60);

struct Node {
    data: PathBuf,
    daemon: Option<Child>,
}

impl Node {
    fn new(dir: &Path, name: &str) -> Self {
        Self {
            data: dir.join(name),
            daemon: None,
        }
    }

    fn up(&mut self, more: &[&str]) {
        let log = File::create(self.data.with_extension("log")).unwrap();
        let words = ["up", "--no-tun", "--listen", "127.0.0.1:0"];
        let mut command = self.command(&[&words, more].concat());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.daemon = Some(child);
        until("the daemon answers", || {
            self.run(&["status"]).status.success()
        });
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--data").arg(&self.data).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed and returns its JSON.
    fn ask(&self, words: &[&str]) -> Value {
        let output = self.run(&[words, &["--json"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{words:?}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Runs a command that must fail and returns what it says.
    fn fail(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        text
    }

    fn gets(&self, key: &str) -> bool {
        self.run(&["dht", "get", key]).status.success()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < TIME_MAX, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn an_office_lets_in_whom_it_invites_and_removes_whom_it_revokes() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| Node::new(dir.path(), name));

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
    assert!(!c.gets("greeting"), "it reads nothing");
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
    thread::sleep(Duration::from_secs(3));
    assert!(!b.gets("later"), "b is out");
    assert_eq!(a.ask(&["overlay", "show"])["gate"]["admitted"], 0);
}

#[test]
fn the_simple_form_needs_one_secret() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|name| Node::new(dir.path(), name));
    a.ask(&["overlay", "create", "club", "--secret"]);
    a.up(&[]);
    let counted = a.fail(&["overlay", "invite", "--uses", "2"], 2);
    assert!(counted.contains("secret"), "{counted}");
    let invitation = a.ask(&["overlay", "invite"]);
    b.ask(&["overlay", "join", text(&invitation["ticket"])]);
    b.up(&[]);
    until("b has joined", || b.ask(&["status"])["joined"] == true);
    assert!(a.run(&["overlay", "show"]).status.success());
    let never = a.fail(&["overlay", "revoke", "abc"], 2);
    assert!(never.contains("secret"), "{never}");
}
