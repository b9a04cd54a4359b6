//! The signed settings file of a company: fetched, checked, kept.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use enishi_overlay::NodeId;
use enishi_proxy::company::{Company, CompanyError, Signed};
use enishi_proxy::{Location, Source, Trust};
use enishi_services::ticket::Ticket;

use super::super::desk::Desk;
use crate::config::Config;
use crate::data_dir::{DataDirError, read_settings, write_private};

/// The file with the settings that were taken last, in the data directory.
const FILE_NAME: &str = "company.json";

/// The longest such file, in octets: the settings in JSON, each character as an escape.
const FILE_BYTES_MAX: u64 = 512 * 1024;

/// Between two looks at the place of the file.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The same after a failure.
const PAUSE: Duration = Duration::from_secs(5 * 60);

/// What is told about a company's settings, in the notices of the node.
const NOTICE: &str = "company settings";

/// Where the settings of the company are, and those that were taken last.
#[derive(Debug)]
pub(super) struct Settings {
    location: Location,
    key: NodeId,
    data: PathBuf,
    kept: Mutex<Option<Signed>>,
}

impl Settings {
    /// Reads what was taken last. None when the configuration names no company.
    pub(super) fn load(config: &Config, data: &Path) -> Result<Option<Self>, DataDirError> {
        let named = config.company_settings.as_ref().zip(config.company_key);
        let Some((location, key)) = named else {
            return Ok(None);
        };
        let path = data.join(FILE_NAME);
        let kept = read_settings(&path, FILE_BYTES_MAX, |text| {
            serde_json::from_str(text).map_err(|error| error.to_string())
        })?;
        Ok(Some(Self {
            location: location.clone(),
            key: key.0,
            data: data.to_owned(),
            kept: Mutex::new(kept),
        }))
    }

    /// Returns what was taken last, if it is signed by the company.
    pub(super) fn kept(&self) -> Option<Company> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref()?.open(&self.key).ok()
    }

    /// Fetches the settings. None when they are those that were taken last.
    async fn fetch(&self, trust: &Trust) -> Result<Option<Company>, CompanyError> {
        let found = Signed::fetch(&self.location, trust).await?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let company = found.replace(kept.as_ref(), &self.key)?;
        if kept.as_ref() == Some(&found) {
            return Ok(None);
        }
        match serde_json::to_string(&found) {
            Ok(text) => {
                let path = self.data.join(FILE_NAME);
                if let Err(error) = write_private(&self.data, &path, &text) {
                    tracing::warn!(%error, "the company's settings are forgotten at the end");
                }
            }
            Err(error) => tracing::warn!(%error, "the company's settings cannot be kept"),
        }
        *kept = Some(found);
        Ok(Some(company))
    }
}

/// Looks for newer settings as long as the daemon runs.
pub(in crate::daemon) async fn keep(desk: Desk) {
    let upstream = &desk.shared.upstream;
    let Some(settings) = &upstream.company else {
        return;
    };
    if let Some(kept) = settings.kept() {
        join(&desk, &kept).await;
    }
    loop {
        let pause = match settings.fetch(upstream.proxies.trust()).await {
            Ok(company) => {
                if let Some(company) = company {
                    tracing::info!(version = company.version, "the company has new settings");
                    let said = company.settings.clone();
                    upstream.proxies.set(Source::Company, said);
                    join(&desk, &company).await;
                }
                desk.shared.unnote(NOTICE);
                INTERVAL
            }
            Err(error) => {
                let what = match settings.kept() {
                    Some(kept) => format!("{error}; version {} is used", kept.version),
                    None => error.to_string(),
                };
                desk.shared.note(NOTICE, what);
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = desk.ending.stop.cancelled() => return,
        }
    }
}

/// Hands the node whom the company's invitations name: they are dialled like those of any invitation.
async fn join(desk: &Desk, company: &Company) {
    let overlay = desk.shared.overlay;
    let mut contacts = Vec::new();
    for text in &company.bootstrap {
        match text.parse::<Ticket>() {
            Ok(ticket) if ticket.overlay == overlay => contacts.extend(ticket.contacts),
            // A company may have several overlays, and one file.
            Ok(_) => tracing::debug!("the company names nodes of another overlay"),
            Err(error) => tracing::warn!(%error, "an invitation in the company's settings"),
        }
    }
    if !contacts.is_empty() {
        // A daemon that ends needs nobody.
        let _ = desk.bootstrap(contacts).await;
    }
}
