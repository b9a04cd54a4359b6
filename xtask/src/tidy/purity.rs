//! The pure crates take no input but what is given; unsafe code stays where it is
//! looked for.

use super::Finding;
use super::source::{Source, has_word};

/// The crates without sockets, clock, disk, threads or randomness of their own.
pub(super) const PURE: &[&str] = &["dns", "overlay", "services", "sim", "stun"];

/// The pure parts of crates that are not pure as a whole.
const PURE_PARTS: &[&str] = &[
    "crates/bridge/src/auth.rs",
    "crates/bridge/src/exchange/",
    "crates/bridge/src/frame.rs",
    "crates/bridge/src/probe/",
    "crates/bridge/src/way.rs",
];

/// The crates that may hold unsafe code, in small files that say why it is sound.
const UNSAFE: &[&str] = &["dataplane", "host", "lab"];

/// What the pure crates may not say outside their tests, and why.
const IMPURE: &[(&[&str], &str)] = &[
    (
        &["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs"],
        "sockets belong to the host",
    ),
    (
        &["UnixStream", "UnixListener", "UnixDatagram"],
        "sockets belong to the host",
    ),
    (
        &["Instant", "SystemTime"],
        "the time is given with every input",
    ),
    (
        &["std::fs", "fs::", "std::env", "env::"],
        "disk and environment belong to the host",
    ),
    (
        &[
            "std::thread",
            "thread::",
            "std::process",
            "process::",
            "tokio",
        ],
        "threads, processes and tasks belong to the host",
    ),
    (
        &["OsRng", "SysRng", "thread_rng", "rand::rng", "getrandom"],
        "randomness comes from the seed",
    ),
    (
        &["println!", "eprintln!", "print!", "eprint!"],
        "events are the log",
    ),
    (&["dyn"], "the pure crates have closed enums"),
];

/// The files of the pure crates that name what is only called like something impure: path, word
/// and what it is.
const NAMESAKES: &[(&str, &str, &str)] = &[(
    "crates/stun/src/clock.rs",
    "Instant",
    "a number, by which the crates of STUN and TURN are told the time",
)];

/// Collections whose order differs from run to run.
const UNORDERED: &[&str] = &["HashMap", "HashSet", "RandomState"];

/// The files of the pure crates that may use floating point, and why. A path that
/// ends in `/` stands for all files below.
const FLOATS: &[(&str, &str)] = &[
    ("crates/sim/src/statistics.rs", "figures for people"),
    ("crates/sim/src/scenario/attack.rs", "figures for people"),
    (
        "crates/sim/src/scenario/attack/values.rs",
        "figures for people",
    ),
    ("crates/sim/src/plot/", "pictures for people"),
    ("crates/sim/src/scenario/channel/", "figures for people"),
    ("crates/sim/src/scenario/classes.rs", "figures for people"),
    ("crates/sim/src/scenario/multicast.rs", "figures for people"),
];

/// Checks one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let krate = source.krate();
    let in_source = source.path.split('/').nth(2) == Some("src");
    let in_part = PURE_PARTS.iter().any(|part| covers(part, &source.path));
    if in_part || in_source && krate.is_some_and(|krate| PURE.contains(&krate)) {
        findings.extend(impure(source));
        findings.extend(floats(source, FLOATS));
    }
    if !krate.is_some_and(|krate| UNSAFE.contains(&krate)) {
        findings.extend(unsafe_code(source));
    }
    findings
}

fn impure(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, code) in source.code_outside_tests() {
        for (words, why) in IMPURE {
            let mut words = words.iter().filter(|word| !is_namesake(source, word));
            let found = words.find(|word| has_word(code, word));
            findings.extend(found.map(|word| {
                Finding::new(
                    &source.path,
                    line,
                    format!("`{word}` in a pure crate: {why}"),
                )
            }));
        }
        let fixed = has_word(code, "BuildHasherDefault");
        let found = UNORDERED.iter().find(|word| !fixed && has_word(code, word));
        findings.extend(found.map(|word| {
            let message = format!("`{word}` in a pure crate: take a BTreeMap or a fixed hasher");
            Finding::new(&source.path, line, message)
        }));
    }
    findings
}

fn is_namesake(source: &Source, word: &str) -> bool {
    let mut namesakes = NAMESAKES.iter();
    namesakes.any(|(path, namesake, _)| *path == source.path && *namesake == word)
}

