//! What is said of gateways between closed overlays.

/// A sentence about gateways.
#[derive(Debug)]
pub(crate) enum Gateway<'a> {
    /// What has to be an id is none.
    NoId {
        what: &'a str,
    },
    NoMember {
        member: &'a str,
    },
    Signed {
        name: &'a str,
    },
    Accepted {
        overlay: &'a str,
    },
    Forgotten {
        overlay: &'a str,
    },
    Runs,
    Limits {
        flows: u16,
        octets_per_s: u64,
        idle_s: u32,
    },
    HashMissing,
    /// The audit log is as it was written.
    Whole {
        lines: u64,
        hash: &'a str,
    },
    /// There is no audit log.
    NotLogged,
    NoGateways,
}
