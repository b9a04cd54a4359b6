//! Which routes a connection has to take: the first source that says something of proxies decides.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::bypass::{Bypass, LOOPBACK, is_of_this_host};
use crate::pac::Pac;
use crate::route::Route;
use crate::settings::{Choice, Location, Settings};
use crate::target::Target;
use crate::tls::Trust;

/// The longest that [`Proxies::proxies_for`] takes: a PAC file is fetched once and evaluated. Other
/// sources answer at once.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(12);

/// The sources, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The configuration of the node.
    Configuration,
    /// The signed file of the company.
    Company,
    /// The desktop of a person, as told by a command.
    Desktop,
    /// The environment of the daemon.
    Environment,
}

impl Source {
    /// All, in the order in which they are asked.
    pub const ALL: [Self; 4] = [
        Self::Configuration,
        Self::Company,
        Self::Desktop,
        Self::Environment,
    ];

    /// Returns its name, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Company => "company",
            Self::Desktop => "desktop",
            Self::Environment => "environment",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of proxies: cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub struct Proxies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: RwLock<State>,
    pac: Pac,
    trust: Trust,
    /// How often something was said.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    sources: [Option<Arc<Settings>>; Source::ALL.len()],
    /// What goes without a proxy, whoever names it.
    bypass: Arc<Bypass>,
}

/// What is to be taken for a target, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The source that decided; none when none says anything.
    pub source: Option<Source>,
    /// The routes, in order of preference; at least one.
    pub routes: Vec<Route>,
    /// The entry because of which the target goes without a proxy.
    pub bypass: Option<String>,
    /// The PAC file that was asked.
    pub pac: Option<Location>,
    /// What went wrong on the way; the routes are then what is left.
    pub notice: Option<String>,
}

impl Explanation {
    fn direct() -> Self {
        Self {
            source: None,
            routes: vec![Route::Direct],
            bypass: None,
            pac: None,
            notice: None,
        }
    }
}

impl Default for Proxies {
    fn default() -> Self {
        Self::new(Pac::default())
    }
}

impl Proxies {
    /// Makes one that knows no proxy yet, and asks PAC files by `pac`.
    #[must_use]
    pub fn new(pac: Pac) -> Self {
        Self::trusting(pac, Trust::default())
    }

    /// The same, with whom TLS to proxies and to the hosts of PAC files trusts.
    #[must_use]
    pub fn trusting(pac: Pac, trust: Trust) -> Self {
        Self(Arc::new(Inner {
            state: RwLock::default(),
            pac,
            trust,
            changes: watch::Sender::default(),
        }))
    }

