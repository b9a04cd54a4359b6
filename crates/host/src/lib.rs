//! The asynchronous host: sessions, store, devices and the control interface around one node.

pub mod control;
pub mod session;
