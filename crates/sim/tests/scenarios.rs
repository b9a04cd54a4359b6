//! Each scenario at a small scale: that it measures what it says it does.

use std::time::Duration;

use enishi_sim::statistics::Results;
use enishi_sim::{Options, Report, Scenario};

fn tell(scenario: Scenario, change: impl FnOnce(&mut Options)) -> Report {
    let mut options = Options {
        nodes: 60,
        seed: 3,
        routes: 200,
        ..Options::default()
    };
    change(&mut options);
    let mut last = 0;
    let report = scenario.run(&options, &mut |done| {
        assert!((last..=1000).contains(&done), "from {last} to {done}");
        last = done;
    });
    assert_eq!(last, 1000);
    if let Some(picture) = &report.picture {
        let svg = picture.to_svg();
        assert!(!svg.contains("NaN") && svg.contains(scenario.name()));
    }
    let drawn = scenario.takes().contains(&"plot");
    assert_eq!(report.picture.is_some(), drawn);
    report
}

fn number(results: &Results, name: &str) -> f64 {
    let number = results.figures.number(name);
    number.unwrap_or_else(|| panic!("no {name} in {results:?}"))
}

#[test]
fn lookups_without_failures_are_right_and_take_a_round_trip_or_two() {
    let results = tell(Scenario::Latency, |_| {}).results;
    assert!(number(&results, "correct") == 1.0);
    assert!((140.0..165.0).contains(&number(&results, "median_round_trip_ms")));
    let mean = number(&results, "mean_in_round_trips");
    assert!((0.8..3.0).contains(&mean), "{mean}");
    assert!(number(&results, "p99_ms") > number(&results, "p50_ms"));
}

#[test]
fn lookups_right_after_deaths_take_longer() {
    let alive = tell(Scenario::Latency, |_| {}).results;
    let shaken = tell(Scenario::Latency, |options| {
        options.dead_per_million = 300_000;
    })
    .results;
    assert!(number(&shaken, "dead") == 18.0);
    assert!(number(&shaken, "mean_ms") > 1.2 * number(&alive, "mean_ms"));
    assert!(number(&shaken, "answered") > 0.8);
}

fn churn(session: Duration, duration: Duration) -> Results {
    tell(Scenario::Churn, |options| {
        options.session_mean = session;
        options.duration = Some(duration);
        options.lookup_interval = Duration::from_secs(30);
    })
    .results
}

#[test]
fn lookups_stay_right_while_nodes_come_and_go() {
    let results = churn(Duration::from_secs(3600), Duration::from_secs(600));
    // 60 nodes that ask every 30 s for 600 s, and die every 60 s.
    assert!((1050.0..1350.0).contains(&number(&results, "lookups")));
    assert!((2.0..25.0).contains(&number(&results, "deaths")));
    assert!(number(&results, "correct") >= 0.99, "{results:?}");
    let parts = ["upkeep", "lookup"].map(|part| format!("{part}_bytes_per_second_per_node"));
    let sum: f64 = parts.iter().map(|part| number(&results, part)).sum();
    let whole = number(&results, "bytes_per_second_per_node");
    assert!((sum - whole).abs() < 0.01 && whole > 5.0);
}

#[test]
fn shorter_sessions_cost_more_and_every_newcomer_joins() {
    let for_time = Duration::from_secs(240);
    let calm = churn(Duration::from_secs(3600), for_time);
    let wild = churn(Duration::from_secs(120), for_time);
    let bytes = |results| number(results, "bytes_per_second_per_node");
    assert!(bytes(&wild) > 1.5 * bytes(&calm));
    let (deaths, joins) = (number(&wild, "deaths"), number(&wild, "joins"));
    assert!((80.0..160.0).contains(&deaths), "{deaths}");
    assert!(joins > 0.9 * deaths, "{joins} of {deaths}");
    assert!(number(&wild, "correct") >= 0.8, "{wild:?}");
}

#[test]
fn all_join_at_once_and_outlive_a_third_of_them() {
    let report = tell(Scenario::Storm, |options| {
        options.nodes = 40;
        options.joins_within = Duration::from_millis(500);
        options.model.delay = Some(Duration::from_millis(1));
        options.values = Some(30);
    });
    let results = report.results;
    assert_eq!(results.acknowledged, Some(30));
    assert_eq!(results.lost, Some(0));
    let (joined, near) = (
        number(&results, "joined_after_s"),
        number(&results, "near_after_s"),
    );
    assert!((0.4..=near).contains(&joined), "{joined} s, {near} s");
    let (whole, near) = (
        number(&results, "whole_after_s"),
        number(&results, "near_again_after_s"),
    );
    // Nobody is known to be dead before somebody was asked in vain.
    assert!((0.1..=near).contains(&whole), "{whole} s, {near} s");
    assert!(near <= number(&results, "values_whole_after_s"));
    assert!(number(&results, "joining_messages_per_node") > 12.0);
    assert!(number(&results, "healing_messages_per_node") > 6.0);
}

