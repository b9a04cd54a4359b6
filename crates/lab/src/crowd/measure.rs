//! What daemons send, work and take.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::story::{Said, Story};
use super::{Crowd, together};
use crate::daemon::Daemon;

/// Measures what daemons send and work while nothing is asked of them, after a rest in
/// which what was before comes to its end.
pub(super) fn listen(crowd: &Crowd, quiet: Duration, story: &mut Story) -> Result<()> {
    thread::sleep(quiet);
    let measure = || -> Result<(f64, Said, f64)> {
        let octets = crowd.octets()?;
        let wire = octets.iter().map(|octets| octets.sent as f64).sum();
        Ok((wire, said(crowd)?, sum(crowd, Daemon::cpu_s)?))
    };
    let (started, before) = (Instant::now(), measure()?);
    thread::sleep(quiet);
    let (seconds, after) = (started.elapsed().as_secs_f64(), measure()?);
    let per_daemon = seconds * crowd.living().len() as f64;
    story.wire_bytes_per_s = Some((after.0 - before.0) / per_daemon);
    story.quiet_per_s = Some(after.1.since(before.1).per(seconds));
    story.cpu_ms_per_s = Some((after.2 - before.2) * 1e3 / per_daemon);
    Ok(())
}

/// Looks at the memory of all daemons.
pub(super) fn weigh(crowd: &Crowd, story: &mut Story) -> Result<()> {
    let weights = of_each(crowd, Daemon::rss_mb)?;
    story.rss_mean_mb = weights.iter().sum::<f64>() / weights.len() as f64;
    story.rss_max_mb = weights.into_iter().fold(0.0, f64::max);
    Ok(())
}

/// Returns what each living daemon has sent of the overlay's protocol since it was started,
/// on average.
pub(super) fn said(crowd: &Crowd) -> Result<Said> {
    let living = crowd.living();
    let all = together(&living, |number| {
        let status = crowd.members[*number].ask(&json!({ "request": "status" }))?;
        read_said(&status["sent"]).context("no counts of what was sent in `status`")
    });
    let all = all.into_iter().collect::<Result<Vec<Said>>>()?;
    let total = Said {
        messages: all.iter().map(|said| said.messages).sum(),
        bytes: all.iter().map(|said| said.bytes).sum(),
    };
    Ok(total.per(all.len() as f64))
}

fn read_said(sent: &Value) -> Option<Said> {
    Some(Said {
        messages: sent["messages"].as_f64()?,
        bytes: sent["bytes"].as_f64()?,
    })
}

/// Adds up something of all living daemons.
pub(super) fn sum(crowd: &Crowd, of: impl Fn(&Daemon) -> Result<f64>) -> Result<f64> {
    Ok(of_each(crowd, of)?.iter().sum())
}

fn of_each(crowd: &Crowd, of: impl Fn(&Daemon) -> Result<f64>) -> Result<Vec<f64>> {
    let members = crowd.members.iter();
    let daemons = members.filter_map(|member| member.daemon.as_ref());
    daemons.map(of).collect()
}
