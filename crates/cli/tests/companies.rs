//! Whole nodes behind the proxies of companies, each of which has something against the requests of a
//! bridge: squid and tinyproxy where they can be told so, the lab's own proxy for the rest. Each
//! node is on a host of one site that nothing leaves but what goes to its proxy. Without root this test has
//! nothing to stand on and says so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use enishi_lab::forward::ensure_proxies;
use enishi_lab::wire::NatKind;
use enishi_lab::{
    Daemon, Fault, FaultyProxy, ForwardProxy, Host, command, ensure_programs, faulty, run, until,
};

use net::{A_WHILE, Net, id, way};

/// The first port of the proxies; each has one more.
const PORT: u16 = 3_128;

/// How much higher the port is that squid has besides the one of TLS.
const PLAIN: u16 = 1_000;

/// Where the node of the Internet listens for streams of its channel.
const ECHO_PORT: u16 = 7_007;

/// How many nodes run at the same time: each tries all that may pass, which keeps a processor busy.
const AT_ONCE: usize = 3;

/// How much goes there and back.
const STREAM_BYTES: usize = 100_000;

/// How long a proxy forbids everything after a leak.
const BLOCK: Duration = Duration::from_secs(2);

/// By requests.
const REQUESTS: &str = "direct http 11.0.";

