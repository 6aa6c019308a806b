//! Which stages are those of customers, and in which they have lapsed: what churn, retention and win-back are about.
//!
//! | the lifecycle | customers are in | lapsed are |
//! |---|---|---|
//! | says `customer = true` of a stage | those stages | former customers in a stage that one of them leads to |
//! | has a stage with a name of [`LAPSED`] | the stages that such a stage can be entered from | all in such a stage |
//! | has neither, and one can come back to its initial stage | the stages that this can be entered from | former customers in it |
//! | otherwise | none | none |
//!
//! A stage that can be entered from anywhere (no `from`) counts as entered from all but the initial and the lapsed.
//! A former customer is one who has been in a stage of customers: who never was has not lapsed, wherever it stands.

use super::Stage;

/// Stages whose customers have gone, by name.
pub const LAPSED: [&str; 8] =
    ["win-back", "lapsed", "defected", "churned", "lost", "dormant", "inactive", "gone"];

/// Stages as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    customer: u64,
    lapsed: u64,
    /// Whether only former customers count as lapsed there.
    pub by_return: bool,
}

impl Roles {
    pub(super) fn of(stages: &[Stage], initial: usize) -> Roles {
        let mask = |is: &dyn Fn(usize, &Stage) -> bool| {
            let picked = stages.iter().enumerate().filter(|(k, stage)| is(*k, stage));
            picked.fold(0u64, |mask, (k, _)| mask | 1 << k)
        };
        let declared = mask(&|_, stage| stage.customer);
        if declared != 0 {
            let is_declared = |name: &str| stages.iter().any(|stage| stage.customer && *stage.name == *name);
            let leads_to = |stage: &Stage| match &stage.from {
                Some(from) => from.iter().any(|name| is_declared(name)),
                None => true,
            };
            let lapsed = mask(&|_, stage| !stage.customer && stage.enter.is_some() && leads_to(stage));
            return Roles { customer: declared, lapsed, by_return: true };
        }
        let named = mask(&|_, stage| LAPSED.contains(&&*stage.name));
        let by_return = named == 0 && stages.get(initial).is_some_and(|stage| stage.enter.is_some());
        let lapsed = if by_return { 1 << initial } else { named };
        let enters = |gate: &Stage, k: usize| match &gate.from {
            Some(from) => from.contains(&stages[k].name),
            None => k != initial,
        };
        let gates: Vec<&Stage> =
            stages.iter().enumerate().filter(|(k, _)| lapsed >> k & 1 == 1).map(|(_, gate)| gate).collect();
        let customer = mask(&|k, _| lapsed >> k & 1 == 0 && gates.iter().any(|gate| enters(gate, k)));
        Roles { customer, lapsed, by_return }
    }

    pub fn is_customer(&self, stage: usize) -> bool {
        self.customer >> stage & 1 == 1
    }

    pub fn is_lapsed(&self, stage: usize) -> bool {
        self.lapsed >> stage & 1 == 1
    }

    /// Whether one who has been so often in each stage has been a customer.
    pub fn was_customer(&self, visits: impl Fn(usize) -> u16) -> bool {
        let mut left = self.customer;
        while left != 0 {
            if visits(left.trailing_zeros() as usize) > 0 {
                return true;
            }
            left &= left - 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, the stages it can be entered from (none given: any), and whether it is said to be customers'. A stage
    /// without a way in has no `enter`.
    fn stage(name: &str, from: Option<&[&str]>, customer: bool, enter: bool) -> Stage {
        Stage {
            name: name.into(),
            action: None,
            enter: enter.then(|| "true".into()),
            stay: None,
            from: from.map(|from| from.iter().map(|name| Box::from(*name)).collect()),
            min_dwell_ms: 0,
            customer,
        }
    }

    #[track_caller]
    fn check(stages: &[Stage], customers: &[&str], lapsed: &[&str], by_return: bool) {
        let roles = Roles::of(stages, stages.len() - 1);
        let names = |is: &dyn Fn(usize) -> bool| -> Vec<&str> {
            stages.iter().enumerate().filter(|(k, _)| is(*k)).map(|(_, stage)| &*stage.name).collect()
        };
        assert_eq!(names(&|k| roles.is_customer(k)), customers);
        assert_eq!(names(&|k| roles.is_lapsed(k)), lapsed);
        assert_eq!(roles.by_return, by_return);
    }

    #[test]
    fn what_is_said_goes_before_names_and_names_before_the_initial_stage() {
        let buyer = |says| stage("buyer", None, says, true);
        let lost = || stage("lost", Some(&["buyer"]), false, true);
        let prospect = |enter| stage("prospect", None, false, enter);
        check(&[buyer(true), lost(), prospect(true)], &["buyer"], &["lost", "prospect"], true);
        check(&[buyer(true), lost(), prospect(false)], &["buyer"], &["lost"], true);
        check(&[buyer(false), lost(), prospect(true)], &["buyer"], &["lost"], false);
        check(&[buyer(false), prospect(true)], &["buyer"], &["prospect"], true);
        check(&[buyer(false), prospect(false)], &[], &[], false);
        let reached_from_others = stage("idle", Some(&["prospect"]), false, true);
        check(&[buyer(true), reached_from_others, prospect(true)], &["buyer"], &["prospect"], true);
    }

    #[test]
    fn a_former_customer_has_been_in_a_stage_of_customers() {
        let stages = [stage("buyer", None, true, true), stage("prospect", None, false, true)];
        let roles = Roles::of(&stages, 1);
        assert!(roles.was_customer(|stage| [1, 1][stage]));
        assert!(!roles.was_customer(|stage| [0, 9][stage]));
    }
}
