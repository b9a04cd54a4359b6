//! Every sentence that a person reads, in one place for each language.
//!
//! A sentence is a variant of [`Message`], a heading one of [`Label`]; each language
//! is one file with a function for either. Their `match` has no wildcard, so a
//! sentence that a language lacks does not compile. Help texts, and the failures
//! that the daemon words, are English.

mod en;
mod ja;

use std::env;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

/// The languages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    /// English
    #[default]
    En,
    /// 日本語
    Ja,
}

/// What is told in a sentence or a few.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    NoDaemon {
        data: &'a Path,
    },
    DaemonForbidden {
        data: &'a Path,
    },
    SocketPathUnfit {
        data: &'a Path,
        error: &'a io::Error,
    },
    DaemonBroke {
        error: &'a str,
    },
    DaemonSilent,
    AnswerStrange,
    PasswordUnreadable {
        name: &'a str,
        error: &'a io::Error,
    },
    PasswordUnfit {
        name: &'a str,
        max: usize,
    },
    InputUnreadable {
        error: &'a io::Error,
    },
    ValueTooLong {
        max: usize,
    },
    TicketEmpty,
    Waiting,
    Stopped,
    ChannelReady {
        name: &'a str,
        address: Option<Ipv4Addr>,
        interface: Option<&'a str>,
    },
    ChannelLeft {
        name: &'a str,
    },
    NoChannels,
    NoPeers,
    UseOverlayTicket {
        ticket: &'a str,
    },
    UseChannelTicket {
        ticket: &'a str,
    },
    Stored {
        replicas: u32,
        seq: u64,
    },
    Removed,
    Pong {
        sequence: u32,
        rtt_ms: f64,
        path: &'a str,
    },
    Lost {
        sequence: u32,
    },
    PingSummary {
        node: &'a str,
        sent: u32,
        received: u32,
    },
    RoundTrips {
        min: f64,
        avg: f64,
        p99: f64,
        max: f64,
    },
    Hop {
        number: usize,
        node: &'a str,
        rtt_ms: Option<f64>,
        path: &'a str,
    },
    TraceIncomplete,
    StreamWaiting {
        service: &'a str,
    },
    StreamBroke {
        error: &'a io::Error,
    },
    Joined {
        size: u64,
        peers: u32,
    },
    NotJoined,
    /// How many clients are attached.
    Clients {
        count: u32,
    },
}

/// A heading of a table or the name of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Label {
    Node,
    Version,
    Uptime,
    Overlay,
    Class,
    Addresses,
    Records,
    Refused,
    RefusedDetail,
    Dropped,
    Channel,
    Network,
    Address,
    Address6,
    Interface,
    Members,
    Role,
    Path,
    RoundTrip,
    Sent,
    Received,
    Check,
    Time,
    Result,
}

impl Language {
    /// The language that the environment asks for; English when it asks for none that
    /// there is.
    pub(crate) fn of_environment() -> Self {
        let value = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let name = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .find_map(value);
        Self::of_locale(name.as_deref().unwrap_or_default())
    }

    fn of_locale(name: &str) -> Self {
        let language = name.split(['_', '.', '@']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("ja") {
            Self::Ja
        } else {
            Self::En
        }
    }

    /// Words a message.
    pub(crate) fn text(self, message: &Message<'_>) -> String {
        match self {
            Self::En => en::text(message),
            Self::Ja => ja::text(message),
        }
    }

    /// Words a heading.
    pub(crate) fn label(self, label: Label) -> &'static str {
        match self {
            Self::En => en::label(label),
            Self::Ja => ja::label(label),
        }
    }
}

/// A virtual address, or a dash while there is none.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_names_the_language() {
        for (name, language) in [
            ("ja_JP.UTF-8", Language::Ja),
            ("ja", Language::Ja),
            ("ja.UTF-8", Language::Ja),
            ("jam_JM", Language::En),
            ("en_GB.UTF-8", Language::En),
            ("C", Language::En),
            ("", Language::En),
            ("de_DE", Language::En),
        ] {
            assert_eq!(Language::of_locale(name), language, "{name}");
        }
    }

    #[test]
    fn a_missing_daemon_is_told_with_the_remedy_in_each_language() {
        for language in [Language::En, Language::Ja] {
            let text = language.text(&Message::NoDaemon {
                data: Path::new("/d"),
            });
            assert!(text.contains("enishi up --data /d"), "{text}");
        }
    }
}