#[test]
fn the_dial_decides_what_upkeep_costs_and_lookups_stay_right() {
    let spent = |budget| {
        let report = tell(Scenario::Churn, |options| {
            options.upkeep_bytes_per_second = Some(budget);
            options.duration = Some(Duration::from_secs(600));
            options.lookup_interval = Duration::from_secs(100);
        });
        let results = report.results;
        assert!(number(&results, "correct") >= 0.99, "{results:?}");
        let upkeep = number(&results, "upkeep_bytes_per_second_per_node");
        (upkeep, number(&results, "mean_ms"))
    };
    let [leaf, usual, full] = [0, 40, 400].map(spent);
    assert!(leaf.0 < 0.8 * usual.0, "{leaf:?} {usual:?}");
    assert!(usual.0 < 0.8 * full.0, "{usual:?} {full:?}");
    // The usual budget is kept but for answers to others and for services.
    assert!(usual.0 < 60.0, "{usual:?}");
    assert!(full.1 < leaf.1, "{full:?} {leaf:?}");
}

#[test]
fn values_outlive_their_owners_and_holders() {
    let report = tell(Scenario::Storage, |options| {
        options.nodes = 40;
        options.duration = Some(Duration::from_secs(5400));
        options.values = Some(30);
    });
    let results = report.results;
    assert_eq!(results.acknowledged, Some(30));
    assert_eq!((results.lost, results.without_holder), (Some(0), Some(0)));
    assert!(number(&results, "least_holders") >= 3.0, "{results:?}");
    assert!(number(&results, "gets_right") == 1.0);
    // Doubling from a minute, an owner puts again at most seven times in ninety minutes.
    let reputs = number(&results, "reputs_per_value");
    assert!((4.0..12.0).contains(&reputs), "{reputs}");
    assert!(number(&results, "reputs_per_value_at_fixed_60_s") == 90.0);
    assert!(number(&results, "repair_to_bound") > 0.3);
}

#[test]
fn prime_periods_spread_what_one_common_period_throws_together() {
    let report = tell(Scenario::Bursts, |options| {
        options.duration = Some(Duration::from_secs(128));
    });
    let results = report.results;
    let [primes, common] =
        ["primes", "common"].map(|clock| number(&results, &format!("peak_to_mean_{clock}")));
    assert!(3.0 * primes < common, "{primes}, {common}");
    let [primes, common] =
        ["primes", "common"].map(|clock| number(&results, &format!("strongest_wave_{clock}")));
    assert!(2.0 * primes < common, "{primes}, {common}");
}

#[test]
fn loss_is_felt() {
    let mean_ms = |loss_per_million| {
        let change = |options: &mut Options| options.model.loss_per_million = loss_per_million;
        number(&tell(Scenario::Latency, change).results, "mean_ms")
    };
    let (clean, dirty) = (mean_ms(0), mean_ms(100_000));
    assert!(dirty > 1.1 * clean, "{clean}, {dirty}");
}

#[test]
fn nodes_join_and_answer_though_some_pairs_cannot_talk() {
    let change = |options: &mut Options| options.model.broken_per_million = 50_000;
    let results = tell(Scenario::Latency, change).results;
    assert_eq!(number(&results, "joined"), 60.0, "{results:?}");
    assert_eq!(number(&results, "correct"), 1.0, "{results:?}");
}

#[test]
fn forty_come_into_a_channel_at_once_and_outlive_a_third_of_them() {
    let report = tell(Scenario::Channel, |options| {
        options.members = 40;
        options.duration = Some(Duration::from_secs(120));
    });
    let results = report.results;
    // 39 others find one another; nobody has drawn what another has.
    assert_eq!(number(&results, "draws"), 40.0);
    assert_eq!(results.duplicates, Some(0));
    assert_eq!(number(&results, "pages"), 2.0);
    let [first, last] = ["addressed_p50_s", "know_all_last_s"].map(|name| number(&results, name));
    assert!(0.3 < first && first < last && last < 60.0, "{results:?}");
    let times = ["2 after deaths", "3 with newcomers", "1 quiet"];
    for when in times {
        let of = |table: &str, name: &str| results.figures.of(table, when, name);
        assert_eq!(of("lookups", "asked"), Some(200.0), "{when}");
        assert!(
            of("lookups", "success") >= Some(0.98),
            "{when}: {results:?}"
        );
        assert!(of("lookups", "p50_ms") > Some(50.0), "{when}: {results:?}");
        assert_eq!(of("packets_to_all", "sent"), Some(8.0), "{when}");
        assert_eq!(of("packets_to_all", "heard"), Some(1.0), "{when}");
        assert_eq!(of("packets_to_all", "heard_twice"), Some(0.0), "{when}");
    }
    assert_eq!(number(&results, "dead"), 14.0);
    // A member that went without a word is listed until a day has passed.
    assert_eq!(number(&results, "dead_listed"), 1.0);
    assert!(number(&results, "newcomers_know_all_last_s") < 120.0);
    assert!(number(&results, "newcomers_known_last_s") < 120.0);
    // A directory of two pages, read once a minute in a majority of six, was 6,400.
    let bytes = number(&results, "bytes_per_second_per_member");
    assert!((50.0..500.0).contains(&bytes), "{bytes}");
}
