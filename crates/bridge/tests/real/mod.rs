//! Real proxies on ports of this host, with the configuration of a test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use enishi_lab::forward::{ForwardProxy, ensure_proxies};
pub(crate) use enishi_lab::forward::{PASSWORD, USER};
use enishi_lab::is_root;

/// Whether the proxies are there, or could be installed. Says so when they are not.
pub(crate) fn can_run() -> bool {
    let ensured = ensure_proxies();
    if !is_root() && ensured.is_err() {
        eprintln!("skipped: squid and tinyproxy are not installed, and this is not root");
        return false;
    }
    ensured.expect("squid and tinyproxy can be installed");
    true
}

/// Starts squid. `lines` go before the one that lets everybody in.
pub(crate) fn squid(lines: &str) -> ForwardProxy {
    ForwardProxy::squid(None, free_address(), lines).expect("the proxy starts")
}

/// Starts tinyproxy with further lines of configuration.
pub(crate) fn tinyproxy(lines: &str) -> ForwardProxy {
    ForwardProxy::tinyproxy(None, free_address(), lines).expect("the proxy starts")
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address")
}
