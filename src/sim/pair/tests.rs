//! That a world is what its seed says, and that it notices what it must.

use super::user::stream;
use super::witness::Witness;
use super::*;
use crate::tcp::Settings;
use crate::tcp::testbed::Testbed;
use crate::wire::{Outgoing, Packet, Segment, Seq};

/// A plan in which nothing is wrong and much is said.
fn plain() -> Plan {
    let mut plan = Plan::of(1);
    let reader = Reader { piece: usize::MAX, rests: Duration::ZERO, deaf: Duration::ZERO };
    let script = Script { total: 50_000, piece: 10_000, after: 0, reader, ending: Ending::Shutdown };
    plan.conversations = vec![Conversation { starts: Duration::ZERO, simultaneous: false, scripts: [script; 2] }];
    plan.phases.clear();
    plan.narrow = None;
    for host in &mut plan.hosts {
        host.jolts.clear();
        host.settings = Settings::default();
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

/// What the witness says when the server, after a handshake, sends this instead of what it should.
fn said(change: impl FnOnce(&mut Outgoing<'_>)) -> Result<(), String> {
    let plan = plain();
    let [client, server] = [0, 1].map(|side| plan.endpoint(side, 0));
    let settings = Settings { timestamps: false, ..Settings::default() };
    let mut beds = [Testbed::new(settings.clone(), 1), Testbed::new(settings.clone(), 2)];
    let mut witness = Witness::default();
    witness.expect(0, [5000; 2]);
    beds[1].listen(server).unwrap();
    beds[0].connect(client, server).unwrap();
    for side in [0, 1, 0] {
        let packet = beds[side].take().unwrap();
        witness.on_packet(0, side, &packet, &settings).unwrap();
        beds[1 - side].inject(&packet).unwrap();
    }
    let accepted = beds[1].event().unwrap().0;
    beds[1].write(accepted, stream(0, 1, 1000)).unwrap();
    let packet = beds[1].take().unwrap();
    let parsed = Packet::parse(&packet, false).unwrap();
    let (flow, segment) = Segment::parse(&parsed, false).unwrap();
    let Segment { seq, ack, flags, window, options, ecn, payload } = segment;
    let flow = flow.reversed();
    let payload: &[&[u8]] = &[payload];
    let mut outgoing = Outgoing { flow: &flow, seq, ack, flags, window, options, ecn, payload };
    change(&mut outgoing);
    let mut room = [0; 3000];
    let len = outgoing.emit(&mut room, false).unwrap();
    witness.on_packet(0, 1, &packet, &settings)?;
    witness.on_packet(0, 1, &room[..len], &settings)
}

#[test]
fn the_witness_hears_what_makes_no_story() {
    type Change = fn(&mut Outgoing<'_>);
    let cases: [(&str, Change); 9] = [
        ("only", |segment| segment.seq = segment.seq + 1001),
        ("before its connection", |segment| segment.seq = segment.seq - 2),
        ("are not what was said", |segment| segment.seq = segment.seq + 1),
        ("only", |segment| segment.ack = segment.ack.map(|ack| ack + 1)),
        ("acknowledges nothing", |segment| segment.ack = None),
        ("takes back its window", |segment| segment.window -= 1000),
        ("a window of", |segment| segment.window = u16::MAX),
        ("FIN after", |segment| segment.flags.fin = true),
        ("has received", |segment| segment.options.sack[0] = Some((Seq(1), Seq(2)))),
    ];
    assert_eq!(said(|_| {}), Ok(()), "the same once more is a story");
    for (number, (words, change)) in cases.into_iter().enumerate() {
        let said = said(change);
        assert!(said.as_ref().is_err_and(|why| why.contains(words)), "change {number}, {words}: {said:?}");
    }
}
