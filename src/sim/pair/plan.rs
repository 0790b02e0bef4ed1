//! What a seed decides: two hosts, the way between them, and who says what to whom.

use std::fmt::{Display, Formatter};
use std::net::{IpAddr, SocketAddr};

use crate::base::{Duration, Instant};
use crate::sim::pair::dice::Dice;
use crate::sim::pair::path::Conditions;
use crate::sim::router::Narrow;
use crate::tcp::testbed::Testbed;
use crate::tcp::{Congestion, EcnMode, Settings};
use crate::wire::{Packet, Segment};

/// Where the server listens.
const PORT: u16 = 443;
/// The client's port of the first conversation.
const PORTS: u16 = 40_000;
/// What an initial sequence number counts (RFC 6528 3).
const ISN_TICK_NANOS: u64 = 4000;
/// Bytes that a user says at most.
const TOTAL_MAX: u64 = 200_000;
/// Round trips that a transfer takes at least with the smaller buffer, at most: tiny buffers have little to carry.
const WINDOWS_MAX: u64 = 40;

/// One world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// Whether the hosts talk IPv6.
    pub v6: bool,
    /// The client and the server.
    pub hosts: [HostPlan; 2],
    /// What the path does, one after the other. Then it is sound.
    pub phases: Vec<Phase>,
    /// The time on the way when it is sound.
    pub delay: Duration,
    /// The link that is on the way for good, if one carries less than the hosts' own.
    pub narrow: Option<Narrow>,
    /// Who says what.
    pub conversations: Vec<Conversation>,
}

/// A host.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Its TCP.
    pub settings: Settings,
    /// What it draws its keys from.
    pub seed: u64,
    /// What its clock shows when the world begins.
    pub clock: Instant,
    /// What happens to its clock, and when.
    pub jolts: Vec<(Duration, Jolt)>,
}

/// Something that happens to a host's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jolt {
    /// Its clock jumps forward.
    Step(Duration),
    /// It stands still for so long, and packets wait for it: a machine that was suspended, a lane that was stalled.
    Pause(Duration),
}

/// A time in which the path is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// How long.
    pub lasts: Duration,
    /// From the client to the server, and back.
    pub conditions: [Conditions; 2],
}

/// One connection and its two users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// When the client connects.
    pub starts: Duration,
    /// Whether the server connects too, at the same moment, instead of listening (RFC 9293 3.5).
    pub simultaneous: bool,
    /// What the client does, and the server.
    pub scripts: [Script; 2],
}

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// Bytes to say.
    pub total: usize,
    /// At a time.
    pub piece: usize,
    /// Bytes to hear before.
    pub after: usize,
    /// How it listens.
    pub reader: Reader,
    /// How it parts.
    pub ending: Ending,
}

/// How a user listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Bytes that it reads at a time.
    pub piece: usize,
    /// How long it rests then; zero when it reads all there is.
    pub rests: Duration,
    /// How long it does not listen at all.
    pub deaf: Duration,
}

/// How a user parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN behind the last byte, while it goes on listening.
    Shutdown,
    /// FIN once it has said and heard everything, the peer's FIN too.
    Answer,
    /// Closes for good once it has said everything and heard so much: a reset, if there was more to hear.
    Close(usize),
    /// Aborts once it has heard so much.
    Abort(usize),
    /// Aborts so long after its connection began.
    AbortAt(Duration),
}

