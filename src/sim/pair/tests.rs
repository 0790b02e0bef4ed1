//! That a world is what its seed says, and that it notices what it must.

use super::*;

/// A plan in which nothing is wrong and much is said.
fn plain() -> Plan {
    let mut plan = Plan::of(1);
    let reader = Reader { piece: usize::MAX, rests: Duration::ZERO, deaf: Duration::ZERO };
    let script = Script { total: 50_000, piece: 10_000, after: 0, reader, ending: Ending::Shutdown };
    plan.conversations = vec![Conversation { starts: Duration::ZERO, simultaneous: false, scripts: [script; 2] }];
    plan.phases.clear();
    for host in &mut plan.hosts {
        host.jolts.clear();
        host.settings = crate::tcp::Settings::default();
    }
    plan
}

fn seconds(seconds: u64, conditions: Conditions) -> Phase {
    Phase { lasts: Duration::from_secs(seconds), conditions: [conditions; 2] }
}

#[test]
fn equal_seeds_give_equal_worlds() {
    for seed in 1..=20 {
        assert_eq!(run(seed).unwrap(), run(seed).unwrap(), "seed {seed}");
    }
    assert_ne!(run(1).unwrap(), run(2).unwrap());
}

#[test]
fn a_sound_path_carries_everything_and_nothing_twice() {
    let tally = run_planned(&plain()).unwrap();
    assert_eq!((tally.of("ends: finished"), tally.of("bytes heard"), tally.of("retransmitted")), (2, 100_000, 0));
}

#[test]
fn a_byte_that_was_altered_is_noticed() {
    let mut plan = plain();
    plan.phases = vec![seconds(1000, Conditions { forge: 100, ..Conditions::sound(Duration::from_millis(1)) })];
    let failure = run_planned(&plan).unwrap_err();
    assert!(failure.what.contains("is not what was said"), "{failure}");
    assert!(failure.log.iter().any(|line| line.ends_with("forged")), "{failure}");
}

#[test]
fn a_conversation_that_does_not_end_is_noticed() {
    let mut plan = plain();
    for script in &mut plan.conversations[0].scripts {
        script.ending = Ending::Answer;
    }
    let failure = run_planned(&plan).unwrap_err();
    assert!(failure.what.contains("and hangs:"), "{failure}");
}

#[test]
fn a_blackhole_ends_what_waits_for_too_long_and_nothing_else() {
    let hole = |secs| {
        let mut plan = plain();
        let hole = Conditions { blackhole: true, ..Conditions::sound(Duration::from_millis(1)) };
        plan.phases = vec![
            Phase { lasts: Duration::from_millis(5), ..seconds(0, Conditions::sound(plan.delay)) },
            seconds(secs, hole),
        ];
        plan.delay = Duration::from_millis(1);
        run_planned(&plan).unwrap()
    };
    assert_eq!(hole(50).of("ends: finished"), 2);
    let long = hole(500);
    assert_eq!((long.of("ends: finished"), long.of("timed_out") > 0), (0, true));
}

#[test]
fn a_host_that_stands_still_finds_everything_as_it_left_it() {
    let mut plan = plain();
    plan.delay = Duration::from_millis(1);
    plan.hosts[1].jolts = vec![(Duration::from_millis(4), Jolt::Pause(Duration::from_secs(30)))];
    let tally = run_planned(&plan).unwrap();
    assert_eq!((tally.of("ends: finished"), tally.of("bytes heard")), (2, 100_000));
    assert!(tally.of("retransmission_timeouts") > 3, "nothing stood still");
    plan.hosts[1].jolts = vec![(Duration::from_millis(4), Jolt::Step(Duration::from_secs(3600)))];
    assert_eq!(run_planned(&plan).unwrap().of("timed_out"), 1, "an hour is longer than a user timeout");
}
