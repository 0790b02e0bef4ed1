//! Two hosts, two paths, their users and the clock: one event after the other, and after each a look at everything that it may have touched.

use std::collections::VecDeque;

use crate::base::{Duration, Instant};
use crate::sim::pair::Tally;
use crate::sim::pair::dice::Dice;
use crate::sim::pair::path::{Carried, Conditions, Path, TOO_LONG};
use crate::sim::pair::plan::{HostPlan, Jolt, Plan, script};
use crate::sim::pair::user::{End, User, stream};
use crate::sim::pair::witness::Witness;
use crate::tcp::testbed::{Listener, Testbed};
use crate::tcp::{Close, ConnectionId, Refused, Settings};
use crate::wire::{Packet, Segment};

/// Events after which a world has not come to rest.
const EVENTS_MAX: usize = 60_000;
/// Packets that a host sends without time passing: more than any window here.
const BURST_MAX: usize = 5_000;
/// Packets that wait for a host that stands still; what comes then is lost.
const WAITING_MAX: usize = 64;
/// How long after the last disturbance everything must be over that is not slow by itself: a timer that has been backed off to its maximum may have just been set,
/// for the handshake, then for the data, then for the FIN, and a handshake may have found the table full.
const CALM_MAX: Duration = Duration::from_secs(600);
/// Losses of segments that are too long that a sender may take for something else: three timeouts, and the half of what was tried first.
const HINTS_MIN: usize = 4;
/// Those that come in one flight are one.
const HINT_INTERVAL: Duration = Duration::from_millis(150);
/// Lines that are kept for whoever asks what happened.
const LINES_MAX: usize = 160;

/// A host and what surrounds it.
#[derive(Debug)]
struct Host {
    bed: Testbed,
    settings: Settings,
    listener: Option<Listener>,
    clock: Instant,
    stepped: Duration,
    jolts: VecDeque<(Duration, Jolt)>,
    /// It stands still until then.
    paused_until: Option<Instant>,
    waiting: VecDeque<Carried>,
    /// Something has happened to it in this step.
    touched: bool,
}

impl Host {
    fn new(plan: &HostPlan) -> Self {
        let mut bed = Testbed::new(plan.settings.clone(), plan.seed);
        bed.jump_to(plan.clock);
        Self {
            bed,
            settings: plan.settings.clone(),
            listener: None,
            clock: plan.clock,
            stepped: Duration::ZERO,
            jolts: plan.jolts.iter().copied().collect(),
            paused_until: None,
            waiting: VecDeque::new(),
            touched: true,
        }
    }

    /// What its clock shows.
    fn local(&self, now: Instant) -> Instant {
        self.clock + now.since(Instant::START) + self.stepped
    }

    /// When it wants to do something, in the world's time.
    fn poll_at(&self) -> Option<Instant> {
        let world = |local: Instant| Instant::START + local.since(self.clock + self.stepped);
        self.paused_until.or_else(|| self.bed.next_timer().map(world))
    }
}

/// One world.
#[derive(Debug)]
pub(super) struct World {
    plan: Plan,
    now: Instant,
    hosts: [Host; 2],
    paths: [Path; 2],
    witness: Witness,
    /// Of each conversation, the client and the server.
    users: Vec<[User; 2]>,
    /// When a link that says nothing took a packet of a conversation's client, or its server, for too long: moments at which the hosts could have noticed.
    hints: Vec<[Vec<Instant>; 2]>,
    /// Connections that a late packet has opened once more.
    ghosts: Vec<ConnectionId>,
    /// The phase that comes next, and when.
    phase: usize,
    phase_at: Option<Instant>,
    /// When the path or a clock was last other than sound.
    disturbed_at: Instant,
    /// Past this everything must be over.
    over_by: Instant,
    log: Option<VecDeque<String>>,
}

type Verdict = Result<(), String>;

