//! When an alert policy fires, and for which half of an experiment.

use super::facts::Traits;
use super::plan::{Plan, Policy, PolicyOn, PolicySlots};
use crate::time::Ts;

/// A stage entered in this evaluation: lifecycle and stage, by index.
pub type Entered = (u8, u8);

/// A score policy is armed until it fires, and again once the score falls below `clear`, also of a customer whom it does
/// not concern just then.
pub fn arm(policy: &Policy, slots: &PolicySlots, row: &mut [u32], p: f64) {
    if let PolicyOn::Score { clear, .. } = policy.on
        && p < clear
    {
        slots.disarmed.set(row, 0);
    }
}

/// Decides whether a policy fires at `now`, and remembers it.
///
/// While a score policy is [armed](arm) it fires at the first scoring above `raise` outside the cooldown.
pub fn fires(
    plan: &Plan,
    policy: &Policy,
    slots: &PolicySlots,
    row: &mut [u32],
    now: Ts,
    p: f64,
    entered: &[Entered],
) -> bool {
    let wanted = match &policy.on {
        PolicyOn::Score { raise, .. } => p > *raise && slots.disarmed.get(row) == 0,
        PolicyOn::Stage { lifecycle, stage } => awaited(plan, lifecycle.as_deref(), stage, entered).is_some(),
    };
    if !wanted || now < slots.fired_at.get(row).saturating_add(policy.cooldown_ms) {
        return false;
    }
    slots.fired_at.set(row, now);
    if let PolicyOn::Score { .. } = policy.on {
        slots.disarmed.set(row, 1);
    }
    true
}

/// The first of the stages entered that has this name, in this lifecycle or any.
fn awaited(plan: &Plan, lifecycle: Option<&str>, stage: &str, entered: &[Entered]) -> Option<Entered> {
    let mut entered = entered.iter().copied();
    entered.find(|(l, s)| {
        let (of, _) = &plan.lifecycles[usize::from(*l)];
        let stage_entered = of.stages().get(usize::from(*s));
        lifecycle.is_none_or(|name| *of.name == *name) && stage_entered.is_some_and(|s| *s.name == *stage)
    })
}

/// What an alert asks people to do: what the policy says; else what the stage says that it waited for; else,
/// of a score, what the first lifecycle says whose current stage says something.
pub fn action<'a>(
    plan: &'a Plan,
    policy: &'a Policy,
    row: &[u32],
    traits: &Traits,
    entered: &[Entered],
) -> Option<&'a str> {
    let of_stage = |k: usize, stage: u8| {
        let (lifecycle, _) = &plan.lifecycles[k];
        lifecycle.action(lifecycle.variant(traits), stage)
    };
    let current = || {
        let stages = plan.lifecycles.iter().map(|(_, slots)| slots.stage.get(row) as u8);
        stages.enumerate().find_map(|(k, stage)| of_stage(k, stage))
    };
    let waited_for = || match &policy.on {
        PolicyOn::Score { .. } => current(),
        PolicyOn::Stage { lifecycle, stage } => {
            awaited(plan, lifecycle.as_deref(), stage, entered).and_then(|(l, s)| of_stage(usize::from(l), s))
        }
    };
    policy.action.as_deref().or_else(waited_for)
}

/// Whether the policy looks at a customer with these traits, who has been worth so much so far.
pub fn concerns(policy: &Policy, traits: &Traits, clv_to_date: f64) -> bool {
    policy.min_clv.is_none_or(|least| clv_to_date >= least)
        && policy.segment.iter().all(|(name, value)| traits.get(name.as_str()) == Some(value))
}

/// Whether a customer is in the control group of a policy: the hash of both, as a fraction, below its share.
pub fn is_control(policy: &Policy, customer_id: &str) -> bool {
    let seed = xxhash_rust::xxh3::xxh3_64(policy.name.as_bytes());
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(customer_id.as_bytes(), seed);
    // 53 bits make a fraction without rounding.
    ((hash >> 11) as f64) / ((1u64 << 53) as f64) < policy.control
}

/// The same whenever the same alert is computed again.
pub fn alert_id(policy: &Policy, customer_id: &str, ts: Ts) -> u128 {
    let seed = xxhash_rust::xxh3::xxh3_64(policy.name.as_bytes()) ^ ts as u64;
    xxhash_rust::xxh3::xxh3_128_with_seed(customer_id.as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_group_has_its_share_and_differs_between_policies() {
        let policy = |name: &str| Policy { name: name.into(), control: 0.1, ..Policy::default() };
        let (a, b) = (policy("a"), policy("b"));
        let ids: Vec<String> = (0..20_000).map(|i| format!("c{i}")).collect();
        let in_a = ids.iter().filter(|id| is_control(&a, id)).count();
        let in_both = ids.iter().filter(|id| is_control(&a, id) && is_control(&b, id)).count();
        assert!((1_800..2_200).contains(&in_a), "{in_a}");
        assert!((100..320).contains(&in_both), "{in_both}");
    }
}
