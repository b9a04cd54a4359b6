//! Where children start. Alone in its file: the first child of the process must be
//! asked for by the test itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use enishi_lab::{Lab, command, is_root, run};

#[test]
fn children_of_a_thread_that_entered_a_host_start_outside_of_it() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mut lab = Lab::new("labspawn").unwrap();
    let host = lab.host("a").unwrap();
    let here = std::fs::read_link("/proc/self/ns/net").unwrap();
    let asked = std::thread::spawn(move || {
        host.enter().unwrap();
        assert_ne!(
            std::fs::read_link("/proc/thread-self/ns/net").unwrap(),
            here
        );
        let mut readlink = command("readlink");
        readlink.arg("/proc/self/ns/net");
        let there = run(readlink, Duration::from_secs(10)).unwrap();
        assert_eq!(there.stdout.trim(), here.to_str().unwrap());
    });
    asked.join().unwrap();
}
