//! Samples to percentiles, and percentiles to ratios within a round.

use std::time::Instant;

use serde_json::{Value, json};

use crate::error::Failure;
use crate::output::Output;

/// The percentiles that are told.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.50), ("p90", 0.90), ("p99", 0.99)];

/// One kind of measurement, in microseconds, round by round.
pub(super) struct Series {
    /// What people read.
    pub(super) label: &'static str,
    /// What programs read.
    pub(super) name: &'static str,
    /// The name of the series that it is compared with.
    pub(super) against: Option<&'static str>,
    /// Samples of each round.
    pub(super) rounds: Vec<Vec<f64>>,
}

impl Series {
    pub(super) fn new(name: &'static str, label: &'static str, against: Option<&'static str>) -> Self {
        Self { label, name, against, rounds: Vec::new() }
    }

    /// Adds to the present round.
    pub(super) fn push(&mut self, us: f64) {
        if let Some(round) = self.rounds.last_mut() {
            round.push(us);
        }
    }
}

/// Microseconds since then.
pub(super) fn us_since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

/// Microseconds from one moment to another.
pub(super) fn us_between(begun: Instant, ended: Instant) -> f64 {
    ended.duration_since(begun).as_secs_f64() * 1e6
}

/// The value below which this share of the samples lies.
pub(super) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// The middle and the ends of the rounds' ratios.
pub(super) struct Ratios {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Ratios {
    pub(super) fn of(ratios: &[f64]) -> Self {
        Self { median: percentile(ratios, 0.5), min: percentile(ratios, 0.0), max: percentile(ratios, 1.0) }
    }

    pub(super) fn text(&self) -> String {
        format!("{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
    }

    pub(super) fn json(&self) -> Value {
        json!({ "median": hundredths(self.median), "min": hundredths(self.min), "max": hundredths(self.max) })
    }
}

pub(super) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Prints all series: their percentiles over all rounds, and the ratios to what they are compared with, round by round.
pub(super) fn print(output: &Output, head: Value, series: &[Series]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut told = Vec::new();
    for one in series {
        let all = one.rounds.concat();
        let base = one.against.and_then(|name| series.iter().find(|other| other.name == name));
        let mut row = vec![one.label.to_owned()];
        let mut values = json!({ "name": one.name, "against": one.against });
        for (name, share) in PERCENTILES {
            let us = percentile(&all, share);
            row.push(format!("{:.3}", us / 1e3));
            values[format!("{name}_us")] = json!(hundredths(us));
        }
        for (name, share) in PERCENTILES {
            let Some(base) = base else { continue };
            let ratios: Vec<_> = one
                .rounds
                .iter()
                .zip(&base.rounds)
                .map(|(round, base)| percentile(round, share) / percentile(base, share))
                .collect();
            let ratios = Ratios::of(&ratios);
            row.push(ratios.text());
            values["ratio"][name] = ratios.json();
        }
        rows.push(row);
        told.push(values);
    }
    if output.json {
        let mut head = head;
        head["series"] = json!(told);
        return output.json(&head);
    }
    let heading = ["IN MS", "P50", "P90", "P99", "P50 x FLOOR", "P90 x FLOOR", "P99 x FLOOR"];
    output.table(&heading, &rows, "nothing was measured")?;
    output.remark("x floor: the median of the rounds' ratios, and their range");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<_> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), 50.0);
        assert_eq!(percentile(&samples, 0.99), 99.0);
        assert_eq!(percentile(&samples, 0.0), 1.0);
        assert_eq!(percentile(&samples, 1.0), 100.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
