//! The node: overlay, DHT, diagnostics and virtual network control in one pure state machine.
