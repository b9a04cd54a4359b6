//! Which proxies connections of this node take: the sources, and what a person asks and tells.

mod company;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use enishi_api::{Answer, Failure, ProxyAnswer, ProxyAsk, ProxySource, ProxyState, ProxyTold};
use enishi_proxy::pac::Pac;
use enishi_proxy::{Choice, Environment, Explanation, Proxies, Settings, Source, Trust, Written};
use zeroize::Zeroizing;

use super::channels::sentence;
use super::desk::{Desk, no, usage};
use crate::config::Config;
use crate::data_dir::{DataDirError, io_error, read_settings, write_private};

pub(super) use company::keep;

/// The file with what a desktop told, in the data directory.
const FILE_NAME: &str = "proxy.json";

/// The longest such file, in octets.
const FILE_BYTES_MAX: u64 = 512 * 1024;

/// The proxies, and what is to be told of their sources.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// What is asked before a connection is dialled.
    pub(super) proxies: Proxies,
    /// The data directory.
    data: PathBuf,
    /// Held while what is told is written and then taken, so that of two the later one is both.
    telling: Mutex<()>,
    /// The settings of a company, if the configuration names one.
    company: Option<company::Settings>,
    /// Variables of the environment that cannot be used.
    notices: Vec<String>,
}

impl Upstream {
    /// Reads configuration, environment, and what was told before.
    ///
    /// # Errors
    /// When what was told cannot be read.
    pub(super) fn load(config: &Config, data: &Path) -> Result<Self, DataDirError> {
        let proxies = Proxies::trusting(Pac::default(), Trust::new(config.proxy_ca.clone()));
        let written = config.upstream();
        // A configuration is checked when it is read.
        let settings = written.settings().unwrap_or_default();
        proxies.set(Source::Configuration, settings);
        proxies.set_bypass(written.bypass().unwrap_or_default());
        let told = read_settings(&data.join(FILE_NAME), FILE_BYTES_MAX, |text| {
            let written: Written = serde_json::from_str(text).map_err(|e| e.to_string())?;
            written.settings().map_err(|error| error.to_string())
        })?;
        proxies.set(Source::Desktop, told.flatten());
        let environment = Environment::of_process();
        for notice in &environment.notices {
            tracing::warn!("{notice}");
        }
        proxies.set(Source::Environment, environment.settings);
        let company = company::Settings::load(config, data)?;
        let kept = company.as_ref().and_then(company::Settings::kept);
        proxies.set(Source::Company, kept.and_then(|kept| kept.settings));
        Ok(Self {
            proxies,
            company,
            data: data.to_owned(),
            telling: Mutex::default(),
            notices: environment.notices,
        })
    }

    /// Tells in a line what the source that decides says; none when nobody names a proxy.
    pub(super) fn line(&self) -> Option<String> {
        let (source, settings) = self.proxies.deciding()?;
        Some(format!("{} ({source})", says(&settings).join(", ")))
    }

    fn tell(&self, told: ProxyTold) -> Result<(), Failure> {
        let written = Written {
            proxy: told.proxy.map(Into::into),
            http: told.http.map(Into::into),
            https: told.https.map(Into::into),
            pac: told.pac,
            no_proxy: told.no_proxy,
            reversed: told.reversed,
        };
        let settings = written.settings();
        let settings = settings.map_err(|error| usage(sentence(&error.to_string())))?;
        let text = serde_json::to_string(&written).map(Zeroizing::new);
        let text = text.map_err(|error| no(sentence(&error.to_string())))?;
        let _telling = self.telling();
        write_private(&self.data, &self.data.join(FILE_NAME), &text)
            .map_err(|error| no(sentence(&error.to_string())))?;
        self.proxies.set(Source::Desktop, settings);
        Ok(())
    }

    fn telling(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) -> Result<(), Failure> {
        let _telling = self.telling();
        let path = self.data.join(FILE_NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(no(sentence(&io_error(&path, "removed")(error).to_string())));
            }
            _ => {}
        }
        self.proxies.set(Source::Desktop, None);
        Ok(())
    }

    fn state(&self) -> ProxyState {
        let said = |source| Some((source, self.proxies.of(source)?));
        let sources = Source::ALL.into_iter().filter_map(said);
        let sources = sources.map(|(source, settings)| ProxySource {
            source: source.to_string(),
            says: says(&settings),
        });
        ProxyState {
            sources: sources.collect(),
            notices: self.notices.clone(),
            choice: None,
        }
    }
}

/// Answers what a person asks or tells.
pub(super) async fn answer(desk: &Desk, ask: ProxyAsk) -> Result<Answer, Failure> {
    let upstream = &desk.shared.upstream;
    let url = match ask {
        ProxyAsk::Show { url } => url,
        ProxyAsk::Tell(told) => {
            upstream.tell(told)?;
            None
        }
        ProxyAsk::Forget => {
            upstream.forget()?;
            None
        }
    };
    let mut state = upstream.state();
    if let Some(url) = url {
        let target = url.parse::<enishi_proxy::Target>();
        let target = target.map_err(|error| usage(sentence(&error.to_string())))?;
        let explanation = upstream.proxies.explain(&url).await;
        state.choice = Some(told(target.to_string(), explanation));
    }
    Ok(Answer::Proxy(state))
}

fn told(url: String, explanation: Explanation) -> ProxyAnswer {
    ProxyAnswer {
        url,
        routes: explanation.routes.iter().map(ToString::to_string).collect(),
        source: explanation.source.map(|source| source.to_string()),
        bypass: explanation.bypass,
        pac: explanation.pac.map(|location| location.to_string()),
        notice: explanation.notice,
    }
}

/// Words what a source says; no passwords.
fn says(settings: &Settings) -> Vec<String> {
    let fixed = match &settings.choice {
        Choice::Direct => return vec!["DIRECT".to_owned()],
        Choice::Pac(location) => return vec![format!("PAC {location}")],
        Choice::Fixed(fixed) => fixed,
    };
    let named = [
        ("http: ", &fixed.http),
        ("https: ", &fixed.https),
        ("", &fixed.other),
    ];
    let named = named
        .into_iter()
        .filter_map(|(scheme, route)| Some((scheme, route.as_ref()?)));
    named
        .map(|(scheme, route)| format!("{scheme}{route}"))
        .collect()
}