/// Which proxy it is.
enum Kind {
    Squid(&'static str),
    /// Spoken to by TLS.
    SquidByTls(&'static str),
    Tinyproxy(&'static str),
    Lab(&'static [Fault]),
}

struct Case {
    name: &'static str,
    kind: Kind,
    /// Who the node is there.
    user: &'static str,
    /// How the other one is then reached.
    way: &'static str,
    /// What `enishi doctor net` finds of the bridge; nothing where there are no requests.
    found: &'static [&'static str],
}

const AKI: &str = "aki:sesame@";
const LAB_AKI: &str = "aki:open%20%22sesame%22@";

const CASES: &[Case] = &[
    Case {
        name: "tls",
        kind: Kind::SquidByTls(""),
        user: "",
        way: "direct tcp 11.0.",
        found: &["https 11.0.", "tcp 11.0.1.1:80 by the proxy 11.0."],
    },
    Case {
        name: "sealed",
        kind: Kind::SquidByTls("acl C method CONNECT POST PUT\nhttp_access deny C\n"),
        user: "",
        way: REQUESTS,
        found: &["https 11.0.", "GET of a long address", "forbidden (403)"],
    },
    Case {
        name: "sockets",
        kind: Kind::Squid(
            "auth_param basic program /usr/lib/squid/basic_ncsa_auth DIRECTORY/basic\n\
             auth_param basic children 1\nacl A proxy_auth REQUIRED\nhttp_access deny !A\n\
             acl C method CONNECT POST PUT\nhttp_access deny C\n\
             http_upgrade_request_protocols websocket allow all\n",
        ),
        user: AKI,
        way: "direct websocket 11.0.",
        found: &["websocket 11.0.1.1:80 by the proxy 11.0."],
    },
    Case {
        name: "short",
        kind: Kind::Squid(
            "acl C method CONNECT\nhttp_access deny C\nrequest_body_max_size 4 KB\n\
             refresh_pattern . 1440 100% 1440 override-expire ignore-no-store ignore-private \
             ignore-reload\nrequest_header_access Cookie deny all\n\
             reply_header_access Set-Cookie deny all\nacl HH req_header Host .\n\
             http_access deny !HH\n",
        ),
        user: "",
        way: REQUESTS,
        found: &[
            "POST of octets, up to 4096 octets",
            "too long for the proxy",
        ],
    },
    Case {
        name: "browsers",
        kind: Kind::Squid(
            "acl C method CONNECT\nhttp_access deny C\nacl K browser ^Mozilla/\n\
             http_access deny !K\ndeny_info TCP_RESET K\nreply_body_max_size 16 KB\n",
        ),
        user: "",
        way: REQUESTS,
        found: &[
            "only browsers pass",
            "replies of octets, up to 16384 octets",
        ],
    },
    Case {
        name: "forms",
        kind: Kind::Squid(
            "auth_param digest program /usr/lib/squid/digest_file_auth -c DIRECTORY/digest\n\
             auth_param digest children 1\nauth_param digest realm lab\n\
             acl A proxy_auth REQUIRED\nhttp_access deny !A\n\
             acl C method CONNECT\nhttp_access deny C\nacl P method POST\n\
             acl T req_mime_type ^application/x-www-form-urlencoded\nhttp_access deny P !T\n\
             acl R rep_mime_type ^text/\nhttp_reply_access deny !R\n",
        ),
        user: AKI,
        way: REQUESTS,
        found: &[
            "POST of a form",
            "replies of text",
            "takes the user and password (Digest)",
        ],
    },
    Case {
        name: "tiny",
        kind: Kind::Tinyproxy("ConnectPort 0\nBasicAuth aki sesame\n"),
        user: AKI,
        way: REQUESTS,
        found: &[
            "(Basic, readable by who is on the way)",
            "comes as a stream",
            "goes as a stream",
        ],
    },
    Case {
        name: "altered",
        kind: Kind::Lab(&[
            Fault::NoConnect,
            Fault::PostCached,
            Fault::LineEnds,
            Fault::SevenBits,
            Fault::Appended,
        ]),
        user: "",
        way: REQUESTS,
        found: &["POST of a form", "arrived damaged"],
    },
    Case {
        name: "flagged",
        kind: Kind::Lab(&[Fault::NoConnect, Fault::Leak, Fault::OneReply]),
        user: "",
        way: REQUESTS,
        found: &["make the proxy forbid everything for a while"],
    },
    Case {
        name: "strict",
        kind: Kind::Lab(&[
            Fault::NoConnect,
            Fault::OnlyHttp11,
            Fault::HostRequired,
            Fault::UnknownAgent,
            Fault::UnknownType,
            Fault::NoCookies,
            Fault::Digest,
        ]),
        user: LAB_AKI,
        way: REQUESTS,
        found: &["only browsers pass", "(Digest)", "POST of a file"],
    },
];

/// A node behind a proxy, and where it is.
struct Place<'a> {
    case: &'a Case,
    host: Host,
    daemon: Daemon,
}

/// What is kept so that it runs.
enum Running {
    Real(#[allow(dead_code, reason = "it ends when it is dropped")] ForwardProxy),
    Lab(#[allow(dead_code, reason = "it ends when it is dropped")] FaultyProxy),
}

fn start(case: &Case, gate: &Host, address: SocketAddr, directory: &Path) -> Running {
    let real = match case.kind {
        Kind::Squid(lines) => ForwardProxy::squid(Some(gate), address, lines),
        Kind::SquidByTls(lines) => {
            let plain = SocketAddr::new(address.ip(), address.port() + PLAIN);
            let files = format!(
                "tls-cert={0}/cert.pem tls-key={0}/key.pem",
                directory.display()
            );
            let lines = format!("https_port {address} {files}\n{lines}");
            ForwardProxy::squid(Some(gate), plain, &lines)
        }
        Kind::Tinyproxy(lines) => ForwardProxy::tinyproxy(Some(gate), address, lines),
        Kind::Lab(faults) => {
            let faults = faults.iter().copied();
            let proxy = FaultyProxy::start_on(gate, address, faults, BLOCK);
            return Running::Lab(proxy.unwrap());
        }
    };
    Running::Real(real.unwrap_or_else(|error| panic!("{}: {error:#}", case.name)))
}

/// Lets nothing leave a host but what goes to its proxy.
fn shut(host: &Host, proxy: SocketAddr) {
    let rules = format!(
        "nft 'table ip shut {{ chain out {{ type filter hook output priority 0; policy drop; \
         oifname lo accept; oifname != eth0 accept; ip daddr {} tcp dport {} accept; }}; }}'",
        proxy.ip(),
        proxy.port()
    );
    let done = host.run(&["sh", "-ec", &rules], A_WHILE).unwrap();
    assert!(done.success(), "{}", done.stderr);
}

/// Makes a key and a certificate for some hosts, and returns the line by which a node trusts it.
fn certify(directory: &Path, hosts: &[Host]) -> String {
    let [key, certificate] = ["key.pem", "cert.pem"].map(|name| directory.join(name));
    let mut openssl = command("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=proxy", "-addext"]);
    let names = hosts.iter().map(|host| format!("IP:{}", host.address()));
    let names: Vec<String> = names.collect();
    openssl.arg(format!("subjectAltName={}", names.join(",")));
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    let made = run(openssl, A_WHILE).unwrap();
    assert!(made.success(), "{}", made.stderr);
    // squid gives up the rights of root.
    for (path, mode) in [(directory, 0o755), (&key, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    format!("proxy_ca = \"{}\"\n", certificate.display())
}

/// Sends back what comes, on a host, as long as the test lasts.
fn echo(host: &Host) {
    let host = host.clone();
    let (told, ready) = std::sync::mpsc::channel();
    thread::spawn(move || {
        host.enter().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ECHO_PORT)).unwrap();
        told.send(()).unwrap();
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                // An end by error is an end.
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    ready.recv().unwrap();
}

impl Place<'_> {
    /// A stream of the channel goes there and back, octet by octet, and so does a ping.
    fn passes(&self, helper: &str, there: Ipv4Addr) {
        let Case {
            name,
            found,
            way: expected,
            ..
        } = self.case;
        let started = Instant::now();
        until(A_WHILE, "it is reached as expected", || {
            Ok(way(&self.daemon, helper).starts_with(expected))
        })
        .unwrap_or_else(|error| {
            panic!(
                "{name}: {error}: {}\n{}",
                way(&self.daemon, helper),
                self.daemon.log()
            )
        });
        println!(
            "{name}: {} after {:?}",
            way(&self.daemon, helper),
            started.elapsed()
        );
        let words = there.to_string();
        until(A_WHILE, "a ping is answered", || {
            let ping = ["ping", "-c", "1", "-W", "5", &words];
            Ok(self.host.run(&ping, A_WHILE)?.success())
        })
        .unwrap_or_else(|error| panic!("{name}: {error}\n{}", self.daemon.log()));
        let host = self.host.clone();
        let stream = thread::spawn(move || {
            host.enter().unwrap();
            let mut stream = TcpStream::connect((there, ECHO_PORT)).unwrap();
            stream.set_read_timeout(Some(A_WHILE)).unwrap();
            let sent: Vec<u8> = (0..STREAM_BYTES).map(|n| (n % 251) as u8).collect();
            let mut writer = stream.try_clone().unwrap();
            let sending = sent.clone();
            let sender = thread::spawn(move || writer.write_all(&sending).unwrap());
            let mut came = vec![0; STREAM_BYTES];
            stream.read_exact(&mut came).unwrap();
            sender.join().unwrap();
            assert!(came == sent, "what was sent comes back");
        });
        let passed = stream.join();
        assert!(passed.is_ok(), "{name}: no stream\n{}", self.daemon.log());
        println!("{name}: a stream after {:?}", started.elapsed());
        let examined = self.daemon.call(&["doctor", "net"]).unwrap().stdout;
        println!("{name}: examined after {:?}\n{examined}", started.elapsed());
        for words in *found {
            assert!(
                examined.contains(words),
                "{name}: no `{words}` in\n{examined}"
            );
        }
    }
}

#[test]
fn nodes_behind_the_proxies_of_companies_reach_the_others() {
    let Some(mut net) = Net::open("companies") else {
        return;
    };
    ensure_proxies().unwrap();
    ensure_programs(&[("openssl", "openssl")]).unwrap();
    assert_eq!((faulty::USER, faulty::PASSWORD), ("aki", "open \"sesame\""));
    let helper = net.world.public("s0").unwrap();
    // What comes from one address is bounded.
    let gates = ["g0", "g1", "g2", "g3"].map(|name| net.world.public(name).unwrap());
    let site = net.world.home(NatKind::port_restricted()).unwrap();
    let (first, ticket) = net.found(&helper, "web_ports = [80]\n");
    echo(&helper);
    let there = first.address().unwrap();
    let authority = certify(net.directory.path(), &gates);
    let mut proxies = Vec::new();
    let mut hosts = Vec::new();
    for ((case, port), gate) in CASES.iter().zip(PORT..).zip(gates.iter().cycle()) {
        let address = SocketAddr::from((gate.address(), port));
        proxies.push(start(case, gate, address, net.directory.path()));
        let host = net.world.host(case.name, site).unwrap();
        shut(&host, address);
        hosts.push((case, host, address));
    }
    let helper = id(&first);
    let left = Mutex::new(hosts);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((case, host, address)) = next(&left) {
                    let (scheme, further) = match case.kind {
                        Kind::SquidByTls(_) => ("https", authority.as_str()),
                        Kind::Squid(_) | Kind::Tinyproxy(_) | Kind::Lab(_) => ("http", ""),
                    };
                    let user = case.user;
                    let config = format!("proxy = \"{scheme}://{user}{address}\"\n{further}");
                    let daemon = net.join(&host, &config, &ticket);
                    Place { case, host, daemon }.passes(&helper, there);
                }
            });
        }
    });
    drop(proxies);
}

