//! The virtual network between real hosts, used by programs that we did not write.
//! Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use enishi_lab::{Daemon, Host, until};
use serde_json::Value;

use office::{A_WHILE, Office, PROGRAM, ping, reaches, shell};

/// An office of so many; none without root.
fn open(prefix: &str, size: usize) -> Option<Office> {
    let mut office = Office::open(prefix, &[("ping", "iputils-ping")])?;
    for _ in 0..size {
        office.hire(&[]);
    }
    Some(office)
}

fn start(host: &Host, data: &Path, arguments: &[&str]) -> Daemon {
    Daemon::start(Path::new(PROGRAM), Some(host), data, arguments).unwrap()
}

#[test]
fn the_demo_passes() {
    if !enishi_lab::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mut demo = enishi_lab::command(PROGRAM);
    demo.args(["demo", "--json"]);
    let output = enishi_lab::run(demo, Duration::from_secs(180)).unwrap();
    assert!(output.success(), "{}\n{}", output.stdout, output.stderr);
}

#[test]
fn an_address_that_nobody_has_is_unreachable() {
    let Some(office) = open("nobody", 2) else {
        return;
    };
    let nobody = if office.address(0) == "10.77.200.7" {
        "10.77.200.8"
    } else {
        "10.77.200.7"
    };
    let output = office.run(1, &["ping", "-c", "2", "-W", "15", nobody]);
    assert!(
        output.stdout.contains("Destination Host Unreachable"),
        "{}",
        output.stdout
    );
    ping(&office.hosts[1], &["-c", "1"], office.address(0));
}

#[test]
fn packets_of_every_size_pass_and_both_families_do() {
    let Some(office) = open("sizes", 2) else {
        return;
    };
    let there = office.address(0);
    for size in ["0", "56", "1000", "1252", "1400", "8000"] {
        ping(
            &office.hosts[1],
            &["-c", "2", "-i", "0.2", "-s", size],
            &there,
        );
    }
    // Longer than the device admits and not to be cut: refused by the system itself.
    let words = [
        "ping", "-M", "do", "-c", "1", "-W", "2", "-s", "1400", &there,
    ];
    assert!(!office.run(1, &words).success());
    ping(&office.hosts[1], &["-6", "-c", "2"], office.address6(0));
}

