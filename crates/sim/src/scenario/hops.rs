//! Nodes join one after the other; then the same questions go from anywhere to anywhere
//! under each way of choosing the next hop.
//!
//! Above [`GROWN_MAX`] nodes, and where it is asked for, the tables are filled by the
//! protocol's own rule instead ([`crate::by_rule`]). The names without a way are those of
//! the direct jump.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::config::Forwarding;

use super::routes::{self, Routes};
use super::{Options, Outcome, grow};
use crate::by_rule::{self, Rule};
use crate::oracle::Census;
use crate::plot::{Axis, Panel, Picture, Series};
use crate::statistics::{Results, mean, mean_thousandths, millis, percentile, rate, share, whole};

const QUIET: Duration = Duration::from_secs(120);
/// More nodes than this are not grown by messages: memory and time end here.
pub const GROWN_MAX: usize = 200_000;
/// The jump opens sessions with strangers, from which the others would profit, and everybody
/// has to hear first how to reach them: it is last.
const WAYS: [(&str, Forwarding); 4] = [
    ("greedy", Forwarding::Greedy),
    ("lookahead", Forwarding::Lookahead),
    ("fastest", Forwarding::Fastest),
    ("jump", Forwarding::Jump),
];

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    if options.by_rule || options.paper || options.nodes > GROWN_MAX {
        return run_by_rule(options, progress);
    }
    let world = &mut options.world();
    grow::grow(world, options.nodes, &mut |done| progress(done * 6 / 10));
    let before = world.counters();
    world.run_for(QUIET);
    let quiet = world.counters();
    let ring_gaps = Census::take(world).ring_gaps(world);
    progress(700);
    let estimates: Vec<u64> = world
        .living()
        .map(|(_, node)| node.overlay().size_estimate())
        .collect();
    let mut results = Results {
        bytes_per_second_per_node: rate(
            quiet.bytes - before.bytes,
            QUIET.as_secs(),
            Census::take(world).len(),
        ),
        ring_gaps: Some(ring_gaps as u64),
        size_estimate: mean(&estimates),
        ..Results::default()
    };
    let questions = routes::draw(world, options.routes);
    let mut found = Vec::new();
    for (part, (name, forwarding)) in (0..).zip(WAYS) {
        world.set_forwarding(forwarding);
        if forwarding == Forwarding::Jump {
            world.run_for(QUIET);
        }
        let routes = routes::put(world, &questions);
        tell(&mut results, name, &routes);
        found.push((name, routes));
        progress(770 + 70 * part);
    }
    Outcome::new(world, results).showing(picture(options, &found))
}

/// The same without a world: no messages, so no times and no octets.
fn run_by_rule(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let nodes = options.nodes;
    let suited = nodes.max(1).ilog2() / 2;
    let links = options.long_links.unwrap_or(suited);
    let rule = match options.paper {
        true => Rule::paper(nodes, links),
        false => Rule::protocol(nodes, links),
    };
    let tables = rule.fill(options.seed, &mut |done| progress(done * 6 / 10));
    let mut results = Results {
        trace: tables.digest(),
        ..Results::default()
    };
    results
        .figures
        .amount("links_per_node", share(tables.links(), options.nodes));
    let questions = by_rule::draw(&tables, options.seed, options.routes);
    let mut found = Vec::new();
    let known = WAYS
        .into_iter()
        .filter(|(_, way)| *way != Forwarding::Fastest);
    for (part, (name, forwarding)) in (0..).zip(known) {
        let hops = questions
            .iter()
            .filter_map(|question| tables.route(forwarding, *question));
        let routes = Routes {
            asked: questions.len(),
            hops: hops.collect(),
            micros: Vec::new(),
        };
        tell(&mut results, name, &routes);
        found.push((name, routes));
        progress(700 + 100 * part);
    }
    Outcome {
        results,
        picture: Some(picture(options, &found)),
    }
}

fn tell(results: &mut Results, name: &'static str, routes: &Routes) {
    let mean_hops = mean(&routes.hops);
    let p99_hops = percentile(&routes.hops, 99);
    let success = share(routes.succeeded(), routes.asked);
    let row = [
        ("mean_hops", mean_hops),
        ("p99_hops", p99_hops.map(whole)),
        ("success", success),
        ("mean_ms", mean_thousandths(&routes.micros)),
        ("p99_ms", percentile(&routes.micros, 99).map(millis)),
    ];
    let row = row
        .into_iter()
        .filter_map(|(name, figure)| Some((name, figure?)));
    let row: BTreeMap<_, _> = row.collect();
    results.figures.table("by_forwarding", name, row);
    if name == "jump" {
        results.mean_hops = mean_hops;
        results.p99_hops = p99_hops;
        results.success = success;
        results.p50_ms = percentile(&routes.micros, 50).map(millis);
        results.p99_ms = percentile(&routes.micros, 99).map(millis);
    }
}

fn picture(options: &Options, found: &[(&'static str, Routes)]) -> Picture {
    let panel = |(name, routes): &(&str, Routes)| Panel {
        title: format!("Hops to the node in charge, {name}"),
        x: Axis::new("hops", 1).from(0),
        y: Axis::new("routes", 1).from(0),
        series: vec![Series::histogram(name, routes.hops.iter().copied())],
    };
    Picture {
        title: options.title("hops"),
        panels: found.iter().map(panel).collect(),
    }
}
