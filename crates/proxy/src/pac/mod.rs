//! PAC files.

use crate::route::Route;
use crate::settings::Location;
use crate::target::Target;

/// Asks PAC files.
#[derive(Debug, Default)]
pub struct Pac;

/// Why a PAC file gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacError {
    /// This build has none.
    #[error("this build evaluates no PAC files")]
    None,
}

impl Pac {
    #[expect(clippy::unused_async, reason = "an evaluation waits")]
    pub(crate) async fn ask(&self, _: &Location, _: &Target) -> Result<Vec<Route>, PacError> {
        Err(PacError::None)
    }

    pub(crate) fn forget(&self) {}
}
