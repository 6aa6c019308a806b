//! What stands where in an encoded state, by names: the table that travels with the states it describes.
//!
//! A state names its layout by the id of such a table. Whoever meets states of another catalogue, of other
//! lifecycles or other policies maps them by the names in it ([`super::migrate`]). It owns the table and its
//! bytes; it reads no state.

use serde::{Deserialize, Serialize};

use super::layout::{Combine, KeptSlot, Layout, Orders};
use super::plan::Plan;

/// Raised whenever the meaning of a field changes.
const VERSION: u32 = 1;

/// What an encoded state consists of, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    version: u32,
    pub kept: Vec<(String, Kind)>,
    pub panes: Vec<(String, Combine)>,
    /// The lengths of the windows in milliseconds: panes that none of them saw are not in the states.
    pub windows: Vec<i64>,
    /// The statistics of orders, by the name of their days.
    pub orders: Vec<String>,
    pub lifecycles: Vec<DescribedLifecycle>,
    pub policies: Vec<String>,
    /// Whether the states end in the counts of channels.
    #[serde(default)]
    pub channels: bool,
}

/// How a kept value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Count,
    Number,
    Instant,
    Float,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedLifecycle {
    pub name: String,
    /// As people know it.
    pub version: String,
    /// The hash of the whole definition: what decides whether customers must be reconciled.
    pub definition: String,
    pub stages: Vec<String>,
}

impl Description {
    pub fn of(plan: &Plan) -> Description {
        let layout = &plan.layout;
        let lifecycles = plan.lifecycles.iter().map(|(lifecycle, _)| DescribedLifecycle {
            name: lifecycle.name.to_string(),
            version: lifecycle.version.to_string(),
            definition: lifecycle.definition.to_string(),
            stages: lifecycle.stages().iter().map(|stage| stage.name.to_string()).collect(),
        });
        Description {
            version: VERSION,
            kept: layout.kept.iter().map(|kept| (kept.name.clone(), Kind::of(kept.slot))).collect(),
            panes: layout.panes.iter().map(|pane| (pane.name.clone(), pane.combine)).collect(),
            windows: layout.windows.iter().map(|window| window.ms).collect(),
            orders: layout.orders.iter().map(|orders| name_of(layout, orders).to_owned()).collect(),
            lifecycles: lifecycles.collect(),
            policies: plan.settings.policies.iter().map(|policy| policy.name.clone()).collect(),
            channels: plan.keeps_channels,
        }
    }

    /// Identifies the layout: equal ids, equal tables.
    pub fn id(&self) -> u32 {
        xxhash_rust::xxh3::xxh3_64(&self.encode()) as u32
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn decode(bytes: &[u8]) -> Result<Description, String> {
        let description: Description = serde_json::from_slice(bytes)
            .map_err(|e| format!("the layout's description cannot be read: {e}"))?;
        match description.version {
            VERSION => Ok(description),
            other => Err(format!(
                "the layout's description has version {other}; this program reads version {VERSION}"
            )),
        }
    }
}

impl Kind {
    pub fn of(slot: KeptSlot) -> Kind {
        match slot {
            KeptSlot::Count(_) => Kind::Count,
            KeptSlot::Number(_) => Kind::Number,
            KeptSlot::Instant(_) => Kind::Instant,
            KeptSlot::Float(_) => Kind::Float,
        }
    }
}

/// The name under which the distinct days of these orders are kept, which no two share.
pub fn name_of<'a>(layout: &'a Layout, orders: &Orders) -> &'a str {
    let days = |slot: KeptSlot| matches!(slot, KeptSlot::Count(slot) if slot == orders.days);
    layout.kept.iter().find(|kept| days(kept.slot)).map_or("", |kept| &kept.name)
}
