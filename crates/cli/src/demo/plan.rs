//! What the demo shows, in which order, and what depends on what.

/// Where the demo runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Hosts are network namespaces with network devices; needs root.
    Namespaces,
    /// Hosts are daemons on loopback without network devices.
    Loopback,
}

/// One thing that is shown and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hosts,
    FirstDaemon,
    OtherDaemons,
    Create,
    JoinByInvitation,
    JoinByPassword,
    Addresses,
    /// Between two members, by their places in the list of members.
    VirtualPing(usize, usize),
    Download,
    Stream,
    OverlayPing,
    Trace,
    Store,
    Kill,
    Return,
    Stranger,
}

/// The names of the three members, which are their hosts' names too.
pub(super) const MEMBER_NAMES: [&str; 3] = ["aki", "ben", "chie"];

/// The steps as root.
const NAMESPACES: [Step; 17] = [
    Step::Hosts,
    Step::FirstDaemon,
    Step::OtherDaemons,
    Step::Create,
    Step::JoinByInvitation,
    Step::JoinByPassword,
    Step::Addresses,
    Step::VirtualPing(0, 1),
    Step::VirtualPing(0, 2),
    Step::VirtualPing(1, 2),
    Step::Download,
    Step::OverlayPing,
    Step::Trace,
    Step::Store,
    Step::Kill,
    Step::Return,
    Step::Stranger,
];

/// The steps without root.
const LOOPBACK: [Step; 13] = [
    Step::FirstDaemon,
    Step::OtherDaemons,
    Step::Create,
    Step::JoinByInvitation,
    Step::JoinByPassword,
    Step::Addresses,
    Step::Stream,
    Step::OverlayPing,
    Step::Trace,
    Step::Store,
    Step::Kill,
    Step::Return,
    Step::Stranger,
];

/// The steps of a mode, in order.
pub(super) fn steps(mode: Mode) -> &'static [Step] {
    match mode {
        Mode::Namespaces => &NAMESPACES,
        Mode::Loopback => &LOOPBACK,
    }
}

impl Mode {
    /// Chooses what this user may run.
    pub(super) fn choose(loopback: bool) -> Self {
        if enishi_lab::is_root() && !loopback {
            Self::Namespaces
        } else {
            Self::Loopback
        }
    }

    /// What a person should know about what is left out; none when nothing is.
    pub(super) fn restriction(self, wished: bool) -> Option<&'static str> {
        match (self, wished) {
            (Self::Namespaces, _) => None,
            (Self::Loopback, true) => Some("Running on loopback, without network devices."),
            (Self::Loopback, false) => Some(
                "Not root: running on loopback what needs no network device and no network \
                 namespace. As root this demo also shows ping and curl over the virtual network.",
            ),
        }
    }

    /// The mode's name in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Loopback => "loopback",
        }
    }
}

impl Step {
    /// What is shown, in a few words.
    pub(super) fn title(self) -> String {
        let name = |index: usize| MEMBER_NAMES[index];
        let [aki, ben, chie] = MEMBER_NAMES;
        match self {
            Self::Hosts => "three hosts on one bridge".to_owned(),
            Self::FirstDaemon => format!("{aki} starts the first node"),
            Self::OtherDaemons => format!("{ben} and {chie} join by its invitation"),
            Self::Create => format!("{aki} makes a channel"),
            Self::JoinByInvitation => format!("{ben} joins by invitation"),
            Self::JoinByPassword => format!("{chie} joins by name and password"),
            Self::Addresses => "each holds an address of its own".to_owned(),
            Self::VirtualPing(a, b) => format!("ping {} and {}", name(a), name(b)),
            Self::Download => "8 MiB by curl over the virtual network".to_owned(),
            Self::Stream => format!("8 MiB by a stream from {aki} to {ben}"),
            Self::OverlayPing => "ping over the overlay".to_owned(),
            Self::Trace => "trace the route hop by hop".to_owned(),
            Self::Store => format!("{ben} stores a value, {aki} reads it"),
            Self::Kill => format!("{ben} is killed, its value is still there"),
            Self::Return => format!("{ben} returns as the same node"),
            Self::Stranger => "a wrong password finds nothing".to_owned(),
        }
    }

    /// The steps without which this one makes no sense; where a mode lacks one of
    /// them, it is not needed.
    pub(super) fn needs(self) -> &'static [Self] {
        match self {
            Self::Hosts => &[],
            Self::FirstDaemon => &[Self::Hosts],
            Self::OtherDaemons => &[Self::FirstDaemon],
            Self::Create => &[Self::FirstDaemon],
            Self::JoinByInvitation | Self::JoinByPassword => &[Self::OtherDaemons, Self::Create],
            Self::Addresses => &[Self::JoinByInvitation, Self::JoinByPassword],
            Self::VirtualPing(..) | Self::Download | Self::Stream => &[Self::Addresses],
            Self::OverlayPing | Self::Trace | Self::Store => &[Self::OtherDaemons],
            Self::Kill => &[Self::Store],
            Self::Return => &[Self::Kill],
            Self::Stranger => &[Self::Create],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_needs_comes_before_it() {
        for mode in [Mode::Namespaces, Mode::Loopback] {
            for (at, step) in steps(mode).iter().enumerate() {
                for need in step.needs() {
                    let place = steps(mode).iter().position(|other| other == need);
                    assert!(
                        place.is_none_or(|place| place < at),
                        "{step:?} before {need:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn titles_tell_the_steps_apart() {
        for mode in [Mode::Namespaces, Mode::Loopback] {
            let mut titles: Vec<String> = steps(mode).iter().map(|step| step.title()).collect();
            titles.sort();
            titles.dedup();
            assert_eq!(titles.len(), steps(mode).len());
        }
    }
}
