//! The loop: brings clients in, gives each its turn, answers them, and ends when the time is over.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use crate::base::{Duration, Instant, TimerId, Wheel};
use crate::lane::{Clock, NoConnection};
use crate::load::clients::{Client, Clients};
use crate::load::report::Run;
use crate::load::schedule::Schedule;
use crate::load::server::{LISTENER, Owner, Server};
use crate::load::tally::Tally;
use crate::load::visit::{Errand, Next, Visit};
use crate::load::watch::Watch;
use crate::load::windows::Grid;
use crate::load::{Failure, Mode, Plan, Report, Transport};
use crate::tcp::Event;

/// Most clients that a breath brings in.
const STARTS_MAX: usize = 16;

/// Most steps of handshakes a breath: each may cost some 100 µs, and whatever comes waits for it.
const HANDSHAKE_STEPS_MAX: usize = 4;

/// Most other turns a breath.
const TURNS_MAX: usize = 64;

/// Idle connections that are being opened at once: as many as a listener's backlog holds and a proxy's handshakes do in its timeout.
const OPENING_MAX: usize = 256;

/// A service that opens fewer idle connections a second than this is not waited for.
const OPENED_PER_SECOND: u64 = 200;

/// How long a client rests after a failure, so that a service that refuses everything is not asked a million times a second.
const REST: Duration = Duration::from_millis(10);

/// How long connections may take to end when the time is over. What then goes on is cut, and is no failure.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// The longest rest between two looks at the clock.
const REST_MAX: Duration = Duration::from_millis(10);

/// A client and where it stands.
struct Seat<I> {
    client: Client,
    source: Option<IpAddr>,
    visit: Option<Box<Visit<I>>>,
    /// Waits for its turn.
    queued: bool,
    /// Has not come to hold its connection yet.
    opening: bool,
    timer: Option<TimerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// One client asks again and again until it is answered.
    Reaching {
        until: Instant,
    },
    /// Load is made and not timed.
    WarmingUp {
        until: Instant,
    },
    /// Load is made and timed.
    Measuring {
        since: Instant,
        until: Instant,
    },
    /// What is open ends.
    Draining {
        until: Instant,
    },
    Over,
}

/// Makes load: over a transport, by a clock.
pub struct Generator<T: Transport, C> {
    transport: T,
    clock: Watch<C>,
    plan: Plan,
    errand: Errand,
    server: Server<T::Connection>,
    seats: Vec<Seat<T::Connection>>,
    /// Clients who are not there, who has been away longest first.
    free: VecDeque<usize>,
    resting: VecDeque<(Instant, usize)>,
    shaking: VecDeque<usize>,
    ready: VecDeque<usize>,
    deadlines: Wheel<usize>,
    schedule: Option<Schedule>,
    phase: Phase,
    tally: Tally,
    run: Run,
    opening: usize,
    breath_began: Instant,
    was_busy: bool,
    progress_at: Instant,
    progress: Progress,
}

/// What the last line of progress said.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    at: Instant,
    answers: u64,
    bytes: u64,
}

impl<T: Transport, C: Clock> Generator<T, C> {
    /// A generator that begins with its first breath.
    ///
    /// # Errors
    /// When an address to answer on is not ours or not free.
    pub fn new(plan: Plan, clients: Clients, mut transport: T, clock: C) -> io::Result<Self> {
        for address in &plan.serve {
            transport.listen(*address, LISTENER)?;
        }
        let errand = Errand::new(&plan, clients);
        let source = |number: usize| plan.sources.get(number.checked_rem(plan.sources.len())?).copied();
        let seats = (0..plan.connections).map(|number| Seat {
            client: errand.client(number),
            source: source(number),
            visit: None,
            queued: false,
            opening: false,
            timer: None,
        });
        let mut clock = Watch::new(clock);
        let now = clock.look();
        Ok(Self {
            transport,
            clock,
            server: Server::new(),
            seats: seats.collect(),
            free: (0..plan.connections).collect(),
            resting: VecDeque::new(),
            shaking: VecDeque::new(),
            ready: VecDeque::new(),
            deadlines: Wheel::new(),
            schedule: None,
            phase: Phase::Reaching { until: now + plan.patience },
            tally: Tally::new(),
            run: Run::default(),
            opening: 0,
            breath_began: now,
            was_busy: false,
            progress_at: now + PROGRESS,
            progress: Progress { at: now, ..Progress::default() },
            errand,
            plan,
        })
    }

