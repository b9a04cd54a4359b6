//! PAC files: programs in JavaScript that name the proxies for a URL.
//!
//! MDN, "Proxy Auto-Configuration (PAC) file", describes them; no standard does. A file is fetched, kept for
//! [`SCRIPT_TIME`], and evaluated in a process of its own ([`guard`]). Answers are kept for
//! [`ANSWER_TIME`]. When a file cannot be fetched any more, the one from before is used.

pub mod answer;
#[cfg(feature = "pac")]
mod engine;
pub mod guard;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

use crate::fetch::{FetchError, fetch};
use crate::settings::Location;
use crate::target::Target;
use crate::tls::Trust;
use answer::Answer;
use guard::{Guard, Question};

/// The longest PAC file, in octets.
pub const SCRIPT_BYTES_MAX: usize = 1 << 20;

/// How long a file that was fetched is used before it is fetched again.
pub const SCRIPT_TIME: Duration = Duration::from_secs(30 * 60);

/// How long a file from the disk is used before it is read again.
const FILE_TIME: Duration = Duration::from_secs(60);

/// After a failure, how long until the next attempt.
const PAUSE: Duration = Duration::from_secs(30);

/// How long an answer is used.
pub const ANSWER_TIME: Duration = Duration::from_secs(5 * 60);

/// How many answers are kept; all are forgotten when there are more.
const ANSWERS_MAX: usize = 256;

/// How many files are evaluated at the same time.
const GUARDS_MAX: usize = 2;

/// Why a PAC file gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacError {
    /// It cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It does not work.
    #[error("the PAC file does not work: {0}")]
    Failed(String),
    /// It took longer than [`guard::TIME_MAX`].
    #[error("the PAC file does not work: it was stopped after five seconds")]
    Slow,
    /// The process in which it ran has ended.
    #[error("the PAC file does not work: it took more memory or time than it may")]
    Died,
    /// The process cannot be started.
    #[error("the PAC file cannot be evaluated: {0}")]
    System(String),
}

impl From<io::Error> for PacError {
    fn from(error: io::Error) -> Self {
        Self::System(error.to_string())
    }
}

/// Asks PAC files.
#[derive(Debug)]
pub struct Pac {
    guard: Guard,
    kept: Mutex<Kept>,
    /// Only one task fetches.
    fetching: tokio::sync::Mutex<()>,
    turns: Semaphore,
}

#[derive(Debug, Default)]
struct Kept {
    script: Option<Script>,
    answers: BTreeMap<Target, (Result<Answer, PacError>, Instant)>,
}

#[derive(Clone, Debug)]
struct Script {
    location: Location,
    text: Result<Arc<str>, PacError>,
    /// When it is to be fetched again.
    again: Instant,
}

impl Default for Pac {
    fn default() -> Self {
        Self::new(Guard::default())
    }
}

impl Pac {
    /// Makes one that evaluates by such guards.
    #[must_use]
    pub fn new(guard: Guard) -> Self {
        Self {
            guard,
            kept: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            turns: Semaphore::new(GUARDS_MAX),
        }
    }

    /// Forgets files and answers.
    pub(crate) fn forget(&self) {
        *self.kept() = Kept::default();
    }

    /// Returns what the file answers for a target.
    pub(crate) async fn ask(
        &self,
        location: &Location,
        target: &Target,
        trust: &Trust,
    ) -> Result<Answer, PacError> {
        let script = self.script(location, trust).await?;
        if let Some(answer) = self.known(target) {
            return answer;
        }
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        if let Some(answer) = self.known(target) {
            return answer;
        }
        let question = Question {
            script: script.as_ref().to_owned(),
            url: target.to_string(),
            host: target.host().to_owned(),
            addresses: addresses(),
            now_ms: now_ms(),
        };
        let answer = self.guard.evaluate(&question).await;
        let answer = answer.map(|answer| answer::parse(&answer));
        let time = if answer.is_ok() { ANSWER_TIME } else { PAUSE };
        let mut kept = self.kept();
        // Another file may have come meanwhile.
        let now = kept.script.as_ref().map(|script| &script.text);
        if !matches!(now, Some(Ok(now)) if Arc::ptr_eq(now, &script)) {
            return answer;
        }
        if kept.answers.len() >= ANSWERS_MAX {
            kept.answers.clear();
        }
        let until = Instant::now() + time;
        kept.answers.insert(target.clone(), (answer.clone(), until));
        answer
    }

