//! Rules of a channel between real hosts: who may reach which port of whom, at both ends, for
//! programs that we did not write. Without root this test has nothing to stand on and says so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::path::PathBuf;

use enishi_lab::{Process, until};

use office::{A_WHILE, Office, reaches, shell, wait_for_line};

/// The numbers of the hosts: one that serves, and says the rules, one that asks, and one
/// without a device.
const SERVER: usize = 0;
const ASKER: usize = 1;
const PLAIN: usize = 2;

/// How many octets more tell that a flow goes on, and that nothing answers it.
const ENOUGH: u64 = 50;

/// Sends an octet a hundred times a second over a connection, and tells how many it has sent and
/// how many have come back.
const FLOW: &str = r#"
import socket, sys, time
flow = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
flow.setblocking(False)
sent = got = 0
while True:
    try:
        sent += flow.send(b"x")
        got += len(flow.recv(4096))
    except BlockingIOError:
        pass
    print(sent, got, flush=True)
    time.sleep(0.01)
"#;

/// Sends datagrams to a port where nobody is.
const FLOOD: &str = r#"
import socket, sys, time
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    flood.sendto(b"x", (sys.argv[1], 9))
    time.sleep(0.0005)
"#;

/// A connection under way, and where it tells how far it is.
struct Flow {
    log: PathBuf,
    _program: Process,
}

impl Flow {
    /// How many octets were sent, and how many came back.
    fn counts(&self) -> (u64, u64) {
        let said = std::fs::read_to_string(&self.log).unwrap();
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole
            .lines()
            .next_back()
            .and_then(|line| line.split_once(' '));
        last.map_or((0, 0), |(sent, got)| {
            (sent.parse().unwrap(), got.parse().unwrap())
        })
    }

    fn wait_until_it_goes_on(&self) {
        let before = self.counts().1;
        let goes_on = until(A_WHILE, "the flow goes on", || {
            Ok(self.counts().1 >= before + ENOUGH)
        });
        goes_on.unwrap_or_else(|error| panic!("{error}: {:?}", self.counts()));
    }

    /// What is sent is not answered any more.
    fn wait_until_it_is_cut(&self) {
        let mut since = self.counts();
        let cut = until(A_WHILE, "the flow is cut", || {
            let now = self.counts();
            if now.1 > since.1 {
                since = now;
            }
            Ok(now.0 >= since.0 + ENOUGH)
        });
        cut.unwrap_or_else(|error| panic!("{error}: {:?}", self.counts()));
    }
}

impl Office {
    fn flow(&self, port: &str) -> Flow {
        let words = ["python3", "-u", "-c", FLOW, &self.address(SERVER), port];
        let (program, log) = self.spawn(ASKER, &format!("flow{port}"), &words);
        Flow {
            log,
            _program: program,
        }
    }

    /// Says a rule, and waits until the one that it is for has heard of it.
    fn allow(&self, to: &str, ports: &str) {
        let rule = ["--from", "h1", "--to", to, "--ports", ports];
        let words = [&["channel", "allow", "office"], &rule[..]].concat();
        self.daemons[SERVER].text(&words).unwrap();
        self.wait_until_heard();
    }

    /// Takes the first rule away.
    fn disallow(&self) {
        let words = ["channel", "disallow", "office", "1"];
        self.daemons[SERVER].text(&words).unwrap();
        self.wait_until_heard();
    }

    fn wait_until_heard(&self) {
        let rules = |at: usize| self.daemons[at].json(&["channel", "rules", "office"]);
        until(A_WHILE, "the rules are heard of", || {
            Ok(rules(ASKER)? == rules(SERVER)? && rules(PLAIN)? == rules(SERVER)?)
        })
        .unwrap();
    }

    /// Whether the one that asks gets a page, or why not.
    fn get(&self, number: usize, port: u16) -> Result<String, String> {
        let page = format!("http://{}:{port}/name", self.address(number));
        let output = self.run(ASKER, &["curl", "-sS", "--max-time", "5", &page]);
        match output.success() {
            true => Ok(output.stdout),
            false => Err(output.stderr),
        }
    }

    fn wait_for_page(&self, number: usize, port: u16) {
        until(A_WHILE, "the page is there", || {
            Ok(self.get(number, port).is_ok())
        })
        .unwrap();
    }

