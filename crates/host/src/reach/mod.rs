//! How this node is reached from outside its site: ports that a router maps.

mod mapping;

pub(crate) use mapping::{Mapped, Mapping};
