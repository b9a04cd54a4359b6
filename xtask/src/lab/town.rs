//! Nodes at places of many kinds, all members of one channel.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use enishi_lab::wire::{Area, LinkKind};
use enishi_lab::{Daemon, Host, World, until};
use tempfile::TempDir;

use super::kinds::Kind;

/// How long a packet takes to a public host or to a router, each way: 20 ms between two of them,
/// and a round trip of 40.
const LINK_DELAY: Duration = Duration::from_millis(10);

/// The configuration of the helpers: where a company lets out the web alone, they are reached.
const HELPERS: &str = "web_ports = [80, 443]\n";

/// How long a node may take to join, as one tries again who was told that it failed.
const JOIN_TIME_MAX: Duration = Duration::from_secs(60);

/// The places and their nodes; dropping it ends and removes all.
pub(super) struct Town {
    /// Two nodes of each kind, as the kinds were named.
    pub(super) sides: [Vec<Node>; 2],
    /// Two whom everybody reaches, besides those that are measured.
    pub(super) helpers: Vec<Node>,
    _data: TempDir,
    pub(super) world: World,
}

/// A node at one place.
pub(super) struct Node {
    pub(super) host: Host,
    /// The network whose router stands between it and the Internet, if that is the lab's own.
    pub(super) area: Option<Area>,
    /// None where none started.
    pub(super) daemon: Option<Daemon>,
    /// Its address in the channel; none where it could not join.
    pub(super) address: Option<String>,
}

impl Town {
    /// Builds the places, and lets the nodes join one after the other.
    ///
    /// # Errors
    /// When the lab cannot be built, or one of the first two nodes does not work.
    pub(super) fn build(program: &Path, kinds: &[Kind]) -> anyhow::Result<Self> {
        enishi_lab::install_signal_cleanup()?;
        enishi_lab::ensure_programs(&[("ping", "iputils-ping"), ("nft", "nftables")])?;
        let data = tempfile::tempdir().context("making a directory for the daemons")?;
        let mut world = World::new("town", LinkKind::of_delay(LINK_DELAY))?;
        let mut gathering = Gathering {
            program,
            data: data.path(),
            ticket: String::new(),
        };
        let config = data.path().join("helpers.toml");
        std::fs::write(&config, HELPERS).context("writing a configuration")?;
        let helpers =
            ["s0", "s1"].map(|name| gathering.start((world.public(name)?, None), Some(&config)));
        let helpers = helpers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let mut sides: [Vec<Node>; 2] = Default::default();
        for (number, kind) in kinds.iter().enumerate() {
            eprintln!("{} of {}: {}", number + 1, kinds.len(), kind.name);
            for (side, letter) in sides.iter_mut().zip(["a", "b"]) {
                let place = kind.make(&mut world, &format!("{letter}{number}"))?;
                side.push(gathering.start(place, None)?);
            }
        }
        Ok(Self {
            sides,
            helpers,
            _data: data,
            world,
        })
    }
}

/// Whom daemons join by.
struct Gathering<'p> {
    program: &'p Path,
    data: &'p Path,
    ticket: String,
}

impl Gathering<'_> {
    /// Starts a daemon on a host and lets it join the channel; the first one makes it.
    fn start(
        &mut self,
        (host, area): (Host, Option<Area>),
        config: Option<&Path>,
    ) -> anyhow::Result<Node> {
        let data = self.data.join(host.name());
        let mut arguments = Vec::new();
        if !self.ticket.is_empty() {
            arguments.extend(["--bootstrap", &self.ticket]);
        }
        if let Some(config) = config {
            arguments.extend([
                "--config",
                config.to_str().context("a path that is no text")?,
            ]);
        }
        let daemon = Daemon::start(self.program, Some(&host), &data, &arguments)?;
        if self.ticket.is_empty() {
            daemon.text(&["channel", "create", "lab"])?;
            self.ticket = daemon.text(&["channel", "invite", "lab", "--uses", "any"])?;
        } else {
            let joins = || Ok(daemon.call(&["channel", "join", &self.ticket])?.success());
            if let Err(error) = until(JOIN_TIME_MAX, "it joins", joins) {
                eprintln!("{}: {error}", host.name());
                return Ok(Node {
                    host,
                    area,
                    daemon: Some(daemon),
                    address: None,
                });
            }
        }
        let address = daemon.address().ok().map(|address| address.to_string());
        Ok(Node {
            host,
            area,
            daemon: Some(daemon),
            address,
        })
    }
}
