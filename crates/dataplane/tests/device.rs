//! TUN devices in network namespaces, with the system's own `ping` as the judge.
//! Every test needs root and says so when it is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use enishi_dataplane::device::READ_BYTES_MAX;
use enishi_dataplane::offload::{OFFLOAD_HEADER_BYTES, Offload};
use enishi_dataplane::{
    AddressTable, Device, DeviceConfig, DeviceError, IpPacket, Layer, Lookup, Network, Reason,
    Route, error_for,
};
use enishi_lab::{Host, Lab, ensure_programs, is_root};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const LIMIT: Duration = Duration::from_secs(20);

/// The path MTU to the only peer; less than the device's.
const PATH_MTU: u16 = 1300;

const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// Ends the test early, and says so, when the process is not root.
macro_rules! need_root {
    () => {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        ensure_programs(&[("ping", "iputils-ping"), ("ip", "iproute2")]).unwrap();
    };
}

fn config(name: &str) -> DeviceConfig {
    DeviceConfig {
        layer: Layer::Ip,
        name: name.to_owned(),
        mtu: 1500,
        ipv4: (Ipv4Addr::new(10, 77, 0, 1), 16),
        ipv6: Some((ADDRESS6, 64)),
    }
}

/// Runs `work` on a thread of its own in the host's network.
fn on_host<T: Send + 'static>(host: &Host, work: impl FnOnce() -> T + Send + 'static) -> T {
    let host = host.clone();
    let enter = move || {
        host.enter().unwrap();
        work()
    };
    thread::spawn(enter).join().unwrap()
}

/// Starts a router on the host's TUN device: it owns 10.77.0.1, knows one peer, which
/// echoes nothing, at 10.77.0.2, and answers the rest with errors. It ends with the test.
fn start_router(host: &Host) {
    let (ready, started) = mpsc::channel();
    let host = host.clone();
    thread::spawn(move || {
        host.enter().unwrap();
        let device = Device::new(&config("enishi%d")).unwrap();
        assert_eq!(device.name(), "enishi0");
        assert!(device.ipv6_failure().is_none());
        ready.send(()).unwrap();
        route(&device);
    });
    started.recv_timeout(LIMIT).unwrap();
}

fn route(device: &Device) {
    let networks = [
        Network::new(Ipv4Addr::new(10, 77, 0, 0).into(), 16),
        Network::new(ADDRESS6.into(), 64),
    ];
    let mut table = AddressTable::new(networks);
    let peer = Route {
        peer: [2; 32],
        path_mtu: PATH_MTU,
    };
    table
        .set_route(Ipv4Addr::new(10, 77, 0, 2).into(), peer)
        .unwrap();
    table.set_route("fd77::2".parse().unwrap(), peer).unwrap();
    let mut buffer = vec![0; READ_BYTES_MAX];
    while let Ok(packet) = read(device, &mut buffer) {
        let length = packet.len();
        let packet = IpPacket::parse(packet).unwrap();
        let reason = match table.lookup(packet.destination()) {
            Lookup::Forward(route) if length > usize::from(route.path_mtu) => Reason::TooBig {
                mtu: route.path_mtu,
            },
            Lookup::Miss(_) if packet.destination() == Ipv4Addr::new(10, 77, 0, 4) => {
                Reason::AdministrativelyProhibited
            }
            Lookup::Miss(_) => Reason::HostUnreachable,
            Lookup::Forward(_)
            | Lookup::Local
            | Lookup::Hosted
            | Lookup::Many
            | Lookup::Outside => continue,
        };
        if let Some(error) = error_for(&packet, reason, None) {
            let header = Offload::default().encode(true, 0);
            let pieces = [IoSlice::new(&header), IoSlice::new(&error)];
            device.write(&pieces).unwrap();
        }
    }
}

