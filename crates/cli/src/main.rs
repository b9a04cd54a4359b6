//! The enishi program.

fn main() {}
