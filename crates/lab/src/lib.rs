//! Network namespaces and processes for demonstrations, tests and benchmarks.
