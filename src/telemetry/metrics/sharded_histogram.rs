//! Histogram whose observations each worker counts in memory of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus::core::{Describer, Metric, MetricVec, MetricVecBuilder};
use prometheus::proto::{self, Bucket, LabelPair, MetricType};
use prometheus::{HistogramOpts, Opts};

use super::sharded::Shards;

/// Maximum number of buckets, without the last one, which has no bound.
const MAX_BOUNDS: usize = 15;

/// Histograms of one metric, by their labels.
pub type ShardedHistogramVec = MetricVec<HistogramBuilder>;

/// Creates the metric with these labels.
pub(super) fn histogram_vec(
    opts: Opts,
    labels: &[&str],
    bounds: &[f64],
) -> Result<ShardedHistogramVec, prometheus::Error> {
    if bounds.len() > MAX_BOUNDS {
        return Err(prometheus::Error::Msg("too many buckets".to_owned()));
    }
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let opts = HistogramOpts::from(opts.variable_labels(labels)).buckets(bounds.to_vec());
    MetricVec::create(MetricType::HISTOGRAM, HistogramBuilder, opts)
}

/// Builds the histogram of a combination of label values.
#[derive(Debug, Clone)]
pub struct HistogramBuilder;

impl MetricVecBuilder for HistogramBuilder {
    type M = ShardedHistogram;
    type P = HistogramOpts;

    fn build<V: AsRef<str>>(
        &self,
        opts: &HistogramOpts,
        values: &[V],
    ) -> Result<ShardedHistogram, prometheus::Error> {
        let names = opts.describe()?.variable_labels;
        let pairs = names.into_iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name);
            pair.set_value(value.as_ref().to_owned());
            pair
        });
        let mut labels: Vec<LabelPair> = pairs.collect();
        labels.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(ShardedHistogram(Arc::new(HistogramState {
            labels,
            bounds: opts.buckets.clone(),
            shards: Shards::default(),
        })))
    }
}

/// A histogram as the sum of its shards; clones share it.
#[derive(Debug, Clone)]
pub struct ShardedHistogram(Arc<HistogramState>);

#[derive(Debug)]
struct HistogramState {
    labels: Vec<LabelPair>,
    bounds: Vec<f64>,
    shards: Shards<HistogramCells>,
}

#[derive(Debug, Default)]
struct HistogramCells {
    /// Observations by bucket; those over the last bound are in the cell that follows it.
    counts: [AtomicI64; MAX_BOUNDS + 1],
    /// The bits of a floating-point number.
    sum: AtomicU64,
}

impl ShardedHistogram {
    pub fn observe(&self, value: f64) {
        let mut bounds = self.0.bounds.iter();
        let bucket = bounds.position(|bound| value <= *bound);
        let bucket = bucket.unwrap_or(self.0.bounds.len());
        self.0.shards.change(|cells, access| {
            if let Some(count) = cells.counts.get(bucket) {
                access.add(count, 1);
            }
            access.add_float(&cells.sum, value);
        });
    }

    /// Returns the number of observations.
    pub fn count(&self) -> u64 {
        self.metric().get_histogram().get_sample_count()
    }
}

impl Metric for ShardedHistogram {
    fn metric(&self) -> proto::Metric {
        let mut counts = [0_i64; MAX_BOUNDS + 1];
        let mut sum = 0.0;
        for cells in self.0.shards.iter() {
            for (total, count) in counts.iter_mut().zip(&cells.counts) {
                *total += count.load(Relaxed);
            }
            sum += f64::from_bits(cells.sum.load(Relaxed));
        }
        let mut cumulative = 0;
        let buckets = self.0.bounds.iter().zip(counts).map(|(bound, count)| {
            cumulative += count.unsigned_abs();
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counts.iter().map(|count| count.unsigned_abs()).sum());
        histogram.set_sample_sum(sum);
        let mut metric = proto::Metric::from_label(self.0.labels.clone());
        metric.set_histogram(histogram);
        metric
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use prometheus::{Encoder, HistogramVec, IntCounterVec, Registry, TextEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::sharded::ShardedCounterVec;

    const BOUNDS: [f64; 3] = [0.001, 0.25, 5.0];
    const LABELS: [&str; 2] = ["route", "class"];

    fn rendered(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    proptest! {
        #[test]
        fn exposition_equals_that_of_the_library(
            observed in prop::collection::vec(
                ("[a-b\"\\\\]{0,1}", "[a-b]{0,1}", prop_oneof![0.0..9.0, Just(0.25), Just(1e9)]),
                0..40,
            ),
        ) {
            let [ours, library] = [(); 2].map(|()| Registry::new_custom(Some("p".to_owned()), None).unwrap());
            let histogram = histogram_vec(Opts::new("h", "Help."), &LABELS, &BOUNDS).unwrap();
            let counter = ShardedCounterVec::new(Opts::new("c", "Help."), &LABELS).unwrap();
            ours.register(Box::new(histogram.clone())).unwrap();
            ours.register(Box::new(counter.clone())).unwrap();
            let opts = HistogramOpts::new("h", "Help.").buckets(BOUNDS.to_vec());
            let expected = HistogramVec::new(opts, &LABELS).unwrap();
            let expected_counter = IntCounterVec::new(Opts::new("c", "Help."), &LABELS).unwrap();
            library.register(Box::new(expected.clone())).unwrap();
            library.register(Box::new(expected_counter.clone())).unwrap();
            for (route, class, value) in &observed {
                let labels = [route, class];
                histogram.with_label_values(&labels).observe(*value);
                expected.with_label_values(&labels).observe(*value);
                counter.with_label_values(&labels).inc();
                expected_counter.with_label_values(&labels).inc();
            }
            prop_assert_eq!(rendered(&ours), rendered(&library));
        }
    }

    #[test]
    fn buckets_are_bounded() {
        let bounds = [1.0; MAX_BOUNDS + 1];
        assert!(histogram_vec(Opts::new("h", "Help."), &LABELS, &bounds).is_err());
    }
}
