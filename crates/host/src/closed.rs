//! What the data directory holds of a closed overlay: the node's membership, and on the
//! founder's the authority's key.
//!
//! | file | holds |
//! |---|---|
//! | `overlay.member` | the membership ([`Card`]), one line, mode 0600; without it the node is in the overlay of the configuration |
//! | `authority-ID.key` | the authority's secret key, as `node.key`; `ID` is the beginning of the overlay's id |
//! | `overlay-ID/` | what the node keeps while it is in that overlay ([`crate::store`]) |
//!
//! Each overlay has a state of its own, so that contacts, values and channels of one are
//! never mentioned in another, and are there again after coming back.
//!
//! Changes are made while no daemon runs on the directory: they take its lock.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use enishi_api::Overlay;
use enishi_overlay::admission::{Certificate, RefusedError, Standing, Subject};
use enishi_overlay::{Keypair, NodeId, OverlayId};
use enishi_services::admission::Membership;
use enishi_services::keys::Secret;
pub use enishi_services::ticket::TicketError;
use enishi_services::ticket::{Card, OverlayTicket, is_overlay_name};
use zeroize::Zeroizing;

use crate::data_dir::{DataDir, DataDirError, io_error, parse_key, read_identity, write_private};
use crate::store::unix_s;

/// The name of the file with the membership.
pub const FILE_NAME: &str = "overlay.member";

/// For how long the authority signs a membership, in seconds: a year.
pub const MEMBER_VALID_S: u64 = 365 * 86_400;

/// The longest membership file, in octets.
const FILE_BYTES_MAX: u64 = 8 * 1024;

/// Why a membership cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClosedError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A name does not fit.
    #[error("an overlay's name has 1 to 63 letters, digits, `-` and `_`")]
    Name,
    /// The node is in another closed overlay.
    #[error(
        "this node is in the closed overlay {0} already; leave it with `enishi overlay leave`, or \
         choose another data directory with --data"
    )]
    Another(String),
    /// The node is in no closed overlay.
    #[error("this node is in no closed overlay")]
    None,
    /// The file with the membership is not what was written.
    #[error(
        "the membership {0} is damaged: put a copy of it back, or join by a new invitation after \
         moving it away"
    )]
    Damaged(PathBuf),
    /// A file does not hold an authority's key.
    #[error("{0} does not hold the key of an authority: 64 hexadecimal digits")]
    DamagedKey(PathBuf),
    /// An invitation is of no use here.
    #[error("the invitation cannot be used: {0}")]
    Refused(#[from] RefusedError),
}

/// By what a new closed overlay is closed.
#[derive(Clone, Debug)]
pub enum Form {
    /// A new authority's certificates.
    Certificates,
    /// The certificates of an authority whose key is in this file: a copy kept elsewhere.
    Authority(PathBuf),
    /// A new random secret.
    Secret,
}

