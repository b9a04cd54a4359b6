//! `enishi sim`.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use enishi_sim::internet::Model;
use enishi_sim::plot::Picture;
use enishi_sim::{Options, Protocol, Remedies, Scenario, scenario};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::replay;
use crate::args::{Recorded, Remedy, Sim};
use crate::output::table::Table;
use crate::output::{Output, progress};
use crate::problem::{Problem, Verdict};
use crate::text::Message;

/// The parts into which a run is divided for the progress bar.
const PARTS: u64 = 1000;

/// Runs a scenario, once or with several seeds, and tells what came of it.
///
/// # Errors
/// [`Problem`] when an option does not fit the scenario, or the result or the picture
/// cannot be written.
pub(crate) fn run(out: &Output, arguments: &Sim) -> Result<Verdict, Problem> {
    if let Some(Recorded::Replay { file }) = &arguments.recorded {
        return replay::run(out, file);
    }
    let Some(scenario) = arguments.scenario else {
        return Err(Problem::Usage("Name a scenario.".to_owned()));
    };
    check(scenario, arguments)?;
    if let Some(path) = &arguments.plot {
        try_writing(path)?;
    }
    let bar = progress::bar(out, PARTS * u64::from(arguments.seeds));
    let mut results = Vec::new();
    let mut picture = None;
    let (started, memory_before) = (Instant::now(), memory_most_bytes());
    let mut cost = None;
    for number in 0..arguments.seeds {
        let done_before = PARTS * u64::from(number);
        let simulated = options(arguments, arguments.seed.wrapping_add(u64::from(number)));
        let report = scenario.run(&simulated, &mut |done| {
            bar.set_position(done_before + u64::from(done));
        });
        picture = picture.or(report.picture);
        // Of the first run alone: memory that is given back is used again.
        let memory = || memory_most_bytes().zip(memory_before);
        cost.get_or_insert_with(|| Cost {
            events_per_second: report.results.events as f64 / started.elapsed().as_secs_f64(),
            memory_bytes_per_node: memory()
                .map(|(after, before)| (after - before) / u64::from(arguments.nodes)),
        });
        match serde_json::to_value(&report.results) {
            Ok(Value::Object(figures)) => results.push(figures),
            _ => return Err(Problem::No("The figures cannot be told.".to_owned())),
        }
    }
    bar.finish_and_clear();
    let mut report = report(scenario, arguments, &results);
    match cost {
        Some(cost) if arguments.cost => report["cost"] = json!(cost),
        Some(cost) => out.hint(&Message::SimCost {
            events_per_second: cost.events_per_second,
            memory_bytes_per_node: cost.memory_bytes_per_node,
        }),
        None => {}
    }
    if out.json {
        out.object(&report)?;
    } else {
        out.line(&match scenario {
            Scenario::Compare => comparison(&report),
            _ => table(&report),
        })?;
    }
    if let Some(path) = &arguments.plot {
        draw(path, picture)?;
    }
    Ok(Verdict::Yes)
}

/// What a run costs here. It differs from one run to the next, so it is told apart from the
/// figures.
#[derive(Serialize)]
struct Cost {
    events_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes_per_node: Option<u64>,
}

/// Refuses options that the scenario does not heed.
fn check(scenario: Scenario, arguments: &Sim) -> Result<(), Problem> {
    let enishi = arguments.protocol.unwrap_or_default() == Protocol::Enishi;
    let by_rule =
        arguments.by_rule || arguments.paper || arguments.nodes as usize > scenario::GROWN_MAX;
    let without_messages = scenario == Scenario::Hops && by_rule;
    let of_messages =
        arguments.loss.is_some() || arguments.broken_pairs.is_some() || arguments.delay.is_some();
    if without_messages && of_messages {
        let why = "Tables filled by rule, as all above 200,000 nodes, need no messages: --loss, \
                   --broken-pairs and --delay are for others.";
        return Err(Problem::Usage(why.to_owned()));
    }
    if !arguments.without.is_empty() && !enishi {
        let why = "--without is for our own nodes: the rival does none of it.";
        return Err(Problem::Usage(why.to_owned()));
    }
    if arguments.links.is_some() && !enishi {
        let why = "--links is for our own nodes: the rival's table follows from --upkeep.";
        return Err(Problem::Usage(why.to_owned()));
    }
    if arguments.group.is_some_and(|group| group > arguments.nodes) {
        let why = "--group: a group has no more members than there are nodes.";
        return Err(Problem::Usage(why.to_owned()));
    }
    let members = arguments.members;
    if members.is_some_and(|members| members > arguments.nodes) {
        let why = "--members: a channel has no more members than there are nodes.";
        return Err(Problem::Usage(why.to_owned()));
    }
    let foreign = given(arguments)
        .into_iter()
        .find(|(name, given)| *given && !scenario.takes().contains(name));
    let Some((name, _)) = foreign else {
        return Ok(());
    };
    let heeding = Scenario::ALL
        .into_iter()
        .filter(|s| s.takes().contains(&name));
    let heeding: Vec<&str> = heeding.map(Scenario::name).collect();
    let heeding = match heeding.as_slice() {
        [] => "no scenario".to_owned(),
        names => names.join(", "),
    };
    let scenario = scenario.name();
    Err(Problem::Usage(match name {
        "plot" => format!("The scenario {scenario} has no picture; there is one of {heeding}."),
        _ => format!("--{name} means nothing to the scenario {scenario}; it does to {heeding}."),
    }))
}

