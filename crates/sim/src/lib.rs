//! The simulator: many nodes, virtual time, delay, loss, faults and checks.
