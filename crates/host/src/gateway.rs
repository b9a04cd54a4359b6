//! What a gateway node keeps, and when it may pass anything on.
//!
//! A gateway stands in two closed overlays with two nodes, each with a data directory and a daemon
//! of its own. The gateway itself has a directory besides:
//!
//! | file | holds |
//! |---|---|
//! | `gateway.json` | the two data directories, each with the consent of its overlay's administrator; mode 0600 |
//! | `audit.log`, `audit-N.log` | what was done ([`crate::audit`]) |
//! | `copies.json` | the documents that were put into an overlay and not taken out yet ([`Copies`]); mode 0600 |
//! | `lock` | locked while the gateway runs |
//! | `consents.lock` | locked while `gateway.json` is changed |
//!
//! Whether anything passes is decided here alone, of what both daemons say at that moment
//! ([`openings`]).

mod copies;

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use copies::{COPIES_MAX, Copies, Place};
use enishi_api::Overlay;
use enishi_overlay::admission::consent;
pub use enishi_overlay::admission::consent::{
    Consent, LetIn, LetOut, Limits, Opening, Terms, TermsError,
};
use enishi_overlay::{NodeId, OverlayId};
pub use enishi_services::ticket::{TicketError, read_consent, write_consent};
use serde::{Deserialize, Serialize};

use crate::closed::{self, ClosedError};
use crate::data_dir::{DataDirError, io_error, read_settings, write_private};
use crate::store::unix_s;

const FILE_NAME: &str = "gateway.json";
const LOCK_NAME: &str = "consents.lock";

/// The longest file, in octets.
const FILE_BYTES_MAX: u64 = 32 * 1024;

/// The overlays that a gateway joins.
pub const SIDES: usize = 2;

/// Why a gateway's consents cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The closed overlay cannot be looked at.
    #[error(transparent)]
    Closed(#[from] ClosedError),
    /// What is to be allowed does not fit.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// The text is no consent.
    #[error(transparent)]
    Text(#[from] TicketError),
    /// The overlay has no authority, or its key is elsewhere.
    #[error(
        "this data directory does not have the key of the overlay's authority, and only the \
         authority can consent: ask whoever made the overlay"
    )]
    NoAuthority,
    /// The consent is of another overlay than the node's.
    #[error(
        "the consent is of the overlay {0}, and the node of that data directory is in {1}: name \
         the data directory of the gateway's node in the former with --side"
    )]
    OtherOverlay(String, String),
    /// The consent is for another node.
    #[error(
        "the consent is for the node {0}, and the node of that data directory is {1}: have it \
         signed for the latter (`enishi gateway consent --node`)"
    )]
    OtherNode(String, String),
    /// There are two overlays already.
    #[error(
        "this gateway joins two overlays already: {0} and {1}; let one go with `enishi gateway \
         forget`, or choose another directory with --data"
    )]
    Full(String, String),
    /// None is called so.
    #[error("this gateway has no consent of an overlay whose id begins with `{0}`")]
    Unknown(String),
    /// Too many copies of documents could not be taken out again.
    #[error(
        "{COPIES_MAX} copies of documents could not be taken out again; nothing more is copied \
         before the daemons that put them run, which `copies.json` names"
    )]
    CopiesFull,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// One side of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The data directory of the gateway's node there.
    pub data: PathBuf,
    /// The consent of the overlay's administrator.
    pub consent: Consent,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    data: PathBuf,
    consent: String,
}

/// Signs a consent with the authority's key of a data directory, for so many seconds from now.
///
/// # Errors
/// [`GatewayError`].
pub fn sign(data: &Path, terms: Terms, valid_s: u64) -> Result<Consent, GatewayError> {
    let card = closed::load(data)?.ok_or(ClosedError::None)?;
    let authority = closed::authority(data, &card.membership.overlay())?;
    let authority = authority.ok_or(GatewayError::NoAuthority)?;
    let mut name = [0; 32];
    getrandom::fill(&mut name).map_err(|error| GatewayError::Random(error.to_string()))?;
    let now = unix_s();
    let valid = now..now.saturating_add(valid_s);
    Ok(Consent::sign(
        &authority,
        NodeId::from_bytes(name),
        terms,
        valid,
    )?)
}

/// Reads the sides of a gateway, at most [`SIDES`].
///
/// # Errors
/// [`GatewayError`].
pub fn sides(dir: &Path) -> Result<Vec<Side>, GatewayError> {
    let parse = |text: &str| {
        let kept: Vec<Kept> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let side = |kept: Kept| {
            let consent = read_consent(&kept.consent).map_err(|error| error.to_string())?;
            let data = kept.data;
            Ok(Side { data, consent })
        };
        kept.into_iter()
            .take(SIDES)
            .map(side)
            .collect::<Result<Vec<_>, String>>()
    };
    let path = dir.join(FILE_NAME);
    Ok(read_settings(&path, FILE_BYTES_MAX, parse)?.unwrap_or_default())
}

