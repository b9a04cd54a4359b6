//! Labs on the real kernel. Every test needs root and says so when it is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use enishi_lab::{Host, Lab, is_root, until};

const LIMIT: Duration = Duration::from_secs(20);

/// Ends the test early, and says so, when the process is not root.
macro_rules! need_root {
    () => {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
    };
}

fn reaches(from: &Host, to: &Host) -> bool {
    let address = to.address().to_string();
    let ping = ["ping", "-n", "-c", "1", "-W", "1", &address];
    from.run(&ping, LIMIT).unwrap().success()
}

/// Waits: the kernel tells of a carrier up to a second after a cable is plugged in.
fn comes_to_reach(from: &Host, to: &Host) {
    let what = format!("{} reaches {}", from.name(), to.name());
    until(LIMIT, &what, || Ok(reaches(from, to))).unwrap();
}

fn exists(host: &Host) -> bool {
    Path::new("/run/netns").join(host.namespace()).exists()
}

fn await_end(pid: u32) {
    until(LIMIT, &format!("process {pid} has ended"), || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        // A killed child that nobody has waited for yet is a zombie: it is dead.
        Ok(stat.map_or(true, |stat| stat.contains(") Z ")))
    })
    .unwrap();
}

#[test]
fn hosts_reach_each_other_until_cut_and_again_after_healing() {
    need_root!();
    let mut lab = Lab::new("labtest").unwrap();
    let (a, b, c) = (
        lab.host("a").unwrap(),
        lab.host("b").unwrap(),
        lab.host("c").unwrap(),
    );
    comes_to_reach(&a, &b);
    comes_to_reach(&b, &c);

    lab.isolate(&[&a, &b], &[&c]).unwrap();
    comes_to_reach(&a, &b);
    assert!(!reaches(&a, &c) && !reaches(&c, &b));
    lab.isolate(&[&a], &[&b, &c]).unwrap();
    comes_to_reach(&c, &b);
    assert!(!reaches(&a, &b) && !reaches(&a, &c));
    lab.heal().unwrap();
    comes_to_reach(&a, &b);
    comes_to_reach(&a, &c);

    b.link_down().unwrap();
    assert!(!reaches(&a, &b));
    b.link_up().unwrap();
    comes_to_reach(&a, &b);
}

#[test]
fn a_pair_is_joined_directly_and_two_labs_do_not_collide() {
    need_root!();
    let (mut one, mut two) = (Lab::new("labtest").unwrap(), Lab::new("labtest").unwrap());
    let (a, b) = one.pair("a", "b").unwrap();
    let (c, d) = two.pair("a", "b").unwrap();
    comes_to_reach(&a, &b);
    comes_to_reach(&d, &c);
    assert!(one.host("a").is_err() && one.host("A").is_err());
    let links = a.run(&["ip", "-o", "link"], LIMIT).unwrap().stdout;
    assert_eq!(links.lines().count(), 2, "{links}");
    let routes = a.run(&["ip", "route"], LIMIT).unwrap().stdout;
    assert!(!routes.contains("default"), "{routes}");
}

#[test]
fn dropping_a_lab_leaves_neither_namespaces_nor_processes() {
    need_root!();
    let mut lab = Lab::new("labtest").unwrap();
    let host = lab.host("a").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut sleep = host.command("sleep");
    sleep.arg("60");
    let mut guarded = host.spawn(sleep, &directory.path().join("log")).unwrap();
    // One that leaves its process group, as a careless daemon may.
    let escaped = host
        .run(&["sh", "-c", "setsid sleep 60 & echo $!"], LIMIT)
        .unwrap();
    let escaped: u32 = escaped.stdout.trim().parse().unwrap();
    assert!(exists(&host) && guarded.is_running().unwrap());

    drop(lab);
    assert!(!exists(&host));
    assert!(guarded.wait(LIMIT).unwrap().is_some());
    await_end(escaped);
}