fn floats(source: &Source, allowed: &[(&str, &str)]) -> Vec<Finding> {
    if allowed.iter().any(|(path, _)| covers(path, &source.path)) {
        return Vec::new();
    }
    let lines = source.code_outside_tests();
    lines
        .filter(|(_, code)| ["f32", "f64"].iter().any(|word| has_word(code, word)))
        .map(|(line, _)| {
            let message = "floating point in a pure crate: decisions must replay; \
                           a file that needs it is listed, with its reason, in tidy/purity.rs";
            Finding::new(&source.path, line, message)
        })
        .collect()
}

/// Tells whether `path` is `place`, or below it where that is a directory.
fn covers(place: &str, path: &str) -> bool {
    path == place || place.ends_with('/') && path.starts_with(place)
}

fn unsafe_code(source: &Source) -> Vec<Finding> {
    let lines = source.code.iter().enumerate();
    lines
        .filter(|(_, code)| has_word(code, "unsafe"))
        .map(|(at, _)| Finding::new(&source.path, at + 1, "unsafe code outside its crates"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let source = Source::new(path.into(), text);
        check(&source).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn pure_crates_touch_nothing_outside() {
        for offence in [
            "use std::net::UdpSocket;",
            "use std::{fmt, time::Instant};",
            "let now = SystemTime::now();",
            "use std::fs;",
            "fs::read(path)",
            "std::thread::spawn(run);",
            "use std::process::Command;",
            "std::env::var(name)",
            "tokio::spawn(task);",
            "OsRng.fill_bytes(&mut seed);",
            "use std::collections::HashMap;",
            "let seen = HashSet::new();",
            "fn f(x: &dyn Any) {}",
            "println!(\"{x}\");",
            "fn f(x: f64) {}",
        ] {
            assert_eq!(lines("crates/overlay/src/a.rs", offence), [1], "{offence}");
            assert!(lines("crates/host/src/a.rs", offence).is_empty());
        }
    }

    #[test]
    fn the_pure_parts_of_other_crates_are_held_to_it() {
        let offence = "let now = Instant::now();";
        for (path, found) in [
            ("crates/bridge/src/exchange/near.rs", 1),
            ("crates/bridge/src/way.rs", 1),
            ("crates/bridge/src/client.rs", 0),
        ] {
            assert_eq!(lines(path, offence).len(), found, "{path}");
        }
    }

    #[test]
    fn addresses_durations_fixed_hashers_and_tests_are_fine() {
        let text = "\
use std::net::{IpAddr, SocketAddr};
use std::time::Duration; // not Instant
type Map<K, V> = HashMap<K, V, BuildHasherDefault<Fixed>>;
#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    fn mean() -> f64 { println!(); 0.0 }
}";
        assert!(lines("crates/sim/src/a.rs", text).is_empty());
        let test = "use std::time::Instant;";
        assert!(lines("crates/sim/tests/a.rs", test).is_empty());
    }

    #[test]
    fn a_namesake_is_fine_where_it_is_listed() {
        let text = "use stun_proto::Instant;\nuse std::net::UdpSocket;";
        assert_eq!(lines("crates/stun/src/clock.rs", text), [2]);
        assert_eq!(lines("crates/stun/src/client.rs", text), [1, 2]);
    }

    #[test]
    fn floating_point_needs_a_reason() {
        let text = "fn mean() -> f64 { 0.0 }";
        let source = Source::new("crates/sim/src/report/mean.rs".into(), text);
        assert_eq!(floats(&source, &[]).len(), 1);
        assert!(floats(&source, &[("crates/sim/src/report/", "figures")]).is_empty());
        assert!(floats(&source, &[("crates/sim/src/report/mean.rs", "figures")]).is_empty());
        assert_eq!(floats(&source, &[("crates/sim/src/report", "no")]).len(), 1);
    }

    #[test]
    fn unsafe_code_stays_in_its_crates() {
        let text = "unsafe { libc::sync() }";
        for path in [
            "crates/services/src/a.rs",
            "crates/cli/src/a.rs",
            "xtask/src/a.rs",
        ] {
            assert_eq!(lines(path, text), [1], "{path}");
        }
        assert!(lines("crates/dataplane/src/a.rs", text).is_empty());
        assert!(lines("crates/cli/src/a.rs", "// unsafe\n\"unsafe\"").is_empty());
    }
}
