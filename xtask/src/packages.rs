//! The programs that the tests need, and the Debian packages that bring them.

use enishi_lab::programs::find_program;
use enishi_lab::{ensure_programs, is_root};

use crate::steps::Outcome;

/// The one place that lists them: program, package, and what needs it.
const NEEDS: &[(&str, &str, &str)] = &[
    ("ip", "iproute2", "end-to-end tests in namespaces"),
    ("ping", "iputils-ping", "end-to-end tests in namespaces"),
    ("curl", "curl", "end-to-end downloads"),
    ("dig", "bind9-dnsutils", "end-to-end tests of names"),
    ("iperf3", "iperf3", "`cargo xtask bench vnet`"),
    ("ethtool", "ethtool", "`cargo xtask bench vnet`"),
    ("wg", "wireguard-tools", "`cargo xtask bench vnet`"),
    ("arping", "arping", "end-to-end tests of Ethernet devices"),
    ("socat", "socat", "end-to-end tests of datagrams"),
    ("python3", "python3-minimal", "end-to-end web servers"),
    ("nft", "nftables", "end-to-end tests with filters and NATs"),
    (
        "avahi-daemon",
        "avahi-daemon",
        "end-to-end tests of discovery",
    ),
    ("sshd", "openssh-server", "end-to-end tests of programs"),
    ("ssh", "openssh-client", "end-to-end tests of programs"),
    ("rsync", "rsync", "end-to-end tests of programs"),
    ("initdb", "postgresql", "end-to-end tests of programs"),
    ("mtr", "mtr-tiny", "end-to-end tests of programs"),
    (
        "/usr/lib/usrsctp/tsctp",
        "libusrsctp-examples",
        "end-to-end tests of programs",
    ),
    ("socksify", "dante-client", "end-to-end tests of proxies"),
    ("squid", "squid", "end-to-end tests of proxies, and the lab"),
    ("openssl", "openssl", "`cargo xtask lab matrix --iroh`"),
    ("g++", "g++", "fuzzing: libFuzzer is written in C++"),
];

/// Installs what is missing when we are root; otherwise says what will be skipped.
pub(crate) fn ensure() -> anyhow::Result<Outcome> {
    if !is_root() {
        println!("not root: tests that need TUN devices or network namespaces are skipped");
        let missing = NEEDS.iter().filter(|need| find_program(need.0).is_none());
        for (program, package, purpose) in missing {
            println!("`{program}` (Debian package {package}) is missing: {purpose}");
        }
        return Ok(Outcome::skipped("not root, no tests in namespaces"));
    }
    let wanted: Vec<(&str, &str)> = NEEDS.iter().map(|need| (need.0, need.1)).collect();
    ensure_programs(&wanted)?;
    println!("nothing is missing");
    Ok(Outcome::single(true))
}
