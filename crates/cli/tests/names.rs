//! Names of hosts, looked up by programs that we did not write, and the system's resolver
//! after every kind of end. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::fs;
use std::path::{Path, PathBuf};

use enishi_lab::{Daemon, Host, Lab, until};
use serde_json::Value;

use office::{A_WHILE, Office, PROGRAM, ping, shell};

/// What each host's resolver is told before Enishi comes.
const RESOLV_CONF: &str = "# by hand\nnameserver 127.0.0.1\noptions timeout:2 attempts:2\n";

/// A DNS server that has the same answer to every question.
const SERVER: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
while True:
    q, who = s.recvfrom(4096)
    end = q.index(b"\0", 12) + 5
    a = q[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, 1, 0, 0) + q[12:end]
    s.sendto(a + b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 80]), who)
"#;

/// An office whose hosts call themselves by these names, with resolvers of their own; none
/// without root.
fn open(prefix: &str, names: &[&str]) -> Option<Office> {
    let programs = [
        ("dig", "bind9-dnsutils"),
        ("python3", "python3-minimal"),
        ("ping", "iputils-ping"),
    ];
    let mut office = Office::open(prefix, &programs)?;
    for name in names {
        let number = office.add_host();
        let host = &office.hosts[number];
        host.set_etc("resolv.conf", RESOLV_CONF).unwrap();
        host.set_etc("nsswitch.conf", "hosts: files dns\n").unwrap();
        fs::write(office.config(number), format!("host_name = \"{name}\"\n")).unwrap();
        office.employ(number, Path::new(PROGRAM), &[]);
    }
    Some(office)
}

/// Where a host's `/etc/resolv.conf` is for all others (ip-netns(8)).
fn resolver_of(host: &Host) -> PathBuf {
    PathBuf::from(format!("/etc/netns/{}/resolv.conf", host.namespace()))
}

impl Office {
    /// What a program printed, without what it failed with.
    fn printed(&self, number: usize, words: &[&str]) -> String {
        self.run(number, words).stdout
    }

    /// Looks a name or an address up as programs do; waits for an answer.
    fn look_up(&self, number: usize, database: &str, key: &str) -> String {
        let mut found = String::new();
        until(A_WHILE, "a name is found", || {
            found = self.printed(number, &["getent", database, key]);
            Ok(!found.is_empty())
        })
        .unwrap_or_else(|error| panic!("{error}: {key}: {}", self.daemons[number].log()));
        found
    }

    /// The names of the channel's hosts once so many are known, by address.
    fn names(&self, number: usize, count: usize) -> Vec<(String, String, String)> {
        let mut names = Vec::new();
        until(A_WHILE, "all hosts have names", || {
            let answer = self.daemons[number].json(&["channel", "names", "office"])?;
            let hosts = answer["names"].as_array().unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let name = |host: &Value| {
                let [four, six] = [0, 1].map(|number| text(&host["addresses"][number]));
                (text(&host["name"]), four, six)
            };
            names = hosts.iter().map(name).collect();
            Ok(names.len() == count)
        })
        .unwrap();
        names
    }

    fn file(&self, number: usize) -> String {
        fs::read_to_string(resolver_of(&self.hosts[number])).unwrap()
    }

    fn wait_for_file(&self, number: usize, what: &str, holds: impl Fn(&str) -> bool) {
        until(A_WHILE, what, || Ok(holds(&self.file(number))))
            .unwrap_or_else(|error| panic!("{error}: {}", self.file(number)));
    }
}

#[test]
fn hosts_are_found_by_name_and_address_by_every_program() {
    let Some(office) = open("names", &["Aki", "aki", "Mühle"]) else {
        return;
    };
    let names = office.names(0, 3);
    assert_eq!(names, office.names(2, 3), "every member calls them alike");
    let mut sorted: Vec<&str> = names.iter().map(|(name, ..)| name.as_str()).collect();
    sorted.sort_unstable();
    let expected = [
        "aki-2.office.enishi",
        "aki.office.enishi",
        "xn--mhle-0ra.office.enishi",
    ];
    assert_eq!(sorted, expected);
    for (name, four, six) in &names {
        assert!(office.look_up(0, "ahostsv4", name).contains(four), "{name}");
        assert!(office.look_up(0, "ahostsv6", name).contains(six), "{name}");
        for address in [four, six] {
            let found = office.look_up(2, "hosts", address);
            assert!(found.contains(name), "{address}: {found}");
        }
        let shown = office.daemons[1].text(&["resolve", four]).unwrap();
        assert!(shown.contains(name), "{shown}");
    }
    let (name, four, _) = names
        .iter()
        .find(|(_, four, _)| *four != office.address(0))
        .unwrap();
    let told = ping(&office.hosts[0], &["-4", "-c", "1"], name);
    assert!(told.contains("1 received") && told.contains(four), "{told}");
    // What dig asks passes by the file as well.
    assert_eq!(
        office.printed(0, &["dig", "+short", "+tcp", name]).trim(),
        four
    );
    assert_eq!(
        office.printed(0, &["dig", "+short", "-x", four]).trim(),
        format!("{name}.")
    );
    let absent = office.printed(0, &["dig", "nobody.office.enishi"]);
    assert!(
        absent.contains("NXDOMAIN") && absent.contains("SOA"),
        "{absent}"
    );
    let any = office.printed(0, &["dig", "+notcp", "any", "office.enishi"]);
    assert!(any.contains("status: REFUSED"), "{any}");
    let status = office.daemons[0].json(&["status"]).unwrap();
    assert_eq!(status["names"]["how"], "resolv.conf", "{status}");
    let doctor = office.daemons[0].text(&["doctor"]).unwrap();
    assert!(doctor.contains("leads to this host"), "{doctor}");
}

