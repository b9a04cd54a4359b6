//! `enishi sim replay`.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use enishi_sim::recording::Reader;
use enishi_sim::replay::{End, Parting, Replay, replay};

use crate::output::table::Table;
use crate::output::{Output, progress};
use crate::problem::{Problem, Verdict};

/// Replays a recording and tells whether the node said the same.
///
/// # Errors
/// [`Problem`] when the file is no recording, or the result cannot be written.
pub(crate) fn run(out: &Output, path: &Path) -> Result<Verdict, Problem> {
    let refused = |why: String| {
        let why = why.trim_end_matches('.').to_owned();
        Problem::Usage(format!("{} cannot be replayed: {why}.", path.display()))
    };
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let reader = Reader::open(BufReader::new(file));
    let mut reader = reader.map_err(|error| refused(error.to_string()))?;
    let bar = progress::bar(out, length);
    let replay = replay(&mut reader, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    if out.json {
        out.object(&replay)?;
    } else {
        out.line(&text(&replay))?;
    }
    Ok(match replay.is_well() {
        true => Verdict::Yes,
        false => Verdict::No,
    })
}

fn text(replay: &Replay) -> String {
    let mut table = Table::new(["figure", "value"]).right(1);
    let mut row = |name: &str, value: String| {
        table.row([name.to_owned(), value]);
    };
    row("node", replay.node_id.chars().take(10).collect());
    row("recorded by version", replay.recorded_by.clone());
    row("replayed by version", replay.replayed_by.to_owned());
    row("recorded time", seconds(replay.duration_us));
    row("inputs", replay.inputs.to_string());
    for (kind, count) in &replay.kinds {
        row(&format!("  {kind}"), count.to_string());
    }
    row("outputs", replay.outputs.to_string());
    for (what, sorts) in [
        ("messages received", &replay.received),
        ("messages sent", &replay.sent),
    ] {
        row(what, sorts.values().sum::<u64>().to_string());
        for (sort, count) in sorts {
            row(&format!("  {sort}"), count.to_string());
        }
    }
    row("digest", replay.digest.clone());
    let mut lines = vec![table.print(), String::new()];
    lines.extend(replay.parted.iter().flat_map(parting));
    if replay.parted.is_none() {
        lines.push(format!("identical: {}", ending(replay)));
    }
    if replay.recorded_by != replay.replayed_by {
        lines.push("another version recorded: it may well have decided otherwise".to_owned());
    }
    lines.join("\n")
}

/// How the recording ends, as the end of a sentence.
fn ending(replay: &Replay) -> String {
    let octet = replay.at_octet.unwrap_or_default();
    match &replay.ending {
        End::Stopped => "to the end, where the node was stopped".to_owned(),
        End::Limit => "to the end, where the recording had reached its size limit".to_owned(),
        End::Slow => "to the end, where the disk became too slow for the recording".to_owned(),
        End::TooLong => "to the end, where an input was too long for the recording".to_owned(),
        End::Killed => "to the end, where the daemon was killed".to_owned(),
        End::Torn => format!(
            "up to octet {octet}, where the recording is cut off or damaged (the daemon was \
             killed, or the disk full)"
        ),
        End::Unknown => {
            format!("up to octet {octet}, where something follows that this version does not know")
        }
        End::Unreadable(error) => format!("as far as the file can be read: {error}"),
        End::Parted => String::new(),
    }
}

fn parting(parting: &Parting) -> Vec<String> {
    let mut lines = vec![
        format!(
            "the traces part at input {}, {} after the start",
            parting.input_number,
            seconds(parting.at_us)
        ),
        format!("  input: {}", parting.input),
        "  outputs of the replay:".to_owned(),
    ];
    lines.extend(parting.outputs.iter().map(|output| format!("    {output}")));
    match parting.outputs_left_out {
        0 if parting.outputs.is_empty() => lines.push("    none".to_owned()),
        0 => {}
        more => lines.push(format!("    and {more} more")),
    }
    let next = parting.next_timeout_us.map_or("never".to_owned(), seconds);
    lines.push(format!("  wants to be woken at: {next}"));
    lines.push(format!(
        "  digest: recorded {}, replayed {}",
        parting.digest_recorded, parting.digest_replayed
    ));
    lines
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn replay() -> Replay {
        Replay {
            identical: true,
            recorded_by: "0.1.0".into(),
            replayed_by: "0.1.0",
            node_id: "a".repeat(52),
            inputs: 7,
            outputs: 9,
            duration_us: 1_500_000,
            kinds: BTreeMap::from([("timeout", 7)]),
            received: BTreeMap::from([("ping", 3)]),
            sent: BTreeMap::from([("pong", 3)]),
            digest: "00".into(),
            ending: End::Torn,
            at_octet: Some(99),
            parted: None,
        }
    }

    #[test]
    fn a_torn_recording_is_told_with_its_place() {
        let told = text(&replay());
        assert!(
            told.contains("1.500000 s") && told.contains("octet 99"),
            "{told}"
        );
        let halves = told.split_once("messages sent").unwrap();
        assert!(
            halves.0.contains("ping") && halves.1.contains("pong"),
            "{told}"
        );
        assert!(!told.contains("another version"));
        let other = Replay {
            recorded_by: "0.0.9".into(),
            ..replay()
        };
        assert!(text(&other).contains("another version"));
    }

    #[test]
    fn where_traces_part_is_told_with_what_was_said() {
        let parted = Parting {
            input_number: 7,
            at_us: 2_000_001,
            input: "Timeout".into(),
            outputs: vec!["send Leave to a".into()],
            outputs_left_out: 3,
            next_timeout_us: None,
            digest_recorded: "01".into(),
            digest_replayed: "02".into(),
        };
        let told = text(&Replay {
            ending: End::Parted,
            parted: Some(parted),
            ..replay()
        });
        for part in [
            "input 7",
            "2.000001 s",
            "Timeout",
            "send Leave",
            "3 more",
            "never",
            "01, replayed 02",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("identical"));
    }
}
