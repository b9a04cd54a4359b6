//! What ends a command early, and the exit code that tells a script of it.

use std::io;

use enishi_api::{Failure, FailureKind};

/// How a command ended that ran to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done: exit code 0.
    Yes,
    /// The answer is no, and has been told: exit code 1.
    No,
}

/// Why a command ended early.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// The answer is no: exit code 1.
    #[error("{0}")]
    No(String),
    /// A channel's founder would take its authority with it: exit code 1.
    #[error("{0}")]
    Founder(String),
    /// The program was used wrongly: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The daemon is not there: exit code 3.
    #[error("{0}")]
    NoDaemon(String),
    /// Nobody reads the output any more (`enishi peers | head -1`): exit code 0.
    #[error("nobody reads the output")]
    OutputClosed,
}

impl Problem {
    /// The exit code of the program.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::No(_) | Self::Founder(_) => 1,
            Self::Usage(_) => 2,
            Self::NoDaemon(_) => 3,
        }
    }

    /// The name of the sort of problem in JSON.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::OutputClosed => "output_closed",
            Self::No(_) => "no",
            Self::Founder(_) => "founder",
            Self::Usage(_) => "usage",
            Self::NoDaemon(_) => "no_daemon",
        }
    }

    /// What a person should read; none when there is nobody to read it.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Self::OutputClosed => None,
            Self::No(message)
            | Self::Founder(message)
            | Self::Usage(message)
            | Self::NoDaemon(message) => Some(message),
        }
    }

    /// A problem with standard output.
    pub(crate) fn of_output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::No(format!("The output could not be written: {error}.")),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            FailureKind::No => Self::No(failure.message),
            FailureKind::Usage => Self::Usage(failure.message),
            FailureKind::Founder => Self::Founder(failure.message),
        }
    }
}

/// Makes a sentence of what another part says.
pub(crate) fn sentence(text: &str) -> String {
    let mut text = format!("{}.", text.trim_end_matches('.'));
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}
