//! Shows what the demo runs as it runs, and keeps it for the JSON form.

use serde_json::{Value, json};

use crate::output::Output;
use crate::problem::Problem;

/// How much of a line is shown, in characters.
const SHOWN_CHARS_MAX: usize = 150;

/// How many lines of a command's output are shown: the last ones, which tell most.
const SHOWN_LINES_MAX: usize = 6;

/// What one step runs.
#[derive(Debug)]
pub(super) struct Transcript {
    out: Output,
    commands: Vec<Value>,
}

impl Transcript {
    pub(super) fn new(out: Output) -> Self {
        Self {
            out,
            commands: Vec::new(),
        }
    }

    /// Shows where a step begins.
    pub(super) fn title(&self, title: &str) -> Result<(), Problem> {
        self.out.say(&format!("\n{title}"))
    }

    /// Shows a line that belongs to the step.
    pub(super) fn line(&self, text: &str) -> Result<(), Problem> {
        self.out.say(&format!("  {}", shorten(text)))
    }

    /// Shows and keeps a command and what it printed.
    ///
    /// # Errors
    /// When standard output is closed.
    pub(super) fn command(&mut self, host: &str, words: &str, output: &str) -> Result<(), Problem> {
        self.line(&format!("{host}$ {words}"))?;
        let lines: Vec<&str> = output
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        for line in &lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..] {
            self.line(line)?;
        }
        self.commands
            .push(json!({ "host": host, "command": words, "output": output.trim_end() }));
        Ok(())
    }

    /// Gives the commands kept so far.
    pub(super) fn take_commands(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.commands)
    }
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(shorten("short"), "short");
        let cut = shorten(&"縁".repeat(SHOWN_CHARS_MAX + 1));
        assert_eq!(cut.chars().count(), SHOWN_CHARS_MAX + 1);
        assert!(cut.ends_with("縁…"));
    }
}
