//! What was found: for the next time, and in words.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Trial;
use crate::exchange::Refusal;
use crate::way::{Agent, Coding, ReplyCoding, Way};

/// Trials that are told.
const TOLD_MAX: usize = 32;

/// Proxies that are remembered.
const REMEMBERED_MAX: usize = 64;

/// What a proxy wants to know of who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyAuth {
    /// Nothing.
    #[default]
    None,
    /// User and password were taken, by Basic.
    Basic,
    /// User and password were taken, by Digest.
    Digest,
    /// It wants a user and a password, and there are none.
    Missing,
    /// It does not take these.
    Refused,
    /// It wants what is not spoken here, such as NTLM or Negotiate.
    Unsupported,
}

/// What passes a proxy, and what does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The best way. `None` when nothing passes.
    pub way: Option<Way>,
    /// What the proxy wants to know.
    pub auth: ProxyAuth,
    /// Whether long requests with short replies made it forbid everything.
    pub flagged: bool,
    /// What was tried, and `None` where it passed; 32 at most.
    pub tried: Vec<(Trial, Option<Refusal>)>,
}

impl Outcome {
    pub(super) fn note(&mut self, trial: Trial, result: Result<(), Refusal>) {
        if self.tried.len() < TOLD_MAX {
            self.tried.push((trial, result.err()));
        }
    }
}

/// What was found for each proxy, by its name; the oldest of 65 is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    proxies: BTreeMap<String, (u64, Outcome)>,
    count: u64,
}

impl Memory {
    /// Returns what was found for a proxy.
    #[must_use]
    pub fn recall(&self, proxy: &str) -> Option<&Outcome> {
        self.proxies.get(proxy).map(|(_, outcome)| outcome)
    }

    /// Keeps what was found for a proxy.
    pub fn remember(&mut self, proxy: &str, outcome: Outcome) {
        self.count += 1;
        self.proxies.insert(proxy.to_owned(), (self.count, outcome));
        while self.proxies.len() > REMEMBERED_MAX {
            let oldest = self.proxies.iter().min_by_key(|(_, (count, _))| *count);
            let Some(oldest) = oldest.map(|(proxy, _)| proxy.clone()) else {
                break;
            };
            self.proxies.remove(&oldest);
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Some(way) => tell_way(f, way)?,
            None => writeln!(f, "no request of the bridge passes")?,
        }
        let auth = match self.auth {
            ProxyAuth::None => "",
            ProxyAuth::Basic => {
                "the proxy takes the user and password (Basic, readable by who is on the way)\n"
            }
            ProxyAuth::Digest => "the proxy takes the user and password (Digest)\n",
            ProxyAuth::Missing => "the proxy wants a user and a password: configure them\n",
            ProxyAuth::Refused => "the proxy does not take the user and password: check them\n",
            ProxyAuth::Unsupported => {
                "the proxy wants an authentication other than Basic and Digest\n"
            }
        };
        f.write_str(auth)?;
        if self.flagged {
            writeln!(
                f,
                "long requests with short replies make the proxy forbid everything for a while: replies are lengthened"
            )?;
        }
        for (trial, refusal) in &self.tried {
            if let Some(refusal) = refusal {
                writeln!(f, "{trial}: {refusal}")?;
            }
        }
        Ok(())
    }
}

fn tell_way(f: &mut fmt::Formatter<'_>, way: &Way) -> fmt::Result {
    let Way {
        coding,
        reply,
        agent,
        ask_bytes,
        reply_bytes,
        stream_bytes,
        pour_bytes,
        ..
    } = way;
    let up = match pour_bytes {
        0 => "goes request by request",
        _ => "goes as a stream",
    };
    let down = match stream_bytes {
        0 => "comes by polls",
        _ => "comes as a stream",
    };
    writeln!(f, "up: {coding}, up to {ask_bytes} octets at a time; {up}")?;
    writeln!(
        f,
        "down: {reply}, up to {reply_bytes} octets at a time; {down}"
    )?;
    match agent {
        Agent::Own => Ok(()),
        Agent::Browser => writeln!(f, "only browsers pass: the bridge calls itself one"),
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            coding,
            agent,
            reply,
            ask_bytes,
            reply_bytes,
        } = self;
        write!(
            f,
            "{coding} of {ask_bytes} octets, {reply} of {reply_bytes}"
        )?;
        match agent {
            Agent::Own => Ok(()),
            Agent::Browser => write!(f, ", as a browser"),
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "POST of octets",
            Self::Upload => "POST of a file",
            Self::Form => "POST of a form",
            Self::Path => "GET of a long address",
        })
    }
}

impl fmt::Display for ReplyCoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "replies of octets",
            Self::Image => "replies that look like pictures",
            Self::Text => "replies of text",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection => f.write_str("no connection to the proxy"),
            Self::Broken => f.write_str("the connection was ended"),
            Self::Silence => f.write_str("no answer"),
            Self::TooLong => f.write_str("too long for the proxy"),
            Self::Forbidden => f.write_str("forbidden (403)"),
            Self::Authentication => f.write_str("the proxy wants to know who asks (407)"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Damaged => f.write_str("arrived damaged"),
            Self::ReplyDamaged => f.write_str("the reply is damaged, or another's"),
            Self::Cached => f.write_str("the reply is one to something else"),
            Self::Busy => f.write_str("the bridge has too much to do"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let way = Way {
            coding: Coding::Form,
            polls: Coding::Path,
            reply: ReplyCoding::Raw,
            agent: Agent::Browser,
            ask_bytes: 4_096,
            reply_bytes: 65_536,
            pad: true,
            stream_bytes: 1 << 20,
            pour_bytes: 0,
        };
        let trial = Trial {
            coding: Coding::Raw,
            agent: Agent::Browser,
            reply: ReplyCoding::Raw,
            ask_bytes: 1_280,
            reply_bytes: 1_280,
        };
        let mut outcome = Outcome {
            way: Some(way),
            auth: ProxyAuth::Digest,
            flagged: true,
            tried: Vec::new(),
        };
        outcome.note(trial, Err(Refusal::Damaged));
        outcome.note(trial, Ok(()));
        outcome
    }

    #[test]
    fn what_was_found_is_told_in_words() {
        let told = "\
up: POST of a form, up to 4096 octets at a time; goes request by request
down: replies of octets, up to 65536 octets at a time; comes as a stream
only browsers pass: the bridge calls itself one
the proxy takes the user and password (Digest)
long requests with short replies make the proxy forbid everything for a while: replies are lengthened
POST of octets of 1280 octets, replies of octets of 1280, as a browser: arrived damaged
";
        assert_eq!(outcome().to_string(), told);
        assert_eq!(
            Outcome::default().to_string(),
            "no request of the bridge passes\n"
        );
    }

    #[test]
    fn what_was_found_is_kept_as_text_and_the_oldest_forgotten() {
        let mut memory = Memory::default();
        for proxy in 0..=REMEMBERED_MAX {
            memory.remember(&format!("proxy{proxy}:3128"), outcome());
        }
        assert!(memory.recall("proxy0:3128").is_none());
        let text = serde_json::to_string(&memory).unwrap();
        let memory: Memory = serde_json::from_str(&text).unwrap();
        assert_eq!(memory.recall("proxy1:3128"), Some(&outcome()));
    }
}
