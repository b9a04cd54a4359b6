//! Which proxy a TCP connection of this node to a host and a port has to take.
//!
//! ```text
//!   configuration  >  company's signed file  >  desktop, told by a command  >  environment  >  direct
//!                          \___________________________|____________________________/
//!                                                      v
//!            URL  --->  no_proxy?  --->  proxies that are named, or a PAC file  --->  routes in order
//! ```
//!
//! The first source that says something of proxies decides. Nothing is searched in the network: no WPAD,
//! since whoever answers there first would read what passes.
//!
//! | part | does |
//! |---|---|
//! | [`proxies`] | the sources in their order, and the question |
//! | [`settings`] | what one source says |
//! | [`environment`] | the variables, as curl has them |
//! | [`desktop`] | what GNOME, KDE or the session of a person say |
//! | [`company`] | the signed settings file |
//! | [`fetch`] | small files by HTTP, plain or by TLS, or from a disk |
//! | [`tls`] | TLS to proxies and to hosts of files, and whom it trusts |
//! | [`bypass`] | what goes without a proxy |
//! | [`pac`] | PAC files |
//! | [`route`], [`target`] | answer and question |

mod body;
pub mod bypass;
pub mod company;
pub mod desktop;
pub mod environment;
pub mod fetch;
mod glob;
pub mod pac;
pub mod proxies;
pub mod route;
pub mod settings;
pub mod target;
pub mod tls;

pub use bypass::Bypass;
pub use environment::Environment;
pub use proxies::{ANSWER_TIME_MAX, Explanation, Proxies, Source};
pub use route::{Credentials, ProxyServer, Route};
pub use settings::{Choice, Location, Secret, Settings, Written};
pub use target::Target;
pub use tls::{Trust, TrustError};
