//! Nodes join one after the other; then routes from anywhere to anywhere.

use std::time::Duration;

use super::{Options, Outcome, grow, routes};
use crate::oracle::Census;
use crate::plot::{Axis, Panel, Picture, Series};
use crate::statistics::{Results, mean, millis, percentile, rate, share};

const QUIET: Duration = Duration::from_secs(120);

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let world = &mut options.world();
    grow::grow(world, options.nodes, &mut |done| progress(done * 7 / 10));
    let before = world.counters();
    world.run_for(QUIET);
    let quiet = world.counters();
    let ring_gaps = Census::take(world).ring_gaps(world);
    progress(850);
    let routes = routes::ask(world, options.routes);
    let estimates: Vec<u64> = world
        .living()
        .map(|(_, node)| node.overlay().size_estimate())
        .collect();
    let results = Results {
        mean_hops: mean(&routes.hops),
        p99_hops: percentile(&routes.hops, 99),
        success: share(routes.succeeded(), routes.asked),
        p50_ms: percentile(&routes.micros, 50).map(millis),
        p99_ms: percentile(&routes.micros, 99).map(millis),
        bytes_per_second_per_node: rate(
            quiet.bytes - before.bytes,
            QUIET.as_secs(),
            Census::take(world).len(),
        ),
        ring_gaps: Some(ring_gaps as u64),
        size_estimate: mean(&estimates),
        ..Results::default()
    };
    let hops = Series::histogram("routes", routes.hops.iter().copied());
    Outcome::new(world, results).showing(Picture {
        title: options.title("hops"),
        panels: vec![Panel {
            title: "Hops to the node in charge".into(),
            x: Axis::new("hops", 1).from(0),
            y: Axis::new("routes", 1).from(0),
            series: vec![hops],
        }],
    })
}