impl World {
    pub(super) fn new(plan: &Plan, written: bool) -> Self {
        let mut dice = Dice::new(!plan.seed);
        let users = plan.conversations.iter().enumerate().map(|(number, conversation)| {
            [0, 1].map(|side| {
                let (one, other) = (script(conversation, side), script(conversation, 1 - side));
                User::new(one, stream(number, side, one.total), stream(number, 1 - side, other.total))
            })
        });
        let [client, server] = &plan.hosts;
        Self {
            now: Instant::START,
            hosts: [Host::new(client), Host::new(server)],
            paths: [Path::new(dice.fork()), Path::new(dice.fork())],
            witness: Witness::default(),
            users: users.collect(),
            hints: vec![[Vec::new(), Vec::new()]; plan.conversations.len()],
            ghosts: Vec::new(),
            phase: 0,
            phase_at: Some(Instant::START),
            disturbed_at: Instant::START,
            over_by: Instant::START + plan_lasts(plan) + CALM_MAX,
            log: written.then(VecDeque::new),
            plan: plan.clone(),
        }
    }

    pub(super) fn time(&self) -> Duration {
        self.now.since(Instant::START)
    }

    pub(super) fn into_log(self) -> Vec<String> {
        self.log.unwrap_or_default().into()
    }

    fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.log.is_none() {
            return;
        }
        let line = format!("{:>14.6} {}", self.time().as_secs_f64(), line(self));
        if let Some(log) = &mut self.log {
            log.push_back(line);
            if log.len() > LINES_MAX {
                log.pop_front();
            }
        }
    }

    /// Lives until nothing happens any more.
    pub(super) fn run(&mut self) -> Result<Tally, String> {
        self.start()?;
        let mut parted = false;
        for _ in 0..EVENTS_MAX {
            let next = self.next_event();
            match next {
                Some(next) if parted || next <= self.over_by => {
                    self.now = self.now.max(next);
                    self.step()?;
                }
                Some(_) | None if !parted => {
                    parted = true;
                    self.part_orphans()?;
                }
                Some(_) | None => return self.finish(),
            }
        }
        Err(format!("no rest after {EVENTS_MAX} events"))
    }

    fn start(&mut self) -> Verdict {
        for (number, conversation) in self.plan.conversations.iter().enumerate() {
            self.witness.expect(number, [0, 1].map(|side| script(conversation, side).total));
        }
        let local = self.plan.endpoint(1, usize::MAX);
        let [_, server] = &mut self.hosts;
        server.listener = Some(server.bed.listen(local).map_err(|error| format!("{error:?}"))?);
        Ok(())
    }

    fn next_event(&self) -> Option<Instant> {
        let paths = self.paths.iter().filter_map(Path::poll_at);
        let hosts = self.hosts.iter().filter_map(Host::poll_at);
        let open = self.users.iter().flatten().any(|user| user.end.is_none());
        // A host that stands still has no user that could look, and nothing else befalls it.
        let runs = |side: usize| self.hosts.get(side).is_some_and(|host| host.paused_until.is_none());
        let running = self.hosts.iter().filter(|host| host.paused_until.is_none());
        let jolts = running.filter_map(|host| host.jolts.front()).map(|(at, _)| Instant::START + *at);
        let starts = self.plan.conversations.iter().zip(&self.users).filter(|_| runs(0));
        let starts = starts.filter(|(_, [client, _])| client.connection.is_none() && client.end.is_none());
        let starts = starts.map(|(conversation, _)| Instant::START + conversation.starts);
        let looks = [0, 1].into_iter().filter(|side| runs(*side));
        let looks = looks.flat_map(|side| self.users.iter().filter_map(move |users| users.get(side)?.looks_at));
        let world = self.phase_at.into_iter().chain(jolts).chain(starts).filter(|_| open);
        paths.chain(hosts).chain(looks).chain(world).min()
    }

    fn step(&mut self) -> Verdict {
        self.turn_phases();
        for side in [0, 1] {
            self.turn_clock(side)?;
        }
        self.begin_conversations()?;
        for side in [0, 1] {
            self.deliver(side)?;
        }
        for side in [0, 1] {
            if self.host(side).touched || self.users_look(side) {
                self.act(side)?;
            }
        }
        if self.is_disturbed() {
            self.disturbed_at = self.now;
        }
        Ok(())
    }

    fn host(&mut self, side: usize) -> &mut Host {
        let [client, server] = &mut self.hosts;
        if side == 0 { client } else { server }
    }

    fn users_look(&self, side: usize) -> bool {
        let due = |user: &User| user.looks_at.is_some_and(|at| at <= self.now);
        self.users.iter().filter_map(|users| users.get(side)).any(due)
    }

    fn is_disturbed(&self) -> bool {
        let sound = |is: &Conditions| *is == Conditions { delay: is.delay, ..self.plan.sound() };
        !self.paths.iter().all(|path| sound(&path.conditions))
            || self.hosts.iter().any(|host| host.paused_until.is_some())
    }

    /// The path becomes what the plan says.
    fn turn_phases(&mut self) {
        while let Some(at) = self.phase_at.filter(|at| *at <= self.now) {
            if self.is_disturbed() {
                self.disturbed_at = self.now;
            }
            let phase = self.plan.phases.get(self.phase).copied();
            self.phase += 1;
            self.phase_at = phase.map(|phase| at + phase.lasts);
            let sound = [self.plan.sound(); 2];
            let conditions = phase.map_or(sound, |phase| phase.conditions);
            for (path, conditions) in self.paths.iter_mut().zip(conditions) {
                path.conditions = conditions;
            }
            self.note(|_| format!("the path is {conditions:?}"));
        }
    }

    /// A host's time passes, with whatever befalls its clock.
    fn turn_clock(&mut self, side: usize) -> Verdict {
        let now = self.now;
        let host = self.host(side);
        if let Some(until) = host.paused_until {
            if until > now {
                return Ok(());
            }
            host.paused_until = None;
            host.touched = true;
            let local = host.local(now);
            host.bed.jump_to(local);
            for packet in std::mem::take(&mut host.waiting) {
                self.inject(side, &packet)?;
            }
            self.disturbed_at = now;
            self.note(|_| format!("{} goes on", name(side)));
        }
        let host = self.host(side);
        let local = host.local(now);
        host.touched |= host.bed.next_timer().is_some_and(|at| at <= local);
        host.bed.advance_to(local);
        let due = host.jolts.front().is_some_and(|(at, _)| Instant::START + *at <= now);
        let Some((_, jolt)) = (if due { host.jolts.pop_front() } else { None }) else { return Ok(()) };
        host.touched = true;
        match jolt {
            Jolt::Step(by) => {
                host.stepped += by;
                let local = host.local(now);
                host.bed.jump_to(local);
                self.disturbed_at = now;
            }
            Jolt::Pause(time) => host.paused_until = Some(now + time),
        }
        self.note(|_| format!("{}: {jolt:?}", name(side)));
        Ok(())
    }

    fn begin_conversations(&mut self) -> Verdict {
        for number in 0..self.users.len() {
            let Some(conversation) = self.plan.conversations.get(number).copied() else { continue };
            let due = Instant::START + conversation.starts <= self.now;
            let [client, server] = [0, 1].map(|side| self.plan.endpoint(side, number));
            let sides: &[usize] = if conversation.simultaneous { &[0, 1] } else { &[0] };
            for side in sides.iter().copied() {
                let Some(user) = self.users.get(number).and_then(|users| users.get(side)) else { continue };
                if !due || user.connection.is_some() || user.end.is_some() || self.host(side).paused_until.is_some() {
                    continue;
                }
                let (from, to) = if side == 0 { (client, server) } else { (server, client) };
                let now = self.now;
                let host = self.host(side);
                host.touched = true;
                let opened = host.bed.connect(from, to);
                self.note(|_| format!("{} connects {from} to {to}: {opened:?}", name(side)));
                let Some(user) = self.users.get_mut(number).and_then(|users| users.get_mut(side)) else { continue };
                match opened {
                    Ok(connection) => user.begin(connection, now),
                    Err(crate::tcp::testbed::OpenError::Refused(Refused::TableFull)) => {
                        user.finish(End::NotOpened, now)
                    }
                    Err(error) => return Err(format!("connect: {error:?}")),
                }
            }
        }
        Ok(())
    }

    /// What has arrived at a host.
    fn deliver(&mut self, side: usize) -> Verdict {
        loop {
            let now = self.now;
            let [there, back] = &mut self.paths;
            let Some(packet) = (if side == 1 { there } else { back }).arrive(now) else { return Ok(()) };
            let host = self.host(side);
            if host.paused_until.is_none() {
                self.inject(side, &packet)?;
            } else if host.waiting.len() < WAITING_MAX {
                host.waiting.push_back(packet);
            }
        }
    }

    fn inject(&mut self, side: usize, packet: &Carried) -> Verdict {
        let host = self.host(side);
        host.touched = true;
        let taken = host.bed.inject(&packet.bytes);
        if taken.is_ok() == packet.damaged {
            return Err(format!("{} takes a packet, damaged {}: {taken:?}", name(side), packet.damaged));
        }
        self.note(|_| {
            format!("{} < {}{}", name(side), describe(&packet.bytes), if packet.damaged { " damaged" } else { "" })
        });
        self.accept(side)
    }

    /// Takes connections from the listener, at once, while they know whose they are.
    fn accept(&mut self, side: usize) -> Verdict {
        let now = self.now;
        let host = self.host(side);
        let Some(listener) = host.listener else { return Ok(()) };
        while let Some(connection) = self.host(side).bed.accept(listener) {
            let host = self.host(side);
            let Some(flow) = host.bed.flow(connection) else { return Err("an accepted connection is gone".into()) };
            let by_cookie = host.bed.counters().cookies_accepted.value() > 0;
            let number = Plan::conversation_of(flow.remote().port());
            let Some([_, user]) = self.users.get_mut(number) else { return Err(format!("{flow:?} was accepted")) };
            if user.connection.is_none() {
                user.begin(connection, now);
                self.note(|_| format!("{} accepts {flow:?}", name(side)));
                continue;
            }
            if !by_cookie {
                return Err(format!("{flow:?} was accepted twice"));
            }
            // SYN cookies remember nothing: whoever repeats what opened a connection opens it again.
            self.ghosts.push(connection);
            self.witness.haunt(number);
            self.note(|_| format!("{} accepts {flow:?} once more", name(side)));
        }
        Ok(())
    }

    /// The users of a host do what they can, and what it has to say leaves. Then it is looked at.
    fn act(&mut self, side: usize) -> Verdict {
        if self.host(side).paused_until.is_some() {
            return Ok(());
        }
        self.host(side).touched = false;
        for number in 0..self.users.len() {
            self.act_for(side, number)?;
        }
        for burst in 0.. {
            let Some(packet) = self.host(side).bed.take() else { break };
            if burst > BURST_MAX {
                return Err(format!("{} sends and sends", name(side)));
            }
            self.send(side, packet)?;
        }
        let host = self.host(side);
        while host.bed.event().is_some() {}
        host.bed.audit().map_err(|why| format!("{}: {why}", name(side)))
    }

    fn act_for(&mut self, side: usize, number: usize) -> Verdict {
        let now = self.now;
        let [client, server] = &mut self.hosts;
        let host = if side == 0 { client } else { server };
        let Some(users) = self.users.get_mut(number) else { return Ok(()) };
        let [one, other] = users;
        let (user, peer) = if side == 0 { (one, &*other) } else { (other, &*one) };
        let before = user.end;
        user.act(&mut host.bed, now).map_err(|why| format!("{} of conversation {number}: {why}", name(side)))?;
        if user.heard > peer.said {
            return Err(format!("{} of conversation {number} has heard what was not said", name(side)));
        }
        let (end, heard, said) = (user.end, user.heard, user.said);
        if end != before {
            self.note(|_| format!("{} of {number} ends: {end:?}, has said {said} and heard {heard}", name(side)));
            if end == Some(End::Told(Close::TimedOut)) {
                self.judge_silence(side, number)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, side: usize, packet: Vec<u8>) -> Verdict {
        let Some(number) = conversation_of(&packet, side) else { return Err("it sends to nobody".into()) };
        let [client, server] = &self.hosts;
        let settings = if side == 0 { &client.settings } else { &server.settings };
        let seen = self.witness.on_packet(number, side, &packet, settings);
        let words = self.log.is_some().then(|| describe(&packet));
        if let Err(why) = seen {
            self.note(|_| format!("{} > {}", name(side), words.unwrap_or_default()));
            return Err(format!("{} says what it must not: {why}", name(side)));
        }
        let now = self.now;
        let [there, back] = &mut self.paths;
        let (path, opposite) = if side == 0 { (there, back) } else { (back, there) };
        let (fate, told) = path.send(packet, now);
        let silent = fate == TOO_LONG && told.is_none();
        if let Some(hints) = self.hints.get_mut(number).and_then(|hints| hints.get_mut(side)).filter(|_| silent)
            && hints.last().is_none_or(|last| now.since(*last) >= HINT_INTERVAL)
        {
            hints.push(now);
        }
        // The router is on this side of the narrow link, and nobody complains about a complaint.
        let told = told.map(|message| opposite.send_short(message, now));
        self.note(|_| {
            let told = told.map(|fate| format!(", and the router says so: {fate}")).unwrap_or_default();
            format!("{} > {} {fate}{told}", name(side), words.unwrap_or_default())
        });
        Ok(())
    }

    /// A connection may only time out when something was in the way.
    fn judge_silence(&self, side: usize, number: usize) -> Verdict {
        let quiet = self.now.since(self.disturbed_at);
        let Some(host) = self.hosts.get(side) else { return Ok(()) };
        let Settings { user_timeout, keepalive, keepalive_interval, keepalive_probes, .. } = host.settings;
        let patience = keepalive.map_or(Duration::ZERO, |idle| idle + keepalive_interval * (keepalive_probes + 1));
        // The peer's tables are full, it does not know the connection any more, or it has no memory for what its user does not read.
        let starved = self.hosts.get(1 - side).is_some_and(|peer| peer.bed.counters().memory_dropped.value() > 0);
        // It has had too few chances to find out that its segments are too long, as with timeouts that had been backed off before.
        let hints = self
            .hints
            .get(number)
            .and_then(|hints| hints.get(side))
            .map_or(0, |hints| hints.iter().filter(|at| self.now.since(**at) <= user_timeout).count());
        let unheard =
            self.was_refused() || self.has_left(1 - side, number) || starved || (1..=HINTS_MIN).contains(&hints);
        if unheard || quiet <= user_timeout.max(patience) + Duration::from_secs(1) {
            return Ok(());
        }
        Err(format!("{} of conversation {number} timed out, and nothing was in the way for {quiet:?}", name(side)))
    }

    /// The server has had to turn a handshake away, or forget it.
    fn was_refused(&self) -> bool {
        let [_, server] = &self.hosts;
        let counters = server.bed.counters();
        let full =
            [&counters.table_full, &counters.memory_full, &counters.half_open_full, &counters.half_open_timed_out];
        full.iter().any(|counter| counter.value() > 0)
    }

    /// This user is gone and its peer may not know.
    fn has_left(&self, side: usize, number: usize) -> bool {
        let Some(user) = self.users.get(number).and_then(|users| users.get(side)) else { return false };
        match user.end {
            None => user.connection.is_none() && self.was_refused(),
            Some(End::Told(Close::Finished)) => false,
            Some(End::Told(_) | End::Aborted | End::ClosedUnread | End::NotOpened) => true,
        }
    }

    /// Nothing more will happen, or nothing more may: every connection whose peer is there must have ended. Others are aborted now.
    fn part_orphans(&mut self) -> Verdict {
        let now = self.now;
        for number in 0..self.users.len() {
            for side in [0, 1] {
                let orphan = self.has_left(1 - side, number);
                let [client, server] = &mut self.hosts;
                let host = if side == 0 { client } else { server };
                let Some(user) = self.users.get_mut(number).and_then(|users| users.get_mut(side)) else { continue };
                let (None, Some(connection)) = (user.end, user.connection) else { continue };
                let inside = host.bed.inspect(connection);
                if !orphan {
                    return Err(format!(
                        "{} of conversation {number} has said {} of {} and heard {}, and hangs: {inside:?}",
                        name(side),
                        user.said,
                        user.script.total,
                        user.heard
                    ));
                }
                if inside.is_some_and(|inside| inside.flight > 0) {
                    return Err(format!(
                        "{} of conversation {number} talks to nobody for ever: {inside:?}",
                        name(side)
                    ));
                }
                user.abort(&mut host.bed, connection, now)?;
                host.touched = true;
            }
        }
        for connection in std::mem::take(&mut self.ghosts) {
            let [_, server] = &mut self.hosts;
            server.bed.abort(connection);
            server.touched = true;
        }
        // What is still to come comes, and hosts forget.
        for path in &mut self.paths {
            path.conditions = self.plan.sound();
        }
        self.step()
    }

    /// All is over: the ends must fit together, and nothing may be left.
    fn finish(&mut self) -> Result<Tally, String> {
        for number in 0..self.users.len() {
            self.judge_ends(number)?;
        }
        let mut tally = Tally::default();
        for (side, host) in self.hosts.iter().enumerate() {
            let counters = host.bed.counters();
            let gauges = [
                ("connections", &counters.connections),
                ("half_open", &counters.half_open),
                ("time_wait", &counters.time_wait),
                ("buffered_bytes", &counters.buffered_bytes),
                ("timers", &counters.timers),
            ];
            for (what, gauge) in gauges {
                if gauge.value() != 0 {
                    return Err(format!("{} keeps {} {what}", name(side), gauge.value()));
                }
            }
            let mut read = Vec::new();
            counters.read(&mut |reading| read.push((reading.name, reading.value)));
            tally.add(&Tally(read));
        }
        for path in &self.paths {
            let faults = path.faults;
            tally.add(&Tally(vec![
                ("packets lost", faults.lost),
                ("packets swallowed", faults.swallowed),
                ("packets dropped", faults.dropped),
                ("packets too long", faults.too_long),
                ("routers' messages", faults.told),
                ("packets repeated", faults.repeated),
                ("packets damaged", faults.corrupted),
                ("packets marked", faults.marked),
                ("packets held up", faults.held),
                ("packets overtaken", faults.overtaken),
            ]));
        }
        for user in self.users.iter().flatten() {
            let end = match user.end {
                Some(End::Told(Close::Finished)) => "ends: finished",
                Some(End::Told(Close::Reset)) => "ends: reset",
                Some(End::Told(Close::Refused)) => "ends: refused",
                Some(End::Told(Close::TimedOut)) => "ends: timed out",
                Some(End::Told(Close::Unreachable)) => "ends: unreachable",
                Some(End::Aborted) => "ends: aborted",
                Some(End::ClosedUnread) => "ends: closed with something unread",
                Some(End::NotOpened) => "ends: not opened",
                None => "ends: never accepted",
            };
            tally.add(&Tally(vec![(end, 1), ("bytes heard", user.heard as u64)]));
        }
        let seconds = self.time().as_secs();
        tally.add(&Tally(vec![("worlds", 1), ("seconds", seconds)]));
        Ok(tally)
    }

    /// Both ends are orderly, or somebody has a reason why not.
    fn judge_ends(&self, number: usize) -> Verdict {
        let Some(users) = self.users.get(number) else { return Ok(()) };
        let is_cause = |user: &User| match user.end {
            Some(End::Aborted | End::ClosedUnread | End::NotOpened | End::Told(Close::TimedOut)) => true,
            Some(End::Told(Close::Finished | Close::Reset | Close::Refused | Close::Unreachable)) => false,
            None => self.was_refused(),
        };
        let finished = |user: &User| user.end == Some(End::Told(Close::Finished));
        if users.iter().all(finished) || users.iter().any(is_cause) {
            return Ok(());
        }
        // What a cookie's answer carries must come first: where a segment behind it overtook it, nobody knows the connection (RFC 4987 3.6), and Linux resets it, too.
        if self.hosts.iter().any(|host| host.bed.counters().cookies_refused.value() > 0) {
            return Ok(());
        }
        let [client, server] = users;
        // One of two that were to connect at the same moment stood still, and nobody listened there.
        let missed =
            client.since != server.since && self.plan.conversations.get(number).is_some_and(|it| it.simultaneous);
        if missed && users.iter().all(|user| user.end == Some(End::Told(Close::Refused))) {
            return Ok(());
        }
        for (side, user, peer) in [(0, client, server), (1, server, client)] {
            if finished(peer) && self.time_wait_was_short(1 - side, user, peer) {
                return Ok(());
            }
        }
        Err(format!("conversation {number} ends without a reason: {:?} and {:?}", client.end, server.end))
    }

    /// `peer` has finished, in TIME-WAIT perhaps, and that was over when `user`, which still waited for an acknowledgement of its FIN, was reset.
    fn time_wait_was_short(&self, side: usize, user: &User, peer: &User) -> bool {
        let Some(host) = self.hosts.get(side) else { return false };
        let recycled = host.bed.counters().time_wait_recycled.value() > 0 || host.stepped > Duration::ZERO;
        let waited = user.ended_at.since(peer.ended_at) >= host.settings.time_wait;
        user.end == Some(End::Told(Close::Reset)) && user.fin_said && (recycled || waited)
    }
}

fn name(side: usize) -> &'static str {
    if side == 0 { "client" } else { "server" }
}

