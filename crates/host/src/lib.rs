//! The asynchronous host: sessions, store, devices and the control interface around one node.

pub mod audit;
mod bell;
mod bootstrap;
pub mod closed;
pub mod config;
pub mod control;
pub mod daemon;
pub mod data_dir;
pub mod dns;
pub mod gateway;
pub mod nat64;
pub mod packets;
mod places;
pub mod reach;
pub mod session;
pub mod socks;
pub mod store;
pub mod turn;
pub mod userspace;
pub mod wireguard;
