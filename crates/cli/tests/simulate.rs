//! The scenarios of the simulator, run as people run them: what they print is whole and the same
//! for the same seed, and pictures show something.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");

/// Every scenario, small.
const STORIES: [&str; 14] = [
    "hops --nodes 32 --routes 40",
    "crash --nodes 32 --routes 40",
    "storm --nodes 24 --values 12",
    "partition --nodes 32 --routes 40",
    "latency --nodes 24 --routes 40 --dead 10",
    "churn --nodes 24 --duration 2m",
    "storage --nodes 24 --values 8 --duration 10m",
    "bursts --nodes 24",
    "classes --nodes 24 --duration 2m --routes 40 --values 8",
    "compare --nodes 24 --routes 30",
    "riders --nodes 24 --hostile 20 --duration 2m",
    "attack --nodes 24 --hostile 10 --routes 30 --values 4",
    "multicast --nodes 24 --group 8 --values 4",
    "channel --nodes 24 --members 8 --routes 20 --duration 1m",
];

fn simulate(words: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("sim").args(words.split(' '));
    command.output().unwrap()
}

/// What a run prints on standard output, after the check that it ended well.
fn printed(words: &str) -> String {
    let output = simulate(words);
    assert!(output.status.success(), "{words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_scenario_tells_the_same_for_the_same_seed() {
    for story in STORIES {
        let run = |seed: &str| printed(&format!("{story} --seed {seed} --json"));
        let told = run("3");
        assert_eq!(told, run("3"), "{story}");
        let report: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(report["scenario"].as_str(), story.split(' ').next());
        assert_eq!(report["seed"], 3, "{story}");
        let results = report["results"].as_object().unwrap();
        assert!(results["events"].as_u64() > Some(100), "{story}");
        assert!(results.len() > 2, "{story}: {told}");
    }
}

#[test]
fn several_seeds_give_means_and_a_table() {
    let several = "hops --nodes 24 --routes 30 --seeds 3";
    let report: Value = serde_json::from_str(&printed(&format!("{several} --json"))).unwrap();
    // Another seed is another run.
    let figure = |part: &str| report[part]["events"].as_f64().unwrap();
    assert!(figure("least") < figure("results") && figure("results") < figure("greatest"));
    assert_eq!(report["seeds"], 3);
    let table = printed(several);
    assert!(table.contains("mean_hops"), "{table}");
    let cost: Value =
        serde_json::from_str(&printed("hops --nodes 24 --routes 30 --cost --json")).unwrap();
    assert!(cost["cost"]["events_per_second"].as_f64() > Some(0.0));
}

#[test]
fn pictures_show_something() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("picture.svg");
    let path = file.to_str().unwrap();
    for story in STORIES {
        let output = simulate(&format!("{story} --plot {path}"));
        if !output.status.success() {
            // Some have none, and say so.
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(told.contains("has no picture"), "{story}: {told}");
            continue;
        }
        let drawn = std::fs::read_to_string(&file).unwrap();
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"));
        // Beside the grid: a line with a second point, a bar, or a single point.
        let lines = drawn.split("<path class=\"line\"").skip(1);
        let line = lines
            .filter_map(|line| line.split("d=\"").nth(1)?.split('"').next())
            .any(|path| path.contains(['L', 'H']));
        let shapes = drawn.contains("<circle") || drawn.matches("<rect").count() > 1;
        assert!(line || shapes, "{story}: {drawn}");
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn what_a_scenario_does_not_heed_is_refused() {
    let output = simulate("hops --dead 3");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--dead means nothing to the scenario hops"),
        "{told}"
    );
}
