//! Everything a developer runs: test, bench, lab, tidy.

fn main() {}
