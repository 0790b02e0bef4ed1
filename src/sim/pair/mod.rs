//! Two hosts with nothing but TCP and a bad path between them: everything that happens follows from a seed, and everything is looked at after every step.
//!
//! [`run`] is the way in. [`Plan`] is what a seed decides: both hosts' settings and clocks, what the path does and when, and who says what to whom.
//!
//! - `plan`: what a seed decides; `dice` how.
//! - `path`: one direction of the way between the hosts, with its faults.
//! - `witness`: looks at what passes, and knows what a host may never say.
//! - `user`: the users of connections: they talk, listen, and know how a connection may end.
//! - `world`: hosts, paths, users and the clock, and what must be true after every step.

mod dice;
mod path;
mod plan;
mod user;
mod witness;
mod world;

use std::fmt::{Display, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::Duration;

pub use path::{Conditions, Faults};
pub use plan::{Conversation, Ending, HostPlan, Jolt, Phase, Plan, Reader, Script};

use world::World;

/// What a world that held has seen, each thing counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub Vec<(&'static str, u64)>);

impl Tally {
    /// Adds what another world has seen.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            match self.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += count,
                None => self.0.push((name, *count)),
            }
        }
    }

    /// How often this has been seen.
    pub fn of(&self, name: &str) -> u64 {
        self.0.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }
}

/// What must not be has happened.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The world's time, from its beginning.
    pub at: Duration,
    /// What is wrong, in words.
    pub what: String,
    /// What the seed had decided.
    pub plan: Plan,
    /// What happened before, the last things only.
    pub log: Vec<String>,
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}, after {:?}: {}", self.plan.seed, self.at, self.what)?;
        writeln!(f, "{}", self.plan)?;
        for line in &self.log {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// Lets the world of this seed live.
///
/// # Errors
/// What must not be has happened: a bug of the engine (or of the simulation). A panic of the engine is one, too.
pub fn run(seed: u64) -> Result<Tally, Box<Failure>> {
    run_planned(&Plan::of(seed))
}

/// Lets a world live that has been planned otherwise.
///
/// # Errors
/// As [`run`].
pub fn run_planned(plan: &Plan) -> Result<Tally, Box<Failure>> {
    // Writing everything down costs more than the world itself, so that is for worlds which are known to fail.
    live(plan, false).or_else(|first| {
        live(plan, true)?;
        let what = format!("only once, so something is not decided by the seed: {}", first.what);
        Err(Box::new(Failure { what, ..*first }))
    })
}

fn live(plan: &Plan, written: bool) -> Result<Tally, Box<Failure>> {
    let mut world = World::new(plan, written);
    let verdict = catch_unwind(AssertUnwindSafe(|| world.run()));
    let what = match verdict {
        Ok(Ok(tally)) => return Ok(tally),
        Ok(Err(what)) => what,
        Err(panic) => {
            let words = panic.downcast_ref::<&str>().map(ToString::to_string);
            format!("panic: {}", words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
        }
    };
    Err(Box::new(Failure { at: world.time(), what, plan: plan.clone(), log: world.into_log() }))
}

#[cfg(test)]
mod tests;
