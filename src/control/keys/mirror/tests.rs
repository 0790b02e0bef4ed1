//! Mirrors over an etcd that is a few variables.

use super::*;

const START: u64 = 1_700_000_000;
const HOUR: u64 = 3600;
const CLUSTER: [u8; 32] = [7; 32];

/// What etcd holds, and the names of those who look, each of which has one lease.
#[derive(Default)]
struct Store {
    ring: Option<Stored>,
    leader: Option<String>,
    engines: Vec<(String, u64)>,
    revision: i64,
}

impl Store {
    fn look(&self, by: &str) -> Look {
        Look {
            ring: self.ring.clone(),
            leader: match &self.leader {
                None => Leader::Nobody,
                Some(leader) if leader == by => Leader::Own,
                Some(_) => Leader::Other,
            },
            engines: self
                .engines
                .iter()
                .map(|(name, acknowledged)| Peer {
                    name: name.clone(),
                    acknowledged: *acknowledged,
                    is_own: name == by,
                })
                .collect(),
        }
    }

    /// Does what etcd's transactions would. Gives what was done.
    fn apply(&mut self, by: &mut Mirror, action: Action) -> bool {
        let name = by.name.clone();
        match action {
            Action::Campaign if self.leader.is_none() => self.leader = Some(name),
            Action::Resign if self.leader.as_ref() == Some(&name) => self.leader = None,
            Action::Acknowledge(version) => {
                self.engines.retain(|(other, _)| *other != name);
                self.engines.push((name, version));
            }
            Action::Write { ring, over } => {
                let leads = self.leader.as_ref() == Some(&name);
                if !leads || self.ring.as_ref().map_or(0, |stored| stored.revision) != over {
                    return false;
                }
                self.revision += 1;
                self.ring = Some(Stored { bytes: by.seal(&ring), revision: self.revision });
            }
            Action::Campaign | Action::Resign => return false,
        }
        true
    }

    fn put(&mut self, bytes: &[u8]) {
        self.revision += 1;
        self.ring = Some(Stored { bytes: bytes.to_vec(), revision: self.revision });
    }
}

fn mirror(name: &str, seed: u64) -> Mirror {
    let key = KeyEncryptionKey::generate(&mut Random::from_seed(99));
    Mirror::new(name, key, CLUSTER, Schedule::default(), None, Random::from_seed(seed), Instant::START)
}

/// Looks and acts until there is nothing to do; the lanes take what there is. Gives how often the ring was written.
fn settle(mirror: &mut Mirror, store: &mut Store, now: u64) -> usize {
    let mut written = 0;
    for _ in 0..20 {
        let actions = mirror.on_look(&store.look(&mirror.name), Instant::START, UnixTime(now));
        mirror.in_force = version(mirror);
        if actions.is_empty() && mirror.on_look(&store.look(&mirror.name), Instant::START, UnixTime(now)).is_empty() {
            return written;
        }
        for action in actions {
            let writes = matches!(action, Action::Write { .. });
            written += usize::from(store.apply(mirror, action) && writes);
        }
    }
    panic!("{} does not settle", mirror.name);
}

fn version(mirror: &Mirror) -> u64 {
    mirror.newest.as_ref().map_or(0, |ring| ring.version())
}

fn alarms(mirror: &Mirror) -> Alarms {
    mirror.report(Instant::START).alarms()
}

/// Two engines that have settled on one ring; the first leads.
fn pair() -> (Mirror, Mirror, Store) {
    let (mut a, mut b, mut store) = (mirror("a", 1), mirror("b", 2), Store::default());
    assert_eq!(settle(&mut a, &mut store, START), 1);
    assert_eq!(settle(&mut b, &mut store, START), 0);
    assert_eq!((version(&a), version(&b), store.leader.as_deref()), (1, 1, Some("a")));
    (a, b, store)
}

#[test]
fn the_first_engine_makes_a_ring_with_an_active_and_a_pending_key_and_others_take_it() {
    let (a, b, _) = pair();
    let states: Vec<_> = a.newest.as_ref().unwrap().entries().iter().map(|entry| entry.state).collect();
    assert_eq!(states, [State::Active, State::Pending]);
    assert_eq!(a.newest.unwrap().active().unwrap().key.id(), b.newest.unwrap().active().unwrap().key.id());
}

