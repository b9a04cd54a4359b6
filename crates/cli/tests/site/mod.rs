//! A company's network that nothing leaves but what a proxy on its gate lets through: squid.

#![allow(dead_code, reason = "every file of tests needs a part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use enishi_lab::{ForwardProxy, Host, ensure_programs};

use crate::net::{A_WHILE, Net};

/// The gate's address, seen from within.
pub(crate) const GATE: &str = "192.168.1.1";

/// Where squid listens, seen from within.
pub(crate) const PROXY: &str = "192.168.1.1:3128";

/// What all configurations of squid begin with: as Debian has it, CONNECT to 443 alone.
const SQUID: &str = "acl SSL_ports port 443\nacl CONNECT method CONNECT\n\
                     http_access deny CONNECT !SSL_ports\n";

/// The host inside, and the gate, which passes nothing on by itself.
pub(crate) struct Site {
    pub(crate) gate: Host,
    pub(crate) inside: Host,
}

impl Site {
    pub(crate) fn new(net: &mut Net) -> Self {
        let gate = net.world.public("gate").unwrap();
        let inside = net.world.behind_kernel("inside", &gate, "").unwrap();
        let shut = "nft add rule ip lab in accept && nft 'add chain ip lab shut \
                    { type filter hook forward priority 0; policy drop; }'";
        assert!(gate.run(&["sh", "-ec", shut], A_WHILE).unwrap().success());
        Self { gate, inside }
    }

    /// Starts squid at a place of the gate, with these lines in its configuration.
    pub(crate) fn squid(&self, at: &str, lines: &str) -> ForwardProxy {
        ensure_programs(&[("squid", "squid")]).unwrap();
        let lines = format!("{SQUID}{lines}");
        ForwardProxy::squid(Some(&self.gate), at.parse().unwrap(), &lines).unwrap()
    }

    /// Serves the files of a directory on the gate, by HTTP, as long as the test runs.
    pub(crate) fn serve(&self, directory: &Path) {
        let (gate, directory) = (self.gate.clone(), directory.to_owned());
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            gate.enter().unwrap();
            let listener = TcpListener::bind((GATE, 80)).unwrap();
            ready.send(()).unwrap();
            for stream in listener.incoming() {
                // Who asked may be gone.
                let _ = stream.and_then(|stream| answer(stream, &directory));
            }
        });
        is_ready.recv().unwrap();
    }
}

fn answer(mut stream: TcpStream, directory: &Path) -> std::io::Result<()> {
    let mut asked = [0; 4_096];
    let count = stream.read(&mut asked)?;
    let asked = String::from_utf8_lossy(&asked[..count]);
    let path = asked.split(' ').nth(1).unwrap_or_default();
    let file: PathBuf = directory.join(path.trim_start_matches('/'));
    let (status, text) = match std::fs::read(file) {
        Ok(text) => ("200 OK", text),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = text.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&text)
}

/// Returns what squid has written to its log: a line for each request, and one for each connection that
/// has ended.
pub(crate) fn log(squid: &ForwardProxy) -> String {
    let file = squid.directory().join("access.log");
    std::fs::read_to_string(file).unwrap_or_default()
}

/// Tells whether squid's log has a request that was let through, of this method, to a place that begins so.
pub(crate) fn has_passed(squid: &ForwardProxy, method: &str, place: &str) -> bool {
    let asked = format!(" {method} {place}");
    let log = log(squid);
    log.lines()
        .any(|line| line.contains("/200 ") && line.contains(&asked))
}
