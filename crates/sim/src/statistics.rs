//! Figures for people: means and percentiles of what was measured.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

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
    pub duplicates_gone_after_s: Option<u64>,
    /// Seconds until those who gave one up had another, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates_resolved_after_s: Option<u64>,
    /// Nodes that did not know their true neighbours when all was still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_gaps: Option<u64>,
    /// Mean estimate of the number of nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_estimate: Option<f64>,
    /// Whatever else the scenario has to tell, beside the names above.
    #[serde(flatten)]
    pub figures: Figures,
    /// Inputs that nodes worked off.
    pub inputs: u64,
    /// Everything that happened: inputs, and messages that reached nobody.
    pub events: u64,
    /// A hash of everything that happened, as 16 hexadecimal digits.
    pub trace: String,
}

impl Results {
    /// Adds what was counted of another world of the same scenario.
    pub(crate) fn add_run(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.events += other.events;
        self.trace = match self.trace.as_str() {
            "" => other.trace.clone(),
            so_far => digest(&blake3::hash((so_far.to_owned() + &other.trace).as_bytes())),
        };
    }
}

/// Writes the first octets of a hash.
pub(crate) fn digest(hash: &blake3::Hash) -> String {
    hash.to_hex()[..16].to_owned()
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figure {
    /// How many.
    Count(u64),
    /// How much.
    Amount(f64),
    /// How much of each.
    Each(BTreeMap<&'static str, f64>),
    /// Several of each.
    Table(BTreeMap<&'static str, BTreeMap<&'static str, f64>>),
}

/// Named figures in the order in which they were told. A figure that cannot be given,
/// such as the mean of nothing, is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(Vec<(&'static str, Figure)>);

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, figure)| (name, figure)))
    }
}

impl Figures {
    /// Tells how many.
    pub fn count(&mut self, name: &'static str, count: u64) {
        self.0.push((name, Figure::Count(count)));
    }

    /// Tells how much, if it can be told.
    pub fn amount(&mut self, name: &'static str, amount: Option<f64>) {
        let figure = amount.map(|amount| (name, Figure::Amount(amount)));
        self.0.extend(figure);
    }

    /// Tells the share of `part` in `whole`.
    pub fn share(&mut self, name: &'static str, part: u64, whole: u64) {
        self.amount(name, ratio(part, whole));
    }

    /// Tells how much of each.
    pub fn each(&mut self, name: &'static str, each: BTreeMap<&'static str, f64>) {
        self.0.push((name, Figure::Each(each)));
    }

    /// Tells several things of each.
    pub fn table(
        &mut self,
        name: &'static str,
        of: &'static str,
        row: BTreeMap<&'static str, f64>,
    ) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Figure::Table(rows))) => drop(rows.insert(of, row)),
            _ => self
                .0
                .push((name, Figure::Table(BTreeMap::from([(of, row)])))),
        }
    }

    /// Tells the times of lookups, in microseconds, and their mean as a multiple of the
    /// median round trip.
    pub fn times(&mut self, micros: &[u64], median_round_trip: Duration) {
        let round_trip = median_round_trip.as_micros() as f64;
        self.amount("mean_ms", mean(micros).map(|mean| mean / 1000.0));
        self.amount("p50_ms", percentile(micros, 50).map(millis));
        self.amount("p99_ms", percentile(micros, 99).map(millis));
        self.amount(
            "mean_in_round_trips",
            mean(micros).map(|mean| mean / round_trip),
        );
        self.amount("median_round_trip_ms", Some(round_trip / 1000.0));
    }

    /// Visits the figures that tell how much of each.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, &BTreeMap<&'static str, f64>)> {
        self.0.iter().filter_map(|(name, figure)| match figure {
            Figure::Each(each) => Some((*name, each)),
            Figure::Count(_) | Figure::Amount(_) | Figure::Table(_) => None,
        })
    }

    /// Returns one figure of a table.
    pub fn of(&self, table: &str, of: &str, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(known, _)| *known == table);
        found.and_then(|(_, figure)| match figure {
            Figure::Table(rows) => rows.get(of)?.get(name).copied(),
            Figure::Count(_) | Figure::Amount(_) | Figure::Each(_) => None,
        })
    }

    /// Returns a figure.
    pub fn find(&self, name: &str) -> Option<&Figure> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, figure)| figure)
    }

    /// Returns a figure that is a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.and_then(|(_, figure)| match figure {
            Figure::Count(count) => Some(*count as f64),
            Figure::Amount(amount) => Some(*amount),
            Figure::Each(_) | Figure::Table(_) => None,
        })
    }
}

