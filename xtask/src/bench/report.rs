//! Rounds, medians and ratios.

use std::borrow::Cow;

use serde_json::{Value, json};

/// One figure that a benchmark measures.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// What is measured, unique in its benchmark.
    pub(super) name: Cow<'static, str>,
    /// The unit of its values.
    pub(super) unit: &'static str,
    /// The name of the figure that it is compared with.
    pub(super) peer: Option<Cow<'static, str>>,
}

/// What a benchmark measured.
pub(super) struct Report {
    bench: &'static str,
    runs: u32,
    rows: Vec<Row>,
}

struct Row {
    figure: Figure,
    /// In the order of the rounds. A round that could not measure this has none.
    values: Vec<f64>,
}

impl Report {
    /// An empty report of `runs` rounds with one row for each of `figures`.
    pub(super) fn new(bench: &'static str, runs: u32, figures: &[Figure]) -> Self {
        let row = |figure: &Figure| Row {
            figure: figure.clone(),
            values: Vec::new(),
        };
        let rows = figures.iter().map(row).collect();
        Self { bench, runs, rows }
    }

    /// Adds what one round measured under `name`.
    ///
    /// # Panics
    /// When the report has no such figure: the benchmark contradicts itself.
    pub(super) fn add(&mut self, name: &str, value: f64) {
        let row = self.rows.iter_mut().find(|row| row.figure.name == name);
        let Some(row) = row else {
            panic!("the benchmark measures `{name}`, which its figures do not list");
        };
        row.values.push(value);
    }

    /// Returns the report as one JSON object:
    /// `{bench, runs, rows: [{name, unit, median, values, ratio_to}]}`, where
    /// `ratio_to` is `{name, ratio}` or null.
    pub(super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let ratio_to = self
                .ratio(row)
                .map(|(name, ratio)| json!({ "name": name, "ratio": ratio }));
            json!({
                "name": row.figure.name,
                "unit": row.figure.unit,
                "median": median(&row.values),
                "values": row.values,
                "ratio_to": ratio_to,
            })
        });
        let rows: Vec<Value> = rows.collect();
        json!({ "bench": self.bench, "runs": self.runs, "rows": rows })
    }

    /// Returns the report as a table for people.
    pub(super) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.figure.name.len()).max();
        let width = width.unwrap_or(0);
        let mut table = format!("{}, median of {} runs\n", self.bench, self.runs);
        for row in &self.rows {
            let Figure { name, unit, .. } = &row.figure;
            let median =
                median(&row.values).map_or("-".to_owned(), |median| format!("{median:.3}"));
            let (least, most) = range(&row.values);
            let ratio = self
                .ratio(row)
                .map(|(peer, ratio)| format!("  {ratio:.3} of {peer}"));
            table.push_str(&format!(
                "{name:width$}  {median:>10} {unit:8} ({least:.3} to {most:.3}){}\n",
                ratio.unwrap_or_default(),
            ));
        }
        table
    }

    /// The median beside the median of the peer.
    fn ratio<'r>(&self, row: &'r Row) -> Option<(&'r str, f64)> {
        let name = row.figure.peer.as_deref()?;
        let peer = self.rows.iter().find(|row| row.figure.name == name)?;
        let divisor = median(&peer.values).filter(|divisor| *divisor != 0.0)?;
        Some((name, median(&row.values)? / divisor))
    }
}

/// The middle value, or the mean of the two middle ones; `None` without values.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The 99th percentile by nearest rank; `None` without values.
pub(super) fn p99(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// The arithmetic mean; `None` without values.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    (!values.is_empty()).then(|| sum / values.len() as f64)
}

fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().reduce(f64::min);
    let most = values.iter().copied().reduce(f64::max);
    (least.unwrap_or(0.0), most.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: &[Figure] = &[
        Figure {
            name: Cow::Borrowed("bare"),
            unit: "Gbit/s",
            peer: None,
        },
        Figure {
            name: Cow::Borrowed("virtual"),
            unit: "Gbit/s",
            peer: Some(Cow::Borrowed("bare")),
        },
    ];

    #[test]
    fn statistics_of_few_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(p99(&hundred), Some(99.0));
        assert_eq!(p99(&[5.0]), Some(5.0));
        assert_eq!(p99(&[]), None);
    }

    #[test]
    fn the_report_names_medians_and_ratios() {
        let mut report = Report::new("vnet", 3, FIGURES);
        for (bare, inner) in [(10.0, 4.0), (20.0, 5.0), (12.0, 9.0)] {
            report.add("bare", bare);
            report.add("virtual", inner);
        }
        let json = report.to_json();
        assert_eq!(json["bench"], "vnet");
        assert_eq!(json["runs"], 3);
        assert_eq!(json["rows"][0]["ratio_to"], Value::Null);
        assert_eq!(json["rows"][1]["median"], 5.0);
        assert_eq!(json["rows"][1]["values"], json!([4.0, 5.0, 9.0]));
        assert_eq!(json["rows"][1]["ratio_to"]["name"], "bare");
        assert_eq!(json["rows"][1]["ratio_to"]["ratio"], 5.0 / 12.0);
        assert!(report.table().contains("0.417 of bare"));
    }

    #[test]
    fn a_figure_that_was_never_measured_is_null() {
        let json = Report::new("vnet", 1, FIGURES).to_json();
        assert_eq!(json["rows"][1]["median"], Value::Null);
        assert_eq!(json["rows"][1]["ratio_to"], Value::Null);
    }
}