    /// Returns whom TLS trusts.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.0.trust
    }

    /// Says what a source says from now on; `None` for nothing.
    pub fn set(&self, source: Source, settings: Option<Settings>) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        let settings = settings.map(Arc::new);
        let is_another = state.sources[source as usize] != settings;
        state.sources[source as usize] = settings;
        drop(state);
        self.0.pac.forget();
        // What is dialled begins anew with each change.
        if is_another {
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    /// Says what goes without a proxy whichever source names one.
    pub fn set_bypass(&self, bypass: Bypass) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        state.bypass = Arc::new(bypass);
        drop(state);
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Returns a watch that changes whenever something else is said: what was dialled before may go
    /// another way then. That a PAC file says something else is not seen.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Returns what a source says; `None` when it says nothing.
    #[must_use]
    pub fn of(&self, source: Source) -> Option<Arc<Settings>> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        state.sources[source as usize].clone()
    }

    /// Returns the source that decides, and what it says.
    #[must_use]
    pub fn deciding(&self) -> Option<(Source, Arc<Settings>)> {
        let mut sources = Source::ALL.into_iter();
        sources.find_map(|source| Some((source, self.of(source)?)))
    }

    /// Tells whether every connection goes straight, so that nobody needs to ask.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        let deciding = self.deciding();
        deciding.is_none_or(|(_, settings)| settings.choice == Choice::Direct)
    }

    /// Returns the routes for a URL in order of preference, at least one. The scheme is `https` for a
    /// connection whose octets the proxy shall only pass on, and `http` for plain requests.
    ///
    /// Takes at most [`ANSWER_TIME_MAX`]. What cannot be found out, because a PAC file is not there
    /// or the URL is none, is [`Route::Direct`], as browsers have it.
    pub async fn proxies_for(&self, url: &str) -> Vec<Route> {
        self.explain(url).await.routes
    }

    /// Returns the routes for a URL, and why. Takes as long as [`Self::proxies_for`].
    pub async fn explain(&self, url: &str) -> Explanation {
        let target = match Target::parse(url) {
            Ok(target) => target,
            Err(error) => {
                return Explanation {
                    notice: Some(error.to_string()),
                    ..Explanation::direct()
                };
            }
        };
        let Some((source, settings)) = self.deciding() else {
            return Explanation::direct();
        };
        let mut explanation = Explanation {
            source: Some(source),
            ..Explanation::direct()
        };
        explanation.bypass = self.bypass(&settings, &target);
        if explanation.bypass.is_some() {
            return explanation;
        }
        match &settings.choice {
            Choice::Direct => {}
            Choice::Fixed(fixed) => explanation.routes = vec![fixed.route(&target)],
            Choice::Pac(location) => {
                explanation.pac = Some(location.clone());
                let answer = self.0.pac.ask(location, &target, &self.0.trust);
                match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
                    Ok(Ok(answer)) => {
                        (explanation.routes, explanation.notice) = (answer.routes, answer.notice);
                    }
                    Ok(Err(error)) => explanation.notice = Some(error.to_string()),
                    Err(_) => explanation.notice = Some("the PAC file took too long".to_owned()),
                }
            }
        }
        explanation
    }

    /// Tells by which entry a target goes without a proxy.
    fn bypass(&self, settings: &Settings, target: &Target) -> Option<String> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        let always = Arc::clone(&state.bypass);
        drop(state);
        let taken = always.takes_loopback() || settings.bypass.takes_loopback();
        if is_of_this_host(target) && !taken {
            return Some(LOOPBACK.to_owned());
        }
        always
            .named(target)
            .or_else(|| settings.bypass.named(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Written;

    fn settings(proxy: &str) -> Option<Settings> {
        let written = Written {
            proxy: Some(proxy.into()),
            no_proxy: vec!["example.org".to_owned()],
            ..Written::default()
        };
        written.settings().unwrap()
    }

    #[tokio::test]
    async fn the_first_source_that_says_something_decides() {
        let proxies = Proxies::default();
        assert!(proxies.is_direct());
        let changes = proxies.watch();
        let first = async |url| proxies.explain(url).await.routes[0].to_string();
        assert_eq!(first("https://x.com").await, "DIRECT");
        for (source, host) in [
            (Source::Environment, "env"),
            (Source::Desktop, "desk"),
            (Source::Company, "firm"),
            (Source::Configuration, "conf"),
        ] {
            proxies.set(source, settings(&format!("http://{host}:1")));
            assert_eq!(first("https://x.com").await, format!("PROXY {host}:1"));
        }
        assert!(changes.has_changed().unwrap());
        proxies.set(Source::Configuration, settings("none"));
        assert_eq!(first("https://x.com").await, "DIRECT");
        assert!(proxies.is_direct());
        proxies.set(Source::Configuration, None);
        assert_eq!(first("https://x.com").await, "PROXY firm:1");
    }

    #[tokio::test]
    async fn what_goes_without_a_proxy_is_told_with_its_reason() {
        let proxies = Proxies::default();
        proxies.set(Source::Desktop, settings("http://p:1"));
        proxies.set_bypass(Bypass::new(["10.0.0.0/8"]).unwrap());
        for (url, reason) in [
            ("https://www.example.org", Some("example.org")),
            ("https://10.1.1.1", Some("10.0.0.0/8")),
            ("https://127.0.0.1:5", Some("<loopback>")),
            ("https://example.com", None),
        ] {
            let found = proxies.explain(url).await;
            assert_eq!(found.bypass.as_deref(), reason, "{url}");
            let is_direct = found.routes == [Route::Direct];
            assert_eq!(is_direct, reason.is_some(), "{url}");
        }
        proxies.set_bypass(Bypass::new(["<-loopback>"]).unwrap());
        let found = proxies.explain("https://127.0.0.1:5").await;
        assert_eq!(found.routes[0].to_string(), "PROXY p:1");
    }

    #[tokio::test]
    async fn a_text_that_is_no_url_is_direct_with_a_notice() {
        let proxies = Proxies::default();
        proxies.set(Source::Desktop, settings("http://p:1"));
        let found = proxies.explain("nonsense").await;
        assert!(found.routes == [Route::Direct] && found.notice.is_some());
    }
}
