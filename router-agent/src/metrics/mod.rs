//! What Prometheus may scrape: the answers of the control socket, as numbers.
//!
//! [`table`] has each metric with its meaning, [`server`] answers scrapes. docs/metrics.md lists
//! them.

mod histograms;
pub mod server;
mod table;

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use self::{
    histograms::{HISTOGRAMS, Histogram, Spread},
    table::{METRICS, Metric, Snapshot},
};
use crate::control::server::Source;

/// All metrics as they are now, in the OpenMetrics text format.
pub fn text(source: &(dyn Source + Send + Sync)) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot::of(source)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// One value of a metric, with what tells it from the others.
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: f64,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Only grows, until what it counts begins anew. Its name on the wire ends in `_total`.
    Counter,
    Gauge,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for Metric {
            name,
            kind,
            help,
            samples,
        } in METRICS
        {
            let of = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, of)?;
            for Sample { labels, value } in samples(self) {
                let mut sample = metric.encode_family(&labels)?;
                match kind {
                    Kind::Counter => sample.encode_counter::<NoLabelSet, f64, f64>(&value, None)?,
                    Kind::Gauge => sample.encode_gauge(&value)?,
                }
            }
        }
        for Histogram {
            name,
            help,
            spreads,
        } in HISTOGRAMS
        {
            let of = MetricType::Histogram;
            let mut metric = encoder.encode_descriptor(name, help, None, of)?;
            for Spread {
                labels,
                sum,
                count,
                buckets,
            } in spreads(self)
            {
                let mut spread = metric.encode_family(&labels)?;
                spread.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
