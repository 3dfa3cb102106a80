//! How many cases the model tests try.

#![allow(missing_docs)]

use proptest::prelude::ProptestConfig;

/// So many cases unless `PROPTEST_CASES` asks for more; what failed becomes a test by itself.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() {
            default.cases
        } else {
            cases
        },
        failure_persistence: None,
        max_shrink_iters: 5_000,
        ..default
    }
}