/// Reads the membership; none outside closed overlays.
///
/// # Errors
/// [`ClosedError::Damaged`], [`ClosedError::DataDir`].
pub fn load(data: &Path) -> Result<Option<Card>, ClosedError> {
    let path = data.join(FILE_NAME);
    let read = match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(ClosedError::Damaged(path));
        }
        Ok(_) => fs::read_to_string(&path).map(Zeroizing::new),
        Err(error) => Err(error),
    };
    match read {
        Ok(text) => text
            .parse()
            .map(Some)
            .map_err(|_| ClosedError::Damaged(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(ClosedError::Damaged(path)),
        Err(source) => Err(io_error(&path, "read")(source).into()),
    }
}

/// Makes a closed overlay and this node its first member.
///
/// # Errors
/// [`ClosedError`].
pub fn found(data: &DataDir, name: &str, form: &Form) -> Result<Card, ClosedError> {
    if !is_overlay_name(name) {
        return Err(ClosedError::Name);
    }
    let membership = match form {
        Form::Secret => Membership::Secret(Secret::new(random(data)?)),
        Form::Certificates => certify(data, &Keypair::from_seed(&Zeroizing::new(random(data)?)))?,
        Form::Authority(file) => {
            let text = fs::read(file).map(Zeroizing::new);
            let text = text.map_err(io_error(file, "read"))?;
            let key = parse_key(&text).ok_or_else(|| ClosedError::DamagedKey(file.clone()))?;
            certify(data, &key)?
        }
    };
    let card = Card {
        name: name.to_owned(),
        contacts: Vec::new(),
        membership,
    };
    enter(data, card)
}

/// Takes up an invitation.
///
/// # Errors
/// [`ClosedError`].
pub fn join(data: &DataDir, ticket: OverlayTicket) -> Result<Card, ClosedError> {
    let me = data.identity()?.id();
    enter(data, Card::take_up(ticket, me, unix_s())?)
}

/// Leaves the closed overlay. Its state and an authority's key stay.
///
/// # Errors
/// [`ClosedError`].
pub fn leave(data: &DataDir) -> Result<Card, ClosedError> {
    let card = load(data.path())?.ok_or(ClosedError::None)?;
    let path = data.path().join(FILE_NAME);
    fs::remove_file(&path).map_err(io_error(&path, "removed"))?;
    Ok(card)
}

/// Returns where an authority's key is, if it is here.
pub fn authority_path(data: &Path, overlay: &OverlayId) -> PathBuf {
    data.join(format!("authority-{}.key", short(overlay)))
}

/// Reads the authority's key; none on nodes that are only members.
///
/// # Errors
/// [`ClosedError::DamagedKey`], [`ClosedError::DataDir`].
pub fn authority(data: &Path, overlay: &OverlayId) -> Result<Option<Keypair>, ClosedError> {
    let path = authority_path(data, overlay);
    match fs::read(&path).map(Zeroizing::new) {
        Ok(text) => {
            let key = parse_key(&text);
            let key = key.filter(|key| OverlayId::of_authority(&key.id()) == *overlay);
            key.map(Some).ok_or(ClosedError::DamagedKey(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(&path, "read")(source).into()),
    }
}

/// Returns where a node keeps its state while it is in a closed overlay; made if it is not
/// there.
///
/// # Errors
/// [`ClosedError::DataDir`].
pub fn state_dir(data: &Path, overlay: &OverlayId) -> Result<PathBuf, ClosedError> {
    let path = data.join(format!("overlay-{}", short(overlay)));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(io_error(&path, "made"))?;
    Ok(path)
}

/// Tells in which closed overlay the node of a data directory is, whether a daemon runs there or
/// not. How it stands there is not told.
///
/// # Errors
/// [`ClosedError`].
pub fn describe_offline(data: &Path) -> Result<Overlay, ClosedError> {
    let card = load(data)?.ok_or(ClosedError::None)?;
    let me = read_identity(data)?.id();
    Ok(describe(&card, me, false, Ok(None)))
}

/// Tells how the node stands, without a daemon.
///
/// # Errors
/// [`ClosedError`].
pub fn show(path: &Path) -> Result<Overlay, ClosedError> {
    let card = load(path)?.ok_or(ClosedError::None)?;
    let me = DataDir::open(path)?.identity()?.id();
    let standing = card.membership.standing(me, unix_s(), None);
    let is_authority = authority(path, &card.membership.overlay())?.is_some();
    Ok(describe(&card, me, is_authority, standing))
}

/// Tells of a membership, without what only the daemon knows.
pub fn describe(
    card: &Card,
    me: NodeId,
    is_authority: bool,
    standing: Result<Option<Standing>, RefusedError>,
) -> Overlay {
    let authority = card.membership.authority();
    let form = authority.map_or("secret", |_| "certificates");
    let ends = standing.ok().flatten();
    Overlay {
        name: card.name.clone(),
        overlay_id: card.membership.overlay().to_string(),
        node_id: me.to_string(),
        form: form.to_owned(),
        authority: authority.map(|key| key.to_string()),
        is_authority,
        is_member: standing.is_ok(),
        refusal: standing.err().map(|error| error.to_string()),
        expires_unix_s: ends.map(|standing| standing.expires_unix_s),
        gate: None,
    }
}

/// Keeps the authority's key and signs this node's own certificate.
fn certify(data: &DataDir, authority: &Keypair) -> Result<Membership, ClosedError> {
    let overlay = OverlayId::of_authority(&authority.id());
    check_place(data, overlay)?;
    let text = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&*authority.seed()) + "\n");
    write_private(data.path(), &authority_path(data.path(), &overlay), &text)?;
    let subject = Subject::Member(data.identity()?.id());
    let now = unix_s();
    let valid = now..now + MEMBER_VALID_S;
    Ok(Membership::Certified {
        authority: authority.id(),
        certificate: Certificate::sign(authority, overlay, subject, valid),
    })
}

/// A node is in one closed overlay at a time; a membership in the same one is renewed.
fn check_place(data: &DataDir, overlay: OverlayId) -> Result<(), ClosedError> {
    match load(data.path())? {
        Some(card) if card.membership.overlay() != overlay => Err(ClosedError::Another(card.name)),
        _ => Ok(()),
    }
}

fn enter(data: &DataDir, card: Card) -> Result<Card, ClosedError> {
    check_place(data, card.membership.overlay())?;
    let text = Zeroizing::new(format!("{card}\n"));
    write_private(data.path(), &data.path().join(FILE_NAME), &text)?;
    Ok(card)
}

fn random(data: &DataDir) -> Result<[u8; 32], ClosedError> {
    let mut octets = [0; 32];
    getrandom::fill(&mut octets).map_err(|error| {
        io_error(data.path(), "given a secret")(io::Error::other(error.to_string()))
    })?;
    Ok(octets)
}

fn short(overlay: &OverlayId) -> String {
    let mut text = overlay.to_string();
    text.truncate(10);
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_founder_can_leave_and_come_back_with_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        let card = found(&data, "office", &Form::Certificates).unwrap();
        let overlay = card.membership.overlay();
        assert_eq!(load(dir.path()).unwrap(), Some(card));
        let key = authority_path(dir.path(), &overlay);
        for path in [&key, &dir.path().join(FILE_NAME)] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        let other = found(&data, "other", &Form::Certificates).unwrap_err();
        assert!(matches!(other, ClosedError::Another(name) if name == "office"));
        leave(&data).unwrap();
        assert!(matches!(leave(&data), Err(ClosedError::None)));
        let back = found(&data, "office", &Form::Authority(key)).unwrap();
        assert_eq!(back.membership.overlay(), overlay);
        assert!(authority(dir.path(), &overlay).unwrap().is_some());
    }

    #[test]
    fn damaged_files_are_told_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let card = found(&data, "office", &Form::Certificates).unwrap();
        let overlay = card.membership.overlay();
        fs::write(dir.path().join(FILE_NAME), "enishimember1abc").unwrap();
        assert!(matches!(load(dir.path()), Err(ClosedError::Damaged(_))));
        // Another overlay's key is not this one's.
        fs::write(authority_path(dir.path(), &overlay), "ab".repeat(32)).unwrap();
        let key = authority(dir.path(), &overlay);
        assert!(matches!(key, Err(ClosedError::DamagedKey(_))));
        let text = found(&data, "a b", &Form::Secret).unwrap_err().to_string();
        assert!(text.contains("letters"), "{text}");
    }
}