#[test]
fn k2_a_pending_key_is_activated_when_it_is_due_and_every_live_engine_has_it() {
    let (mut a, mut b, mut store) = pair();
    let pending = a.newest.as_ref().unwrap().entries()[1].key.id();
    let due = START + 6 * HOUR;
    assert_eq!(settle(&mut a, &mut store, due - 1), 0);
    store.engines = vec![("a".to_owned(), 1), ("b".to_owned(), 0)];
    assert_eq!(settle(&mut a, &mut store, due + 30), 0);
    assert!(alarms(&a).is_empty());
    assert_eq!(settle(&mut a, &mut store, due + 31), 0);
    assert_eq!(a.report(Instant::START).alarms, [(Alarm::Late, "b".to_owned())]);
    settle(&mut b, &mut store, due + 31);
    assert_eq!(settle(&mut a, &mut store, due + 32), 1);
    assert!(alarms(&a).is_empty());
    assert_eq!(a.newest.as_ref().unwrap().active().unwrap().key.id(), pending);
    assert_eq!(version(&a), 2);
    assert_eq!(version(&b), 1, "b opens what a seals now with the key that it knew as pending");
    assert!(b.newest.as_ref().unwrap().find(pending).is_some());
}

#[test]
fn k2_an_engine_that_does_not_live_keeps_nobody_from_rotating() {
    let (mut a, _, mut store) = pair();
    store.engines.retain(|(name, _)| name != "b");
    assert_eq!(settle(&mut a, &mut store, START + 6 * HOUR), 1);
}

#[test]
fn another_leads_when_the_leader_dies_and_rotates() {
    let (_, mut b, mut store) = pair();
    store.leader = None;
    store.engines.retain(|(name, _)| name != "a");
    assert_eq!(settle(&mut b, &mut store, START + 6 * HOUR), 1);
    assert!(b.report(Instant::START).leads);
}

#[test]
fn a_deposed_leader_writes_nothing() {
    let (mut a, mut b, mut store) = pair();
    let actions = a.on_look(&store.look("a"), Instant::START, UnixTime(START + 6 * HOUR));
    let [action @ Action::Write { .. }] = &actions[..] else { panic!("{actions:?}") };
    store.leader = Some("b".to_owned());
    assert!(!store.apply(&mut a, action.clone()));
    assert_eq!(settle(&mut b, &mut store, START + 6 * HOUR), 1);
    store.leader = Some("a".to_owned());
    assert!(!store.apply(&mut a, action.clone()), "and nothing over what another wrote meanwhile");
}

#[test]
fn k7_garbage_is_refused_once_and_the_leader_writes_its_ring_again() {
    let (mut a, mut b, mut store) = pair();
    for garbage in [&b""[..], b"garbage", &[1; 5000], &[1; sealed::SIZE_MAX + 1]] {
        store.put(garbage);
        settle(&mut b, &mut store, START + 1);
        settle(&mut b, &mut store, START + 2);
        assert_eq!((alarms(&b), version(&b)), (Alarms::from([Alarm::Refused]), 1));
        assert_eq!(settle(&mut a, &mut store, START + 2), 1);
        settle(&mut b, &mut store, START + 2);
        assert!(alarms(&a).is_empty() && alarms(&b).is_empty());
    }
    assert_eq!((a.refusals, b.refusals, version(&b)), (4, 4, 1));
}

#[test]
fn k7_a_ring_that_was_rolled_back_is_refused_and_the_newer_one_written_again() {
    let (mut a, mut b, mut store) = pair();
    let old = store.ring.clone().unwrap().bytes;
    for mirror in [&mut a, &mut b] {
        settle(mirror, &mut store, START + 6 * HOUR);
    }
    assert_eq!(version(&b), 2);
    store.put(&old);
    settle(&mut b, &mut store, START + 7 * HOUR);
    assert_eq!((alarms(&b), version(&b)), (Alarms::from([Alarm::Refused]), 2));
    assert_eq!(settle(&mut a, &mut store, START + 7 * HOUR), 1);
    settle(&mut b, &mut store, START + 7 * HOUR);
    assert_eq!((alarms(&b), version(&a), version(&b)), (Alarms::new(), 2, 2));
}

#[test]
fn k7_a_leader_that_is_behind_steps_back_for_one_that_is_not() {
    let (mut a, mut b, mut store) = pair();
    let old = store.ring.clone().unwrap().bytes;
    settle(&mut a, &mut store, START + 6 * HOUR);
    // etcd goes back to before the rotation, and b, which has not seen it, is elected.
    store.put(&old);
    store.leader = Some("b".to_owned());
    settle(&mut a, &mut store, START + 7 * HOUR);
    assert_eq!(settle(&mut b, &mut store, START + 7 * HOUR), 0, "b sees that a is ahead");
    assert_eq!(store.leader, None);
    assert_eq!(settle(&mut a, &mut store, START + 7 * HOUR), 1);
    settle(&mut b, &mut store, START + 7 * HOUR);
    assert_eq!((version(&a), version(&b)), (2, 2));
}

