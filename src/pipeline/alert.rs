//! When an alert policy fires, and for which half of an experiment.

use super::facts::Traits;
use super::plan::{Plan, Policy, PolicyOn, PolicySlots};
use crate::time::Ts;

/// A stage entered in this evaluation: lifecycle and stage, by index.
pub type Entered = (u8, u8);

/// Decides whether a policy fires at `now`, and remembers it.
///
/// A score policy is armed until it fires and again once the score falls below `clear`; while armed it fires
/// at the first scoring above `raise` outside the cooldown.
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
        PolicyOn::Score { raise, clear } => {
            if p < *clear {
                slots.disarmed.set(row, 0);
            }
            p > *raise && slots.disarmed.get(row) == 0
        }
        PolicyOn::Stage { lifecycle, stage } => entered.iter().any(|(l, s)| {
            let (entered_lifecycle, _) = &plan.lifecycles[usize::from(*l)];
            lifecycle.as_deref().is_none_or(|name| *entered_lifecycle.name == *name)
                && entered_lifecycle.stages().get(usize::from(*s)).is_some_and(|entered| *entered.name == **stage)
        }),
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

/// Whether the policy looks at a customer with these traits.
pub fn concerns(policy: &Policy, traits: &Traits) -> bool {
    policy.segment.iter().all(|(name, value)| traits.get(name.as_str()) == Some(value))
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