    /// Whether there is nothing left to do.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Ends the load early, as its time does.
    pub fn stop(&mut self) {
        match self.phase {
            Phase::Reaching { .. } => self.phase = Phase::Over,
            Phase::WarmingUp { .. } | Phase::Measuring { .. } => self.drain(self.breath_began),
            Phase::Draining { .. } | Phase::Over => {}
        }
    }

    /// What it came to.
    pub fn report(&self) -> Report {
        Report::new(&self.plan, &self.tally, &self.run)
    }

    /// Connections that the servers have open.
    pub fn served(&self) -> usize {
        self.server.open()
    }

    /// One turn of the loop, in bounded time.
    pub fn breath(&mut self) {
        let now = self.clock.look();
        self.account(now);
        let mut any = self.transport.receive(now);
        any |= self.take_events(now);
        any |= self.server.work(&mut self.transport, now);
        any |= self.work();
        any |= self.start(now);
        self.fire_deadlines(now);
        self.go_on(now);
        let now = self.clock.look();
        any |= self.transport.transmit(now);
        if self.plan.progress && now >= self.progress_at {
            self.say_progress(now);
        }
        self.was_busy = any;
        if !any && !self.is_over() {
            let due = self.poll_at(now).map_or(REST_MAX, |at| at - now);
            self.transport.rest(due.min(REST_MAX));
            self.clock.wake();
        }
    }

    /// Busy time is counted as a lane counts its own.
    fn account(&mut self, now: Instant) {
        let time = now - self.breath_began;
        if let Phase::Measuring { .. } = self.phase {
            self.run.elapsed += time;
            if self.was_busy {
                self.run.busy += time;
            }
        }
        self.breath_began = now;
    }

    /// When there is something to do if nothing comes before.
    fn poll_at(&self, now: Instant) -> Option<Instant> {
        if !self.shaking.is_empty() || !self.ready.is_empty() {
            return Some(now);
        }
        let schedule = self.schedule.as_ref().filter(|_| !self.free.is_empty()).map(Schedule::poll_at);
        let resting = self.resting.front().map(|(at, _)| *at);
        [schedule, resting, self.deadlines.poll_at()].into_iter().flatten().min()
    }

    fn take_events(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((connection, token, event)) = self.transport.poll_event() {
            any = true;
            if token == LISTENER {
                let number = self.server.on_accepted(connection);
                self.transport.set_token(connection, Owner::Server(number).token());
                continue;
            }
            match Owner::of(token) {
                Owner::Server(number) => self.server.on_event(number, event),
                Owner::Client(number) => self.on_client_event(number, event, now),
            }
        }
        any
    }

    fn on_client_event(&mut self, number: usize, event: Event, now: Instant) {
        if let Some(visit) = self.seats.get_mut(number).and_then(|seat| seat.visit.as_mut()) {
            visit.on_event(event, &mut self.tally, now);
            self.wake(number);
        }
    }

    /// Puts a visit into its queue, once.
    fn wake(&mut self, number: usize) {
        let Some(seat) = self.seats.get_mut(number) else { return };
        let Some(visit) = &seat.visit else { return };
        if !std::mem::replace(&mut seat.queued, true) {
            let queue = if visit.is_shaking() { &mut self.shaking } else { &mut self.ready };
            queue.push_back(number);
        }
    }

    fn work(&mut self) -> bool {
        let steps = self.shaking.len().min(HANDSHAKE_STEPS_MAX);
        let turns = self.ready.len().min(TURNS_MAX);
        for _ in 0..turns {
            if let Some(number) = self.ready.pop_front() {
                self.turn(number);
            }
        }
        for _ in 0..steps {
            if let Some(number) = self.shaking.pop_front() {
                // What has been made does not wait for a step that may be long: the service would look slow.
                let now = self.clock.look();
                self.transport.transmit(now);
                self.turn(number);
            }
        }
        steps + turns > 0
    }

