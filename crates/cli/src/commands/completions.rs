//! `enishi completions`.

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::args::Arguments;
use crate::output::Output;
use crate::problem::{Problem, Verdict};

/// Prints the completions for a shell.
pub(crate) fn run(out: &Output, shell: Shell) -> Result<Verdict, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "enishi", &mut script);
    if out.json {
        let script = String::from_utf8_lossy(&script);
        out.object(&json!({ "shell": shell.to_string(), "script": script }))?;
    } else {
        out.bytes(&script)?;
    }
    Ok(Verdict::Yes)
}