impl Plan {
    /// The plan that this seed stands for.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let v6 = dice.one_in(3);
        let delay = dice.micros(50, 60_000);
        let mut phases = phases(&mut dice.fork(), delay);
        let mut hosts = [host(&mut dice.fork()), host(&mut dice.fork())];
        let narrow = narrow(&mut dice.fork(), v6, &mut phases, &mut hosts);
        let bad: Duration = phases.iter().map(|phase| phase.lasts).sum();
        for host in &mut hosts {
            host.jolts = jolts(&mut dice.fork(), bad);
        }
        let conversations = conversations(&mut dice.fork(), &hosts);
        let mut plan = Self { seed, v6, hosts, phases, delay, narrow, conversations };
        if dice.one_in(3) {
            plan.wrap(&mut dice);
        }
        plan
    }

    /// What the path is like when it is sound.
    pub(super) fn sound(&self) -> Conditions {
        Conditions { narrow: self.narrow, ..Conditions::sound(self.delay) }
    }

    /// A host's end of a conversation.
    pub(super) fn endpoint(&self, side: usize, conversation: usize) -> SocketAddr {
        let address: IpAddr = match (self.v6, side) {
            (false, 0) => [198, 18, 0, 1].into(),
            (false, _) => [198, 18, 0, 2].into(),
            (true, 0) => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
            (true, _) => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into(),
        };
        let port = match self.conversations.get(conversation) {
            Some(Conversation { simultaneous: false, .. }) | None if side == 1 => PORT,
            Some(_) | None => PORTS + u16::try_from(conversation).unwrap_or(0),
        };
        SocketAddr::new(address, port)
    }

    /// The conversation of this client's port.
    pub(super) fn conversation_of(port: u16) -> usize {
        usize::from(port.wrapping_sub(PORTS))
    }

    /// Sets the client's clock so that the sequence numbers of its first connection wrap on the way.
    fn wrap(&mut self, dice: &mut Dice) {
        let (Some(first), [client, _]) = (self.conversations.first(), &self.hosts) else { return };
        let mut bed = Testbed::new(client.settings.clone(), client.seed);
        if bed.connect(self.endpoint(0, 0), self.endpoint(1, 0)).is_err() {
            return;
        }
        let Some(syn) = bed.take() else { return };
        let segment = Packet::parse(&syn, false).and_then(|packet| Ok(Segment::parse(&packet, false)?.1.seq));
        let Ok(seq) = segment else { return };
        // Where it would have to begin for the wrap to come so many bytes later.
        let short = dice.size(0, [script(first, 0).total, 100].into_iter().max().unwrap_or(100));
        let ticks = u32::MAX.wrapping_sub(u32::try_from(short).unwrap_or(0)).wrapping_sub(seq.0);
        let began = u64::try_from(first.starts.as_nanos()).unwrap_or(0);
        let nanos = (u64::from(ticks) + (1 << 32)) * ISN_TICK_NANOS - began;
        let [client, _] = &mut self.hosts;
        client.clock = Instant::from_nanos(nanos);
    }
}

/// What one side of a conversation does.
pub(super) fn script(conversation: &Conversation, side: usize) -> Script {
    let [client, server] = conversation.scripts;
    if side == 0 { client } else { server }
}

fn host(dice: &mut Dice) -> HostPlan {
    HostPlan {
        settings: settings(dice),
        seed: dice.seed(),
        clock: Instant::from_nanos(dice.between(0, 1 << 45)),
        jolts: Vec::new(),
    }
}

fn settings(dice: &mut Dice) -> Settings {
    let half_open_max = if dice.one_in(4) { dice.size(0, 2) } else { 64 };
    Settings {
        connections_max: if dice.one_in(12) { dice.size(1, 3) } else { 64 },
        half_open_max,
        time_wait_max: dice.pick(&[0, 1, 64, 64, 64, 64]),
        receive_buffer: dice.size(0, 7) * 100 + usize::try_from(dice.scale(200, 131_072)).unwrap_or(200),
        send_buffer: usize::try_from(dice.scale(200, 131_072)).unwrap_or(200),
        memory_max: if dice.one_in(8) { dice.size(4_000, 60_000) } else { 1 << 24 },
        time_wait: if dice.one_in(4) { dice.millis(500, 8_000) } else { Duration::from_secs(60) },
        keepalive: dice.one_in(4).then(|| dice.millis(500, 30_000)),
        keepalive_interval: dice.millis(500, 8_000),
        keepalive_probes: u32::try_from(dice.between(1, 5)).unwrap_or(1),
        user_timeout: Duration::from_secs(dice.pick(&[20, 120, 120, 3600])),
        mtu: if dice.one_in(6) { dice.size(1501, 9000) } else { dice.size(576, 1500) },
        timestamps: !dice.one_in(3),
        sack: !dice.one_in(3),
        // Without cookies and without a table nobody could ever connect.
        syn_cookies: half_open_max == 0 || !dice.one_in(3),
        ecn: dice.pick(&[EcnMode::Off, EcnMode::Accept, EcnMode::Offer, EcnMode::Offer]),
        congestion: dice.pick(&[Congestion::Cubic, Congestion::Cubic, Congestion::NewReno]),
        ..Settings::default()
    }
}

