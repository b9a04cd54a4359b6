//! Fifty daemons on fifty hosts: all join at once, a third is killed at once, and nothing
//! that was acknowledged is lost. The same story as `cargo xtask bench fifty`.

use std::path::Path;
use std::time::Duration;

use enishi_lab::Plan;

#[test]
fn fifty_daemons_join_at_once_and_outlive_a_third_of_them() {
    if !enishi_lab::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let plan = Plan {
        daemons: 50,
        values: 50,
        quiet: None,
        patience: Duration::from_secs(180),
    };
    let program = Path::new(env!("CARGO_BIN_EXE_enishi"));
    // That all know their true neighbours, before the kill and after, is waited for there.
    let story = plan.run(program, |part| eprintln!("{part}")).unwrap();
    eprintln!("{story:?}");
    assert_eq!((story.daemons, story.killed), (50, 17));
    assert_eq!(story.acknowledged, story.values, "puts in a whole ring");
    assert_eq!(story.verified, story.verifying, "strangers and values");
    assert!(story.paths > 2.0, "{} paths", story.paths);
    assert_eq!(story.verified_falsely, 0, "nobody has these ids");

    // Six neighbours on the ring that are all among 17 of 50: once in 25 runs, and then the few
    // values between two nodes have no holder. All others are there, whoever put them, and
    // whoever asks.
    assert!(
        story.places_without_holder <= 2,
        "{} values at {} places",
        story.without_holder,
        story.places_without_holder
    );
    assert_eq!((story.lost, story.lost_of_killed), (0, 0));
    assert!(story.of_killed >= 15, "{}", story.of_killed);
    let left = story.values - story.without_holder;
    assert_eq!((story.readings, story.misread), (3 * left, 0));
}
