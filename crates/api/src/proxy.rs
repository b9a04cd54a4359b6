//! Which proxies connections of the node take.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is asked about proxies; answered by [`crate::Answer::Proxy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum ProxyAsk {
    /// What is known, and which routes a URL takes.
    Show {
        /// The URL; none for what is known alone.
        #[serde(default)]
        url: Option<String>,
    },
    /// Keeps what the desktop of a person says, in place of what was told before.
    Tell(ProxyTold),
    /// Forgets what was told.
    Forget,
}

/// What the desktop of a person says. Proxies are `[scheme://][user:password@]host:port`, or `none`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyTold {
    /// The proxy for everything for which there is no other.
    pub proxy: Option<String>,
    /// The proxy for `http`.
    pub http: Option<String>,
    /// The proxy for `https`.
    pub https: Option<String>,
    /// Where a PAC file is: an `http` URL or a path.
    pub pac: Option<String>,
    /// What goes without a proxy, at most 1,024 entries.
    pub no_proxy: Vec<String>,
    /// Whether `no_proxy` names all that takes a proxy, and nothing else does.
    pub reversed: bool,
}

impl fmt::Debug for ProxyTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyTold(..)")
    }
}

/// What is known of proxies. No user and no password is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyState {
    /// The sources that say something, in the order in which they are asked: the first one decides.
    pub sources: Vec<ProxySource>,
    /// What goes wrong with a source.
    #[serde(default)]
    pub notices: Vec<String>,
    /// What the URL takes that was asked for.
    #[serde(default)]
    pub choice: Option<ProxyAnswer>,
}

/// A source and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxySource {
    /// Its name: `configuration`, `company`, `desktop` or `environment`.
    pub source: String,
    /// What it says: `DIRECT`, `PROXY host:port`, the place of a PAC file.
    pub says: Vec<String>,
}

/// Which routes a URL takes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyAnswer {
    /// The URL.
    pub url: String,
    /// The routes in order of preference, as PAC files write them: `DIRECT`, `PROXY host:port`.
    pub routes: Vec<String>,
    /// The source that decided; none when none says anything.
    pub source: Option<String>,
    /// The entry because of which the URL goes without a proxy.
    pub bypass: Option<String>,
    /// The PAC file that was asked.
    pub pac: Option<String>,
    /// What went wrong on the way.
    pub notice: Option<String>,
}
