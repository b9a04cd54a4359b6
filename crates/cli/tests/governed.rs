//! Governed channels on loopback, by the commands that people type: invitations, removal, roles
//! and rules, and who may not do what.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod node;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use node::{Node, PROGRAM, text, until};

/// Nodes of one overlay; the first one has founded a channel.
struct Office {
    directory: TempDir,
    nodes: Vec<Node>,
    bootstrap: String,
}

impl Office {
    fn found(size: usize) -> Self {
        let mut office = Self {
            directory: tempfile::tempdir().unwrap(),
            nodes: Vec::new(),
            bootstrap: String::new(),
        };
        (0..size).for_each(|_| office.start());
        office.json(0, &["channel", "create", "office"]);
        office
    }

    fn start(&mut self) {
        let number = self.nodes.len();
        let data = self.directory.path().join(format!("n{number}"));
        let bootstrap = ["--bootstrap", &self.bootstrap];
        let bootstrap = if number == 0 { &[] } else { &bootstrap[..] };
        let node = Node::start(&data, bootstrap);
        if number == 0 {
            self.bootstrap = text(&node.ask(&["invite"])["ticket"]).to_owned();
        }
        self.nodes.push(node);
    }

    /// Runs a command that is to succeed.
    fn json(&self, at: usize, words: &[&str]) -> Value {
        self.nodes[at].ask(words)
    }

    /// Runs a command that is to fail, and tells a word of why.
    fn fails(&self, at: usize, words: &[&str], code: i32, word: &str) {
        let said = self.nodes[at].fail(words, code);
        assert!(said.contains(word), "{words:?}: {word:?} in {said}");
    }

    fn invite(&self, at: usize, options: &[&str]) -> Value {
        self.json(at, &[&["channel", "invite", "office"], options].concat())
    }

    fn join(&self, at: usize, invitation: &Value) {
        self.json(at, &["channel", "join", text(&invitation["ticket"])]);
    }

    fn id(&self, at: usize) -> String {
        self.nodes[at].id()
    }

    fn show(&self, at: usize) -> Value {
        self.json(at, &["channel", "show", "office"])
    }

    /// Whether one node speaks with another as with a member: nobody listens there, and it says
    /// so to members alone.
    fn reaches(&self, from: usize, to: usize) -> bool {
        let words = ["connect", &self.id(to), "nobody"];
        self.nodes[from]
            .run(&words)
            .stderr
            .contains("Nobody listens")
    }

    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        until(what, || holds(self));
    }

    /// Opens a stream from the third node to the second; their ends once it carries something.
    fn talk(&self) -> [Talk; 2] {
        let heard = self.directory.path().join("heard");
        let listener = Talk::begin(&self.nodes[1], &["connect", "--listen", "talk"], &heard);
        let connect = || {
            let words = ["connect", &self.id(1), "talk"];
            Talk::begin(&self.nodes[2], &words, Path::new("/dev/null"))
        };
        let mut connector = connect();
        until("the stream carries what is said", || {
            if !connector.says("hello") {
                // Nobody tells when the other side has begun to listen.
                connector = connect();
            }
            std::fs::read_to_string(&heard).is_ok_and(|heard| heard.contains("hello"))
        });
        [listener, connector]
    }

    /// Sends a signal to a daemon.
    fn signal(&mut self, at: usize, signal: &str) {
        let id = self.nodes[at].daemon().process().id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
    }

    fn members(&self, at: usize) -> Vec<String> {
        let show = self.show(at);
        let members = show["member_list"].as_array().unwrap().iter();
        members
            .map(|member| text(&member["node_id"]).to_owned())
            .collect()
    }

    fn member(&self, at: usize, node: usize) -> Value {
        let id = self.id(node);
        let show = self.show(at);
        let mut members = show["member_list"].as_array().unwrap().iter();
        members
            .find(|member| member["node_id"] == *id)
            .unwrap()
            .clone()
    }
}

/// A stream between members that is kept open: `enishi connect`, and somebody who types.
struct Talk {
    program: Child,
    input: ChildStdin,
}

impl Talk {
    fn begin(node: &Node, words: &[&str], heard: &Path) -> Self {
        let mut program = Command::new(PROGRAM);
        program.arg("--data").arg(&node.data).args(words);
        let heard = File::create(heard).unwrap();
        let mut program = program.stdin(Stdio::piped()).stdout(heard).spawn().unwrap();
        let input = program.stdin.take().unwrap();
        Self { program, input }
    }