/// The options that not every scenario heeds, and which of them are given.
fn given(arguments: &Sim) -> [(&'static str, bool); 22] {
    [
        ("routes", arguments.routes.is_some()),
        ("session-mean", arguments.session_mean.is_some()),
        ("session-median", arguments.session_median.is_some()),
        ("duration", arguments.duration.is_some()),
        ("lookup-interval", arguments.lookup_interval.is_some()),
        ("polite", arguments.polite.is_some()),
        ("dead", arguments.dead.is_some()),
        ("joins-within", arguments.joins_within.is_some()),
        ("protocol", arguments.protocol.is_some()),
        ("transport", arguments.transport.is_some()),
        ("upkeep", arguments.upkeep.is_some()),
        ("hostile", arguments.hostile.is_some()),
        ("behaviour", arguments.behaviour.is_some()),
        ("without", !arguments.without.is_empty()),
        ("clients", arguments.clients.is_some()),
        ("group", arguments.group.is_some()),
        ("members", arguments.members.is_some()),
        ("tree", arguments.tree.is_some()),
        ("values", arguments.values.is_some()),
        ("by-rule", arguments.by_rule),
        ("paper", arguments.paper),
        ("plot", arguments.plot.is_some()),
    ]
}

fn options(arguments: &Sim, seed: u64) -> Options {
    let defaults = Options::default();
    let model = Model {
        loss_per_million: arguments.loss.unwrap_or(defaults.model.loss_per_million),
        broken_per_million: arguments.broken_pairs.unwrap_or(0),
        delay: arguments.delay,
        ..defaults.model.clone()
    };
    // The median of the exponential distribution is its mean times ln 2.
    let of_median = |median: Duration| median.div_f64(std::f64::consts::LN_2);
    let session_mean = arguments.session_median.map(of_median);
    let session_mean = session_mean.or(arguments.session_mean);
    Options {
        nodes: arguments.nodes as usize,
        seed,
        long_links: arguments.links,
        model,
        protocol: arguments.protocol.unwrap_or_default(),
        transport: arguments.transport,
        upkeep_bytes_per_second: arguments.upkeep,
        routes: arguments.routes.map_or(defaults.routes, u64::from),
        duration: arguments.duration,
        session_mean: session_mean.unwrap_or(defaults.session_mean),
        polite_per_million: arguments.polite.unwrap_or(0),
        lookup_interval: arguments
            .lookup_interval
            .unwrap_or(defaults.lookup_interval),
        dead_per_million: arguments.dead.unwrap_or(0),
        joins_within: arguments.joins_within.unwrap_or(defaults.joins_within),
        hostile_per_million: arguments.hostile,
        behaviour: arguments.behaviour,
        remedies: Remedies {
            hedging: !arguments.without.contains(&Remedy::Hedging),
            two_ways: !arguments.without.contains(&Remedy::TwoWays),
            iterative: !arguments.without.contains(&Remedy::Iterative),
        },
        clients_per_million: arguments.clients.unwrap_or(0),
        group: arguments
            .group
            .map_or(defaults.group, |group| group as usize),
        members: arguments
            .members
            .map_or(defaults.members, |members| members as usize),
        tree: arguments.tree.unwrap_or_default(),
        values: arguments.values,
        by_rule: arguments.by_rule,
        paper: arguments.paper,
    }
}

/// Finds out before a long run whether its picture could be written, and leaves no trace.
fn try_writing(path: &Path) -> Result<(), Problem> {
    let fresh = !path.exists();
    let opened = File::options().create(true).append(true).open(path);
    opened.map_err(|error| unwritable(path, &error))?;
    if fresh {
        fs::remove_file(path).map_err(|error| unwritable(path, &error))?;
    }
    Ok(())
}

fn draw(path: &Path, picture: Option<Picture>) -> Result<(), Problem> {
    let svg = picture.map(|picture| picture.to_svg()).unwrap_or_default();
    fs::write(path, svg).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    let path = path.display();
    Problem::No(format!("The picture cannot be written to {path}: {error}."))
}

/// Returns the most memory that this process ever had, where the kernel tells it.
fn memory_most_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Puts together what is told: the figures of the one run, or the means of several with
/// the least and the greatest.
fn report(scenario: Scenario, arguments: &Sim, results: &[Map<String, Value>]) -> Value {
    let mut report = json!({
        "scenario": scenario.name(),
        "nodes": arguments.nodes,
        "seed": arguments.seed,
    });
    if let [only] = results {
        report["results"] = Value::Object(only.clone());
        return report;
    }
    let sum = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    report["seeds"] = json!(arguments.seeds);
    report["results"] = fold(results, &sum);
    report["least"] = fold(results, &least);
    report["greatest"] = fold(results, &most);
    report
}

/// Makes one figure of those of all runs that have it; only numbers can be.
fn fold(results: &[Map<String, Value>], make: &impl Fn(&[f64]) -> f64) -> Value {
    let mut names: Vec<&String> = Vec::new();
    for name in results.iter().flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut folded = Map::new();
    for name in names {
        let found: Vec<&Value> = results.iter().filter_map(|run| run.get(name)).collect();
        let numbers: Vec<f64> = found.iter().filter_map(|value| value.as_f64()).collect();
        if !numbers.is_empty() {
            folded.insert(name.clone(), json!(make(&numbers)));
        }
        let each = found.iter().filter_map(|value| value.as_object().cloned());
        let each: Vec<Map<String, Value>> = each.collect();
        if !each.is_empty() {
            folded.insert(name.clone(), fold(&each, make));
        }
    }
    Value::Object(folded)
}

fn table(report: &Value) -> String {
    let several = report.get("seeds").is_some();
    let mut table = if several {
        Table::new(["figure", "mean", "least", "greatest"])
            .right(1)
            .right(2)
            .right(3)
    } else {
        Table::new(["figure", "value"]).right(1)
    };
    let cost = report.get("cost").and_then(Value::as_object);
    for name in ["scenario", "nodes", "seed", "seeds"] {
        if let Some(value) = report.get(name) {
            table.row(row(name, [Some(value), None, None], several));
        }
    }
    let part = |part: &str, name: &str| report.get(part).and_then(|part| part.get(name));
    if let Some(Value::Object(figures)) = report.get("results") {
        for (name, value) in figures {
            let (least, greatest) = (part("least", name), part("greatest", name));
            rows(&mut table, name, [Some(value), least, greatest], several);
        }
    }
    for (name, value) in cost.into_iter().flatten() {
        table.row(row(name, [Some(value), None, None], several));
    }
    table.print()
}

/// A table with a line for each of those compared; of several runs the means.
fn comparison(report: &Value) -> String {
    let columns = scenario::COMPARED;
    let headings = columns.iter().map(|name| name.replace('_', " "));
    let headings: Vec<String> = [String::new()].into_iter().chain(headings).collect();
    let mut table = Table::new(headings.iter().map(String::as_str));
    for column in 1..=columns.len() {
        table = table.right(column);
    }
    let results = report.get("results").and_then(Value::as_object);
    for (name, figures) in results.into_iter().flatten() {
        if let Value::Object(figures) = figures {
            let cell = |column: &&str| figures.get(*column).map(brief).unwrap_or_default();
            table.row([name.clone()].into_iter().chain(columns.iter().map(cell)));
        }
    }
    table.print()
}

/// Writes a figure with few digits.
fn brief(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number >= 100.0 => format!("{number:.0}"),
        Some(number) if number < 1.0 => figure(value),
        Some(number) => format!("{number:.2}"),
        None => figure(value),
    }
}

