//! Counters that one lane writes and the control core reads.

use crate::base::atomic::{AtomicU64, Ordering};

/// A number with one writer and any number of readers.
///
/// The writer loads and stores without a locked instruction; that is right only because nobody else writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning lane may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Sets the value, for a gauge such as the occupancy of a table.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, as any thread sees it.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a metric's number means to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One number of a [`counters!`](crate::counters) group, as a reader meets it.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Field name, for example `segments_received`.
    pub name: &'static str,
    /// First line of the field's documentation.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Value at the time of reading.
    pub value: u64,
}

/// Declares a struct of [`Counter`]s with a `read` method that lists every one of them, so that a counter which exists is a metric.
///
/// ```
/// sealane::counters! {
///     /// What a lane's link layer counts.
///     pub struct Counters {
///         /// ARP requests sent
///         counter arp_requests,
///         /// Entries in the neighbour table
///         gauge neighbours,
///     }
/// }
/// let counters = Counters::default();
/// counters.arp_requests.increment();
/// let mut sum = 0;
/// counters.read(&mut |reading| sum += reading.value);
/// assert_eq!(sum, 1);
/// ```
#[macro_export]
macro_rules! counters {
    ($(#[doc = $about:literal])+ pub struct $name:ident { $(#[doc = $help:literal] $kind:ident $field:ident),+ $(,)? }) => {
        $(#[doc = $about])+
        #[derive(Debug, Default)]
        pub struct $name { $(#[doc = $help] pub $field: $crate::base::Counter),+ }

        impl $name {
            /// Shows every number to `visit`, in the order of declaration.
            pub fn read(&self, visit: &mut dyn FnMut($crate::base::counter::Reading)) {
                $(visit($crate::base::counter::Reading {
                    name: stringify!($field),
                    help: str::trim_ascii($help),
                    kind: $crate::counters!(@kind $kind),
                    value: self.$field.value(),
                });)+
            }
        }
    };
    (@kind counter) => { $crate::base::counter::Kind::Counter };
    (@kind gauge) => { $crate::base::counter::Kind::Gauge };
}