impl Figures {
    /// Returns one of the numbers of a figure that has several.
    pub fn number_of(&self, name: &str, which: &str) -> Option<f64> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.and_then(|(_, figure)| match figure {
            Figure::Each(each) => each.get(which).copied(),
            Figure::Count(_) | Figure::Amount(_) | Figure::Table(_) => None,
        })
    }
}

/// Returns `part` divided by `whole`; none when there is no whole.
pub fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Returns `part` of a quantity per second of `duration`, divided among `among`.
pub fn per_second(part: u64, duration: Duration, among: u64) -> Option<f64> {
    let seconds = duration.as_micros() as f64 / 1e6;
    (seconds > 0.0 && among > 0).then(|| part as f64 / seconds / among as f64)
}

/// Returns the largest divided by the mean; none of nothing or of zeros.
pub fn peak_to_mean(values: &[u64]) -> Option<f64> {
    let largest = values.iter().max().copied()? as f64;
    mean(values)
        .filter(|mean| *mean > 0.0)
        .map(|mean| largest / mean)
}

/// Returns the spectrum of a series: the amplitude at each of its `len / 2` frequencies
/// from 1 / len on, relative to the mean, in thousandths. Direct sums, for series of at
/// most a few thousand values.
pub fn spectrum(series: &[u64]) -> Vec<u64> {
    let len = series.len();
    let mean = mean(series).unwrap_or(0.0);
    if mean == 0.0 {
        return Vec::new();
    }
    let turn = std::f64::consts::TAU / len as f64;
    let waves: Vec<(f64, f64)> = (0..len).map(|i| (turn * i as f64).sin_cos()).collect();
    let amplitude = |frequency: usize| {
        let (mut sine, mut cosine) = (0.0, 0.0);
        for (i, value) in series.iter().enumerate() {
            let (s, c) = waves[i * frequency % len];
            sine += (*value as f64 - mean) * s;
            cosine += (*value as f64 - mean) * c;
        }
        2.0 * sine.hypot(cosine) / len as f64 / mean
    };
    (1..=len / 2)
        .map(|frequency| (amplitude(frequency) * 1000.0) as u64)
        .collect()
}

/// Turns thousandths into a whole.
pub fn thousandths(number: u64) -> f64 {
    number as f64 / 1e3
}

/// Returns the mean of values in thousandths, as a whole; none of nothing.
pub fn mean_thousandths(values: &[u64]) -> Option<f64> {
    mean(values).map(|mean| mean / 1e3)
}

/// Returns what copying everything costs per second when what holds it is replaced once
/// in `session` and each copy is sent twice, out of the means over time of what is held.
pub fn turnover(held: &[u64], session: Duration) -> Option<f64> {
    mean(held).map(|held| held * 2.0 / session.as_secs_f64())
}

/// Returns how many times `whole` the `part` is; none when there is no whole.
pub fn quotient(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    let (part, whole) = part.zip(whole)?;
    (whole > 0.0).then(|| part / whole)
}

/// Returns how many of an interval make a second.
pub fn rate_of(interval: Duration) -> f64 {
    1.0 / interval.as_secs_f64()
}

/// Returns the mean; none of nothing.
pub fn mean(values: &[u64]) -> Option<f64> {
    let sum: u64 = values.iter().sum();
    (!values.is_empty()).then(|| sum as f64 / values.len() as f64)
}

/// Returns the mean of figures; none of nothing.
pub fn mean_of(figures: &[f64]) -> Option<f64> {
    (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / figures.len() as f64)
}

/// Returns the mean of times in microseconds as a multiple of `unit`; none of nothing.
pub fn mean_in(micros: &[u64], unit: Duration) -> Option<f64> {
    mean(micros).map(|mean| mean / unit.as_micros() as f64)
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

/// Turns a count into a figure.
pub fn whole(number: u64) -> f64 {
    number as f64
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

    #[test]
    fn a_wave_stands_out_of_the_spectrum_at_its_frequency() {
        // Eight waves of amplitude a half of the mean in 256 values.
        let wave = |i: usize| if (i / 16).is_multiple_of(2) { 150 } else { 50 };
        let spectrum = spectrum(&(0..256).map(wave).collect::<Vec<u64>>());
        let highest = (0..128).max_by_key(|i| spectrum[*i]);
        assert_eq!(highest, Some(7));
        // A square wave's first harmonic is 4/π of its height.
        assert!((625..650).contains(&spectrum[7]), "{}", spectrum[7]);
    }

    #[test]
    fn figures_keep_their_order_and_leave_out_what_is_not_there() {
        let mut figures = Figures::default();
        figures.count("zeta", 3);
        figures.share("alpha", 1, 0);
        figures.share("beta", 1, 4);
        assert_eq!(figures.number("zeta"), Some(3.0));
        assert_eq!(figures.number("alpha"), None);
        assert_eq!(figures.number("beta"), Some(0.25));
    }
}