#[test]
fn a_member_asks_another_about_their_channel_and_nothing_else() {
    let Some(mut office) = open("asks", &["aki", "ume"]) else {
        return;
    };
    let server = format!("@{}", office.address(0));
    let home = ["channel", "create", "home", "--network", "10.78.0.0/16"];
    office.daemons[0].text(&home).unwrap();
    let names = office.names(1, 2);
    let ask = |name: &str| office.printed(1, &["dig", "+tries=1", "+timeout=15", &server, name]);
    until(A_WHILE, "the other member answers", || {
        Ok(ask(&names[0].0).contains("status: NOERROR"))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", ask(&names[0].0)));
    assert!(ask(&names[1].0).contains(&names[1].1));
    for name in ["aki.home.enishi", "example.org", "home.enishi"] {
        let answer = ask(name);
        assert!(answer.contains("status: REFUSED"), "{name}: {answer}");
    }
    // Who is no member comes as far as the address, and is not answered.
    let stranger = office.lab.host("other").unwrap();
    let (network, gateway) = ("10.77.0.0/16", office.hosts[0].address().to_string());
    shell(&stranger, &format!("ip route add {network} via {gateway}"));
    let words = ["dig", "+tries=1", "+timeout=2", &server, &names[0].0];
    let answer = stranger.run(&words, A_WHILE).unwrap();
    assert!(
        !answer.success() && answer.stdout.contains("timed out"),
        "{}",
        answer.stdout
    );
}

#[test]
fn services_of_members_are_found_by_programs_that_look_for_them() {
    let Some(mut office) = open("offers", &["aki", "ume"]) else {
        return;
    };
    let dig = |office: &Office, kind: &str, name: &str| {
        let server = "@127.77.0.53";
        let found = office.printed(1, &["dig", "+short", server, kind, name]);
        found.trim().to_owned()
    };
    let until_found = |office: &Office, kind: &str, name: &str, expected: &str| {
        until(A_WHILE, "it is found", || {
            Ok(dig(office, kind, name) == expected)
        })
        .unwrap_or_else(|error| panic!("{error}: {name}: {:?}", dig(office, kind, name)));
    };
    let offer = |office: &Office, port: &str| {
        let words = ["channel", "offer", "office", "_HTTP._tcp", port];
        let words = [&words[..], &["--text", "path=/wiki", "--text", "v=1"]].concat();
        office.daemons[0].json(&words).unwrap()["offers"][0].clone()
    };
    let (sort, instance) = ("_http._tcp.office.enishi", "aki._http._tcp.office.enishi");
    assert_eq!(offer(&office, "8080")["port"], 8080);
    until_found(&office, "srv", sort, "0 0 8080 aki.office.enishi.");
    until_found(&office, "srv", instance, "0 0 8080 aki.office.enishi.");
    assert_eq!(dig(&office, "txt", instance), r#""path=/wiki" "v=1""#);
    assert_eq!(dig(&office, "ptr", sort), format!("{instance}."));
    let all = "_services._dns-sd._udp.office.enishi";
    assert_eq!(dig(&office, "ptr", all), format!("{sort}."));

    // Said again it is another one, and so it stays when the node is killed.
    assert_eq!(offer(&office, "8081")["own"], true);
    until_found(&office, "srv", sort, "0 0 8081 aki.office.enishi.");
    office.daemons[0].process().kill9().unwrap();
    office.restart(0, &[]);
    let offers = |office: &Office, number: usize| {
        let words = ["channel", "offers", "office"];
        office.daemons[number].json(&words).unwrap()["offers"].clone()
    };
    assert_eq!(offers(&office, 0)[0]["port"], 8081);
    let known = offers(&office, 1)[0].clone();
    assert_eq!(
        (&known["service"], &known["host"], &known["own"]),
        (
            &"_http._tcp".into(),
            &"aki.office.enishi".into(),
            &false.into()
        )
    );
    let withdraw = ["channel", "withdraw", "office", "_http._tcp"];
    office.daemons[0].text(&withdraw).unwrap();
    until_found(&office, "srv", sort, "");
    let again = office.daemons[0].call(&withdraw).unwrap();
    assert_eq!(again.status.code(), Some(1), "{}", again.stderr);
    let wrong = ["channel", "offer", "office", "http", "80"];
    let wrong = office.daemons[0].call(&wrong).unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.stderr);
}

#[test]
fn two_nodes_of_one_host_hand_each_other_s_names_on() {
    let Some(office) = open("two", &["aki"]) else {
        return;
    };
    let data = office.path("second");
    let second = Daemon::start(Path::new(PROGRAM), Some(&office.hosts[0]), &data, &[]).unwrap();
    let home = ["channel", "create", "home", "--network", "10.78.0.0/16"];
    second.text(&home).unwrap();
    office.wait_for_file(0, "both stand in the file", |text| {
        text.contains("nameserver 127.77.0.53\n") && text.contains("nameserver 127.77.0.54\n")
    });
    let home = second.json(&["channel", "names", "home"]).unwrap();
    let name = home["names"][0]["name"].as_str().unwrap();
    assert!(
        office.look_up(0, "ahostsv4", name).contains("10.78."),
        "{name}"
    );
    let found = office.look_up(0, "ahostsv4", "aki.office.enishi");
    assert!(found.contains(&office.address(0)), "{found}");
    office.daemons[0].text(&["down"]).unwrap();
    assert!(
        office.look_up(0, "ahostsv4", name).contains("10.78."),
        "{name}"
    );
    second.text(&["down"]).unwrap();
    assert_eq!(office.file(0), RESOLV_CONF);
}

#[test]
fn other_names_go_to_the_server_that_was_there_before() {
    let Some(office) = open("fwd", &["aki"]) else {
        return;
    };
    let _server = office.spawn(0, "server", &["python3", "-c", SERVER]);
    let found = office.look_up(0, "ahostsv4", "www.example.org");
    assert!(found.contains("192.0.2.80"), "{found}");
    let direct = office.printed(0, &["dig", "+short", "@127.77.0.53", "www.example.org"]);
    assert_eq!(direct.trim(), "192.0.2.80");
    let own = office.look_up(0, "ahostsv4", "aki.office.enishi");
    assert!(own.contains(&office.address(0)), "{own}");
    let status = office.daemons[0].json(&["status"]).unwrap();
    assert_eq!(status["names"]["upstreams"][0], "127.0.0.1:53");
}

#[test]
fn the_resolver_is_as_before_after_every_kind_of_end() {
    let Some(mut office) = open("ends", &["aki"]) else {
        return;
    };
    let file = resolver_of(&office.hosts[0]);
    let is_set_up = |text: &str| text.contains("\nnameserver 127.77.0.53\n");
    office.wait_for_file(0, "the file names the node", is_set_up);
    office.daemons[0].text(&["down"]).unwrap();
    assert_eq!(office.file(0), RESOLV_CONF, "after `down`");

    office.restart(0, &[]);
    office.wait_for_file(0, "the file names the node", is_set_up);
    office.daemons[0].process().kill9().unwrap();
    office.wait_for_file(0, "the guard restores the file", |text| text == RESOLV_CONF);

    // Another program adds a line, and later writes the whole file anew.
    office.restart(0, &[]);
    office.wait_for_file(0, "the file names the node", is_set_up);
    let added = office.file(0) + "search example.org\n";
    fs::write(&file, added).unwrap();
    office.daemons[0].text(&["down"]).unwrap();
    let theirs = format!("{RESOLV_CONF}search example.org\n");
    assert_eq!(office.file(0), theirs);
    office.restart(0, &[]);
    office.wait_for_file(0, "the file names the node", is_set_up);
    fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
    office.wait_for_file(0, "the file names the node again", is_set_up);

    // The guard is killed too: the next start puts it right, even one without names.
    let guard = children(office.daemons[0].process().id());
    assert_eq!(guard.len(), 1, "one guard");
    shell(&office.hosts[0], &format!("kill -9 {}", guard[0]));
    office.daemons[0].process().kill9().unwrap();
    assert!(is_set_up(&office.file(0)));
    office.restart(0, &["--no-dns"]);
    assert_eq!(office.file(0), "nameserver 192.0.2.1\n");
    let status = office.daemons[0].json(&["status"]).unwrap();
    assert!(status["names"].is_null(), "{status}");
}

/// The processes that a process has started.
fn children(id: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let ids = lists.flat_map(|list| {
        list.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    ids.collect()
}

#[test]
fn a_network_of_its_own_does_not_change_the_file_of_another() {
    let Some(mut lab) = enishi_lab::is_root().then(|| Lab::new("foreign").unwrap()) else {
        eprintln!("skipped: needs root");
        return;
    };
    let before = fs::read_to_string("/etc/resolv.conf").unwrap();
    let host = lab.host("h0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let daemon = Daemon::start(Path::new(PROGRAM), Some(&host), &data, &[]).unwrap();
    daemon.text(&["channel", "create", "office"]).unwrap();
    assert_eq!(fs::read_to_string("/etc/resolv.conf").unwrap(), before);
    until(A_WHILE, "the node says so", || {
        let status = daemon.json(&["status"])?;
        let notice = status["names"]["notice"].as_str().unwrap_or_default();
        Ok(notice.contains("/etc/netns"))
    })
    .unwrap();
    assert_eq!(fs::read_to_string("/etc/resolv.conf").unwrap(), before);
}