fn phases(dice: &mut Dice, delay: Duration) -> Vec<Phase> {
    let count = dice.pick(&[0, 1, 2, 3, 4, 5, 6, 8]);
    // Now and then it is bad for as long as anybody talks.
    let lasting = dice.one_in(2);
    let phase = |number| {
        let kind = dice.between(0, KINDS);
        let usual = delay;
        let delay = if dice.one_in(4) { dice.micros(50, 200_000) } else { delay };
        let round_trips = u32::try_from(dice.scale(2, 200)).unwrap_or(2);
        let lasts = match kind {
            BLACKHOLE if dice.one_in(3) => dice.millis(3_000, 200_000),
            BLACKHOLE => dice.millis(20, 3_000),
            _ if lasting && number + 1 == count => dice.millis(10_000, 60_000),
            _ => usual * round_trips,
        };
        let mut conditions = [condition(dice, kind, delay), condition(dice, kind, delay)];
        // Often one direction only.
        let [there, back] = &mut conditions;
        if dice.one_in(3) {
            *(if dice.one_in(2) { there } else { back }) = Conditions::sound(delay);
        }
        Phase { lasts, conditions }
    };
    (0..count).map(phase).collect()
}

/// Kinds of bad paths: one fault alone, and from the blackhole on all of them at once, which counts twice.
const KINDS: u64 = 10;
const BLACKHOLE: u64 = 8;

fn condition(dice: &mut Dice, kind: u64, delay: Duration) -> Conditions {
    let mut is = Conditions::sound(delay);
    let all = kind > BLACKHOLE;
    if kind == 0 || all {
        is.loss = dice.scale(10, 400);
    }
    if kind == 1 {
        (is.loss, is.burst) = (dice.scale(10, 250), dice.scale(2, 16));
    }
    if kind == 2 || all {
        is.duplicate = dice.scale(10, 400);
    }
    if kind == 3 || all {
        (is.late, is.lateness) = (dice.scale(10, 400), dice.millis(1, 1_000));
    }
    if kind == 4 || all {
        is.corrupt = dice.scale(10, 200);
    }
    if kind == 5 || all {
        is.jitter = dice.micros(100, 200_000);
    }
    if kind == 6 || all {
        is.mark = dice.scale(20, 900);
    }
    if kind == 7 || (all && dice.one_in(2)) {
        (is.rate, is.queue) = (dice.scale(10_000, 2_000_000), dice.scale(3_000, 60_000));
    }
    is.blackhole = kind == BLACKHOLE;
    is
}

/// Links that carry less: in some phases, each way by itself, and perhaps one for good. One that says nothing takes hosts that find out by themselves (RFC 4821).
fn narrow(dice: &mut Dice, v6: bool, phases: &mut [Phase], hosts: &mut [HostPlan; 2]) -> Option<Narrow> {
    let may_be_silent = dice.one_in(2);
    for host in hosts {
        host.settings.mtu_probing = may_be_silent || dice.one_in(2);
    }
    let least = if v6 { 1280 } else { 552 };
    let mut link = |often: u64| {
        let narrow = Narrow { mtu: dice.size(least, 1500), silent: may_be_silent && dice.one_in(2) };
        dice.one_in(often).then_some(narrow)
    };
    for conditions in phases.iter_mut().flat_map(|phase| &mut phase.conditions) {
        conditions.narrow = link(4);
    }
    link(3)
}

