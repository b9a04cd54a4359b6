//! The node: overlay, DHT, diagnostics, multicast, reach and virtual network control in one
//! pure state machine.
//!
//! [`Node`] is the kernel: it takes inputs, hands them to the overlay and the
//! services, and returns effects. A service is a process; its system calls are the
//! methods of [`Context`]. No service names another: what one wants of another goes
//! through the kernel.

pub mod admission;
mod bucket;
pub mod calls;
pub mod dht;
pub mod diag;
pub mod keys;
pub mod multicast;
pub mod names;
pub mod node;
mod pace;
pub mod reach;
pub mod record;
pub mod recording;
pub mod rendezvous;
pub mod service;
pub mod ticket;
mod uses;
pub mod vnet;

pub use node::{Command, Config, Event, Input, Node, Output};
pub use service::{Context, Service, ServiceInput};
