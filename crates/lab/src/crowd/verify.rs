//! `enishi verify` among many: nodes, values, and ids that nobody has.

use anyhow::{Context, Result};
use serde_json::Value;

use super::story::Story;
use super::values::Stored;
use super::{Crowd, together};

/// How many daemons verify a node, a value and a made-up id each.
const ASKERS: usize = 10;

/// How often each of them tries: nodes may just be busy.
const ATTEMPTS_MAX: usize = 2;

/// What came of one question.
#[derive(Debug, Default)]
struct Told {
    is_confirmed: bool,
    /// Before it was confirmed, or given up.
    attempts: usize,
    paths: f64,
    agreeing: f64,
    /// The answer, or what was wrong.
    text: String,
}

/// Has daemons verify nodes, values, and ids that nobody has, over several paths, with the
/// command line as people do.
pub(super) fn verify(crowd: &Crowd, stored: &[Stored], story: &mut Story) {
    let living = crowd.living();
    let askers: Vec<usize> = (0..ASKERS).collect();
    let told = together(&askers, |number| {
        let asker = living[number * living.len() / ASKERS];
        let other = living[(number * living.len() / ASKERS + living.len() / 2) % living.len()];
        let node = crowd.members[other].place();
        let node = node.map(|place| place.id).unwrap_or_default();
        let key = format!("key:{}", stored[number * stored.len() / ASKERS].key());
        let made_up = made_up(&node);
        [(node, ATTEMPTS_MAX), (key, ATTEMPTS_MAX), (made_up, 1)]
            .map(|(target, attempts)| ask(crowd, asker, &target, attempts))
    });
    let there: Vec<&Told> = told.iter().flat_map(|[node, key, _]| [node, key]).collect();
    let mean = |of: fn(&Told) -> f64| {
        let each = there.iter().map(|told| of(told));
        each.sum::<f64>() / there.len() as f64
    };
    for told in there.iter().filter(|told| !told.is_confirmed) {
        eprintln!("not confirmed: {}", told.text);
    }
    let confirmed = || there.iter().filter(|told| told.is_confirmed);
    story.verifying = there.len();
    story.verified = confirmed().count();
    story.verified_late = confirmed().filter(|told| told.attempts > 1).count();
    (story.paths, story.paths_agreeing) = (mean(|told| told.paths), mean(|told| told.agreeing));
    let made_up = told.iter().map(|[.., made_up]| made_up);
    story.verified_falsely = made_up.filter(|told| told.is_confirmed).count();
}

/// Asks until it is confirmed, so many times at most.
fn ask(crowd: &Crowd, asker: usize, target: &str, attempts_max: usize) -> Told {
    let mut told = Told::default();
    for attempts in 1..=attempts_max {
        told = ask_once(crowd, asker, target).unwrap_or_else(|error| Told {
            text: format!("{target}: {error:#}"),
            ..Told::default()
        });
        told.attempts = attempts;
        if told.is_confirmed {
            break;
        }
    }
    told
}

fn ask_once(crowd: &Crowd, asker: usize, target: &str) -> Result<Told> {
    let daemon = crowd.members[asker].daemon.as_ref();
    let daemon = daemon.context("the asker was killed")?;
    let output = daemon.call(&["verify", target, "--json"])?;
    let answer: Value = serde_json::from_str(&output.stdout)
        .with_context(|| format!("{:?} {}", output.stdout, output.stderr.trim()))?;
    let number = |field: &str| answer[field].as_f64().with_context(|| answer.to_string());
    Ok(Told {
        // The exit code and what is told have to agree.
        is_confirmed: output.success() && answer["verdict"] == "confirmed",
        attempts: 0,
        paths: number("paths")?,
        agreeing: number("agreeing")?,
        text: answer.to_string(),
    })
}

/// Returns an id that hardly anybody has: another first character. About every other one is
/// no key at all, and is refused.
fn made_up(node: &str) -> String {
    let first = if node.starts_with('a') { 'b' } else { 'a' };
    let rest = node.chars().skip(1);
    std::iter::once(first).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_id_is_another_of_the_same_length() {
        assert_eq!(made_up("abc"), "bbc");
        assert_eq!(made_up("xbc"), "abc");
    }
}