    fn known(&self, target: &Target) -> Option<Result<Answer, PacError>> {
        let kept = self.kept();
        let (answer, until) = kept.answers.get(target)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    /// Returns the file, and fetches it when it is time.
    async fn script(&self, location: &Location, trust: &Trust) -> Result<Arc<str>, PacError> {
        if let Some(text) = self.fresh(location) {
            return text;
        }
        let _turn = self.fetching.lock().await;
        if let Some(text) = self.fresh(location) {
            return text;
        }
        let text = fetch(location, SCRIPT_BYTES_MAX, trust).await;
        let text = text.map(|octets| Arc::from(decode(&octets)));
        let text = text.map_err(PacError::from);
        let time = match (&text, location) {
            (Err(_), _) => PAUSE,
            (Ok(_), Location::Http(_)) => SCRIPT_TIME,
            (Ok(_), Location::File(_)) => FILE_TIME,
        };
        let mut kept = self.kept();
        let before = kept
            .script
            .take()
            .filter(|script| script.location == *location);
        let before = before.map(|script| script.text);
        let text = match (text, before) {
            (Err(error), Some(Ok(before))) => {
                tracing::debug!(%error, "the PAC file from before is used");
                Ok(before)
            }
            (text, before) => {
                if before.as_ref() != Some(&text) {
                    kept.answers.clear();
                }
                text
            }
        };
        kept.script = Some(Script {
            location: location.clone(),
            text: text.clone(),
            again: Instant::now() + time,
        });
        text
    }

    fn fresh(&self, location: &Location) -> Option<Result<Arc<str>, PacError>> {
        let kept = self.kept();
        let script = kept.script.as_ref()?;
        let is_fresh = script.location == *location && script.again > Instant::now();
        is_fresh.then(|| script.text.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a file as UTF-8, or if it is none as Latin-1, in which each octet is a character.
fn decode(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.trim_start_matches('\u{feff}').to_owned(),
        Err(_) => octets.iter().map(|octet| char::from(*octet)).collect(),
    }
}

/// Returns from which addresses this host would send to the Internet. Nothing is sent: the places are
/// those of documentation (RFC 5737, RFC 3849).
fn addresses() -> Vec<IpAddr> {
    let source = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.local_addr().map(|address| address.ip())
    };
    let sources = [
        source("0.0.0.0:0", "192.0.2.1:9"),
        source("[::]:0", "[2001:db8::1]:9"),
    ];
    sources.into_iter().flatten().collect()
}

fn now_ms() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64() * 1_000.0
}

#[cfg(all(test, feature = "pac"))]
mod tests {
    use super::*;
    use crate::fetch::tests::serve;
    use crate::{Choice, Proxies, Route, Settings, Source};

    const SCRIPT: &str = "function FindProxyForURL(url, host) {
        return dnsDomainIs(host, '.example.com') ? 'DIRECT' : 'PROXY p:3128; DIRECT'; }";

    fn proxies(location: Location) -> Proxies {
        let proxies = Proxies::new(Pac::new(guard::tests::guard()));
        let settings = Settings {
            choice: Choice::Pac(location),
            bypass: crate::Bypass::default(),
        };
        proxies.set(Source::Configuration, Some(settings));
        proxies
    }

    fn words(routes: &[Route]) -> String {
        let words: Vec<String> = routes.iter().map(ToString::to_string).collect();
        words.join("; ")
    }

    #[tokio::test]
    async fn a_file_by_http_names_the_proxies() {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            SCRIPT.len()
        );
        let location = serve((head + SCRIPT).into_bytes()).await;
        let proxies = proxies(location.clone());
        let routes = proxies.proxies_for("https://x.org").await;
        assert_eq!(words(&routes), "PROXY p:3128; DIRECT");
        let routes = proxies.proxies_for("https://a.example.com").await;
        assert_eq!(words(&routes), "DIRECT");
        let told = proxies.explain("https://x.org").await;
        assert!(told.pac == Some(location) && told.notice.is_none());
    }

    #[tokio::test]
    async fn without_its_file_a_connection_goes_straight_and_the_reason_is_told() {
        let proxies = proxies(Location::File("/nowhere/p.pac".into()));
        let told = proxies.explain("https://x.org").await;
        assert_eq!(words(&told.routes), "DIRECT");
        assert!(told.notice.unwrap().contains("/nowhere/p.pac"));
    }

    #[tokio::test]
    async fn answers_are_kept_and_a_broken_file_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "function FindProxyForURL() { return nonsense; }",
        )
        .unwrap();
        let proxies = proxies(Location::File(file.path().to_owned()));
        let first = proxies.explain("https://x.org").await;
        assert!(
            first.notice.as_ref().unwrap().contains("nonsense"),
            "{first:?}"
        );
        let begin = Instant::now();
        for _ in 0..100 {
            assert_eq!(proxies.explain("https://x.org").await, first);
        }
        assert!(begin.elapsed() < Duration::from_millis(500));
    }

    #[test]
    fn old_files_are_in_latin_1() {
        assert_eq!(decode(b"caf\xe9"), "café");
        assert_eq!(decode("\u{feff}café".as_bytes()), "café");
    }
}
