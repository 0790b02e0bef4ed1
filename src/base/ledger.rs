//! Counters for each of a bounded number of identities, which one lane writes and the control core reads.

use std::array;

use crate::base::Counter;
use crate::base::atomic::{AtomicU64, Ordering, fence};

/// `COLUMNS` counters for each of at most `ROWS` identities, and for all others together.
///
/// A row that is given to another identity meanwhile is not shown (a sequence lock: the writer never waits, a reader looks again whose row it was).
#[derive(Debug)]
pub struct Ledger<const ROWS: usize, const COLUMNS: usize> {
    rows: [Row<COLUMNS>; ROWS],
    others: [Counter; COLUMNS],
    /// How often a row was given to somebody.
    tenancies: Counter,
}

#[derive(Debug)]
struct Row<const COLUMNS: usize> {
    /// The number of its tenancy; 0 while nobody has it.
    tenancy: AtomicU64,
    owner: Counter,
    counts: [Counter; COLUMNS],
}

impl<const ROWS: usize, const COLUMNS: usize> Default for Ledger<ROWS, COLUMNS> {
    fn default() -> Self {
        let counts = || array::from_fn(|_| Counter::default());
        let row = |_| Row { tenancy: AtomicU64::new(0), owner: Counter::default(), counts: counts() };
        Self { rows: array::from_fn(row), others: counts(), tenancies: Counter::default() }
    }
}

impl<const ROWS: usize, const COLUMNS: usize> Ledger<ROWS, COLUMNS> {
    /// Counts one in a column of an identity's. Only the owning lane may call this. Costs a look at every row that is taken.
    pub fn count(&self, owner: u64, column: usize) {
        let counts = match self.rows.iter().find(|row| row.is_of(owner)) {
            Some(row) => &row.counts,
            None => self.take(owner),
        };
        if let Some(counter) = counts.get(column) {
            counter.increment();
        }
    }

    /// A row of its own, or that of the others.
    fn take(&self, owner: u64) -> &[Counter; COLUMNS] {
        let Some(row) = self.rows.iter().find(|row| row.tenancy.load(Ordering::Relaxed) == 0) else {
            return &self.others;
        };
        self.tenancies.increment();
        // What is written below must not be seen by whoever still sees the tenancy of before.
        fence(Ordering::Release);
        row.owner.set(owner);
        row.counts.iter().for_each(|counter| counter.set(0));
        row.tenancy.store(self.tenancies.value(), Ordering::Release);
        &row.counts
    }

    /// Gives up the rows of all whom `keep` does not name. Only the owning lane may call this.
    pub fn retain(&self, keep: impl Fn(u64) -> bool) {
        for row in self.rows.iter().filter(|row| row.tenancy.load(Ordering::Relaxed) != 0) {
            if !keep(row.owner.value()) {
                row.tenancy.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Shows every identity's counts, as any thread sees them, then those of all others under `None`.
    pub fn read(&self, visit: &mut dyn FnMut(Option<u64>, [u64; COLUMNS])) {
        let values = |counts: &[Counter; COLUMNS]| counts.each_ref().map(Counter::value);
        for row in &self.rows {
            let tenancy = row.tenancy.load(Ordering::Acquire);
            let (owner, counts) = (row.owner.value(), values(&row.counts));
            fence(Ordering::Acquire);
            if tenancy != 0 && tenancy == row.tenancy.load(Ordering::Relaxed) {
                visit(Some(owner), counts);
            }
        }
        visit(None, values(&self.others));
    }
}

impl<const COLUMNS: usize> Row<COLUMNS> {
    fn is_of(&self, owner: u64) -> bool {
        self.tenancy.load(Ordering::Relaxed) != 0 && self.owner.value() == owner
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn read(ledger: &Ledger<2, 2>) -> Vec<(Option<u64>, [u64; 2])> {
        let mut all = Vec::new();
        ledger.read(&mut |owner, counts| all.push((owner, counts)));
        all
    }

    #[test]
    fn each_has_a_row_and_who_comes_too_late_is_one_of_the_others() {
        let ledger = Ledger::<2, 2>::default();
        for (owner, column) in [(7, 0), (9, 1), (7, 0), (11, 1), (12, 1), (7, 5)] {
            ledger.count(owner, column);
        }
        assert_eq!(read(&ledger), [(Some(7), [2, 0]), (Some(9), [0, 1]), (None, [0, 2])]);
    }

    #[test]
    fn a_row_that_was_given_up_begins_anew_with_the_next() {
        let ledger = Ledger::<2, 2>::default();
        ledger.count(7, 0);
        ledger.count(9, 0);
        ledger.retain(|owner| owner == 9);
        assert_eq!(read(&ledger), [(Some(9), [1, 0]), (None, [0, 0])]);
        ledger.count(11, 1);
        assert_eq!(read(&ledger), [(Some(11), [0, 1]), (Some(9), [1, 0]), (None, [0, 0])]);
    }

    #[test]
    fn a_reader_never_sees_one_identitys_counts_under_anothers_name() {
        let (ledger, is_over) = (Ledger::<2, 2>::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The odd count in their first column, the even in their second.
                for owner in 1..20_000 {
                    ledger.count(owner, usize::from(owner % 2 == 0));
                    ledger.retain(|kept| kept == owner);
                }
                is_over.store(true, Ordering::Release);
            });
            while !is_over.load(Ordering::Acquire) {
                ledger.read(&mut |owner, counts| {
                    if let Some(owner) = owner {
                        let strange = counts[usize::from(owner % 2 == 1)];
                        assert_eq!(strange, 0, "{owner}: {counts:?}");
                    }
                });
            }
        });
    }
}
