//! Figures for people: means and percentiles of what was measured.

use serde::Serialize;

/// What a scenario found. Only what applies to it is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Results {
    /// Mean number of hops to the node in charge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_hops: Option<f64>,
    /// 99th percentile of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_hops: Option<u64>,
    /// Share of questions that ended at the node in charge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<f64>,
    /// Median time until the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// 99th percentile of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// What a node sends, on average, in the quiet time of the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second_per_node: Option<f64>,
    /// Values that were acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<u64>,
    /// Acknowledged values of which a holder was left and that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Acknowledged values of which no holder was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_holder: Option<u64>,
    /// Seconds until every node knew its true neighbours again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_whole_after_s: Option<u64>,
    /// Seconds until every value was on all its holders again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_after_s: Option<u64>,
    /// Addresses that two nodes held when the parts met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<u64>,
    /// Seconds until no address was held twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates_resolved_after_s: Option<u64>,
    /// Nodes that did not know their true neighbours when all was still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_gaps: Option<u64>,
    /// Mean estimate of the number of nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_estimate: Option<f64>,
    /// Inputs that nodes worked off.
    pub inputs: u64,
    /// Everything that happened: inputs, and messages that reached nobody.
    pub events: u64,
    /// The same per second of the clock on the wall; whoever has a clock fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<f64>,
    /// The most memory that the run took, for each node; whoever can see it fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_per_node: Option<u64>,
    /// A hash of everything that happened, as 16 hexadecimal digits.
    pub trace: String,
}

/// Returns the mean; none of nothing.
pub fn mean(values: &[u64]) -> Option<f64> {
    let sum: u64 = values.iter().sum();
    (!values.is_empty()).then(|| sum as f64 / values.len() as f64)
}

/// Returns the share of `part` in `whole`.
pub fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Returns the percentile by nearest rank; none of nothing.
pub fn percentile(values: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Turns microseconds into milliseconds.
pub fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Returns what each of `nodes` sent per second.
pub fn rate(bytes: u64, seconds: u64, nodes: usize) -> Option<f64> {
    (seconds > 0 && nodes > 0).then(|| bytes as f64 / seconds as f64 / nodes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), Some(100));
        assert_eq!(percentile(&values, 99), Some(198));
        assert_eq!(percentile(&[], 99), None);
        assert_eq!(mean(&[1, 2, 6]), Some(3.0));
    }
}