/// Where the requests are caught that go to port 80.
const CAUGHT: &str = "nft add rule ip lab in accept && \
    nft 'add chain ip lab shut { type filter hook forward priority 0; policy drop; }' && \
    nft 'add chain ip lab caught { type nat hook prerouting priority -100; }' && \
    nft add rule ip lab caught iifname lan0 tcp dport 80 redirect to :3129";

#[test]
fn a_node_whose_requests_are_intercepted_reaches_the_others() {
    let Some(mut net) = Net::open("intercepted") else {
        return;
    };
    ensure_proxies().unwrap();
    let [helper, gate] = ["s0", "gate"].map(|name| net.world.public(name).unwrap());
    let host = net.world.behind_kernel("inside", &gate, "").unwrap();
    let caught = gate.run(&["sh", "-ec", CAUGHT], A_WHILE).unwrap();
    assert!(caught.success(), "{}", caught.stderr);
    // squid wants a port of the usual kind too.
    let [plain, lines] = ["192.168.1.1:3128", "http_port 192.168.1.1:3129 intercept\n"];
    let _squid = ForwardProxy::squid(Some(&gate), plain.parse().unwrap(), lines).unwrap();
    let (first, ticket) = net.found(&helper, "web_ports = [80]\n");
    echo(&helper);
    let case = &Case {
        name: "intercepted",
        kind: Kind::Squid(""),
        user: "",
        way: "direct http 11.0.1.1:80",
        found: &["http 11.0.1.1:80: passes", "POST of octets, up to"],
    };
    let daemon = net.join(&host, "proxy = \"none\"\n", &ticket);
    let (helper, there) = (id(&first), first.address().unwrap());
    Place { case, host, daemon }.passes(&helper, there);
}

fn next<T>(left: &Mutex<Vec<T>>) -> Option<T> {
    left.lock().unwrap().pop()
}
