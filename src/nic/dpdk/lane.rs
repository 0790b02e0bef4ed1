//! A lane as capsule runs it: a future on its core's executor that never waits, only makes room now and then.

use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use capsule::batch::Pipeline;
use capsule_ffi as ffi;

use super::engine::Shared;
use super::queue::{Queue, Seed};
use super::tap;

/// Breaths in one poll, unless it has taken [`SLICE`] before. capsule's executor costs about a microsecond a poll.
const BREATHS_A_POLL: usize = 1024;

/// The clock is read once in so many breaths.
const BREATHS_A_LOOK: usize = 16;

/// How long a poll may keep signals waiting, on the lane that shares the control core's thread.
const SLICE: Duration = Duration::from_millis(2);

/// A lane's life: made on its own thread, one breath after the other, dropped there.
pub(super) struct Lane<M, B> {
    name: String,
    index: usize,
    state: State<M, B>,
    seeds: Vec<Seed>,
    shared: Arc<Shared>,
    /// Whether this thread became an lcore of DPDK here, and must cease to be one.
    registered: bool,
}

enum State<M, B> {
    Waiting(M),
    Breathing(B),
    Gone,
}

impl<M, B> Lane<M, B> {
    pub(super) fn new(index: usize, make: M, seeds: Vec<Seed>, shared: Arc<Shared>) -> Self {
        Self { name: format!("lane {index}"), index, state: State::Waiting(make), seeds, shared, registered: false }
    }
}

impl<M, B> Lane<M, B>
where
    M: FnOnce(Vec<Queue>) -> B,
    B: FnMut(),
{
    fn make(&mut self) {
        // SAFETY: has no preconditions beyond a running EAL.
        let answer = unsafe { ffi::sealane_register_thread() };
        self.registered = answer == 1;
        if answer < 0 {
            tracing::warn!(
                lane = self.index,
                "no DPDK lcore is free for this lane: its packet buffers come without a cache, which is slower"
            );
        }
        if self.index == 0 {
            tap::claim_signals();
            self.seeds.iter().filter(|seed| seed.is_jumbo_tap).for_each(|seed| tap::carry(seed.port, seed.info.mtu));
        }
        if let State::Waiting(make) = std::mem::replace(&mut self.state, State::Gone) {
            let queues = self.seeds.iter().cloned().map(Seed::plant).collect();
            self.state = State::Breathing(make(queues));
        }
    }

    /// Runs breaths until it is time to make room; false when the engine stops.
    fn run(&mut self) -> bool {
        let State::Breathing(breath) = &mut self.state else { return false };
        let began = now();
        for count in 1..=BREATHS_A_POLL {
            if self.shared.is_stopping() {
                return false;
            }
            breath();
            if count % BREATHS_A_LOOK == 0 && now().duration_since(began) >= SLICE {
                break;
            }
        }
        true
    }

    /// Drops the lane with all its frames, then what waits in its receive queues.
    fn end(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Gone);
        if panic::catch_unwind(AssertUnwindSafe(|| drop(state))).is_err() {
            self.shared.lane_panicked(self.index);
        }
        self.seeds.drain(..).for_each(Seed::drain);
        if std::mem::take(&mut self.registered) {
            // SAFETY: this thread registered itself in `make`, and calls DPDK no more.
            unsafe { ffi::rte_thread_unregister() };
        }
        self.shared.lane_ended();
    }
}

#[expect(clippy::disallowed_methods, reason = "bounds how long signals wait; no lane sees this time")]
fn now() -> Instant {
    Instant::now()
}

// Nothing here is pinned: neither closure is a future.
impl<M, B> Unpin for Lane<M, B> {}

impl<M, B> Future for Lane<M, B>
where
    M: FnOnce(Vec<Queue>) -> B,
    B: FnMut(),
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let lane = &mut *self;
        let goes_on = panic::catch_unwind(AssertUnwindSafe(|| {
            if matches!(lane.state, State::Waiting(_)) {
                lane.make();
            }
            lane.run()
        }));
        match goes_on {
            Ok(true) => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Ok(false) => {}
            Err(_) => lane.shared.lane_panicked(lane.index),
        }
        lane.end();
        Poll::Ready(())
    }
}

impl<M, B> Pipeline for Lane<M, B>
where
    M: FnOnce(Vec<Queue>) -> B,
    B: FnMut(),
{
    fn name(&self) -> &str {
        &self.name
    }

    fn run_once(&mut self) {
        if let State::Breathing(breath) = &mut self.state {
            breath();
        }
    }
}
