//! Bulk between two daemons' own devices, by iperf3, also where the network below takes short
//! packets only. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod office;

use std::time::Instant;

use enishi_lab::until;
use serde_json::Value;

use office::{A_WHILE, Office, ping, shell, wait_for_line};

/// Two members, the first of which is iperf3's server; none without root.
fn open(prefix: &str) -> Option<Office> {
    let programs = [
        ("iperf3", "iperf3"),
        ("ethtool", "ethtool"),
        ("ping", "iputils-ping"),
    ];
    let mut office = Office::open(prefix, &programs)?;
    for _ in 0..2 {
        office.hire(&[]);
    }
    let log = office.serve(0, &["iperf3", "--forceflush", "-s"]);
    wait_for_line(&log, "listening");
    Some(office)
}

impl Office {
    /// Runs iperf3 from the second to the first; what it found in the end.
    fn measure(&self, to: &str, options: &[&str]) -> Value {
        let words = [&["iperf3", "-J", "-c", to], options].concat();
        let output = self.run(1, &words);
        assert!(output.success(), "{words:?}: {}", output.stdout);
        serde_json::from_str::<Value>(&output.stdout).unwrap()["end"].clone()
    }

    /// How many octets the first host has taken from its device.
    fn taken(&self) -> u64 {
        let line = "cat /sys/class/net/enishi0/statistics/rx_bytes";
        shell(&self.hosts[0], line).trim().parse().unwrap()
    }

    fn wait_for_bytes(&self, count: u64) {
        let goal = self.taken() + count;
        until(A_WHILE, "the flow goes on", || Ok(self.taken() >= goal)).unwrap();
    }
}

#[test]
fn streams_and_datagrams_pass_in_both_families() {
    let Some(office) = open("iperf") else {
        return;
    };
    for there in [office.address(0), office.address6(0)] {
        for streams in ["1", "4"] {
            for options in [
                &["-n", "20M", "-P", streams][..],
                &["-n", "20M", "-P", streams, "-R"],
            ] {
                let end = office.measure(&there, options);
                let received = end["sum_received"]["bytes"].as_u64().unwrap();
                assert!(received > 1 << 20, "{there} {options:?}: {end}");
            }
        }
        for (length, count) in [("64", 100), ("1300", 200), ("4000", 50)] {
            let packets = count.to_string();
            let options = ["-u", "-b", "1M", "-l", length, "-k", &packets];
            let sum = &office.measure(&there, &options)["sum"];
            assert_eq!(
                (&sum["lost_packets"], &sum["packets"]),
                (&0.into(), &count.into()),
                "{there} {length}: {sum}"
            );
        }
    }
}

#[test]
fn flows_pass_a_network_of_short_packets_and_go_on_when_it_shrinks() {
    let Some(office) = open("mtu") else {
        return;
    };
    // What the cable itself would cut into datagrams passes it as one, however long.
    shell(&office.hosts[1], "ethtool -K eth0 tx-udp-segmentation off");
    let set = |bytes: u16| {
        // The cable into the first host drops without a word what is longer.
        shell(&office.hosts[0], &format!("ip link set eth0 mtu {bytes}"));
    };
    let there = office.address(0);
    let (flow, _) = office.spawn(1, "flow", &["iperf3", "-c", &there, "-t", "60"]);
    office.wait_for_bytes(5 << 20);
    for bytes in [1300, 1280] {
        set(bytes);
        let below = office.hosts[0].address().to_string();
        let long = [
            "ping", "-M", "do", "-c", "1", "-W", "1", "-s", "1400", &below,
        ];
        assert!(!office.run(1, &long).success(), "it was to be dropped");
        let shrunk = Instant::now();
        office.wait_for_bytes(5 << 20);
        eprintln!("5 MiB by {bytes} octets within {:?}", shrunk.elapsed());
    }
    drop(flow);
    // The first host hears from its own device, by an answer that is lost, what that takes now.
    let first = ["ping", "-c", "2", "-i", "0.2", "-W", "1", "-s", "1380"];
    office.run(1, &[&first[..], &[&there]].concat());
    for size in ["1000", "1380", "4000"] {
        let options = ["-c", "3", "-i", "0.2", "-s", size];
        let told = ping(&office.hosts[1], &options, &there);
        assert!(told.contains(" 0% packet loss"), "{told}");
    }
}