    /// Gives a visit its turn. Time is read anew: the turns before have taken some.
    fn turn(&mut self, number: usize) {
        let now = self.clock.look();
        let Some(seat) = self.seats.get_mut(number) else { return };
        seat.queued = false;
        let Some(visit) = &mut seat.visit else { return };
        let next = visit.work(&self.errand, &seat.client, &mut self.transport, &mut self.tally, now);
        let (answered, holding) = (visit.answers() > 0, visit.is_holding());
        if holding && std::mem::take(&mut seat.opening) {
            self.opening -= 1;
            self.run.held += 1;
        }
        match next {
            Next::Wait => {}
            Next::Again => self.wake(number),
            Next::Over(end) => self.finish(number, end, now),
        }
        if answered && matches!(self.phase, Phase::Reaching { .. }) {
            self.begin(now);
        }
    }

    fn finish(&mut self, number: usize, end: Result<(), Failure>, now: Instant) {
        let Some(seat) = self.seats.get_mut(number) else { return };
        let held = seat.visit.take().is_some() && !seat.opening;
        if !held {
            self.opening -= 1;
        } else if self.plan.mode == Mode::Idle && end.is_err() {
            self.run.held -= 1;
        }
        seat.opening = false;
        if let Some(timer) = seat.timer.take() {
            self.deadlines.cancel(timer);
        }
        match end {
            Ok(()) => {
                self.tally.served += 1;
                self.free.push_back(number);
            }
            Err(failure) => {
                self.tally.failed(failure);
                self.resting.push_back((now + REST, number));
            }
        }
    }

    fn start(&mut self, now: Instant) -> bool {
        while self.resting.front().is_some_and(|(at, _)| *at <= now) {
            self.free.extend(self.resting.pop_front().map(|(_, number)| number));
        }
        let mut started = 0;
        while started < STARTS_MAX && !self.free.is_empty() {
            let began = match (self.phase, &mut self.schedule) {
                (Phase::Draining { .. } | Phase::Over, _) => None,
                (Phase::Reaching { .. }, _) => (self.free.len() == self.seats.len()).then_some(now),
                (Phase::WarmingUp { .. } | Phase::Measuring { .. }, Some(schedule)) => schedule.take(now),
                (Phase::WarmingUp { .. } | Phase::Measuring { .. }, None) => {
                    (self.plan.mode != Mode::Idle || self.opening < OPENING_MAX).then_some(now)
                }
            };
            let Some((began, number)) = began.and_then(|began| Some((began, self.free.pop_front()?))) else { break };
            self.open(number, began, now);
            started += 1;
        }
        started > 0
    }

    fn open(&mut self, number: usize, began: Instant, now: Instant) {
        let Some(seat) = self.seats.get_mut(number) else { return };
        self.tally.attempts += 1;
        let token = Owner::Client(number).token();
        match self.transport.connect(seat.source, self.plan.service, token, now) {
            Ok(connection) => {
                seat.visit = Some(Box::new(Visit::new(connection, began, now)));
                seat.opening = true;
                seat.timer = Some(self.deadlines.arm(now + self.plan.timeout, number));
                self.opening += 1;
            }
            Err(none) => {
                let failure = match none {
                    NoConnection::NoRoute => Failure::Unreachable,
                    NoConnection::NoResources => Failure::NoResources,
                };
                self.tally.failed(failure);
                self.resting.push_back((now + REST, number));
            }
        }
    }

    /// Deadlines move with what comes and goes, timers do not: see [`lane`](crate::lane).
    fn fire_deadlines(&mut self, now: Instant) {
        while let Some(number) = self.deadlines.expire(now) {
            let Some(seat) = self.seats.get_mut(number) else { continue };
            seat.timer = None;
            let Some(visit) = &seat.visit else { continue };
            let (deadline, connection) = (visit.moved() + self.plan.timeout, visit.connection());
            if visit.is_holding() {
                seat.timer = Some(self.deadlines.arm(now + self.plan.timeout, number));
            } else if deadline > now {
                seat.timer = Some(self.deadlines.arm(deadline, number));
            } else {
                self.transport.abort(connection, now);
                self.finish(number, Err(Failure::TimedOut), now);
            }
        }
    }