/// Adds a row for a figure, or one for each of those that it consists of.
fn rows(table: &mut Table, name: &str, values: [Option<&Value>; 3], several: bool) {
    let Some(Value::Object(each)) = values[0] else {
        table.row(row(name, values, several));
        return;
    };
    for of in each.keys() {
        let values = values.map(|value| value.and_then(|value| value.get(of)));
        rows(table, &format!("{name}: {of}"), values, several);
    }
}

fn row(name: &str, values: [Option<&Value>; 3], several: bool) -> Vec<String> {
    let shown = values.into_iter().take(if several { 3 } else { 1 });
    let cells = shown.map(|value| value.map(figure).unwrap_or_default());
    [name.to_owned()].into_iter().chain(cells).collect()
}

fn figure(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            // Shares near 1 need their nines.
            let places = if (0.99..1.0).contains(&number) { 6 } else { 3 };
            format!("{number:.places$}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    #[test]
    fn every_option_that_a_scenario_heeds_can_be_given() {
        let arguments = Arguments::parse_from(["enishi", "sim", "hops"]);
        let Command::Sim(sim) = arguments.command else {
            panic!("another command");
        };
        let names = given(&sim).map(|(name, _)| name);
        for name in Scenario::ALL.into_iter().flat_map(Scenario::takes) {
            assert!(names.contains(name), "{name}");
        }
    }
}