#[test]
fn a_removed_member_is_cut_off_within_seconds_and_the_others_notice_nothing() {
    let Some(office) = open("remove", 3) else {
        return;
    };
    let [first, second] = [0, 1].map(|number| office.address(number));
    for there in [&first, &second] {
        office.wait_for_ping(2, there, A_WHILE);
    }
    office.wait_for_ping(1, &first, A_WHILE);
    let gone = office.daemons[2].json(&["status"]).unwrap()["node_id"].clone();
    let words = ["channel", "remove", "office", gone.as_str().unwrap()];
    let steady = ["ping", "-c", "60", "-i", "0.2", "-W", "15", &first];
    let (mut steady, log) = office.spawn(1, "steady", &steady);
    let told = || std::fs::read_to_string(&log).unwrap();
    until(A_WHILE, "the others ping", || {
        Ok(told().contains("icmp_seq=3"))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", told()));
    office.daemons[0].text(&words).unwrap();
    let limit = Duration::from_secs(6);
    until(limit, "pings of the removed member fail", || {
        let removed = &office.hosts[2];
        Ok(!reaches(removed, &first) && !reaches(removed, &second))
    })
    .unwrap();
    assert!(steady.wait(Duration::from_secs(60)).unwrap().is_some());
    assert!(told().contains(" 0% packet loss"), "{}", told());
    // For good: a new agreement is not had either, in the time in which others have one.
    std::thread::sleep(Duration::from_secs(5));
    assert!(!reaches(&office.hosts[2], &first));
    ping(&office.hosts[1], &["-c", "1"], &first);
}

#[test]
fn a_stranger_on_the_wire_is_no_member() {
    let Some(mut office) = open("wrong", 2) else {
        return;
    };
    let host = office.lab.host("other").unwrap();
    let data = office.path("other");
    let ticket = office.daemons[0].text(&["invite"]).unwrap();
    let stranger = start(&host, &data, &["--bootstrap", &ticket]);
    let password = office.path("password");
    std::fs::write(&password, "not the right one\n").unwrap();
    let joined = stranger
        .json(&[
            "channel",
            "join",
            "--name",
            "office",
            "--password-file",
            password.to_str().unwrap(),
        ])
        .unwrap();
    assert_eq!(joined["members"], 1, "{joined}");
    let there = office.address(0);
    let words = ["ping", "-c", "1", "-W", "3", &there];
    assert!(!host.run(&words, A_WHILE).unwrap().success());
    // The members still see each other, and nobody else.
    ping(&office.hosts[1], &["-c", "1"], &there);
    let channels = office.daemons[1].json(&["channel", "list"]).unwrap();
    assert!(!channels.to_string().contains("other"), "{channels}");
}

#[test]
fn a_split_office_becomes_one_again_and_no_address_stays_double() {
    let Some(office) = open("split", 4) else {
        return;
    };
    let addresses: Vec<String> = (0..4).map(|number| office.address(number)).collect();
    office.wait_for_ping(0, &addresses[3], A_WHILE);
    // So few nodes hold everything each; what only one part had would be missed in the other.
    until(A_WHILE, "every node has every record", || {
        let held = |daemon: &Daemon| daemon.json(&["status"]).unwrap()["records_held"].as_u64();
        let held: Vec<Option<u64>> = office.daemons.iter().map(held).collect();
        Ok(held
            .iter()
            .all(|count| count.is_some() && *count == held[0]))
    })
    .unwrap();
    let hosts = office.hosts.clone();
    office
        .lab
        .isolate(&[&hosts[0], &hosts[1]], &[&hosts[2], &hosts[3]])
        .unwrap();
    assert!(!reaches(&hosts[0], &addresses[3]));
    office.wait_for_ping(0, &addresses[1], Duration::from_secs(40));
    office.wait_for_ping(2, &addresses[3], Duration::from_secs(40));
    // A member of each part takes the same address by hand.
    let (first, second) = (1, 3);
    for number in [first, second] {
        let daemon = &office.daemons[number];
        daemon.text(&["channel", "leave", "office"]).unwrap();
        let join = ["channel", "join", &office.ticket, "--address", TWICE];
        daemon.text(&join).unwrap();
        let claimed = unix_s();
        until(A_WHILE, "the next claim is a later one", || {
            Ok(unix_s() > claimed)
        })
        .unwrap();
    }
    for number in [0, 2] {
        office.wait_for_ping(number, TWICE, Duration::from_secs(40));
    }
    office.lab.heal().unwrap();
    let healed = Instant::now();
    let held = |number: usize| {
        let status = office.daemons[number].json(&["status"]).unwrap();
        let address = status["channels"][0]["address"].as_str();
        address.unwrap_or_default().to_owned()
    };
    let moved = until(Duration::from_secs(30), "the later one has moved", || {
        Ok(!["", TWICE].contains(&held(second).as_str()))
    });
    moved.unwrap_or_else(|error| panic!("{error}: {}", office.daemons[second].log()));
    eprintln!(
        "one has moved {:.1} s after the cut was healed",
        healed.elapsed().as_secs_f64()
    );
    let after = held(second);
    assert_eq!(held(first), TWICE, "the earlier one stays");
    for words in [&["status"][..], &["channel", "list"]] {
        let told = |number: usize| office.daemons[number].text(words).unwrap();
        let notice = format!("{TWICE} was claimed earlier by another member");
        assert!(told(second).contains(&notice), "{}", told(second));
        assert!(!told(first).contains("claimed earlier"), "{}", told(first));
    }
    let devices = shell(&hosts[second], "ip -4 -o address show");
    assert!(
        devices.contains(&format!(" {after}/16 ")) && !devices.contains(TWICE),
        "{devices}"
    );
    for number in [0, 2] {
        for there in [TWICE, &after, &addresses[2 - number]] {
            office.wait_for_ping(number, there, Duration::from_secs(60));
        }
    }
    office.wait_for_ping(first, &after, A_WHILE);
    office.wait_for_ping(second, TWICE, A_WHILE);
}

/// An address for two.
const TWICE: &str = "10.77.9.9";

fn unix_s() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

#[test]
fn a_host_that_moves_to_another_address_is_found_again() {
    let Some(office) = open("moves", 3) else {
        return;
    };
    let (here, there) = (office.address(0), office.address(2));
    office.wait_for_ping(0, &there, A_WHILE);
    let mover = &office.hosts[2];
    let before = format!("{}/24", mover.address());
    for (verb, address) in [("del", before.as_str()), ("add", "10.99.0.200/24")] {
        shell(mover, &format!("ip address {verb} {address} dev eth0"));
    }
    office.wait_for_ping(0, &there, Duration::from_secs(60));
    office.wait_for_ping(2, &here, Duration::from_secs(60));
    let second = office.address(1);
    office.wait_for_ping(2, &second, Duration::from_secs(60));
}

#[test]
fn a_device_that_is_removed_costs_its_channel_alone() {
    let Some(office) = open("nodev", 2) else {
        return;
    };
    let daemon = &office.daemons[1];
    daemon
        .text(&["channel", "create", "home", "--network", "10.78.0.0/16"])
        .unwrap();
    let ticket = daemon.text(&["channel", "invite", "home"]).unwrap();
    office.daemons[0]
        .text(&["channel", "join", &ticket])
        .unwrap();
    let channel =
        |number: usize| daemon.json(&["channel", "list"]).unwrap()["channels"][number].clone();
    assert_eq!(channel(1)["name"], "office");
    let device = channel(1)["interface"].as_str().unwrap().to_owned();
    shell(&office.hosts[1], &format!("ip link del {device}"));
    until(A_WHILE, "the channel says so", || {
        Ok(channel(1)["interface"].is_null())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", channel(1)));
    let notice = channel(1)["notice"].to_string();
    assert!(
        notice.contains(&device) && notice.contains("join"),
        "{notice}"
    );
    let home = office.daemons[0].json(&["channel", "list"]).unwrap();
    let there = home["channels"][0]["address"].as_str().unwrap();
    office.wait_for_ping(1, there, A_WHILE);
    // As the notice says.
    daemon.text(&["channel", "leave", "office"]).unwrap();
    daemon.text(&["channel", "join", &office.ticket]).unwrap();
    office.wait_for_ping(1, &office.address(0), A_WHILE);
}

#[test]
fn without_the_right_to_a_device_a_node_joins_and_says_what_to_do() {
    let Some(mut office) = open("norigh", 1) else {
        return;
    };
    let host = office.lab.host("plain").unwrap();
    let program = office.path("enishi-without-right");
    let lines = format!(
        "#!/bin/sh\nexec setpriv --bounding-set -net_admin --inh-caps -net_admin -- {PROGRAM} \"$@\"\n"
    );
    std::fs::write(&program, lines).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let data = office.path("plain");
    let arguments = ["--bootstrap", office.ticket.as_str()];
    let daemon = Daemon::start(&program, Some(&host), &data, &arguments).unwrap();
    let joined = daemon.json(&["channel", "join", &office.ticket]).unwrap();
    assert_eq!(joined["members"], 2, "{joined}");
    assert!(joined["address"].is_string() && joined["interface"].is_null());
    for words in [&["channel", "list"][..], &["status"]] {
        let text = daemon.text(words).unwrap();
        assert!(
            text.contains("CAP_NET_ADMIN") && text.contains("--no-tun"),
            "{text}"
        );
    }
    // All but the packets works.
    daemon.text(&["dht", "put", "key", "value"]).unwrap();
    let there = office.address(0);
    assert!(daemon.call(&["ping", &there, "-c", "1"]).unwrap().success());
}

#[test]
fn a_full_disk_loses_nothing_and_stops_nobody() {
    let Some(mut office) = open("full", 2) else {
        return;
    };
    let host = office.lab.host("small").unwrap();
    let disk = office.path("small");
    std::fs::create_dir(&disk).unwrap();
    let _mounted = Mounted::tmpfs(&disk, "8m");
    let data = disk.join("data");
    let daemon = start(&host, &data, &["--bootstrap", &office.ticket]);
    daemon.text(&["channel", "join", &office.ticket]).unwrap();
    daemon.text(&["dht", "put", "before", "kept"]).unwrap();
    let filler = std::fs::write(disk.join("filler"), vec![1; 32 << 20]);
    assert!(filler.is_err(), "the disk was to be full");
    // Whatever becomes of it, it is answered, and the daemon lives.
    for number in 0..50 {
        let value = "x".repeat(4000);
        daemon
            .call(&["dht", "put", &format!("key{number}"), &value])
            .unwrap();
        if number == 5 {
            assert_eq!(
                office.daemons[1].text(&["dht", "get", "before"]).unwrap(),
                "kept"
            );
        }
    }
    ping(&host, &["-c", "1"], office.address(0));
    std::fs::remove_file(disk.join("filler")).unwrap();
    until(
        Duration::from_secs(30),
        "the state is on disk again",
        || {
            let status = daemon.json(&["status"])?;
            Ok(status["notices"].as_array().is_some_and(Vec::is_empty))
        },
    )
    .unwrap();
    until(Duration::from_secs(60), "values are taken again", || {
        Ok(daemon.call(&["dht", "put", "after", "kept"])?.success())
    })
    .unwrap();
    drop(daemon);
    let daemon = start(&host, &data, &[]);
    assert_eq!(daemon.text(&["dht", "get", "after"]).unwrap(), "kept");
    let status: Value = daemon.json(&["status"]).unwrap();
    assert_eq!(status["channels"][0]["name"], "office", "{status}");
}

/// A small file system; unmounted when dropped.
struct Mounted(String);

impl Mounted {
    fn tmpfs(at: &Path, size: &str) -> Self {
        let at = at.to_str().unwrap().to_owned();
        let mut mount = enishi_lab::command("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &at]);
        let output = enishi_lab::run(mount, A_WHILE).unwrap();
        assert!(output.success(), "{}", output.stderr);
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = enishi_lab::command("umount");
        umount.args(["--lazy", &self.0]);
        // A failure leaves a small file system in memory until the next start.
        let _ = enishi_lab::run(umount, A_WHILE);
    }
}

#[test]
fn a_network_that_the_host_has_already_is_refused() {
    let Some(office) = open("overlp", 2) else {
        return;
    };
    let daemon = &office.daemons[1];
    for (network, what) in [
        ("10.77.0.0/16", "channel `office`"),
        ("10.77.8.0/24", "channel `office`"),
        ("10.99.0.0/24", "own address"),
    ] {
        let output = daemon
            .call(&["channel", "create", "other", "--network", network])
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{network}");
        assert!(output.stderr.contains(what), "{network}: {}", output.stderr);
    }
    office.wait_for_ping(1, &office.address(0), A_WHILE);
}
