//! systemd-resolved, told of channels by a program that only notes what it is told, and for real:
//! it runs on a host of its own, without a service manager. Without root these tests have nothing
//! to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use enishi_lab::{Daemon, Host, Lab, ensure_programs, until};
use tempfile::TempDir;

use office::{A_WHILE, PROGRAM, shell, system_bus};

/// A host whose programs ask systemd-resolved.
struct Site {
    host: Host,
    _lab: Lab,
    directory: TempDir,
}

impl Site {
    /// None without root.
    fn open(prefix: &str) -> Option<Self> {
        let Some(mut lab) = enishi_lab::is_root().then(|| Lab::new(prefix).unwrap()) else {
            eprintln!("skipped: needs root");
            return None;
        };
        let host = lab.host("h0").unwrap();
        host.set_etc("resolv.conf", STUB).unwrap();
        host.set_etc("nsswitch.conf", "hosts: files dns\n").unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config"), "host_name = \"h0\"\n").unwrap();
        Some(Self {
            host,
            _lab: lab,
            directory,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Starts a daemon that finds this `resolvectl`, in a channel called `office`.
    fn start(&self, resolvectl: &str) -> Daemon {
        self.script("resolvectl", resolvectl);
        // In a process namespace of its own the daemon is the first process, as a system would be.
        let program = format!(
            "PATH={}:$PATH exec unshare --pid --fork --kill-child --mount-proc -- {PROGRAM} \"$@\"",
            self.directory.path().display()
        );
        self.script("enishi", &program);
        let config = self.path("config");
        let words = ["--config", config.to_str().unwrap()];
        let (program, data) = (self.path("enishi"), self.path("data"));
        let daemon = Daemon::start(&program, Some(&self.host), &data, &words).unwrap();
        daemon.text(&["channel", "create", "office"]).unwrap();
        daemon
    }

    fn printed(&self, words: &[&str]) -> String {
        let output = self.host.run(words, A_WHILE).unwrap();
        output.stdout.trim().to_owned()
    }
}

/// What its hosts' resolver is told.
const STUB: &str = "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n";

#[test]
fn systemd_resolved_is_told_of_each_device_and_its_domains() {
    let Some(site) = Site::open("resolved") else {
        return;
    };
    let told = site.path("told");
    let daemon = site.start(&format!("echo \"$@\" >> {}", told.display()));
    let said = || fs::read_to_string(&told).unwrap_or_default();
    until(A_WHILE, "resolvectl was called", || {
        Ok(said().contains("dnsovertls"))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", daemon.log()));
    let address = daemon.address().unwrap();
    let lines: Vec<String> = said().lines().map(str::to_owned).collect();
    assert!(
        lines[0].starts_with(&format!("dns enishi0 {address}")),
        "{lines:?}"
    );
    let domains = "domain enishi0 ~office.enishi ~77.10.in-addr.arpa ~0.0.0.0.";
    assert!(lines[1].starts_with(domains), "{lines:?}");
    assert_eq!(
        lines[2..],
        [
            "default-route enishi0 no",
            "dnssec enishi0 no",
            "dnsovertls enishi0 no"
        ]
    );
    assert_eq!(shell(&site.host, "cat /etc/resolv.conf"), STUB);
    let status = daemon.json(&["status"]).unwrap();
    assert_eq!(status["names"]["how"], "systemd-resolved", "{status}");
    // What is asked there, this node answers.
    let words = [
        "dig",
        "+short",
        "+timeout=3",
        &format!("@{address}"),
        "-x",
        &address.to_string(),
    ];
    let answer = site.printed(&words);
    assert!(answer.ends_with(".office.enishi."), "{answer}");
}

/// Where Debian has it, and the package; it is unpacked rather than installed, as that would
/// change the resolver of this machine.
const RESOLVED: &str = "lib/systemd/systemd-resolved";
const RESOLVECTL: &str = "usr/bin/resolvectl";
const PACKAGE: &str = "systemd-resolved";

/// The user that it wants to be.
const USER: [(&str, &str); 2] = [
    ("passwd", "systemd-resolve:x:990:990::/:/usr/sbin/nologin"),
    ("group", "systemd-resolve:x:990:"),
];

#[test]
fn systemd_resolved_itself_finds_the_names_and_forgets_them() {
    let Some(site) = Site::open("really") else {
        return;
    };
    let programs = [
        ("/lib/systemd/systemd", "systemd"),
        ("dbus-daemon", "dbus-daemon"),
        ("dig", "bind9-dnsutils"),
    ];
    ensure_programs(&programs).unwrap();
    let download = format!("apt-get -q download {PACKAGE}");
    let unpack = format!(
        "cd {}; {download} || {{ apt-get -q update; {download}; }}; dpkg-deb -x {PACKAGE}_*.deb .",
        site.directory.path().display()
    );
    let mut download = enishi_lab::command("sh");
    download.args(["-ec", &unpack]);
    let unpacked = enishi_lab::run(download, 3 * A_WHILE).unwrap();
    assert!(unpacked.success(), "{}", unpacked.stderr);
    for (file, user) in USER {
        let before = fs::read_to_string(format!("/etc/{file}")).unwrap();
        site.host
            .set_etc(file, &format!("{before}{user}\n"))
            .unwrap();
    }
    let (_bus, bus) = system_bus(&site.host, &site.path("bus"));
    let line = format!(
        "mount -t tmpfs tmpfs /run; mkdir /run/systemd; exec env {bus} {}",
        site.path(RESOLVED).display()
    );
    let mut resolved = site.host.command("sh");
    resolved.args(["-ec", &line]);
    let _resolved = site.host.spawn(resolved, &site.path("log")).unwrap();
    let resolvectl = format!("env {bus} {}", site.path(RESOLVECTL).display());
    until(A_WHILE, "systemd-resolved runs", || {
        let words = ["sh", "-c", &format!("{resolvectl} status")];
        Ok(site.host.run(&words, A_WHILE)?.success())
    })
    .unwrap();

    let mut daemon = site.start(&format!("exec {resolvectl} \"$@\""));
    let name = "h0.office.enishi";
    let (address, status) = (daemon.address().unwrap(), daemon.json(&["status"]).unwrap());
    let address6 = status["channels"][0]["address6"].as_str().unwrap();
    let address = address.to_string();
    let found = |database: &str| site.printed(&["getent", database, name]);
    until(A_WHILE, "programs find the name", || {
        Ok(found("ahostsv4").starts_with(&address) && found("ahostsv6").starts_with(address6))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", daemon.log()));
    let ask = |words: &[&str]| {
        site.printed(&[&["dig", "@127.0.0.53", "+short", "+timeout=3"], words].concat())
    };
    assert_eq!(ask(&[name]), address);
    assert_eq!(ask(&[name, "aaaa"]), address6);
    for of in [&address, address6] {
        assert_eq!(ask(&["-x", of]), format!("{name}."));
    }
    let status = daemon.json(&["status"]).unwrap();
    assert_eq!(
        (&status["names"]["how"], &status["names"]["notice"]),
        (&"systemd-resolved".into(), &serde_json::Value::Null)
    );
    let domains = || shell(&site.host, &format!("{resolvectl} domain"));
    assert!(domains().contains("~office.enishi"), "{}", domains());

    daemon.process().kill9().unwrap();
    until(A_WHILE, "its settings are gone", || {
        Ok(!domains().contains("enishi"))
    })
    .unwrap();
    assert_eq!(
        (ask(&[name]), found("hosts")),
        (String::new(), String::new())
    );
}
