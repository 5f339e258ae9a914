//! Counts what passed and what failed, and reads the counts of `cargo test`.

use std::fmt;

/// How many passed and how many failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub n_passed: u64,
    /// Failed.
    pub n_failed: u64,
}

impl Tally {
    /// One thing that passed or failed.
    pub fn one(passed: bool) -> Tally {
        Tally { n_passed: u64::from(passed), n_failed: u64::from(!passed) }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Tally) {
        self.n_passed += other.n_passed;
        self.n_failed += other.n_failed;
    }

    /// From a line of a test binary: `test result: ok. 3 passed; 0 failed; 0 ignored; ..`.
    pub fn of_line(line: &str) -> Option<Tally> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |unit: &str| {
            let part = counts.split(';').find_map(|part| part.trim().strip_suffix(unit))?;
            part.trim().parse().ok()
        };
        Some(Tally { n_passed: count("passed")?, n_failed: count("failed")? })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.n_passed, self.n_failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_test_binary_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.05s";
        assert_eq!(Tally::of_line(line), Some(Tally { n_passed: 12, n_failed: 3 }));
        assert_eq!(Tally::of_line("test result: ok. many passed"), None);
        assert_eq!(Tally::of_line("test a::b ... ok"), None);
    }

    #[test]
    fn the_last_line_is_plain() {
        let mut tally = Tally::one(true);
        tally.add(Tally { n_passed: 2, n_failed: 1 });
        assert_eq!(tally.to_string(), "3 passed, 1 failed");
    }
}
