//! The engine as a host: a stack behind a TUN device, in real time, and what runs on it.

use std::sync::Arc;

use nix::sys::prctl;
use sealane::base::{Duration, Instant, Random};
use sealane::tcp::{ConnectionId, Counters, Event, Settings, Stack, Token};
use sealane::wire::{Packet, Segment};

use crate::namespace::{Clock, Tun, wait};

/// Packets that are taken in before any leave, as a breath of a lane does.
const BATCH: usize = 32;
/// How long the engine sleeps at most, so that what its application is told from outside is seen soon.
const WAIT_MAX: Duration = Duration::from_millis(1);
const TIMER_SLACK_NANOS: u64 = 1_000;

/// What uses the connections.
pub(crate) trait Application {
    fn on_event(&mut self, stack: &mut Stack, id: ConnectionId, token: Token, event: Event, now: Instant);
    /// Once a turn of the loop. Gives whether the engine goes on.
    fn on_turn(&mut self, stack: &mut Stack, now: Instant) -> bool;
}

/// Runs an engine until its application is done.
pub(crate) fn run(settings: Settings, seed: u64, tun: &Tun, application: &mut impl Application) -> Arc<Counters> {
    prctl::set_timerslack(TIMER_SLACK_NANOS).expect("a thread may ask for exact timers");
    let counters = Arc::new(Counters::default());
    let mut stack = Stack::new(settings, Random::from_seed(seed), Arc::clone(&counters));
    let clock = Clock::start();
    let mut room = [0; 2048];
    loop {
        let now = clock.now();
        for _ in 0..BATCH {
            let Some(len) = tun.receive(&mut room) else { break };
            // The kernel says other things on a new device, too (router solicitations).
            if let Ok(packet) = Packet::parse(&room[..len], false)
                && let Ok((flow, segment)) = Segment::parse(&packet, false)
            {
                stack.on_segment(&flow, &segment, now);
            }
        }
        if stack.poll_at().is_some_and(|at| at <= now) {
            stack.on_timeout(now);
        }
        while let Some((id, token, event)) = stack.poll_event() {
            application.on_event(&mut stack, id, token, event, now);
        }
        if !application.on_turn(&mut stack, now) {
            return counters;
        }
        while let Some(len) = stack.poll_transmit(&mut room, false, now) {
            tun.send(&room[..len]);
        }
        let limit = stack.poll_at().map_or(WAIT_MAX, |at| at.since(clock.now()).min(WAIT_MAX));
        wait([tun], limit);
    }
}
