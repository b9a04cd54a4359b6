//! What free riders cost, and what policies against them bring.

use std::time::Duration;

use enishi_sim::{Options, Scenario};

#[test]
fn with_reputation_honest_nodes_fare_better_and_riders_worse() {
    let options = Options {
        nodes: 80,
        hostile_per_million: 300_000,
        lookup_interval: Duration::from_secs(20),
        duration: Some(Duration::from_secs(600)),
        ..Options::default()
    };
    let report = Scenario::Riders.run(&options, &mut |_| {});
    let figures = report.results.figures;
    println!("{figures:?}");
    let of = |figure, policy| figures.number_of(figure, policy).expect("it is told");
    // Nobody is kept from finding anything: what is lost is time.
    for policy in ["none", "trust", "reputation"] {
        assert!(of("honest_success", policy) > 0.99, "{policy}");
    }
    assert!(of("honest_mean_ms", "reputation") < 0.5 * of("honest_mean_ms", "none"));
    assert!(of("riders_mean_ms", "reputation") > 3.0 * of("honest_mean_ms", "reputation"));
    assert!(of("riders_mean_ms", "reputation") > of("riders_mean_ms", "none"));
}

#[test]
#[ignore]
fn measure() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u32>().unwrap();
    let options = Options {
        nodes: number("NODES") as usize,
        hostile_per_million: number("HOSTILE"),
        lookup_interval: Duration::from_secs(20),
        duration: Some(Duration::from_secs(600)),
        ..Options::default()
    };
    let report = Scenario::Riders.run(&options, &mut |_| {});
    println!("{:?}", report.results.figures);
}