    /// What this end of the session has refused of what came.
    fn refused(&self) -> u64 {
        let status = self.daemons[SERVER].json(&["status"]).unwrap();
        status["refused"]["foreign_packets"].as_u64().unwrap()
    }

    /// The octets that came from the one that asks, and passed.
    fn passed(&self) -> u64 {
        let show = self.daemons[SERVER]
            .json(&["channel", "show", "office"])
            .unwrap();
        let mut members = show["member_list"].as_array().unwrap().iter();
        let asker = members.find(|member| member["host"] == "h1").unwrap();
        asker["bytes_received"].as_u64().unwrap()
    }
}

/// An office with servers: echoes at two ports, pages at another, and pages at two ports of the
/// host without a device.
fn open() -> Option<Office> {
    let programs = [
        ("curl", "curl"),
        ("ping", "iputils-ping"),
        ("python3", "python3"),
        ("socat", "socat"),
    ];
    let mut office = Office::open("rules", &programs)?;
    for arguments in [&[][..], &[], &["--no-tun"]] {
        office.hire(arguments);
    }
    for port in ["22", "23"] {
        let listen = format!("TCP-LISTEN:{port},fork,reuseaddr");
        office.serve(SERVER, &["socat", &listen, "EXEC:cat"]);
    }
    let pages = office.path("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(pages.join("name"), "page").unwrap();
    for (number, port) in [(SERVER, "80"), (PLAIN, "8000")] {
        let server = ["python3", "-u", "-m", "http.server", port, "--directory"];
        let log = office.serve(number, &[&server[..], &[pages.to_str().unwrap()]].concat());
        wait_for_line(&log, "Serving");
    }
    for port in ["80", "81"] {
        let forward = ["forward", "add", "office", "remote", port, "127.0.0.1:8000"];
        office.daemons[PLAIN].text(&forward).unwrap();
    }
    Some(office)
}

#[test]
fn rules_are_kept_by_both_ends() {
    let Some(office) = open() else {
        return;
    };
    let (asker, server) = (&office.hosts[ASKER], office.address(SERVER));
    office.wait_for_ping(ASKER, &server, A_WHILE);
    for (number, port) in [(SERVER, 80), (PLAIN, 80), (PLAIN, 81)] {
        office.wait_for_page(number, port);
    }
    let [allowed, forbidden] = ["22", "23"].map(|port| office.flow(port));
    allowed.wait_until_it_goes_on();
    forbidden.wait_until_it_goes_on();

    office.allow("h0", "tcp/22");
    forbidden.wait_until_it_is_cut();
    allowed.wait_until_it_goes_on();
    let again = format!("echo hello | socat -t 10 - TCP:{server}:22");
    assert_eq!(shell(asker, &again), "hello\n");
    assert!(office.get(SERVER, 80).is_err() && office.get(PLAIN, 80).is_err());
    // Its own node tells the sender.
    let told = office.run(ASKER, &["ping", "-c", "1", "-W", "2", &server]);
    assert!(told.stdout.contains("Packet filtered"), "{}", told.stdout);
    assert!(!reaches(&office.hosts[SERVER], &office.address(ASKER)));

    // At a member without a device, too.
    office.allow("h2", "tcp/80");
    assert_eq!(office.get(PLAIN, 80), Ok("page".to_owned()));
    assert!(office.get(PLAIN, 81).is_err());
    allowed.wait_until_it_goes_on();
    // With its rule goes the flow that is open.
    office.disallow();
    allowed.wait_until_it_is_cut();
    office.disallow();
    office.wait_for_ping(ASKER, &server, A_WHILE);

    the_receiver_keeps_them_by_itself(&office, &server);
}

/// A sender that has not heard of a rule yet is as good as one that does not care.
fn the_receiver_keeps_them_by_itself(office: &Office, server: &str) {
    let words = ["python3", "-c", FLOOD, server];
    let _flood = office.spawn(ASKER, "flood", &words);
    until(
        A_WHILE,
        "the receiver refuses what the sender let go",
        || {
            let (refused, passed) = (office.refused(), office.passed());
            until(A_WHILE, "datagrams pass", || {
                Ok(office.passed() > passed + 10 * ENOUGH)
            })?;
            // A late datagram of before may have been counted still.
            if office.refused() != refused {
                return Ok(false);
            }
            office.allow("h0", "tcp/22");
            let is_refused = office.refused() > refused;
            office.disallow();
            Ok(is_refused)
        },
    )
    .unwrap();
}