fn jolts(dice: &mut Dice, bad: Duration) -> Vec<(Duration, Jolt)> {
    if !dice.one_in(5) {
        return Vec::new();
    }
    let millis = u64::try_from(bad.as_millis()).unwrap_or(0) + 1_000;
    let mut jolts: Vec<_> = (0..dice.between(1, 2))
        .map(|_| {
            let at = dice.millis(1, millis);
            let jolt = if dice.one_in(2) {
                Jolt::Step(dice.millis(1_000, 3_600_000))
            } else {
                Jolt::Pause(dice.millis(50, 300_000))
            };
            (at, jolt)
        })
        .collect();
    jolts.sort_by_key(|(at, _)| *at);
    jolts
}

fn conversations(dice: &mut Dice, hosts: &[HostPlan; 2]) -> Vec<Conversation> {
    let count = dice.pick(&[1, 1, 2, 2, 3, 4, 6]);
    let [client, server] = hosts;
    let most = |from: &HostPlan, to: &HostPlan| {
        let buffer = from.settings.send_buffer.min(to.settings.receive_buffer) as u64;
        (buffer * WINDOWS_MAX).min(TOTAL_MAX)
    };
    let most = [most(client, server), most(server, client)];
    (0..count).map(|_| conversation(dice, most)).collect()
}

fn conversation(dice: &mut Dice, most: [u64; 2]) -> Conversation {
    let mut scripts = most.map(|most| Script {
        total: if dice.one_in(6) { 0 } else { usize::try_from(dice.scale(1, most)).unwrap_or(0) },
        piece: usize::try_from(dice.scale(16, 32_768)).unwrap_or(16),
        after: 0,
        reader: Reader { piece: usize::MAX, rests: Duration::ZERO, deaf: Duration::ZERO },
        ending: Ending::Shutdown,
    });
    let [client, server] = &mut scripts;
    match dice.between(0, 5) {
        0 | 1 => server.after = client.total,
        2 => client.after = server.total,
        _ => {}
    }
    // Two that both wait for the other's FIN would wait for ever.
    let waits = dice.between(0, 3);
    let totals = [server.total, client.total];
    for (side, (one, other)) in (0..).zip(scripts.iter_mut().zip(totals)) {
        let sooner = dice.size(0, other);
        one.ending = match dice.between(0, 11) {
            0 => Ending::Close(sooner),
            1..=3 => Ending::Close(other),
            4 if dice.one_in(2) => Ending::Abort(sooner),
            4 => Ending::AbortAt(dice.millis(1, 10_000)),
            _ if waits == side => Ending::Answer,
            _ => Ending::Shutdown,
        };
        if dice.one_in(4) {
            one.reader.deaf = dice.millis(1, 20_000);
        }
        if dice.one_in(4) {
            // A minute at most.
            let piece = dice.scale(16, 8_192).max(other as u64 / 100);
            one.reader.piece = usize::try_from(piece).unwrap_or(16);
            one.reader.rests = dice.millis(1, 600);
        }
    }
    Conversation {
        starts: if dice.one_in(3) { dice.millis(1, 4_000) } else { Duration::ZERO },
        simultaneous: dice.one_in(8),
        scripts,
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (name, host) in ["client", "server"].iter().zip(&self.hosts) {
            writeln!(f, "{name}: clock at {:?}, jolts {:?}, {:?}", host.clock, host.jolts, host.settings)?;
        }
        for phase in &self.phases {
            writeln!(f, "phase of {:?}: {:?}", phase.lasts, phase.conditions)?;
        }
        let family = if self.v6 { 6 } else { 4 };
        writeln!(f, "then sound, IPv{family}, {:?} on the way, with {:?}", self.delay, self.narrow)?;
        for conversation in &self.conversations {
            let how = if conversation.simultaneous { ", both connect" } else { "" };
            let [client, server] = &conversation.scripts;
            writeln!(f, "conversation from {:?} on{how}: {client:?}, {server:?}", conversation.starts)?;
        }
        Ok(())
    }
}