/// How long the plan disturbs the world, or its users are slow.
fn plan_lasts(plan: &Plan) -> Duration {
    let phases: Duration = plan.phases.iter().map(|phase| phase.lasts).sum();
    let jolts = plan.hosts.iter().flat_map(|host| &host.jolts).map(|(at, jolt)| match jolt {
        Jolt::Step(_) => *at,
        Jolt::Pause(time) => *at + *time,
    });
    // Pauses may follow one another.
    let jolts: Duration = jolts.sum();
    let slow = plan.conversations.iter().flat_map(|conversation| {
        [0, 1].map(|side| {
            let reader = script(conversation, side).reader;
            let pieces = script(conversation, 1 - side).total / reader.piece.max(1) + 1;
            reader.deaf + reader.rests.saturating_mul(u32::try_from(pieces).unwrap_or(u32::MAX))
        })
    });
    let starts = plan.conversations.iter().map(|conversation| conversation.starts).max().unwrap_or_default();
    phases + jolts + starts + slow.sum::<Duration>()
}

fn conversation_of(packet: &[u8], side: usize) -> Option<usize> {
    let packet = Packet::parse(packet, false).ok()?;
    let (flow, _) = Segment::parse(&packet, false).ok()?;
    // Seen from the receiver.
    let port = if side == 0 { flow.remote().port() } else { flow.local().port() };
    Some(Plan::conversation_of(port))
}

