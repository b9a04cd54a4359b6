//! Network namespaces and processes for demonstrations, tests and benchmarks.
//!
//! A [`Lab`] is a small network inside this machine: every [`Host`] is a network
//! namespace with one Ethernet port, and all ports meet at one bridge, which lives
//! in a namespace of its own. Nothing in the network of the real machine is
//! changed, and there is no way out of the lab:
//!
//! ```text
//!   namespace a            namespace b            namespace c
//!   eth0 10.99.0.1         eth0 10.99.0.2         eth0 10.99.0.3
//!        |                      |                      |
//!        p1                     p2                     p3
//!   ---- main bridge ---------------------------------------  (a cut moves ports
//!   ---- side bridge ---------------------------------------   to the side bridge)
//! ```
//!
//! Whatever happens, nothing stays behind: dropping the lab, also in a panic,
//! kills what runs in its namespaces and removes them; [`install_signal_cleanup`]
//! does so when the process is told to end; children are killed by the kernel
//! when the process that started them dies; and the namespaces of a lab that was
//! itself killed are removed by the next lab with the same prefix.
//!
//! Linux only, and root only, except for [`programs`], [`process`], [`faulty`] and
//! [`forward`].

mod ask;
pub mod cleanup;
pub mod crowd;
pub mod daemon;
pub mod faulty;
pub mod forward;
pub mod host;
mod ip;
pub mod lab;
pub mod process;
pub mod programs;
pub mod wire;
pub mod world;

pub use cleanup::{Cleanup, install_signal_cleanup};
pub use crowd::{Plan, Said, Story};
pub use daemon::{Daemon, until};
pub use faulty::{Fault, Faulty, FaultyProxy};
pub use forward::ForwardProxy;
pub use host::Host;
pub use lab::Lab;
pub use process::{Output, Process, command, run};
pub use programs::{ensure_programs, is_root};
pub use world::{Stack, World};
