//! The system's resolver: who answers `getaddrinfo`, how it is led to this node, and how it
//! becomes again what it was.
//!
//! With systemd-resolved each device gets its server and its domains, and loses them when it
//! goes, whatever becomes of the daemon. Without it `/etc/resolv.conf` gets three lines in
//! front of all others; `resolv_conf` tells which, `file` how they are written and taken out.

mod file;
pub mod guard;
mod namespace;
mod resolv_conf;
mod resolved;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::responder::Upstreams;
use super::{How, PORT, Place};
use file::Marker;
use guard::Guard;
use resolved::Resolved;

/// The system's list of DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Sets up the system's resolver.
pub(super) struct Resolver {
    marker: Marker,
    resolved: Resolved,
    /// The address that stands in the file, with whoever takes it out after a crash.
    written: Option<(IpAddr, Guard)>,
}

/// A channel's device and what a resolver has to know of it.
pub(super) struct Link<'a> {
    pub(super) place: &'a Place,
    /// The addresses of it at which queries are answered.
    pub(super) servers: Vec<IpAddr>,
    /// The domains, without the dots at their ends.
    pub(super) domains: Vec<String>,
}

/// Takes out of the file what was left by a run that neither it nor its guard could put
/// right; `marker` is where that run noted it.
pub fn repair(marker: &Path) {
    Marker::new(marker.to_owned()).repair();
}

impl Resolver {
    pub(super) fn new(marker: PathBuf) -> Self {
        Self {
            marker: Marker::new(marker),
            resolved: Resolved::default(),
            written: None,
        }
    }

    /// Returns how names are to reach the programs of this host, or why they cannot.
    pub(super) fn choose(&self) -> Result<How, String> {
        let is_elsewhere = namespace::is_elsewhere();
        if is_elsewhere && !namespace::has_own_file(Path::new(RESOLV_CONF)) {
            return Err(format!(
                "this node is in another network than the system's {RESOLV_CONF}, so that file \
                 is left alone; give the namespace a file of its own (/etc/netns/NAME/resolv.conf)"
            ));
        }
        match !is_elsewhere && resolved::is_in_use(Path::new(RESOLV_CONF)) {
            true => Ok(How::Resolved),
            false => Ok(How::ResolvConf),
        }
    }

    /// Tells systemd-resolved of the devices.
    pub(super) async fn set_up_links(&mut self, links: &[Link<'_>]) -> Result<(), String> {
        self.resolved.set_up(links).await
    }

    /// Writes an address into the file, if it does not stand there already, and returns the
    /// servers that stand after it.
    pub(super) fn write(&mut self, server: SocketAddr) -> Result<Upstreams, String> {
        if server.port() != PORT {
            return Err(format!(
                "{RESOLV_CONF} cannot name a port, so it is left alone: `dns_listen` has another \
                 than {PORT}"
            ));
        }
        let address = server.ip();
        let path = Path::new(RESOLV_CONF);
        let guard = self.written.as_mut().map(|(_, guard)| guard);
        let is_guarded = guard.is_some_and(Guard::is_there);
        if !is_guarded {
            self.marker.set(path, address).map_err(|error| {
                format!("{RESOLV_CONF} is left alone, since no note of it can be kept: {error}")
            })?;
            let guard = Guard::start(path, address)
                .map_err(|error| format!("no process to restore {RESOLV_CONF}: {error}"))?;
            self.written = Some((address, guard));
        }
        let text = file::edit(path, |text| resolv_conf::with_server(text, address))
            .map_err(|error| format!("{RESOLV_CONF} cannot be written: {error}"))?;
        Ok(resolv_conf::upstreams(&text, address))
    }

    /// Takes the address out of the file again.
    pub(super) fn restore(&mut self) {
        let Some((address, guard)) = self.written.take() else {
            return;
        };
        match file::take_out(Path::new(RESOLV_CONF), address) {
            Ok(()) => self.marker.clear(),
            Err(error) => tracing::warn!(%error, "{RESOLV_CONF} could not be restored"),
        }
        guard.dismiss();
    }
}
