//! What survives when some nodes turn hostile.

use enishi_sim::hostile::Behaviour;
use enishi_sim::statistics::Figure;
use enishi_sim::{Options, Report, Scenario};

fn attack(behaviour: Option<Behaviour>, hostile_per_million: u32) -> Report {
    let options = Options {
        nodes: 200,
        routes: 240,
        values: Some(40),
        hostile_per_million: Some(hostile_per_million),
        behaviour,
        ..Options::default()
    };
    Scenario::Attack.run(&options, &mut |_| {})
}

/// Returns a figure at a share of hostile nodes.
fn at(report: &Report, share: &str, name: &str) -> f64 {
    let found = report.results.figures.find(name);
    let Some(Figure::Each(each)) = found else {
        panic!("no figure {name}")
    };
    *each
        .get(share)
        .unwrap_or_else(|| panic!("no {name} at {share}"))
}

const GIVEN: &str = "at the given share";

#[test]
fn disjoint_paths_and_direct_questions_survive_a_fifth_of_mixed_malice() {
    let report = attack(None, 200_000);
    let found = |name| at(&report, GIVEN, name);
    // Honest nodes alone lose nothing, and rarely suspect each other.
    for name in [
        "lookups_plain",
        "lookups_8_paths",
        "gets_sure",
        "puts_sure",
        "joined",
    ] {
        assert!(at(&report, "at 00 %", name) > 0.97, "{name}");
    }
    assert!(at(&report, "at 00 %", "density_alarms") < 0.08);
    // The attack is one: whoever trusts the way there is misled.
    assert!(found("lookups_plain") < found("lookups_8_paths"));
    assert!(found("gets_hasty") < found("gets_sure"));
    assert!(found("lookups_8_paths") >= 0.95);
    let (gets, puts) = (found("gets_sure"), found("puts_sure"));
    assert!(gets >= 0.97 && puts >= 0.95, "{gets}, {puts}: {report:?}");
    assert_eq!(found("puts_sure_belied"), 0.0);
    assert!(found("strangers_confirmed") >= 0.9);
    assert_eq!(found("made_up_confirmed"), 0.0);
    // With chosen neighbours around a key only those find it who ask more nodes than these.
    let [sure, hasty] = ["gets_sure", "gets_hasty"].map(|name| at(&report, "surrounded", name));
    assert!(hasty < 0.5 && sure >= 0.8, "{hasty}, {sure}");
    // A lease only those in charge give: asking more finds what honest holders kept.
    let leases = |name| at(&report, "surrounded leases", name);
    let [sure, hasty] = ["gets_sure", "gets_hasty"].map(leases);
    assert!(hasty < 0.5 && sure >= hasty, "{hasty}, {sure}");
}

#[test]
fn forged_silences_lead_nobody_astray() {
    let report = attack(Some(Behaviour::Slander), 200_000);
    for name in ["lookups_plain", "gets_plain", "puts_plain"] {
        assert!(at(&report, GIVEN, name) >= 0.97, "{name}: {report:?}");
    }
}
