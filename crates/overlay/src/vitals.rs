//! What a node tells others about itself for their diagnostics, and what it knows of the
//! paths of its sessions.
//!
//! Everything here is of a fixed size, so that nothing in it needs a limit when it comes
//! from others. It is what a node says of itself: nobody can check it, and nothing but the
//! text that a person reads depends on it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::class::Grade;
use crate::id::NodeId;

/// Of how many sessions the paths are known at most; those of further ones are not noted.
/// More than a host keeps open.
pub const PATHS_MAX: usize = 8192;

/// A version of the program: three numbers, as in semantic versioning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Software {
    /// Changes with what does not work together.
    pub major: u16,
    /// Changes with what is new.
    pub minor: u16,
    /// Changes with what is mended.
    pub patch: u16,
}

impl Software {
    /// The version of this program.
    pub const THIS: Self = Self {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
        patch: number(env!("CARGO_PKG_VERSION_PATCH")),
    };
}

const fn number(text: &str) -> u16 {
    match u16::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => 0,
    }
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// How a node is, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// The program that it runs.
    pub software: Software,
    /// How much of one processor core the program used lately, in thousandths: above
    /// 1,000 with several cores, 65,535 for that and more. 0 until the host has measured.
    pub load_per_mille: u16,
    /// Its class and score.
    pub grade: Grade,
}

/// How the packets of a session reach the other node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PathKind {
    /// There is no session, or the host has not said: it would have to be dialled first.
    #[default]
    Unconnected,
    /// From address to address.
    Direct,
    /// By way of a third node.
    Relayed,
}

/// What one hop of a traced message tells the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopReport {
    /// The origin's request.
    pub request: u64,
    /// How many hops the message had made on arrival; 0 at the origin itself.
    pub hops: u8,
    /// Where it goes next; none when the reporting node is in charge or gives it back.
    pub next: Option<NodeId>,
    /// How the reporting node reaches the next one.
    pub next_path: PathKind,
    /// Whether the reporting node knows no way on, and gives the message back.
    pub gives_back: bool,
    /// How the reporting node is.
    pub vitals: Vitals,
}

/// The paths of the open sessions, as the host told them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    paths: BTreeMap<NodeId, (PathKind, Option<SocketAddr>)>,
}

impl Paths {
    /// Notes the path of a session.
    pub(crate) fn note(&mut self, peer: NodeId, kind: PathKind, address: Option<SocketAddr>) {
        if kind == PathKind::Unconnected {
            self.forget(peer);
        } else if self.paths.len() < PATHS_MAX || self.paths.contains_key(&peer) {
            self.paths.insert(peer, (kind, address));
        }
    }

    /// The session has ended.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.paths.remove(&peer);
    }

    pub(crate) fn kind(&self, peer: NodeId) -> PathKind {
        self.paths
            .get(&peer)
            .map_or(PathKind::Unconnected, |(kind, _)| *kind)
    }

    pub(crate) fn address(&self, peer: NodeId) -> Option<SocketAddr> {
        self.paths.get(&peer).and_then(|(_, address)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_of_the_package() {
        assert_eq!(Software::THIS.to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn paths_end_with_their_sessions_and_have_a_limit() {
        let id = |n: u32| {
            let mut octets = [0; 32];
            octets[..4].copy_from_slice(&n.to_le_bytes());
            NodeId::from_bytes(octets)
        };
        let mut paths = Paths::default();
        let address = "192.0.2.1:7000".parse().ok();
        paths.note(id(0), PathKind::Direct, address);
        assert_eq!(
            (paths.kind(id(0)), paths.address(id(0))),
            (PathKind::Direct, address)
        );
        for n in 1..=PATHS_MAX as u32 {
            paths.note(id(n), PathKind::Relayed, None);
        }
        assert_eq!(paths.paths.len(), PATHS_MAX);
        paths.note(id(0), PathKind::Relayed, None);
        assert_eq!(paths.kind(id(0)), PathKind::Relayed);
        paths.forget(id(0));
        paths.note(id(1), PathKind::Unconnected, None);
        assert_eq!(paths.kind(id(0)), PathKind::Unconnected);
        assert_eq!(paths.paths.len(), PATHS_MAX - 2);
    }
}
