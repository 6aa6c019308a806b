//! The gauges of the [key figures](super::kpis), of all customers and of every segment.

use prometheus::{GaugeVec, Registry};

use super::float_gauges;
use super::kpis::{Figures, Report, or_nan, seconds};
use super::table::{self, Family};

/// The same gauges twice; those of segments have one label more.
#[derive(Debug)]
pub struct Shown {
    all: Gauges,
    segments: Gauges,
}

#[derive(Debug)]
struct Gauges {
    churn: GaugeVec,
    retention: GaugeVec,
    win_back: GaugeVec,
    conversion: GaugeVec,
    stage_duration: GaugeVec,
    customers: Option<GaugeVec>,
    clv_to_date: GaugeVec,
}

impl Shown {
    pub fn new(registry: &Registry) -> prometheus::Result<Shown> {
        let gauges = |family: &Family| float_gauges(registry, family);
        Ok(Shown {
            all: Gauges {
                churn: gauges(&table::CHURN_RATIO)?,
                retention: gauges(&table::RETENTION_RATIO)?,
                win_back: gauges(&table::WIN_BACK_RATIO)?,
                conversion: gauges(&table::CONVERSION_RATIO)?,
                stage_duration: gauges(&table::STAGE_DURATION_MEDIAN)?,
                // Counted as they change, and shown with the partitions.
                customers: None,
                clv_to_date: gauges(&table::CLV_TO_DATE)?,
            },
            segments: Gauges {
                churn: gauges(&table::SEGMENT_CHURN_RATIO)?,
                retention: gauges(&table::SEGMENT_RETENTION_RATIO)?,
                win_back: gauges(&table::SEGMENT_WIN_BACK_RATIO)?,
                conversion: gauges(&table::SEGMENT_CONVERSION_RATIO)?,
                stage_duration: gauges(&table::SEGMENT_STAGE_DURATION_MEDIAN)?,
                customers: Some(gauges(&table::SEGMENT_CUSTOMERS)?),
                clv_to_date: gauges(&table::SEGMENT_CLV_TO_DATE)?,
            },
        })
    }

    pub fn set(&self, report: &Report) {
        // A segment that nobody is in any more is no longer reported, and must not stay as it was.
        self.segments.reset();
        for of in &report.lifecycles {
            self.all.set(&[&of.lifecycle], &of.all);
            for segment in &of.segments {
                self.segments.set(&[&of.lifecycle, &segment.segment], &segment.figures);
            }
        }
    }
}

impl Gauges {
    fn reset(&self) {
        let rates = [&self.churn, &self.retention, &self.win_back, &self.conversion, &self.stage_duration];
        rates.into_iter().chain(&self.customers).chain([&self.clv_to_date]).for_each(GaugeVec::reset);
    }

    fn set(&self, labels: &[&str], figures: &Figures) {
        self.churn.with_label_values(labels).set(or_nan(figures.churn_rate));
        self.retention.with_label_values(labels).set(or_nan(figures.retention_rate));
        self.win_back.with_label_values(labels).set(or_nan(figures.win_back_rate));
        for stage in &figures.stages {
            let labels = [labels, &[&stage.stage]].concat();
            self.stage_duration.with_label_values(&labels).set(seconds(stage.median_days));
            self.clv_to_date.with_label_values(&labels).set(stage.clv_to_date);
            if let Some(customers) = &self.customers {
                customers.with_label_values(&labels).set(stage.customers as f64);
            }
        }
        for conversion in &figures.conversions {
            let labels = [labels, &[&conversion.from, &conversion.to]].concat();
            self.conversion.with_label_values(&labels).set(or_nan(conversion.rate));
        }
    }
}
