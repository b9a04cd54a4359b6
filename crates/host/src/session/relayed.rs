//! Addresses on loopback that stand for peers which a server relays: what comes from there is of
//! somebody elsewhere, and nobody else is to be told of the address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::lock;

/// Which server relays what is at which address; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Relayed(Arc<Mutex<BTreeMap<SocketAddr, Arc<str>>>>);

impl Relayed {
    /// Says that what is at an address is relayed by a server, described for people.
    pub fn add(&self, at: SocketAddr, server: Arc<str>) {
        lock(&self.0).insert(at, server);
    }

    /// Says that it is so no longer, unless somebody else said it of the address since: `server` is the
    /// very one of [`Relayed::add`].
    pub fn remove(&self, at: SocketAddr, server: &Arc<str>) {
        let mut known = lock(&self.0);
        if known.get(&at).is_some_and(|it| Arc::ptr_eq(it, server)) {
            known.remove(&at);
        }
    }

    /// Returns the server.
    pub(super) fn server_of(&self, at: SocketAddr) -> Option<Arc<str>> {
        let at = SocketAddr::new(at.ip().to_canonical(), at.port());
        lock(&self.0).get(&at).cloned()
    }
}