#[test]
fn k7_two_rings_of_one_version_end_in_one_of_the_next() {
    let (mut a, mut b, mut store) = pair();
    let mut c = mirror("c", 3);
    let mut elsewhere = Store::default();
    settle(&mut c, &mut elsewhere, START);
    store.put(&elsewhere.ring.unwrap().bytes);
    settle(&mut b, &mut store, START + 1);
    assert_eq!(alarms(&b), Alarms::from([Alarm::Refused]));
    for mirror in [&mut a, &mut b, &mut c] {
        settle(mirror, &mut store, START + 1);
    }
    assert_eq!([&a, &b, &c].map(version), [2; 3]);
    assert!([&a, &b, &c].iter().all(|mirror| alarms(mirror).is_empty()));
}

#[test]
fn k7_an_emptied_etcd_is_filled_by_whoever_is_elected() {
    let (mut a, mut b, mut store) = pair();
    settle(&mut a, &mut store, START + 6 * HOUR);
    settle(&mut b, &mut store, START + 6 * HOUR);
    store = Store::default();
    settle(&mut b, &mut store, START + 7 * HOUR);
    settle(&mut a, &mut store, START + 7 * HOUR);
    assert_eq!((store.leader.as_deref(), version(&a), version(&b)), (Some("b"), 2, 2));
    // One that has no ring takes it, and does not make one.
    let mut c = mirror("c", 3);
    settle(&mut c, &mut store, START + 7 * HOUR);
    assert_eq!(version(&c), 2);
}

#[test]
fn k8_a_purge_reaches_everyone_and_no_ring_brings_the_key_back() {
    let (mut a, mut b, mut store) = pair();
    let ring = a.newest.clone().unwrap();
    let id = ring.active().unwrap().key.id();
    let purged = ring.purged_of(id, UnixTime(START + 1), &mut Random::from_seed(5)).unwrap();
    let bytes = a.seal(&purged);
    store.put(&bytes);
    for mirror in [&mut b, &mut a] {
        settle(mirror, &mut store, START + 1);
        assert!(mirror.newest.as_ref().unwrap().find(id).is_none());
    }
    assert_eq!(version(&a), 3, "the leader staged another pending key");
    // Somebody rotates on from before the purge, far ahead.
    let (mut back, mut random) = (Ring::clone(&ring), Random::from_seed(6));
    for _ in 0..7 {
        back = back.rotate(UnixTime(START + 2), &mut random, &Schedule::default());
    }
    let bytes = a.seal(&back);
    store.put(&bytes);
    settle(&mut b, &mut store, START + 2);
    assert_eq!(alarms(&b), Alarms::from([Alarm::Refused]));
    settle(&mut a, &mut store, START + 2);
    settle(&mut b, &mut store, START + 2);
    assert!(version(&b) > back.version() && b.newest.as_ref().unwrap().find(id).is_none());
}

#[test]
fn k5_nobody_leads_by_a_clock_that_says_the_ring_is_not_yet() {
    let (mut a, mut b, mut store) = pair();
    settle(&mut a, &mut store, START - 61);
    assert_eq!(store.leader, None);
    settle(&mut b, &mut store, START - 60);
    assert_eq!(store.leader.as_deref(), Some("b"));
}

#[test]
fn silence_is_told_after_a_while_and_ends_with_the_next_look() {
    let (mut a, _, store) = pair();
    a.on_silence(Instant::START + (SILENCE_MAX - Duration::from_millis(1)));
    assert!(alarms(&a).is_empty() && !a.report(Instant::START).leads);
    a.on_silence(Instant::START + SILENCE_MAX);
    assert_eq!(alarms(&a), Alarms::from([Alarm::Unreachable]));
    a.on_look(&store.look("a"), Instant::START + SILENCE_MAX, UnixTime(START));
    assert!(alarms(&a).is_empty());
}

#[test]
fn a_name_that_another_lives_under_is_told_and_its_acknowledgement_is_not_ours() {
    let (mut a, _, mut store) = pair();
    let mut look = store.look("a");
    look.engines.iter_mut().for_each(|peer| peer.is_own = false);
    assert!(matches!(a.on_look(&look, Instant::START, UnixTime(START))[..], [Action::Acknowledge(1)]));
    assert!(a.report(Instant::START).alarms.is_empty());
    a.on_look(&look, Instant::START + NAME_TAKEN_MAX, UnixTime(START));
    assert_eq!(a.report(Instant::START + NAME_TAKEN_MAX).alarms(), Alarms::from([Alarm::NameTaken]));
    settle(&mut a, &mut store, START);
    assert!(alarms(&a).is_empty());
}
