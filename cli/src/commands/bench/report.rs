//! Computes percentiles from samples, and ratios from percentiles of the same round.
//!
//! Knows series of samples. Does not know what was measured.

use std::time::Instant;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::error::Failure;
use crate::output::Output;

/// The percentiles in the output.
const PERCENTILES: [f64; 3] = [0.50, 0.90, 0.99];

/// The measured times of single acts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Measured {
    #[serde(flatten)]
    pub(super) head: Head,
    series: Vec<SeriesRow>,
}

/// The subject and the sizes of a measurement.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Head {
    pub(super) what: &'static str,
    pub(super) rounds: u32,
    /// The samples of each kind in one round.
    pub(super) samples: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text_bytes: Option<usize>,
    /// The seed of the random order.
    pub(super) seed: u64,
}

/// One kind of measurement, over all rounds.
#[derive(Debug, Serialize, JsonSchema)]
struct SeriesRow {
    name: &'static str,
    /// The name of the series with which this one is compared.
    against: Option<&'static str>,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    /// The ratio to the series with which this one is compared, taken round by round.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<RatioRow>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RatioRow {
    p50: Ratios,
    p90: Ratios,
    p99: Ratios,
}

/// The samples of one kind of measurement, in microseconds, by round.
pub(super) struct Series {
    /// The name in the text output.
    pub(super) label: &'static str,
    /// The name in the JSON output.
    pub(super) name: &'static str,
    /// The name of the series with which this one is compared.
    pub(super) against: Option<&'static str>,
    /// The samples of each round.
    pub(super) rounds: Vec<Vec<f64>>,
}

impl Series {
    pub(super) fn new(
        name: &'static str,
        label: &'static str,
        against: Option<&'static str>,
    ) -> Self {
        Self { label, name, against, rounds: Vec::new() }
    }

    /// Adds a sample to the current round.
    pub(super) fn push(&mut self, us: f64) {
        if let Some(round) = self.rounds.last_mut() {
            round.push(us);
        }
    }
}

impl Series {
    /// A percentile of each round, divided by the same percentile of another series.
    fn ratios(&self, base: &Self, share: f64) -> Ratios {
        let rounds = self.rounds.iter().zip(&base.rounds);
        Ratios::of(
            &rounds
                .map(|(own, base)| percentile(own, share) / percentile(base, share))
                .collect::<Vec<_>>(),
        )
    }
}

pub(super) fn us_since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

pub(super) fn us_between(begun: Instant, ended: Instant) -> f64 {
    ended.duration_since(begun).as_secs_f64() * 1e6
}

/// The value below which this share of the samples lies; NaN without samples.
pub(super) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// The median and the range of the ratios of all rounds.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(super) struct Ratios {
    #[serde(serialize_with = "in_hundredths")]
    pub(super) median: f64,
    #[serde(serialize_with = "in_hundredths")]
    pub(super) min: f64,
    #[serde(serialize_with = "in_hundredths")]
    pub(super) max: f64,
}

impl Ratios {
    pub(super) fn of(ratios: &[f64]) -> Self {
        Self {
            median: percentile(ratios, 0.5),
            min: percentile(ratios, 0.0),
            max: percentile(ratios, 1.0),
        }
    }

    pub(super) fn text(&self) -> String {
        format!("{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
    }
}

pub(super) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn in_hundredths<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(hundredths(*value))
}

/// Prints the percentiles of all series over all rounds. Also prints the ratios to the series with
/// which each one is compared.
pub(super) fn print(output: &Output, head: Head, series: &[Series]) -> Result<(), Failure> {
    let (mut rows, mut told) = (Vec::new(), Vec::new());
    for one in series {
        let all = one.rounds.concat();
        let us = PERCENTILES.map(|share| percentile(&all, share));
        let base = one.against.and_then(|name| series.iter().find(|other| other.name == name));
        let ratios = base.map(|base| PERCENTILES.map(|share| one.ratios(base, share)));
        let mut row = vec![one.label.to_owned()];
        row.extend(us.map(|us| format!("{:.3}", us / 1e3)));
        row.extend(ratios.iter().flatten().map(Ratios::text));
        rows.push(row);
        let [p50_us, p90_us, p99_us] = us.map(hundredths);
        let ratio = ratios.map(|[p50, p90, p99]| RatioRow { p50, p90, p99 });
        told.push(SeriesRow {
            name: one.name,
            against: one.against,
            p50_us,
            p90_us,
            p99_us,
            ratio,
        });
    }
    if output.json {
        return output.json(&Measured { head, series: told });
    }
    let heading = ["IN MS", "P50", "P90", "P99", "P50 x FLOOR", "P90 x FLOOR", "P99 x FLOOR"];
    output.table(&heading, &rows, "nothing was measured")?;
    output.remark("x FLOOR: the ratio to the floor, as the median of the rounds and their range");
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