#[test]
fn signals_and_exit_codes_belong_to_the_program_itself() {
    need_root!();
    let mut lab = Lab::new("labtest").unwrap();
    let host = lab.host("a").unwrap();
    assert_eq!(
        host.run(&["sh", "-c", "exit 42"], LIMIT)
            .unwrap()
            .status
            .code(),
        Some(42)
    );
    assert!(host.run(&["no-such-program"], LIMIT).is_err());
    let directory = tempfile::tempdir().unwrap();
    let mut shell = host.command("sh");
    shell.args([
        "-c",
        "trap 'exit 5' TERM; echo $$; while :; do sleep 0.05; done",
    ]);
    let log = directory.path().join("log");
    let mut shell = host.spawn(shell, &log).unwrap();
    until(LIMIT, "the shell says its number", || {
        Ok(std::fs::read_to_string(&log)?.ends_with('\n'))
    })
    .unwrap();
    assert_eq!(
        std::fs::read_to_string(&log).unwrap().trim(),
        shell.id().to_string()
    );
    assert_eq!(shell.terminate(LIMIT).unwrap().code(), Some(5));
}

/// What the child process of the next two tests does: it builds a lab, says so, and waits.
#[test]
fn child_with_a_lab() {
    let Ok(prefix) = std::env::var("ENISHI_LAB_TEST_CHILD") else {
        return; // Run by the other tests only.
    };
    enishi_lab::install_signal_cleanup().unwrap();
    let mut lab = Lab::new(&prefix).unwrap();
    let host = lab.host("a").unwrap();
    let mut sleep = host.command("sleep");
    sleep.arg("60");
    let log = std::env::temp_dir().join(format!("{}.log", host.namespace()));
    let sleep = host.spawn(sleep, &log).unwrap();
    std::fs::remove_file(log).unwrap();
    // Before that it may not yet have asked the kernel to end with its parent.
    until(LIMIT, "it sleeps", || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", sleep.id()));
        Ok(name.is_ok_and(|name| name == "sleep\n"))
    })
    .unwrap();
    println!("\nready {} {}", host.namespace(), sleep.id());
    std::thread::sleep(Duration::from_secs(60));
}

/// Starts this test binary as a process with a lab of its own; returns it with the
/// namespace of its host and the process id of its child.
fn start_child(prefix: &str, log: &Path) -> (enishi_lab::Process, String, u32) {
    let mut command: Command = enishi_lab::command(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_with_a_lab", "--nocapture"])
        .env("ENISHI_LAB_TEST_CHILD", prefix);
    let process = enishi_lab::Process::spawn(command, log).unwrap();
    let mut ready = None;
    until(LIMIT, "the child has a lab", || {
        let text = std::fs::read_to_string(log)?;
        let line = text.split_once("\nready ");
        let line = line.and_then(|(_, after)| after.split_once('\n'));
        ready = line.map(|(line, _)| line.to_owned());
        Ok(ready.is_some())
    })
    .unwrap();
    let ready = ready.unwrap();
    let (namespace, pid) = ready.split_once(' ').unwrap();
    (process, namespace.to_owned(), pid.parse().unwrap())
}

#[test]
fn a_signal_cleans_up_and_ends_with_its_exit_code() {
    need_root!();
    let directory = tempfile::tempdir().unwrap();
    let (mut child, namespace, sleep) = start_child("labsig", &directory.path().join("log"));
    assert!(Path::new("/run/netns").join(&namespace).exists());
    assert_eq!(child.terminate(LIMIT).unwrap().code(), Some(128 + 15));
    assert!(!Path::new("/run/netns").join(&namespace).exists());
    await_end(sleep);
}

#[test]
fn what_a_killed_lab_leaves_goes_with_the_next_one() {
    need_root!();
    let directory = tempfile::tempdir().unwrap();
    let (mut child, namespace, sleep) = start_child("labkill", &directory.path().join("log"));
    child.kill9().unwrap();
    await_end(sleep); // The kernel kills it with its parent.
    assert!(Path::new("/run/netns").join(&namespace).exists());
    let _next = Lab::new("labkill").unwrap();
    assert!(!Path::new("/run/netns").join(&namespace).exists());
}