/// Waits for a packet.
fn read<'b>(device: &Device, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    loop {
        let mut ready = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::NONE)?;
        match device.read(buffer) {
            Ok(length) => return Ok(&buffer[OFFLOAD_HEADER_BYTES..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Pings once and returns everything that `ping` printed.
fn ping(host: &Host, words: &[&str]) -> String {
    let words = [&["ping", "-n", "-c", "1", "-W", "2"], words].concat();
    let output = host.run(&words, LIMIT).unwrap();
    assert!(!output.timed_out);
    output.stdout + &output.stderr
}

#[test]
fn ping_is_told_why_a_packet_is_not_delivered() {
    need_root!();
    let mut lab = Lab::new("tuntest").unwrap();
    let host = lab.host("a").unwrap();
    start_router(&host);

    let text = ping(&host, &["10.77.0.3"]);
    assert!(text.contains("Destination Host Unreachable"), "{text}");
    let text = ping(&host, &["10.77.0.4"]);
    assert!(text.contains("Packet filtered"), "{text}");
    let text = ping(&host, &["fd77::3"]);
    assert!(
        text.contains("Destination unreachable: Address unreachable"),
        "{text}"
    );
    let text = ping(&host, &["-M", "do", "-s", "1400", "10.77.0.2"]);
    assert!(
        text.contains("Frag needed") && text.contains("mtu = 1300"),
        "{text}"
    );
    let text = ping(&host, &["-M", "do", "-s", "1400", "fd77::2"]);
    assert!(text.contains("Packet too big: mtu=1300"), "{text}");

    // The kernel has learnt the path's MTU, so it refuses before the router has to.
    let text = ping(&host, &["-M", "do", "-s", "1400", "10.77.0.2"]);
    assert!(
        text.contains("mtu=1300") || text.contains("mtu: 1300"),
        "{text}"
    );
    let text = ping(&host, &["-M", "do", "-s", "1272", "10.77.0.2"]);
    assert!(
        text.contains("100% packet loss") && !text.contains("mtu"),
        "{text}"
    );
}

#[test]
fn a_device_is_as_configured_and_goes_with_its_owner() {
    need_root!();
    let mut lab = Lab::new("tuntest").unwrap();
    let host = lab.host("a").unwrap();
    let show = host.clone();
    on_host(&host, move || {
        let first = Device::new(&config("enishi%d")).unwrap();
        let second = Device::new(&DeviceConfig {
            ipv4: (Ipv4Addr::new(10, 78, 0, 1), 24),
            ipv6: None,
            ..config("enishi%d")
        });
        assert_eq!(
            (first.name(), second.unwrap().name()),
            ("enishi0", "enishi1")
        );
        let text = show
            .run(&["ip", "address", "show", "enishi0"], LIMIT)
            .unwrap()
            .stdout;
        for part in ["mtu 1500", "inet 10.77.0.1/16", "inet6 fd77::1/64", "UP"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        let text = show.run(&["ip", "route"], LIMIT).unwrap().stdout;
        assert!(text.contains("10.77.0.0/16 dev enishi0"), "{text}");
        let text = show.run(&["ip", "-6", "route"], LIMIT).unwrap().stdout;
        assert!(text.contains("fd77::/64 dev enishi0"), "{text}");
    });
    let text = host.run(&["ip", "-o", "link"], LIMIT).unwrap().stdout;
    assert!(!text.contains("enishi"), "{text}");
}

#[test]
fn failures_name_their_cause_and_missing_ipv6_is_none() {
    need_root!();
    let mut lab = Lab::new("tuntest").unwrap();
    let host = lab.host("a").unwrap();
    let disable = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done";
    on_host(&host.clone(), move || {
        let held = Device::new(&config("held")).unwrap();
        assert!(held.ipv6_failure().is_none());
        for name in ["held", "eth0"] {
            let refused = Device::new(&config(name)).err();
            assert!(
                matches!(refused, Some(DeviceError::NameInUse(_))),
                "{refused:?}"
            );
        }
        host.run(&["sh", "-c", disable], LIMIT).unwrap();
        let device = Device::new(&config("enishi%d")).unwrap();
        assert!(device.ipv6_failure().is_some());
        let text = host
            .run(&["ip", "address", "show", "enishi0"], LIMIT)
            .unwrap()
            .stdout;
        assert!(
            text.contains("10.77.0.1/16") && !text.contains("inet6"),
            "{text}"
        );
    });
}

#[test]
fn without_the_right_it_says_so() {
    need_root!();
    let mut lab = Lab::new("tuntest").unwrap();
    let host = lab.host("a").unwrap();
    let mut command = host.command("setpriv");
    command
        .args(["--bounding-set", "-net_admin", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_without_the_right"])
        .env("ENISHI_TUN_TEST_CHILD", "1");
    let output = enishi_lab::run(command, LIMIT).unwrap();
    assert!(output.success(), "{output:?}");
    assert!(output.stdout.contains("1 passed"), "{output:?}");
}

/// What the child process of the test before does.
#[test]
fn child_without_the_right() {
    if std::env::var_os("ENISHI_TUN_TEST_CHILD").is_none() {
        return; // Run by the other test only.
    }
    let refused = Device::new(&config("enishi%d")).err();
    assert!(
        matches!(refused, Some(DeviceError::NoPermission)),
        "{refused:?}"
    );
}

#[test]
fn reading_ends_with_an_error_when_the_device_is_removed() {
    const REMOVALS: usize = 20;
    need_root!();
    let mut lab = Lab::new("tuntest").unwrap();
    let host = lab.host("a").unwrap();
    let remover = host.clone();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        host.enter().unwrap();
        // The kernel may wake the reader before reading fails, or after: many times.
        for _ in 0..REMOVALS {
            let device = Device::new(&config("enishi%d")).unwrap();
            let (remover, name) = (remover.clone(), device.name().to_owned());
            thread::spawn(move || remover.run(&["ip", "link", "delete", &name], LIMIT));
            let mut buffer = vec![0; READ_BYTES_MAX];
            let error = loop {
                if let Err(error) = read(&device, &mut buffer) {
                    break error;
                }
            };
            ended.send(error).unwrap();
        }
    });
    for _ in 0..REMOVALS {
        let error = end.recv_timeout(LIMIT).unwrap();
        assert!(Device::is_removed(&error), "{error:?}");
    }
}
