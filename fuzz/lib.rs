//! The targets of the hostile-input tests, as a fuzzer wants them: one binary each, the same functions.

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/hostile/targets.rs"]
#[allow(dead_code)] // the tests use the rest
pub mod targets;

pub use libfuzzer_sys;

/// The target of this name as a fuzzer's entry.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        use std::sync::LazyLock;
        use $crate::targets::{Target, target};

        static TARGET: LazyLock<Target> = LazyLock::new(|| target($name));

        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            TARGET(bytes);
        });
    };
}
