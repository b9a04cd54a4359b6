//! Nodes at places of many kinds, all members of one channel.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use enishi_lab::forward::ForwardProxy;
use enishi_lab::wire::{Area, INTERNET};
use enishi_lab::{Daemon, Host, Process, Stack, World, until};
use tempfile::TempDir;

use super::iroh::{Endpoint, Programs, Relay};
use super::kinds::{Kind, Site};
use super::links::Links;

/// The configuration of the helpers: where a company lets out the web alone, they are reached.
const HELPERS: &str = "web_ports = [80, 443]\n";

/// How long a node may take to join, as one tries again who was told that it failed.
const JOIN_TIME_MAX: Duration = Duration::from_secs(60);

/// Packets that are moved on later than this make the network another one than it was to be.
const LATE: Duration = Duration::from_millis(20);

/// The places and their nodes; dropping it ends and removes all.
pub(super) struct Town {
    /// Two nodes of each kind, as the kinds were named.
    pub(super) sides: [Vec<Node>; 2],
    /// Two whom everybody reaches, besides those that are measured.
    pub(super) helpers: Vec<Node>,
    _relay: Option<Process>,
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
    /// iroh alone on the same host, if that is compared.
    pub(super) iroh: Option<Endpoint>,
    _proxy: Option<ForwardProxy>,
}

impl Town {
    /// Builds the places, and lets the nodes join one after the other. With programs of iroh, each
    /// host but the helpers' has an endpoint of it besides.
    ///
    /// # Errors
    /// When the lab cannot be built, or one of the first two nodes does not work.
    pub(super) fn build(
        program: &Path,
        kinds: &[Kind],
        iroh: Option<&Programs>,
        links: Links,
    ) -> anyhow::Result<Self> {
        enishi_lab::install_signal_cleanup()?;
        enishi_lab::ensure_programs(&[("ping", "iputils-ping"), ("nft", "nftables")])?;
        let data = tempfile::tempdir().context("making a directory for the daemons")?;
        let mut world = World::new("town", links.kind())?;
        let mut gathering = Gathering {
            program,
            data: data.path(),
            ticket: String::new(),
        };
        let helpers = ["s0", "s1"].map(|name| {
            let host = world.host_of(name, INTERNET, Stack::Dual)?;
            gathering.start(Site {
                config: HELPERS.to_owned(),
                ..Site::new(host, None)
            })
        });
        let helpers = helpers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let relay = iroh.map(|programs| Relay::start(programs, &mut world, data.path()));
        let relay = relay.transpose()?;
        let names = relay.as_ref().map(Relay::names);
        let mut sides: [Vec<Node>; 2] = Default::default();
        for (number, kind) in kinds.iter().enumerate() {
            let late = world.take_lateness();
            let late = match late > LATE {
                true => format!(" (packets are up to {} ms late)", late.as_millis()),
                false => String::new(),
            };
            eprintln!("{} of {}: {}{late}", number + 1, kinds.len(), kind.name);
            let mut beside = None;
            for (side, letter) in sides.iter_mut().zip(["a", "b"]) {
                let name = format!("{letter}{number}");
                let site = kind.make(&mut world, &name, names, beside)?;
                beside = site.area;
                let proxy = site.proxy.as_ref().map(|(url, _)| url.clone());
                let mut node = gathering.start(site)?;
                if let (Some(relay), Some(names)) = (&relay, names) {
                    node.host.set_etc("hosts", names)?;
                    let data = data.path().join(&name);
                    node.iroh = Some(relay.endpoint(&node.host, &data, proxy.as_deref())?);
                }
                side.push(node);
            }
        }
        Ok(Self {
            sides,
            helpers,
            _relay: relay.map(Relay::into_process),
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
    fn start(&mut self, site: Site) -> anyhow::Result<Node> {
        let Site {
            host,
            area,
            config,
            proxy,
        } = site;
        let data = self.data.join(host.name());
        let file = data.with_extension("toml");
        std::fs::write(&file, config).context("writing a configuration")?;
        let file = file.to_str().context("a path that is no text")?;
        let mut arguments = vec!["--config", file];
        if !self.ticket.is_empty() {
            arguments.extend(["--bootstrap", &self.ticket]);
        }
        let daemon = Daemon::start(self.program, Some(&host), &data, &arguments)?;
        let mut address = None;
        let joined = match self.ticket.is_empty() {
            true => self.found(&daemon).map(|()| true)?,
            false => self.join(&daemon, &host),
        };
        if joined {
            address = daemon.address().ok().map(|address| address.to_string());
        }
        Ok(Node {
            host,
            area,
            daemon: Some(daemon),
            address,
            iroh: None,
            _proxy: proxy.map(|(_, proxy)| proxy),
        })
    }

    fn found(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        daemon.text(&["channel", "create", "lab"])?;
        self.ticket = daemon.text(&["channel", "invite", "lab", "--uses", "any"])?;
        Ok(())
    }

    /// Tells whether it could.
    fn join(&self, daemon: &Daemon, host: &Host) -> bool {
        let joins = || Ok(daemon.call(&["channel", "join", &self.ticket])?.success());
        let joined = until(JOIN_TIME_MAX, "it joins", joins);
        if let Err(error) = &joined {
            eprintln!("{}: {error}", host.name());
        }
        joined.is_ok()
    }
}