/// Keeps a consent in place of one of the same overlay. A gateway that runs takes it up within
/// seconds.
///
/// # Errors
/// [`GatewayError`]; also when the node of the data directory is not the one that it is for.
pub fn accept(dir: &Path, data: &Path, text: &str) -> Result<Side, GatewayError> {
    let consent = read_consent(text)?;
    let node = closed::describe_offline(data)?;
    let overlay = consent.overlay().to_string();
    if overlay != node.overlay_id {
        return Err(GatewayError::OtherOverlay(overlay, node.overlay_id));
    }
    let gateway = consent.terms().gateway.to_string();
    if gateway != node.node_id {
        return Err(GatewayError::OtherNode(gateway, node.node_id));
    }
    let data = std::path::absolute(data).map_err(io_error(data, "found"))?;
    let side = Side { data, consent };
    let _lock = lock(dir)?;
    let mut sides = sides(dir)?;
    sides.retain(|other| other.consent.overlay() != side.consent.overlay());
    if let [one, other, ..] = &sides[..] {
        let [one, other] = [one, other].map(|side| side.consent.overlay().to_string());
        return Err(GatewayError::Full(one, other));
    }
    sides.push(side.clone());
    // The order is that of their ids, whichever was accepted first.
    sides.sort_by_key(|side| side.consent.overlay());
    keep(dir, &sides)?;
    Ok(side)
}

/// Lets the consent of an overlay go, by its id or the beginning of that.
///
/// # Errors
/// [`GatewayError`].
pub fn forget(dir: &Path, overlay: &str) -> Result<OverlayId, GatewayError> {
    let _lock = lock(dir)?;
    let mut sides = sides(dir)?;
    let fits = |side: &Side| side.consent.overlay().to_string().starts_with(overlay);
    let at = sides.iter().position(fits);
    let at = at.filter(|_| !overlay.is_empty());
    let at = at.ok_or_else(|| GatewayError::Unknown(overlay.to_owned()))?;
    let gone = sides.remove(at);
    keep(dir, &sides)?;
    Ok(gone.consent.overlay())
}

/// Waits until no other process changes the consents; until the file is dropped none may.
fn lock(dir: &Path) -> Result<File, GatewayError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(io_error(dir, "made"))?;
    let path = dir.join(LOCK_NAME);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(io_error(&path, "opened"))?;
    file.lock().map_err(io_error(&path, "locked"))?;
    Ok(file)
}

fn keep(dir: &Path, sides: &[Side]) -> Result<(), GatewayError> {
    let kept: Vec<Kept> = sides
        .iter()
        .map(|side| Kept {
            data: side.data.clone(),
            consent: write_consent(&side.consent),
        })
        .collect();
    let text = serde_json::to_string_pretty(&kept).unwrap_or_default() + "\n";
    Ok(write_private(dir, &dir.join(FILE_NAME), &text)?)
}

/// Tells why the consent of one side does not count at present, by what that side's daemon says of
/// the overlay; none when it does.
pub fn objection(side: &Side, overlay: &Overlay) -> Option<String> {
    if side.consent.overlay().to_string() != overlay.overlay_id {
        return Some(format!(
            "the node is in another overlay now, {}",
            overlay.name
        ));
    }
    if let Some(refusal) = &overlay.refusal {
        return Some(format!("the members refuse the gateway's node: {refusal}"));
    }
    let Some(gate) = &overlay.gate else {
        return Some("its daemon does not run".to_owned());
    };
    let Ok(node) = overlay.node_id.parse() else {
        return Some("its daemon is of another version".to_owned());
    };
    let is_revoked = |key: &NodeId| gate.revoked.contains(&key.to_string());
    let counts = (side.consent).verify(&side.consent.overlay(), &node, is_revoked, unix_s());
    let error = counts.err()?;
    Some(format!("the consent does not count: {error}"))
}

/// What both consents let pass from members on the side of `user` to the other one; empty when
/// there are none that name each other. That both count is to be asked first ([`objection`]).
pub fn openings(user: &Side, owner: &Side) -> Vec<Opening> {
    Opening::between(&user.consent, &owner.consent)
}

/// The documents of the side of `giver` that both consents have copied to the other one.
pub fn documents<'a>(taker: &'a Side, giver: &Side) -> Vec<&'a str> {
    consent::documents(&taker.consent, &giver.consent)
}

/// Under which name the gateway of a node shows its consent in that overlay's DHT.
pub fn public_name(node: &str) -> String {
    format!("enishi gateway {node}")
}
