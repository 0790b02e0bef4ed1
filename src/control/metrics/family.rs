//! One metric with all its samples, and how counters become metrics.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::base::counter::{Kind, Reading};
use crate::base::histogram::{self, Times};
use crate::persistence::{Outcome, Reason};
use crate::relay::End;

pub(super) type Labels = Vec<(&'static str, String)>;

/// Counters that are one metric, with what follows their prefix as the label `reason`: module, prefix, name of the metric, what it counts.
const BY_REASON: &[(&str, &str, &str, &str)] = &[
    ("lane", "malformed_", "malformed", "Frames dropped because they are not what a protocol allows, by why"),
    ("relay", "decided_", "decided", "Decisions of where a client goes, by what became of its mapping and why"),
    ("relay", "ended_", "ended", "Connections that ended, by whose doing and why"),
    ("ticket", "refused_", "refused", "Tickets refused, by why"),
    ("ticket", "withheld_", "withheld", "Tickets not issued, by why"),
    ("health", "failures_", "failures", "Probes that failed, by why"),
];

/// Counters of a lane's loop that are one metric, each a reason.
const DROPPED: &[&str] =
    &["frames_unsent", "frames_unmade", "frames_not_handed_over", "unsupported", "not_local", "no_route"];

/// The metric that a counter is a reason of, what that counts, and the reason.
fn grouped(module: &str, name: &str) -> Option<(&'static str, &'static str, String)> {
    if module == "lane" && DROPPED.contains(&name) {
        let help = "Frames dropped that are what their protocol allows, or never made, by why";
        return Some(("dropped", help, name.trim_start_matches("frames_").replace('_', "-")));
    }
    BY_REASON.iter().find_map(|(of, prefix, metric, help)| {
        let reason = name.strip_prefix(prefix).filter(|_| *of == module)?;
        Some((*metric, *help, reason.replace('_', "-")))
    })
}

/// One metric with its values. A family must stand together, while lanes are read one after the other.
pub(super) struct Family {
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) values: Vec<(Labels, u64)>,
}

/// Metrics by name, made of counters of many lanes.
#[derive(Default)]
pub(super) struct Families(BTreeMap<String, Family>);

impl Families {
    /// Adds a module's number.
    pub(super) fn note(&mut self, module: &str, mut labels: Labels, reading: Reading) {
        let Reading { name, help, kind, value } = reading;
        let (name, help) = match grouped(module, name) {
            None => (name, help),
            Some((metric, help, reason)) => {
                labels.extend(label_of(metric, &reason));
                labels.push(("reason", reason));
                (metric, help)
            }
        };
        self.add(format!("{module}_{name}"), help, kind, labels, value);
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, name: String, help: &'static str, kind: Kind, labels: Labels, value: u64) {
        let family = self.0.entry(name).or_insert(Family { help, kind, values: Vec::new() });
        family.values.push((labels, value));
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, family)| family.encode(name, encoder))
    }
}

/// What else is said of a reason.
fn label_of(metric: &str, reason: &str) -> Option<(&'static str, String)> {
    match metric {
        "decided" => {
            let known = Reason::ALL.iter().find(|known| known.name() == reason)?;
            Some(("outcome", known.outcome().map_or("none", Outcome::name).to_owned()))
        }
        "ended" => {
            let known = End::ALL.into_iter().find(|known| known.name() == reason)?;
            Some(("by", known.doer().name().to_owned()))
        }
        _ => None,
    }
}

impl Family {
    pub(super) fn gauge(help: &'static str, values: Vec<(Labels, u64)>) -> Self {
        Self { help, kind: Kind::Gauge, values }
    }

    pub(super) fn counter(help: &'static str, values: Vec<(Labels, u64)>) -> Self {
        Self { help, kind: Kind::Counter, values }
    }

    /// Writes the metric. A name that ends in `_nanoseconds` is written in seconds.
    pub(super) fn encode(&self, name: &str, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, is_time) = name.strip_suffix("_nanoseconds").map_or((name, false), |name| (name, true));
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let unit = is_time.then_some(&Unit::Seconds);
        let mut metric = encoder.encode_descriptor(name, self.help, unit, kind)?;
        for (labels, value) in &self.values {
            // A family of no labels would be written with empty braces.
            if labels.is_empty() {
                self.encode_value(&mut metric, *value, is_time)?;
            } else {
                self.encode_value(&mut metric.encode_family(labels)?, *value, is_time)?;
            }
        }
        Ok(())
    }

    fn encode_value(&self, metric: &mut MetricEncoder<'_>, value: u64, is_time: bool) -> fmt::Result {
        match (self.kind, is_time) {
            (Kind::Counter, false) => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
            (Kind::Counter, true) => metric.encode_counter::<NoLabelSet, f64, u64>(&seconds(value), None),
            (Kind::Gauge, false) => metric.encode_gauge(&value),
            (Kind::Gauge, true) => metric.encode_gauge(&seconds(value)),
        }
    }
}

/// Writes a histogram of times, in seconds.
pub(super) fn encode_times(
    name: &str,
    help: &str,
    samples: &[(Labels, Times)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for (labels, times) in samples {
        let bound = |bucket| histogram::bound(bucket).map_or(f64::INFINITY, |bound| bound.as_secs_f64());
        let buckets: Vec<(f64, u64)> = (0..).map(bound).zip(times.buckets).collect();
        // The sum of what was read, for a lane that notes times meanwhile has told of more.
        let count = times.buckets.iter().sum();
        metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(
            seconds(times.nanoseconds),
            count,
            &buckets,
            None,
        )?;
    }
    Ok(())
}

fn seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Counters;

    #[test]
    fn whose_doing_every_end_was_and_what_became_of_every_mapping_is_in_its_labels() {
        let mut families = Families::default();
        Counters::default().read(&mut |reading| families.note("relay", Vec::new(), reading));
        for (metric, label, count) in
            [("relay_ended", "by", End::ALL.len()), ("relay_decided", "outcome", Reason::ALL.len())]
        {
            let values = &families.0[metric].values;
            assert_eq!(values.len(), count, "{metric}");
            assert!(values.iter().all(|(labels, _)| labels[0].0 == label && labels[1].0 == "reason"), "{values:?}");
        }
    }
}
