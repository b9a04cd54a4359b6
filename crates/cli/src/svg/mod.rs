//! Drawings as SVG text.

pub(crate) mod ring;
