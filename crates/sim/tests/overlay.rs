//! The overlay at a thousand nodes, grown by the protocol alone.

use std::time::Duration;

use enishi_sim::{Options, Report, Scenario};

fn run(scenario: Scenario, nodes: usize, seed: u64, long_links: Option<u32>) -> Report {
    scenario.run(
        &Options {
            nodes,
            seed,
            long_links,
            routes: 1000,
            ..Options::default()
        },
        &mut |_| {},
    )
}

#[test]
fn a_thousand_nodes_join_and_every_route_ends_at_the_node_in_charge() {
    let results = run(Scenario::Hops, 1000, 1, Some(5)).results;
    assert_eq!(results.success, Some(1.0));
    assert_eq!(results.ring_gaps, Some(0));
    // A model of the same design with two near neighbours: 2.15 hops at 2^10 nodes and
    // k = 5. This one has twelve, so it has to be at or below that.
    assert!(
        results.mean_hops.is_some_and(|hops| hops <= 2.15),
        "{results:?}"
    );
    let estimate = results.size_estimate.unwrap();
    assert!((900.0..1100.0).contains(&estimate), "{estimate}");
    // A leaf's allowance; the quiet overlay stays under it.
    assert!(
        results
            .bytes_per_second_per_node
            .is_some_and(|rate| rate < 60.0),
        "{results:?}"
    );
}

#[test]
fn a_fifth_crashes_at_once_and_nothing_acknowledged_is_lost() {
    let results = run(Scenario::Crash, 1000, 1, None).results;
    assert_eq!(results.acknowledged, Some(1000));
    assert_eq!(results.lost, Some(0));
    assert_eq!(results.success, Some(1.0));
    // Found dead after at most one round of the 11-second period and two questions.
    assert!(
        results.ring_whole_after_s.is_some_and(|after| after <= 30),
        "{results:?}"
    );
    assert!(
        results.replicated_after_s.is_some_and(|after| after <= 60),
        "{results:?}"
    );
}

#[test]
fn two_halves_meet_again_and_no_address_stays_double() {
    // That two next to each other asked each other in vain right before the halves met, or that
    // the holders of a claim meet after whoever made it has looked at it, is seldom so.
    for seed in [1, 6] {
        let results = run(Scenario::Partition, 400, seed, None).results;
        assert!(
            results.duplicates.is_some_and(|count| count > 0),
            "the story needs duplicates"
        );
        assert!(
            results.ring_whole_after_s.is_some_and(|after| after <= 15),
            "{results:?}"
        );
        assert!(
            results
                .duplicates_gone_after_s
                .is_some_and(|after| after <= 20),
            "{results:?}"
        );
        assert!(
            results
                .duplicates_resolved_after_s
                .is_some_and(|after| after <= 30),
            "{results:?}"
        );
        assert_eq!(results.success, Some(1.0));
    }
}

#[test]
fn a_short_split_heals_as_fast_as_a_long_one() {
    // So short that everyone still leaves those alone that it has just lost; and that nobody
    // would ask for half a minute, if all waited alike since then.
    for split_s in [25, 40] {
        let options = Options {
            nodes: 200,
            duration: Some(Duration::from_secs(split_s)),
            ..Options::default()
        };
        let results = Scenario::Partition.run(&options, &mut |_| {}).results;
        assert!(
            results.ring_whole_after_s.is_some_and(|after| after <= 20),
            "{split_s} s: {results:?}"
        );
        assert_eq!(results.success, Some(1.0));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    // The others take long, and have traces of the same world.
    let quick = [
        Scenario::Hops,
        Scenario::Crash,
        Scenario::Partition,
        Scenario::Latency,
        Scenario::Bursts,
    ];
    for scenario in quick {
        let first = run(scenario, 60, 7, None);
        assert_eq!(first, run(scenario, 60, 7, None));
        assert_ne!(
            first.results.trace,
            run(scenario, 60, 8, None).results.trace
        );
    }
}

#[test]
fn small_overlays_work_like_large_ones() {
    for nodes in [2, 3, 7, 13, 14, 30] {
        for seed in 1..4 {
            let results = run(Scenario::Hops, nodes, seed, None).results;
            assert_eq!(results.success, Some(1.0), "{nodes} nodes, seed {seed}");
        }
    }
}
