//! The audit log, for people.

use std::collections::VecDeque;

use enishi_host::audit::{self, AuditError, Event, Line, Passage, Verified};
use serde_json::json;

use super::super::Context;
use super::DAY_S;
use crate::args;
use crate::gateway::short;
use crate::output::table::Table;
use crate::problem::{Problem, Verdict, sentence};
use crate::text::{Gateway as Text, Message};

/// What is to be told of a log.
struct Read {
    found: Verified,
    last: VecDeque<(Line, String)>,
    /// Whether the hash is in it that was asked for.
    is_found: bool,
}

fn read(cx: &Context, options: &args::Audit) -> Result<Read, AuditError> {
    let mut last = VecDeque::new();
    let mut is_found = options.expect.is_none();
    let found = audit::read(cx.client.data(), |line, hash| {
        is_found |= options.expect.as_deref() == Some(hash);
        last.push_back((line.clone(), hash.to_owned()));
        if last.len() > options.last {
            last.pop_front();
        }
    })?;
    Ok(Read {
        found,
        last,
        is_found,
    })
}

pub(super) fn tell(cx: &Context, options: &args::Audit) -> Result<Verdict, Problem> {
    // A gateway that runs may begin another file meanwhile.
    let read = read(cx, options).or_else(|_| read(cx, options));
    let Read {
        found,
        last,
        is_found,
    } = read.map_err(|error| Problem::No(sentence(&error.to_string())))?;
    let hash = found.last.as_ref().map(|(_, hash)| hash.clone());
    if !is_found {
        return Err(Problem::No(
            cx.out.text(&Message::Gateway(Text::HashMissing)),
        ));
    }
    let shown = if options.verify {
        VecDeque::new()
    } else {
        last
    };
    if cx.out.json {
        let lines: Vec<&Line> = shown.iter().map(|(line, _)| line).collect();
        let count = found.lines;
        cx.out.object(&json!({ "whole": true, "count": count, "torn": found.torn, "last_hash": hash, "lines": lines }))?;
        return Ok(Verdict::Yes);
    }
    if !shown.is_empty() {
        let mut table = Table::default();
        for (line, _) in &shown {
            let [event, text] = words(&line.event);
            table.row([line.seq.to_string(), utc(line.unix_ms / 1000), event, text]);
        }
        cx.out.line(&table.print())?;
    }
    let told = match &hash {
        Some(hash) => Text::Whole {
            lines: found.lines,
            hash,
        },
        None => Text::NotLogged,
    };
    cx.out.line(&cx.out.text(&Message::Gateway(told)))?;
    Ok(Verdict::Yes)
}

/// What a line tells; the words are those of the file.
fn words(event: &Event) -> [String; 2] {
    let [event, text] = match event {
        Event::Begun { .. } => ["begun", ""].map(str::to_owned),
        Event::Repaired { octets } => ["repaired".to_owned(), format!("{octets} octets cut off")],
        Event::Started => ["started", ""].map(str::to_owned),
        Event::Stopped => ["stopped", ""].map(str::to_owned),
        Event::Changed { open, reason } => {
            let text = reason.clone().unwrap_or_else(|| {
                let open = open.iter().map(|line| {
                    let words = line.split(' ').map(|word| word.get(..10).unwrap_or(word));
                    words.collect::<Vec<_>>().join(" ")
                });
                open.collect::<Vec<_>>().join(", ")
            });
            ["changed".to_owned(), text]
        }
        Event::Opened { flow, passage } => {
            ["opened".to_owned(), format!("#{flow} {}", who(passage))]
        }
        Event::Refused { passage, reason } => {
            ["refused".to_owned(), format!("{}: {reason}", who(passage))]
        }
        Event::Closed {
            flow,
            octets_in,
            octets_out,
            open_ms,
            reason,
        } => {
            let text = format!("#{flow} {octets_in} in, {octets_out} out, {open_ms} ms: {reason}");
            ["closed".to_owned(), text]
        }
        Event::Copied {
            document,
            from_overlay,
            to_overlay,
            octets,
            ..
        } => {
            let (from, to) = (short(from_overlay), short(to_overlay));
            [
                "copied".to_owned(),
                format!("{document} {from} -> {to}, {octets} octets"),
            ]
        }
        Event::NotCopied { document, reason } => {
            ["not copied".to_owned(), format!("{document}: {reason}")]
        }
        Event::Withdrawn {
            document,
            to_overlay,
        } => [
            "withdrawn".to_owned(),
            format!("{document} {}", short(to_overlay)),
        ],
        Event::Suppressed { refusals } => ["suppressed".to_owned(), format!("{refusals} refusals")],
    };
    [event, text]
}

fn who(passage: &Passage) -> String {
    let node = passage.from_node.as_deref().unwrap_or("-");
    let to = passage.to_node.as_deref().unwrap_or("-");
    let port = passage
        .to_port
        .map_or(String::new(), |port| format!(":{port}"));
    let (node, to) = (short(node), short(to));
    format!(
        "{} {node} ({}) -> {to}{port}",
        passage.service, passage.from
    )
}

/// Writes a time as in RFC 3339, UTC. Days are counted as in "chrono-compatible low-level date
/// algorithms" (H. Hinnant), `civil_from_days`.
fn utc(unix_s: u64) -> String {
    let (days, second) = (unix_s / DAY_S, unix_s % DAY_S);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
