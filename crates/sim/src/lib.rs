//! The simulator: many nodes, virtual time, delay, loss, faults and checks.
//!
//! It runs the very [`Node`](enishi_services::Node) of the daemon. Everything random
//! follows from one seed: the same scenario with the same seed gives the same trace.

pub mod by_rule;
pub mod draws;
mod ground;
pub mod hostile;
pub mod internet;
pub mod network;
pub mod oracle;
pub mod participant;
pub mod plot;
pub mod queue;
pub mod replay;
pub mod rival;
pub mod scenario;
mod sorts;
pub mod statistics;
mod trace;
pub mod world;

pub use enishi_overlay::config::Remedies;
pub use enishi_services::calls::Tree;
pub use enishi_services::recording;
pub use participant::Participant;
pub use scenario::{Options, Protocol, Report, Scenario};
pub use world::World;
