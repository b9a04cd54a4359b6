//! What goes to standard output and standard error.
//!
//! Standard output carries results alone, so that it can be piped; hints and progress
//! go to standard error. Nothing here panics when the reader has gone away.

pub(crate) mod progress;
pub(crate) mod qr;
pub(crate) mod table;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use crate::problem::Problem;
use crate::text::{Label, Language, Message};

/// How and in which language a command tells its results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// One JSON object instead of text.
    pub(crate) json: bool,
    /// The language of text.
    pub(crate) language: Language,
}

impl Output {
    /// Words a message in the chosen language.
    pub(crate) fn text(&self, message: &Message<'_>) -> String {
        self.language.text(message)
    }

    /// Words a heading in the chosen language.
    pub(crate) fn label(&self, label: Label) -> &'static str {
        self.language.label(label)
    }

    /// Whether a person reads standard output as it comes.
    pub(crate) fn person_reads(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// Prints an object as one line of JSON.
    pub(crate) fn object(&self, object: &impl Serialize) -> Result<(), Problem> {
        let mut line = serde_json::to_vec(object)
            .map_err(|error| Problem::No(format!("The answer cannot be told in JSON: {error}.")))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Prints an object if JSON is asked for, a message otherwise.
    pub(crate) fn result(
        &self,
        object: &impl Serialize,
        message: &Message<'_>,
    ) -> Result<(), Problem> {
        if self.json {
            self.object(object)
        } else {
            self.line(&self.text(message))
        }
    }

    /// Prints lines of text; control characters in them do no harm.
    pub(crate) fn line(&self, text: &str) -> Result<(), Problem> {
        self.bytes(format!("{}\n", harmless(text)).as_bytes())
    }

    /// Prints lines of text unless JSON is asked for.
    pub(crate) fn say(&self, text: &str) -> Result<(), Problem> {
        if self.json { Ok(()) } else { self.line(text) }
    }

    /// Prints octets as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Problem> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|error| Problem::of_output(&error))
    }

    /// Tells a person something beside the result.
    pub(crate) fn hint(&self, message: &Message<'_>) {
        if !self.json {
            self.tell(&self.text(message));
        }
    }

    /// Passes on what the daemon tells a person beside the result.
    pub(crate) fn notice(&self, notice: &str) {
        if !self.json {
            self.tell(notice);
        }
    }

    /// Tells why the command failed.
    pub(crate) fn problem(&self, problem: &Problem) {
        let Some(message) = problem.message() else {
            return;
        };
        if self.json {
            // Nothing is left to be done if even this cannot be written.
            let _ = self.object(&json!({"error": {"kind": problem.kind(), "message": message}}));
        } else {
            self.tell(&format!("enishi: {message}"));
        }
    }

    fn tell(&self, text: &str) {
        // Whoever closed standard error does not want to hear of it.
        let _ = writeln!(io::stderr().lock(), "{}", harmless(text));
    }
}

/// Replaces control characters except line break and tabulator: much of what is shown
/// was written by other people, and must not steer the terminal.
pub(crate) fn harmless(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => '\u{fffd}',
        // Marks that turn the direction of writing can make text look like other text.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_does_not_steer_the_terminal() {
        assert_eq!(
            harmless("a\u{1b}[2Jb\r\u{7}c\u{202e}d"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d"
        );
        assert_eq!(harmless("縁\tmi\nkä"), "縁\tmi\nkä");
    }
}