    /// The service has answered: begins. What came before was not load.
    fn begin(&mut self, now: Instant) {
        let lasts = match self.plan.mode {
            Mode::Idle => self.plan.patience + Duration::from_secs(self.seats.len() as u64 / OPENED_PER_SECOND),
            Mode::Full | Mode::Resumed | Mode::Requests | Mode::Download | Mode::Upload => self.plan.warm_up,
        };
        self.phase = Phase::WarmingUp { until: now + lasts };
        self.schedule = self.plan.rate.map(|rate| Schedule::new(self.plan.arrivals, rate, now));
        self.tally = Tally::new();
        self.tally.attempts = (self.seats.len() - self.free.len()) as u64;
    }

    /// Goes from phase to phase.
    fn go_on(&mut self, now: Instant) {
        match self.phase {
            Phase::Reaching { until } if now >= until => {
                self.run.unreached = true;
                self.phase = Phase::Over;
            }
            Phase::WarmingUp { until } if now >= until || self.all_hold() => {
                self.tally.measuring = true;
                self.tally.grid = Grid::new(now, self.plan.duration);
                self.clock.forget();
                self.phase = Phase::Measuring { since: now, until: now + self.plan.duration };
                // Whoever measures what is loaded wants to know.
                self.progress_at = now;
            }
            Phase::Measuring { until, .. } if now >= until => self.drain(now),
            Phase::Draining { until } => {
                if self.free.len() + self.resting.len() == self.seats.len() || now >= until {
                    self.cut(now);
                }
            }
            Phase::Reaching { .. } | Phase::WarmingUp { .. } | Phase::Measuring { .. } | Phase::Over => {}
        }
    }

    fn all_hold(&self) -> bool {
        self.plan.mode == Mode::Idle && self.run.held == self.seats.len()
    }

    fn drain(&mut self, now: Instant) {
        if let Phase::Measuring { since, .. } = self.phase {
            self.run.measured = now - since;
            self.run.gaps = self.clock.gaps();
        }
        self.tally.measuring = false;
        self.run.overdue = self.schedule.as_mut().map_or(0, |schedule| schedule.take_overdue(now));
        self.errand.stopping = true;
        self.phase = Phase::Draining { until: now + DRAIN_MAX };
        // Those that hold on are told by their turn.
        (0..self.seats.len()).for_each(|number| self.wake(number));
    }

    /// Cuts what has not ended in time.
    fn cut(&mut self, now: Instant) {
        for seat in &mut self.seats {
            if let Some(visit) = seat.visit.take() {
                self.transport.abort(visit.connection(), now);
                self.run.unfinished += 1;
            }
        }
        self.phase = Phase::Over;
    }

    fn say_progress(&mut self, now: Instant) {
        let phase = match self.phase {
            Phase::Reaching { .. } => "reaching",
            Phase::WarmingUp { .. } => "warming up",
            Phase::Measuring { .. } => "measuring",
            Phase::Draining { .. } | Phase::Over => "ending",
        };
        let tally = &self.tally;
        let latest = Progress { at: now, answers: tally.answers, bytes: tally.received + tally.sent };
        let last = std::mem::replace(&mut self.progress, latest);
        let seconds = (now - last.at).as_secs_f64();
        let a_second = |latest: u64, last: u64| {
            if seconds > 0.0 { latest.saturating_sub(last) as f64 / seconds } else { 0.0 }
        };
        eprintln!(
            "{phase:10}  {:9.0} answers/s  {:8.1} MB/s  {} open  {} held  {} served  {} failed",
            a_second(latest.answers, last.answers),
            a_second(latest.bytes, last.bytes) / 1e6,
            self.seats.len() - self.free.len() - self.resting.len(),
            self.run.held,
            tally.served,
            tally.failed_total(),
        );
        self.progress_at = now + PROGRESS;
    }
}
