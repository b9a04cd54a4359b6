//! Programs that we did not write, at work over the virtual network, also while hosts move and
//! sleep. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use enishi_lab::programs::find_program;
use enishi_lab::until;

use office::{A_WHILE, Office, PROGRAM, shell, wait_for_line};

/// The user and group `nobody`: PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;

/// Sends numbers, or checks that all of them come in order: says how many have come, and after
/// which pauses of more than 0.2 s.
const FLOW: &str = r#"
import socket, sys, time
role, address, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if role == "send":
    with socket.create_connection((address, 9000)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(count):
            s.sendall(b"%d\n" % number)
            time.sleep(0.02)
else:
    server = socket.create_server((address, 9000))
    print("listens", flush=True)
    with server.accept()[0].makefile() as lines:
        before = time.monotonic()
        for number in range(count):
            assert int(next(lines)) == number
            now = time.monotonic()
            if now - before > 0.2:
                print(f"a pause of {now - before:.2f} s", flush=True)
            if number % 50 == 0:
                print(f"has {number}.", flush=True)
            before = now
    print("has all", flush=True)
"#;

/// An office of so many members; none without root.
fn open(prefix: &str, programs: &[(&str, &str)], size: usize) -> Option<Office> {
    let mut office = Office::open(prefix, programs)?;
    for _ in 0..size {
        office.hire(&[]);
    }
    Some(office)
}

impl Office {
    /// Runs a program that must succeed; what it printed.
    fn done(&self, number: usize, words: &[&str]) -> String {
        let output = self.run(number, words);
        assert!(output.success(), "{words:?}: {output:?}");
        output.stdout
    }
}

/// Some megabytes in files of several kinds.
fn plant_tree(root: &Path) {
    let mut state = 1_u32;
    let mut octets = |count: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    };
    for number in 0..40 {
        let branch = root.join(format!("branch{}", number % 4));
        fs::create_dir_all(&branch).unwrap();
        fs::write(branch.join(format!("leaf {number}")), octets(number << 10)).unwrap();
    }
    fs::write(root.join("trunk"), octets(4 << 20)).unwrap();
    fs::set_permissions(root.join("trunk"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("branch1/leaf 1", root.join("link")).unwrap();
}

#[test]
fn a_tree_goes_to_a_member_and_back_by_rsync_over_ssh() {
    let programs = [
        ("sshd", "openssh-server"),
        ("ssh", "openssh-client"),
        ("rsync", "rsync"),
    ];
    let Some(mut office) = open("ssh", &programs, 2) else {
        return;
    };
    let path = |name: &str| office.path(name).to_str().unwrap().to_owned();
    let [here, key, known] = ["host_key", "key", "known_hosts"].map(path);
    for file in [&here, &key] {
        let make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file];
        office.done(0, &make);
    }
    let public = fs::read_to_string(format!("{here}.pub")).unwrap();
    fs::write(&known, format!("server {public}")).unwrap();
    let config = path("sshd_config");
    let lines = format!(
        "HostKey {here}\nAuthorizedKeysFile {key}.pub\nPasswordAuthentication no\n\
         StrictModes no\nPidFile none\n"
    );
    fs::write(&config, lines).unwrap();
    // It wants a directory that its unit makes; nothing of the machine's own is changed for that.
    let line = format!(
        "mount -t tmpfs tmpfs /run; mkdir /run/sshd; exec {} -D -e -f {config}",
        find_program("sshd").unwrap().display()
    );
    let [tree, there, back] = ["tree", "there", "back"].map(path);
    let log = office.serve(0, &["sh", "-ec", &line]);
    wait_for_line(&log, "listening");

    let ssh = format!(
        "ssh -F none -i {key} -o BatchMode=yes -o HostKeyAlias=server \
         -o StrictHostKeyChecking=yes -o UserKnownHostsFile={known}"
    );
    let server6 = office.address6(0);
    let words: Vec<&str> = ssh.split(' ').collect();
    let ask = ["-6", "-l", "root", &server6, "echo $SSH_CONNECTION"];
    let told = office.done(1, &[&words[..], &ask].concat());
    let ends: Vec<&str> = told.split_whitespace().step_by(2).collect();
    assert_eq!(ends, [office.address6(1), server6.clone()]);

    plant_tree(Path::new(&tree));
    let copy = |from: &str, to: &str| {
        office.done(1, &["rsync", "-a", "-e", &ssh, from, to]);
    };
    copy(
        &format!("{tree}/"),
        &format!("root@{}:{there}/", office.address(0)),
    );
    copy(&format!("root@[{server6}]:{there}/"), &format!("{back}/"));
    // Content, kinds, modes and times: there is nothing that would have to be copied.
    let compare = format!("rsync -acni --delete {tree}/ {back}/; cd {back}; find . | wc -l");
    assert_eq!(shell(&office.hosts[1], &compare).trim(), "47");
}

#[test]
fn a_standby_of_postgresql_follows_its_primary() {
    let Some(mut office) = open("psql", &[("initdb", "postgresql")], 2) else {
        return;
    };
    let addresses = [0, 1].map(|number| office.address(number));
    let home = office.path("databases");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let program = |name: &str| find_program(name).unwrap().display().to_string();
    let as_nobody = |line: &str| {
        format!(
            "cd {}; exec setpriv --reuid {NOBODY} {line}",
            home.display()
        )
    };
    let serve = |office: &mut Office, number: usize, data: &str| {
        let (program, address) = (program("postgres"), &addresses[number]);
        let line = as_nobody(&format!("{program} -F -D {data} -h {address} -k ''"));
        office.serve(number, &["sh", "-c", &line])
    };

    let line = format!("{} --no-sync -A trust -D primary", program("initdb"));
    shell(&office.hosts[0], &as_nobody(&line));
    let admit = "host all,replication all 10.77.0.0/16 trust\n";
    fs::write(home.join("primary/pg_hba.conf"), admit).unwrap();
    let log = serve(&mut office, 0, "primary");
    wait_for_line(&log, "ready to accept connections");
    let copy = program("pg_basebackup") + " -R -c fast --no-sync -U nobody -D standby -h ";
    shell(&office.hosts[1], &as_nobody(&(copy + &addresses[0])));
    let log = serve(&mut office, 1, "standby");
    wait_for_line(&log, "ready to accept read-only connections");

    let query = |from: usize, of: usize, text: &str| {
        let server = ["-h", &addresses[of], "-U", "nobody", "-d", "postgres"];
        let words = [&["psql", "-qtA"], &server[..], &["-c", text]].concat();
        office.done(from, &words).trim().to_owned()
    };
    let followers = "select client_addr from pg_stat_replication where state = 'streaming'";
    until(A_WHILE, "the standby follows", || {
        Ok(query(1, 0, followers) == addresses[1])
    })
    .unwrap();
    let rows = "create table visits as select n, md5(n::text) from generate_series(1, 50000) n";
    query(1, 0, rows);
    let sum = "select count(*), md5(string_agg(md5, '' order by n)) from visits";
    let written = query(1, 0, sum);
    assert!(written.starts_with("50000|"), "{written}");
    // The standby comes to have the table with all its rows at once.
    let has = "select to_regclass('visits') is not null";
    until(A_WHILE, "the standby has the rows", || {
        Ok(query(0, 1, has) == "t")
    })
    .unwrap();
    assert_eq!(query(0, 1, sum), written);
    // The primary after its standby, or it would wait for it.
    for server in office.servers.iter_mut().rev() {
        assert!(server.terminate(A_WHILE).unwrap().success());
    }
}

/// The hosts that a report of mtr names, in their order.
fn hops(report: &str) -> Vec<&str> {
    let hops = report.lines().filter_map(|line| line.split_once("|-- "));
    hops.filter_map(|(_, hop)| hop.split_whitespace().next())
        .collect()
}

#[test]
fn mtr_sees_each_hop_also_behind_a_router() {
    let programs = [("mtr", "mtr-tiny"), ("nft", "nftables")];
    let Some(mut office) = open("mtr", &programs, 2) else {
        return;
    };
    // Behind the first member is a network, and another one behind a host of that.
    let (gate, far) = (office.add_host(), office.add_host());
    let join = |one: usize, other: usize, device: &str, network: &str| {
        let space = office.hosts[other].namespace();
        let line = format!(
            "ip link add {device} type veth peer name {device} netns {space}; \
             ip address add {network}.1/24 dev {device}; ip link set {device} up; \
             ip -n {space} address add {network}.9/24 dev {device}; \
             ip -n {space} link set {device} up"
        );
        shell(&office.hosts[one], &line);
    };
    join(0, gate, "lan0", "192.168.7");
    join(gate, far, "lan1", "192.168.8");
    shell(
        &office.hosts[0],
        "ip route add 192.168.8.0/24 via 192.168.7.9",
    );
    shell(&office.hosts[gate], "sysctl -qw net.ipv4.ip_forward=1");
    shell(&office.hosts[far], "ip route add default via 192.168.8.1");
    let lan = "192.168.0.0/16";
    for (number, verb) in [(0, "share"), (1, "use")] {
        let words = ["route", verb, "office", lan];
        office.daemons[number].text(&words).unwrap();
    }
    office.wait_for_ping(1, "192.168.8.9", A_WHILE);

    let (router, router6) = (office.address(0), office.address6(0));
    let (gate, far) = ("192.168.7.9", "192.168.8.9");
    let behind = [router.as_str(), gate, far];
    let traces: [(&[&str], &[&str]); 5] = [
        (&[], &[&router]),
        (&["-6"], &[&router6]),
        (&[], &behind),
        (&["--udp"], &behind),
        (&["--tcp", "--port", "9"], &behind),
    ];
    // At once: mtr takes its time after the last answer.
    std::thread::scope(|scope| {
        for (options, expected) in traces {
            let office = &office;
            scope.spawn(move || {
                let words = ["mtr", "--report-wide", "--no-dns", "-c", "2", "-i", "0.3"];
                let to = expected.last().unwrap();
                let mut report = String::new();
                // It takes a late answer for a hop that does not answer.
                let seen = until(A_WHILE, "all hops are seen", || {
                    report = office.done(1, &[&words[..], options, &[to]].concat());
                    Ok(hops(&report) == expected)
                });
                assert!(seen.is_ok(), "{options:?}: {report}");
            });
        }
    });
}

#[test]
fn sctp_is_carried_as_it_is() {
    // With an SCTP in user space, since not every kernel has one; it does without UDP.
    const TSCTP: &str = "/usr/lib/usrsctp/tsctp";
    let Some(mut office) = open("sctp", &[(TSCTP, "libusrsctp-examples")], 2) else {
        return;
    };
    let [there, here] = [0, 1].map(|number| office.address(number));
    // It says much of itself.
    let line = |words: &str| format!("{TSCTP} {words} | grep -v '^\\['");
    office.serve(0, &["sh", "-c", &line(&format!("-L {there}"))]);
    // Protocol 132 among the raw sockets.
    let sockets = "grep -c :0084 /proc/net/raw || true";
    until(A_WHILE, "the server has its socket", || {
        Ok(shell(&office.hosts[0], sockets).trim() != "0")
    })
    .unwrap();
    let passed = "cat /sys/class/net/enishi0/statistics/tx_bytes";
    let passed = || -> u64 { shell(&office.hosts[1], passed).trim().parse().unwrap() };
    let before = passed();
    let send = line(&format!("-L {here} -n 2000 -l 1000 {there}"));
    let told = shell(&office.hosts[1], &send);
    let done = "Sending of 2000 messages of length 1000 took";
    assert!(told.contains(done), "{told}");
    assert!(passed() - before > 2_000_000, "{told}");
}

impl Office {
    /// Starts a flow of numbers, 50 a second; where the receiver says what has come.
    fn flow(&mut self, from: usize, to: usize, count: usize) -> std::path::PathBuf {
        let (address, count) = (self.address(to), count.to_string());
        let words = |role| ["python3", "-c", FLOW, role, &address, &count];
        let log = self.serve(to, &words("receive"));
        wait_for_line(&log, "listens");
        self.serve(from, &words("send"));
        wait_for_line(&log, "has 50.");
        log
    }
}

/// Waits for the end of a flow; says when it stood still, and returns for how long at most, in
/// seconds.
fn finish_flow(log: &Path, of: &str) -> f64 {
    wait_for_line(log, "has all");
    let said = fs::read_to_string(log).unwrap();
    let pauses: Vec<&str> = said.lines().filter(|line| line.contains("pause")).collect();
    eprintln!("{of}: {}", pauses.join(", "));
    let seconds = |line: &&str| -> f64 { line.split(' ').nth(3).unwrap().parse().unwrap() };
    pauses.iter().map(seconds).fold(0.0, f64::max)
}

/// Flows between two hosts, of which one gets another address, stand still for less than two
/// seconds.
fn flows_survive_a_move(mut office: Office, old: &str, new: &str) {
    let flows = [(0, 1), (1, 0)].map(|(from, to)| office.flow(from, to, 300));
    let line = format!("ip address del {old} dev eth0; ip address add {new} dev eth0");
    shell(&office.hosts[1], &line);
    for (log, of) in flows.iter().zip(["to the one that moved", "from it"]) {
        let pause = finish_flow(log, of);
        assert!(pause < 2.0, "{of}: {pause} s");
    }
}

#[test]
fn flows_go_on_when_a_host_moves() {
    let Some(office) = open("roam", &[("python3", "python3")], 2) else {
        return;
    };
    let old = format!("{}/24", office.hosts[1].address());
    flows_survive_a_move(office, &old, "10.99.0.200/24");
}

/// Two hosts without IPv4 addresses, 1 and 2 in this network of IPv6. None without root.
fn open_in_ipv6(prefix: &str, network: &str) -> Option<Office> {
    let mut office = Office::open(prefix, &[("python3", "python3")])?;
    for last in [1, 2] {
        let number = office.add_host();
        let line = format!(
            "ip -4 address flush dev eth0; ip address add {network}::{last}/64 dev eth0 nodad"
        );
        shell(&office.hosts[number], &line);
        office.employ(number, Path::new(PROGRAM), &["--listen", "[::]:0"]);
    }
    Some(office)
}

#[test]
fn flows_go_on_when_a_host_moves_in_a_network_of_ipv6_alone() {
    let Some(office) = open_in_ipv6("roam6", "2001:db8") else {
        return;
    };
    // Whether somebody has the address already is not looked for, which takes seconds (RFC 4862).
    flows_survive_a_move(office, "2001:db8::2/64", "2001:db8::200/64 nodad");
}

#[test]
fn a_site_with_addresses_of_its_own_alone_has_straight_ways() {
    // Unique local addresses (RFC 4193), as the channels have themselves.
    let Some(office) = open_in_ipv6("site6", "fd12:3456:789a") else {
        return;
    };
    let goes_by = |address: &str| {
        until(A_WHILE, "packets go the straight way", || {
            let status = office.daemons[0].json(&["status"])?;
            let members = status["channels"][0]["member_list"].as_array();
            let mut paths = members.into_iter().flatten().map(|member| &member["path"]);
            let way = format!("direct [{address}]:");
            Ok(paths.any(|path| path.as_str().is_some_and(|path| path.starts_with(&way))))
        })
        .unwrap();
    };
    let ping = || office.wait_for_ping(0, &office.address(1), A_WHILE);
    ping();
    goes_by("fd12:3456:789a::2");
    let (old, new) = ("fd12:3456:789a::2/64", "fd12:3456:789a::200/64 nodad");
    let line = format!("ip address del {old} dev eth0; ip address add {new} dev eth0");
    shell(&office.hosts[1], &line);
    ping();
    goes_by("fd12:3456:789a::200");
}

#[test]
fn flows_go_on_when_a_host_wakes() {
    let Some(mut office) = open("sleep", &[("python3", "python3")], 2) else {
        return;
    };
    let flows = [(0, 1), (1, 0)].map(|(from, to)| office.flow(from, to, 350));
    // Longer than it takes the other to find that it is gone.
    let sleeper = office.daemons[1].process().id().to_string();
    office.done(1, &["kill", "-STOP", &sleeper]);
    sleep(Duration::from_secs(4));
    office.done(1, &["kill", "-CONT", &sleeper]);
    for (log, of) in flows.iter().zip(["to the one that slept", "from it"]) {
        finish_flow(log, of);
    }
}