    /// Says something; tells whether the stream is still there.
    fn says(&mut self, words: &str) -> bool {
        // Nobody reads it any more where the stream has ended.
        let _ = self.input.write_all(words.as_bytes());
        self.program.try_wait().unwrap().is_none()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn an_invitation_lets_in_whom_it_is_for_and_ends() {
    let office = Office::found(4);
    let single = office.invite(0, &[]);
    assert_eq!(
        (&single["uses"], &single["stored"]),
        (&json!(1), &json!(true))
    );
    office.join(1, &single);
    let ticket = text(&single["ticket"]);
    office.fails(2, &["channel", "join", ticket], 1, "used by others already");
    assert_eq!(office.json(2, &["channel", "list"])["channels"], json!([]));

    let revoked = office.invite(0, &["--uses", "any"]);
    let name = text(&revoked["invitation"]).to_owned();
    office.join(2, &revoked);
    let open = office.json(0, &["channel", "invitations", "office"]);
    let names: Vec<&Value> = open["invitations"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2, "{open}");
    assert_eq!(names[1]["invitation"], *name);
    // Who is not known to have come by it is not kept.
    office.wait("the founder knows who came", |office| {
        office.members(0).contains(&office.id(2))
    });
    let left = office.json(0, &["channel", "revoke", "office", &name[..8]]);
    assert_eq!(left["invitations"].as_array().unwrap().len(), 1);
    let ticket = text(&revoked["ticket"]);
    office.fails(3, &["channel", "join", ticket], 1, "revoked");
    office.fails(0, &["channel", "revoke", "office", ticket], 1, "before");
    office.fails(
        0,
        &["channel", "revoke", "office", "zzz"],
        1,
        "No invitation",
    );
    // Who came by it stays, and there is a new secret.
    office.wait("the others have the new secret", |office| {
        [1, 2].iter().all(|at| office.show(*at)["epoch"] == 2)
    });
    office.wait("who came stays", |office| office.reaches(1, 2));

    let short = office.invite(0, &["--expires", "1s", "--uses", "any"]);
    // Past its time.
    std::thread::sleep(Duration::from_secs(2));
    office.nodes[3].fail(&["channel", "join", text(&short["ticket"])], 1);
}

#[test]
fn an_invitation_for_three_lets_in_three() {
    let office = Office::found(5);
    let for_three = office.invite(0, &["--uses", "3"]);
    assert_eq!(for_three["uses"], 3);
    (1..4).for_each(|at| office.join(at, &for_three));
    let join = ["channel", "join", text(&for_three["ticket"])];
    office.fails(4, &join, 1, "used by others already");
    assert_eq!(office.json(4, &["channel", "list"])["channels"], json!([]));
    // Who came by it stays.
    office.wait("the founder sees three", |office| {
        (1..4).all(|at| office.members(0).contains(&office.id(at)))
    });
}

#[test]
fn a_removed_member_is_shut_out_and_the_others_go_on() {
    let office = Office::found(4);
    let invitation = office.invite(0, &["--uses", "any"]);
    (1..4).for_each(|at| office.join(at, &invitation));
    office.wait("all reach each other", |office| {
        office.reaches(3, 1) && office.reaches(1, 2) && office.reaches(3, 0)
    });
    let gone = office.id(3);
    let removal = office.json(0, &["channel", "remove", "office", &gone[..10]]);
    assert_eq!(
        (&removal["node_id"], &removal["epoch"]),
        (&json!(gone), &json!(2))
    );
    assert_eq!(
        removal["invitation"], invitation["invitation"],
        "it is still open"
    );
    office.wait("the removed member reaches nobody", |office| {
        !office.reaches(3, 1) && !office.reaches(3, 0)
    });
    office.wait("the others have the new secret", |office| {
        [1, 2].iter().all(|at| office.show(*at)["epoch"] == 2)
    });
    assert!(office.reaches(1, 2) && office.reaches(2, 0));
    for at in 0..3 {
        assert!(!office.members(at).contains(&gone), "{at}");
    }
    office.wait("it hears of it", |office| {
        office.show(3)["notice"]
            .as_str()
            .is_some_and(|notice| notice.contains("removed"))
    });
    office.fails(0, &["channel", "remove", "office", &gone], 1, "before");
    // It can leave, and not come back.
    office.json(3, &["channel", "leave", "office"]);
    let ticket = invitation["ticket"].as_str().unwrap();
    office.fails(3, &["channel", "join", ticket], 1, "removed this node");
    assert!(!office.reaches(3, 1));
    assert_eq!(office.json(3, &["channel", "list"])["channels"], json!([]));
    let status = || office.json(1, &["status"])["channels"][0].clone();
    assert_eq!(status()["form"], "governed");
    until("the others are there", || {
        status()["online"].as_u64() >= Some(2)
    });
}

#[test]
fn a_founder_leaves_only_if_it_insists() {
    let mut office = Office::found(2);
    office.join(1, &office.invite(0, &[]));
    let leave = ["channel", "leave", "office"];
    office.fails(0, &leave, 1, "channel leave office --force");
    office.fails(0, &[&leave[..], &["--lang", "ja"]].concat(), 1, "創設者");
    let request = json!({"request": "channel_leave", "name": "office"});
    let refusal = office.nodes[0].daemon().ask(&request).unwrap_err();
    assert!(
        format!("{refusal:#}").contains("has founded"),
        "{refusal:#}"
    );
    assert_eq!(office.show(0)["founder"], true);
    office.json(1, &leave);
    office.json(0, &[&leave[..], &["--force"]].concat());
    assert_eq!(office.json(0, &["channel", "list"])["channels"], json!([]));
}

#[test]
fn a_message_to_all_is_counted() {
    let mut office = Office::found(4);
    let count = ["channel", "count", "office"];
    let invitation = office.invite(0, &["--uses", "any"]);
    (1..4).for_each(|at| office.join(at, &invitation));
    office.wait("everybody receives", |office| {
        let counted = office.nodes[2].run(&count);
        counted.success() && counted.stdout.starts_with("3 of 3 other members")
    });
    // One that does not answer is not counted; it is among the members as long as it is missed.
    office.nodes[3].kill();
    office.wait("one receives nothing", |office| {
        let counted = office.nodes[2].run(&[&count[..], &["--json"]].concat());
        let told: Value = serde_json::from_str(&counted.stdout).unwrap();
        assert_eq!(counted.success(), told["received"] == told["members"]);
        told["received"] == 2
    });
    office.fails(0, &["channel", "count", "other"], 1, "no channel called");
}

#[test]
fn roles_and_rules_are_said_by_administrators_alone() {
    let office = Office::found(3);
    let to_guests = office.invite(0, &["--role", "guest"]);
    office.join(1, &to_guests);
    office.join(2, &office.invite(0, &[]));
    let [admin, guest] = [2, 1].map(|at| office.id(at));
    assert_eq!(office.member(0, 1)["role"], "guest");
    let none = office.json(0, &["channel", "role", "office", &guest, "--none"]);
    assert_eq!(none["role"], Value::Null);
    let again = office.json(0, &["channel", "role", "office", &guest, "visitor"]);
    assert_eq!(again["role"], "visitor");
    office.fails(
        0,
        &["channel", "role", "office", &guest, "A b"],
        2,
        "small letters",
    );

    office.fails(
        2,
        &["channel", "remove", "office", &guest],
        1,
        "Only administrators",
    );
    office.fails(
        2,
        &["channel", "invite", "office"],
        1,
        "Only administrators",
    );
    let appointed = office.json(0, &["channel", "admin", "office", &admin]);
    assert_eq!(appointed["admin"], true);
    office.wait("it hears of it", |office| office.show(2)["admin"] == true);
    office.fails(
        2,
        &["channel", "admin", "office", &guest],
        1,
        "Only the founder",
    );
    let founder = office.id(0);
    office.fails(2, &["channel", "remove", "office", &founder], 1, "founder");

    let rule = [
        "--from",
        "role:visitor",
        "--to",
        &admin[..12],
        "--ports",
        "tcp/22,icmp",
    ];
    let rules = office.json(2, &[&["channel", "allow", "office"], &rule[..]].concat());
    assert_eq!(rules["rules"][0]["to"], admin);
    assert_eq!(rules["rules"][0]["ports"], json!(["tcp/22", "icmp"]));
    office.wait("all know the rule", |office| {
        [0, 1].iter().all(|at| office.show(*at)["rules"] == 1)
    });
    let anything = [
        "channel",
        "allow",
        "office",
        "--from",
        "*",
        "--to",
        "net:10.9.0.0/16",
    ];
    assert_eq!(office.json(0, &anything)["rules"][1]["ports"], json!([]));
    let left = office.json(0, &["channel", "disallow", "office", "1"]);
    assert_eq!(left["rules"][0]["to"], "net:10.9.0.0/16");
    office.fails(0, &["channel", "disallow", "office", "2"], 1, "no rule 2");
    for (from, to, ports, word) in [
        ("net:10.0.0.0/8", "*", "tcp", "--to"),
        ("*", "role:Big", "tcp", "role:NAME"),
        ("*", "*", "tcp/0-x", "icmp"),
    ] {
        let words = [
            "channel", "allow", "office", "--from", from, "--to", to, "--ports", ports,
        ];
        office.fails(0, &words, 2, word);
    }
    let nobody = ["channel", "allow", "office", "--from", "zz9", "--to", "*"];
    office.fails(0, &nobody, 1, "No known member");

    office.json(0, &["channel", "admin", "office", &admin, "--no"]);
    office.wait("it is none any more", |office| {
        office.show(2)["admin"] == false
    });
    office.fails(
        2,
        &["channel", "disallow", "office", "1"],
        1,
        "Only administrators",
    );
}

#[test]
fn streams_follow_the_rules() {
    let mut office = Office::found(3);
    let invitation = office.invite(0, &["--uses", "any"]);
    (1..3).for_each(|at| office.join(at, &invitation));
    office.wait("they reach each other", |office| {
        office.reaches(0, 1) && office.reaches(1, 2) && office.reaches(2, 1)
    });
    let [one, two] = [1, 2].map(|at| office.id(at));
    let rule = ["--from", &two, "--to", &one];
    let allow = [&["channel", "allow", "office"], &rule[..]].concat();
    // A port is not enough for what has none.
    let by_port = [&allow[..], &["--ports", "tcp"]].concat();
    let disallow = ["channel", "disallow", "office", "1"];
    let known = |office: &Office, rules: u32| {
        office.wait("all know the rules", |office| {
            [1, 2].iter().all(|at| office.show(*at)["rules"] == rules)
        });
    };

    // Each end breaks off what is open by itself: the other one can do nothing. That must not be
    // because it is given up for dead, for which the session to it has to be there still.
    for (here, there) in [(1, 2), (2, 1)] {
        until("a stream breaks off by the rules", || {
            let mut ends = office.talk();
            let id = office.id(there);
            office.signal(there, "-STOP");
            office.json(0, &by_port);
            until("it breaks off here", || !ends[here - 1].says("."));
            let peers = office.json(here, &["peers"]);
            let mut peers = peers["peers"].as_array().unwrap().iter();
            let in_session = peers.any(|peer| peer["node_id"] == *id && peer["connected"] == true);
            office.signal(there, "-CONT");
            until("it breaks off there", || !ends[there - 1].says("."));
            office.json(0, &disallow);
            known(&office, 0);
            in_session
        });
    }

    office.json(0, &by_port);
    known(&office, 1);
    for (from, to) in [(2, &one), (0, &one), (1, &two)] {
        office.fails(from, &["connect", to, "nobody"], 1, "a rule without ports");
    }
    office.json(0, &allow);
    office.wait("what the rule names may be begun", |office| {
        office.reaches(2, 1)
    });
    office.fails(1, &["connect", &two, "nobody"], 1, "do not allow");
    (0..2).for_each(|_| drop(office.json(0, &disallow)));
    office.wait("everything may be begun", |office| office.reaches(1, 2));
}

#[test]
fn a_channel_is_shown_as_text_and_as_a_drawing() {
    let office = Office::found(2);
    office.join(1, &office.invite(0, &[]));
    office.wait("they reach each other", |office| office.reaches(0, 1));
    let other = office.member(0, 1);
    assert!(
        text(&other["path"]).contains("direct 127.0.0.1:"),
        "{other}"
    );
    assert!(other["rtt_ms"].as_f64() > Some(0.0), "{other}");
    let me = office.member(0, 0);
    assert_eq!(
        (&me["path"], &me["founder"]),
        (&json!("self"), &json!(true))
    );
    let shown = |options: &[&str]| {
        let show = ["channel", "show", "office"];
        let output = office.nodes[0].run(&[&show, options].concat());
        assert!(output.success(), "{}", output.stderr);
        output.stdout
    };
    let table = shown(&[]);
    for part in ["office (governed)", "founder", "PATH", "direct 127.0.0.1:"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(shown(&["--lang", "ja"]).contains("創設者"));
    let drawing = shown(&["--svg", "-"]);
    assert!(
        drawing.starts_with("<svg") && drawing.contains("</title></path>"),
        "{drawing}"
    );
}

#[test]
fn what_a_channel_of_a_secret_cannot_do_is_told() {
    let office = Office::found(1);
    let password = office.directory.path().join("password");
    std::fs::write(&password, "correct horse\n").unwrap();
    let words = [
        "channel",
        "create",
        "home",
        "--network",
        "10.78.0.0/16",
        "--password-file",
    ];
    office.json(0, &[&words[..], &[password.to_str().unwrap()]].concat());
    let invitation = office.json(0, &["channel", "invite", "home"]);
    assert_eq!(
        (&invitation["invitation"], &invitation["uses"]),
        (&Value::Null, &Value::Null)
    );
    for words in [
        &["invite", "home", "--uses", "1"][..],
        &["invite", "home", "--role", "guest"],
        &["invitations", "home"],
        &["remove", "home", "abc"],
        &["rules", "home"],
    ] {
        office.fails(0, &[&["channel"], words].concat(), 2, "rests on a secret");
    }
    office.fails(0, &["channel", "show", "nothing"], 1, "in no channel");
}
