//! The structured overlay: ids, ring, links, routing, wire format.
//!
//! Pure: no sockets, no clock, no randomness of its own. Input in, effects out,
//! one deadline.

pub mod admission;
pub mod class;
pub mod config;
pub mod contact;
pub mod coordinate;
pub mod deadlines;
pub mod geometry;
pub mod id;
pub mod message;
pub mod near;
pub mod overlay;
pub mod peers;
pub mod ring;
pub mod rng;
pub mod silence;
pub mod small_map;
pub mod standing;
pub mod time;
pub mod view;
pub mod vitals;

pub use class::Class;
pub use config::Config;
pub use contact::Contact;
pub use coordinate::Coordinate;
pub use geometry::Geometry;
pub use id::{Keypair, NodeId, OverlayId};
pub use message::Message;
pub use overlay::Overlay;
pub use ring::{Arc, Position};
pub use rng::Rng;
pub use time::Time;
pub use vitals::{HopReport, PathKind, Software, Vitals};
