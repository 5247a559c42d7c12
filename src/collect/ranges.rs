//! Sets of sequence numbers, kept as ranges.
//!
//! Invariant: the ranges of a [`SeqRanges`] are disjoint and do not touch, so a source that arrived without a gap
//! costs one range however many events it has, and batches may come in any order, cut and overlapping in any way.

use std::collections::BTreeMap;

/// The largest sequence number that is accepted: one less than 2^64 - 1, so that "the next one" always exists.
pub const SEQ_MAX: u64 = u64::MAX - 1;

/// A run of sequence numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first number.
    pub first: u64,
    /// The last number, not below `first` and at most [`SEQ_MAX`].
    pub last: u64,
}

impl Run {
    /// How many numbers there are.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// The sequence numbers of one source that are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqRanges {
    /// First number of a range to its last.
    ranges: BTreeMap<u64, u64>,
}

impl SeqRanges {
    /// Adds `run` and returns those parts of it that were not there before, ascending.
    pub fn insert(&mut self, run: Run) -> Vec<Run> {
        // Every range that overlaps the run or touches it; the ranges are disjoint, so their ends ascend too.
        let mut touching: Vec<(u64, u64)> = self
            .ranges
            .range(..=run.last.saturating_add(1))
            .rev()
            .map(|(first, last)| (*first, *last))
            .take_while(|(_, last)| last.saturating_add(1) >= run.first)
            .collect();
        touching.reverse();

        let mut fresh = Vec::new();
        let mut merged = run;
        let mut next = run.first;
        for (first, last) in touching {
            if first > next {
                fresh.push(Run { first: next, last: first.saturating_sub(1) });
            }
            next = next.max(last.saturating_add(1));
            merged = Run { first: merged.first.min(first), last: merged.last.max(last) };
            self.ranges.remove(&first);
        }
        if next <= run.last {
            fresh.push(Run { first: next, last: run.last });
        }
        self.ranges.insert(merged.first, merged.last);
        fresh
    }

    /// Takes out every number of `run`; numbers that are not there do not matter.
    pub fn remove(&mut self, run: Run) {
        let overlapping: Vec<(u64, u64)> = self
            .ranges
            .range(..=run.last)
            .rev()
            .map(|(first, last)| (*first, *last))
            .take_while(|(_, last)| *last >= run.first)
            .collect();
        for (first, last) in overlapping {
            self.ranges.remove(&first);
            if first < run.first {
                self.ranges.insert(first, run.first.saturating_sub(1));
            }
            if last > run.last {
                self.ranges.insert(run.last.saturating_add(1), last);
            }
        }
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Run> {
        self.ranges.iter().map(|(first, last)| Run { first: *first, last: *last })
    }

    /// How many ranges there are; what the set costs in memory.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn run(first: u64, last: u64) -> Run {
        Run { first, last }
    }

    #[test]
    fn numbers_that_follow_each_other_become_one_range() {
        let mut ranges = SeqRanges::default();
        assert_eq!(ranges.insert(run(6, 10)), [run(6, 10)]);
        assert_eq!(ranges.insert(run(1, 5)), [run(1, 5)]);
        assert_eq!(ranges.insert(run(11, 11)), [run(11, 11)]);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [run(1, 11)]);
    }

    #[test]
    fn only_the_holes_of_an_overlap_are_fresh() {
        let mut ranges = SeqRanges::default();
        ranges.insert(run(3, 4));
        ranges.insert(run(8, 9));
        assert_eq!(ranges.insert(run(1, 12)), [run(1, 2), run(5, 7), run(10, 12)]);
        assert_eq!(ranges.insert(run(1, 12)), []);
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let mut ranges = SeqRanges::default();
        assert_eq!(ranges.insert(run(SEQ_MAX, SEQ_MAX)), [run(SEQ_MAX, SEQ_MAX)]);
        assert_eq!(ranges.insert(run(SEQ_MAX - 1, SEQ_MAX)), [run(SEQ_MAX - 1, SEQ_MAX - 1)]);
    }

    proptest! {
        #[test]
        fn ranges_equal_a_set_of_numbers(
            steps in proptest::collection::vec((any::<bool>(), 1_u64..60, 0_u64..12), 1..60),
        ) {
            let mut ranges = SeqRanges::default();
            let mut model = BTreeSet::new();
            for (insert, first, more) in steps {
                let run = Run { first, last: first + more };
                if insert {
                    let fresh: Vec<u64> =
                        ranges.insert(run).iter().flat_map(|run| run.first..=run.last).collect();
                    let expected: Vec<u64> =
                        (run.first..=run.last).filter(|seq| model.insert(*seq)).collect();
                    prop_assert_eq!(fresh, expected);
                } else {
                    ranges.remove(run);
                    (run.first..=run.last).for_each(|seq| {
                        model.remove(&seq);
                    });
                }
                let all: Vec<u64> = ranges.iter().flat_map(|run| run.first..=run.last).collect();
                prop_assert_eq!(all, model.iter().copied().collect::<Vec<_>>());
                let gaps = ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.last + 1 < b.first);
                prop_assert!(gaps, "ranges touch or overlap");
            }
        }
    }
}
