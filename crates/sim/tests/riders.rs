//! What free riders cost, and what policies against them bring.

use std::thread;
use std::time::Duration;

use enishi_sim::statistics::Figures;
use enishi_sim::{Options, Scenario};

#[test]
fn with_reputation_honest_nodes_fare_better_and_riders_worse() {
    // One run says little of the riders: by chance they lose a tenth or half.
    let run = |seed| {
        let options = Options {
            nodes: 80,
            seed,
            hostile_per_million: Some(300_000),
            lookup_interval: Duration::from_secs(20),
            duration: Some(Duration::from_secs(600)),
            ..Options::default()
        };
        Scenario::Riders.run(&options, &mut |_| {}).results.figures
    };
    let runs = thread::scope(|scope| {
        let runs = [1, 2].map(|seed| scope.spawn(move || run(seed)));
        runs.map(|run| run.join().expect("a run ends"))
    });
    let of = |figure, policy| {
        let of_one = |figures: &Figures| figures.number_of(figure, policy).expect("it is told");
        runs.iter().map(of_one).sum::<f64>() / 2.0
    };
    // Nobody is kept from finding anything: what is lost is time.
    for policy in ["none", "trust", "reputation"] {
        assert!(of("honest_success", policy) > 0.99, "{policy}");
    }
    let [none, trust, reputation] =
        ["none", "trust", "reputation"].map(|policy| of("honest_mean_ms", policy));
    assert!(reputation < 0.6 * none, "{reputation} {none}");
    assert!(trust < 0.6 * none, "{trust} {none}");
    // With reputation riders lose little: strangers, to whom they are neutral, serve them.
    for (policy, least) in [("trust", 1.25), ("reputation", 1.1)] {
        let [riders, honest] = ["riders_mean_ms", "honest_mean_ms"].map(|name| of(name, policy));
        assert!(riders > least * honest, "{policy}: {riders} {honest}");
    }
    // Those who are declined are the riders.
    let declined = |whose| of(whose, "reputation");
    assert!(declined("declined_of_riders") > 20.0 * declined("declined_of_honest"));
}