fn describe(packet: &[u8]) -> String {
    let parsed = Packet::parse(packet, false);
    let segment = parsed.as_ref().map(|packet| Segment::parse(packet, false));
    let Ok(Ok((flow, segment))) = segment else { return format!("{} bytes", packet.len()) };
    let flags = segment.flags;
    let letters = [
        (flags.syn, 'S'),
        (flags.fin, 'F'),
        (flags.rst, 'R'),
        (flags.psh, 'P'),
        (flags.ece, 'E'),
        (flags.cwr, 'W'),
        (segment.ack.is_some(), '.'),
    ];
    let letters: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
    let ack = segment.ack.map(|ack| format!(" ack {}", ack.0)).unwrap_or_default();
    let sack: Vec<_> =
        segment.options.sack.iter().flatten().map(|(left, right)| format!("{}-{}", left.0, right.0)).collect();
    let sack = if sack.is_empty() { String::new() } else { format!(" sack {}", sack.join(" ")) };
    let clock = segment.options.timestamp.map(|at| format!(" ts {} {}", at.value, at.echo)).unwrap_or_default();
    let ports = (flow.remote().port(), flow.local().port());
    let (seq, len, window) = (segment.seq.0, segment.payload.len(), segment.window);
    format!("{}>{} {letters} {seq}({len}){ack} win {window}{sack}{clock} {:?}", ports.0, ports.1, segment.ecn)
}
