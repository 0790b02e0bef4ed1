//! Lets two `tcp::testbed` hosts talk through a carrier that loses, repeats and alters, with calls in any order, forged segments, ICMP errors, bytes that are
//! anything, settings that change and clocks that jump.
//!
//! Nothing panics, an audit finds every host sound after every step, and unless something was forged every byte that is read is the next one that was written.
//! In the end nothing is left.

#![no_main]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealane::base::{Duration, Flow};
use sealane::tcp::testbed::{CallError, Listener, Read, Testbed};
use sealane::tcp::{Close, Congestion, ConnectionId, EcnMode, Settings, State};
use sealane::wire::{Ecn, Flags, Outgoing, Packet, Segment, SegmentOptions, Seq, Timestamp};
use sealane_fuzz::icmp_packet;

const SERVICE: u16 = 443;
const PORTS: u16 = 40_000;
const CONNECTIONS_MAX: usize = 6;
const BUFFER: usize = 3000;
/// Packets that are carried in one go: more than both hosts can have to say of all their connections.
const SETTLE_MAX: usize = 4000;
/// Longer than anything takes when nobody answers.
const SILENCE: Duration = Duration::from_secs(600);

#[derive(Arbitrary, Debug)]
enum Action {
    Connect {
        side: bool,
        ports: Ports,
    },
    Write {
        side: bool,
        connection: u8,
        len: u16,
    },
    Read {
        side: bool,
        connection: u8,
        len: u16,
    },
    Shutdown {
        side: bool,
        connection: u8,
    },
    Close {
        side: bool,
        connection: u8,
    },
    Abort {
        side: bool,
        connection: u8,
    },
    Listen {
        side: bool,
        on: bool,
    },
    /// Packets go to the other host, or not.
    Carry {
        from: bool,
        count: u8,
        fate: Fate,
    },
    /// Everything is carried until nobody has more to say.
    Settle,
    Forge {
        to: bool,
        ports: Ports,
        seq: Near,
        ack: Option<Near>,
        flags: u8,
        window: u16,
        options: Options,
        len: u16,
    },
    Icmp {
        to: bool,
        ports: Ports,
        behind: i16,
        kind: Kind,
        word: u32,
        cut: u8,
    },
    Raw {
        to: bool,
        bytes: Vec<u8>,
    },
    /// Time passes for both, or one clock jumps.
    Wait {
        millis: u16,
    },
    Jump {
        side: bool,
        seconds: u16,
    },
    Set {
        side: bool,
        setting: Setting,
    },
}

/// Which connection between the hosts: a client's to the other host's service, or one that both open.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Ports {
    ToService(u8),
    FromService(u8),
    Same(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Altered { at: u16, bits: u8 },
    Cut { to: u16 },
}

/// A number relative to what would be right.
#[derive(Arbitrary, Debug)]
enum Near {
    Right,
    Off(i16),
    Anywhere(u32),
}

#[derive(Arbitrary, Debug)]
struct Options {
    mss: Option<u16>,
    window_scale: Option<u8>,
    sack_permitted: bool,
    sack: Option<[(i16, u16); 2]>,
    timestamp: Option<(i16, u32)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Unreachable,
    PacketTooBig,
    Any(u8, u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Setting {
    Keepalive(bool),
    UserTimeout(u8),
    ConnectionsMax(u8),
    HalfOpenMax(u8),
    TimeWaitMax(u8),
    MemoryMax(u16),
    Cookies(bool),
    Probing(bool),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Choices {
    timestamps: bool,
    sack: bool,
    cubic: bool,
    ecn: bool,
    small_mtu: bool,
    keepalive: bool,
    cookies_only: bool,
    scarce: bool,
}

#[derive(Arbitrary, Debug)]
struct Input {
    v6: bool,
    hosts: [Choices; 2],
    actions: Vec<Action>,
}

struct Host {
    bed: Testbed,
    listener: Option<Listener>,
    /// With what has been written and read.
    live: Vec<(ConnectionId, usize, usize)>,
    connections_max: usize,
    /// What was said on each pair of ports, ours first: the next number, and what has been acknowledged.
    said: BTreeMap<(u16, u16), (Seq, Seq)>,
}

struct World {
    v6: bool,
    hosts: [Host; 2],
    /// Somebody has said what no host would.
    forged: bool,
}

fuzz_target!(|input: Input| {
    let hosts = [Host::new(input.hosts[0], 1), Host::new(input.hosts[1], 2)];
    let mut world = World { v6: input.v6, hosts, forged: false };
    for side in [false, true] {
        world.listen(side, true);
    }
    for action in input.actions {
        world.act(action);
        world.check();
    }
    world.end();
});

/// What a side writes at this place of every connection's stream.
fn byte(side: bool, at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 11) as u8 ^ if side { 0x55 } else { 0 }
}

impl Near {
    fn to(&self, right: Seq) -> Seq {
        match self {
            Self::Right => right,
            Self::Off(by) => Seq(right.0.wrapping_add_signed((*by).into())),
            Self::Anywhere(seq) => Seq(*seq),
        }
    }
}

impl Ports {
    /// The port of the host that is meant, and that of its peer.
    fn pair(self) -> (u16, u16) {
        let port = |number: u8| PORTS + u16::from(number % 4);
        match self {
            Self::ToService(number) => (port(number), SERVICE),
            Self::FromService(number) => (SERVICE, port(number)),
            Self::Same(number) => (port(number), port(number)),
        }
    }
}

impl Host {
    fn new(choices: Choices, seed: u64) -> Self {
        let Choices { timestamps, sack, cubic, ecn, small_mtu, keepalive, cookies_only, scarce } = choices;
        let settings = Settings {
            connections_max: CONNECTIONS_MAX,
            half_open_max: if cookies_only { 0 } else { 2 },
            time_wait_max: 2,
            receive_buffer: BUFFER,
            send_buffer: BUFFER,
            memory_max: if scarce { 2 * BUFFER } else { 1 << 20 },
            keepalive: keepalive.then_some(Duration::from_secs(5)),
            user_timeout: Duration::from_secs(20),
            mtu: if small_mtu { 576 } else { 1500 },
            timestamps,
            sack,
            ecn: if ecn { EcnMode::Offer } else { EcnMode::Accept },
            congestion: if cubic { Congestion::Cubic } else { Congestion::NewReno },
            ..Settings::default()
        };
        let bed = Testbed::new(settings, seed);
        Self { bed, listener: None, live: Vec::new(), connections_max: CONNECTIONS_MAX, said: BTreeMap::new() }
    }

    fn pick(&mut self, connection: u8) -> Option<&mut (ConnectionId, usize, usize)> {
        let count = self.live.len().max(1);
        self.live.get_mut(usize::from(connection) % count)
    }

    /// Takes the next packet, which must be right, and remembers what it says.
    fn take(&mut self) -> Option<Vec<u8>> {
        let bytes = self.bed.take()?;
        let packet = Packet::parse(&bytes, false).expect("what is sent is right");
        let (flow, segment) = Segment::parse(&packet, false).expect("what is sent is right");
        let ports = (flow.remote().port(), flow.local().port());
        let (_, acknowledged) = self.said.get(&ports).copied().unwrap_or_default();
        let next = segment.seq + segment.sequence_len();
        self.said.insert(ports, (next, segment.ack.unwrap_or(acknowledged)));
        Some(bytes)
    }

    fn note_accepted(&mut self) {
        while let Some(connection) = self.listener.and_then(|listener| self.bed.accept(listener)) {
            self.live.push((connection, 0, 0));
        }
    }

    fn note_ended(&mut self) {
        let bed = &self.bed;
        self.live.retain(|(connection, _, _)| bed.flow(*connection).is_some());
    }
}

impl World {
    fn host(&mut self, side: bool) -> &mut Host {
        &mut self.hosts[usize::from(side)]
    }

    fn endpoint(&self, side: bool, port: u16) -> SocketAddr {
        let address = match (self.v6, side) {
            (false, false) => "198.18.0.1",
            (false, true) => "198.18.0.2",
            (true, false) => "2001:db8::1",
            (true, true) => "2001:db8::2",
        };
        SocketAddr::new(address.parse().expect("it is an address"), port)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { side, ports } => {
                let (ours, theirs) = ports.pair();
                let (local, remote) = (self.endpoint(side, ours), self.endpoint(!side, theirs));
                let host = self.host(side);
                if let Ok(connection) = host.bed.connect(local, remote) {
                    host.live.push((connection, 0, 0));
                }
            }
            Action::Write { side, connection, len } => self.write(side, connection, len),
            Action::Read { side, connection, len } => self.read(side, connection, len),
            Action::Shutdown { side, connection } => {
                let host = self.host(side);
                if let Some((connection, _, _)) = host.pick(connection).copied() {
                    host.bed.shutdown(connection);
                }
            }
            Action::Close { side, connection } => {
                let host = self.host(side);
                if let Some((connection, _, _)) = host.pick(connection).copied() {
                    host.bed.close(connection);
                }
            }
            Action::Abort { side, connection } => {
                let host = self.host(side);
                if let Some((connection, _, _)) = host.pick(connection).copied() {
                    host.bed.abort(connection);
                    assert_eq!(host.bed.read(connection, &mut [0]), Err(CallError::Unknown));
                }
            }
            Action::Listen { side, on } => self.listen(side, on),
            Action::Carry { from, count, fate } => {
                for _ in 0..=count % 8 {
                    self.carry(from, fate);
                }
            }
            Action::Settle => self.settle(),
            Action::Forge { to, ports, seq, ack, flags, window, options, len } => {
                self.forge(to, ports, &seq, ack.as_ref(), flags, window, &options, len);
            }
            Action::Icmp { to, ports, behind, kind, word, cut } => self.icmp(to, ports, behind, kind, word, cut),
            Action::Raw { to, bytes } => self.inject(to, &bytes),
            Action::Wait { millis } => {
                for host in &mut self.hosts {
                    host.bed.advance(Duration::from_millis(millis.into()));
                }
            }
            Action::Jump { side, seconds } => {
                let bed = &mut self.host(side).bed;
                bed.jump_to(bed.now() + Duration::from_secs(seconds.into()));
            }
            Action::Set { side, setting } => self.set(side, setting),
        }
    }

    fn write(&mut self, side: bool, connection: u8, len: u16) {
        let host = self.host(side);
        let Some((connection, written, _)) = host.pick(connection).copied() else { return };
        let bytes: Vec<u8> = (written..written + usize::from(len) % 4000).map(|at| byte(side, at)).collect();
        let room = host.bed.writable(connection);
        if let Ok(taken) = host.bed.write(connection, &bytes) {
            assert_eq!(taken, bytes.len().min(room), "`writable` is wrong");
            let known =
                host.live.iter_mut().find(|(known, _, _)| *known == connection).expect("it has just been there");
            known.1 += taken;
        }
    }

    fn read(&mut self, side: bool, connection: u8, len: u16) {
        let forged = self.forged;
        let host = self.host(side);
        let Some((connection, _, read)) = host.pick(connection).copied() else { return };
        let mut room = vec![0; usize::from(len) % 4000];
        if let Ok(Read::Bytes(len)) = host.bed.read(connection, &mut room) {
            assert!(len <= room.len());
            let expected = (read..read + len).map(|at| byte(!side, at));
            assert!(forged || room[..len].iter().copied().eq(expected), "it shows what nobody wrote");
            if let Some(known) = host.live.iter_mut().find(|(known, _, _)| *known == connection) {
                known.2 += len;
            }
        }
    }

    fn listen(&mut self, side: bool, on: bool) {
        let local = self.endpoint(side, SERVICE);
        let host = self.host(side);
        host.note_accepted();
        match (on, host.listener) {
            (true, None) => host.listener = Some(host.bed.listen(local).expect("nobody listens there")),
            (false, Some(listener)) => {
                host.bed.unlisten(listener);
                host.listener = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The next packet of a host meets its fate. Gives whether there was one.
    fn carry(&mut self, from: bool, fate: Fate) -> bool {
        let Some(mut bytes) = self.host(from).take() else { return false };
        match fate {
            Fate::Lost => return true,
            Fate::Arrives => {}
            Fate::Twice => self.inject_honest(!from, &bytes),
            Fate::Altered { at, bits } => {
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= bits;
                self.inject(!from, &bytes);
                return true;
            }
            Fate::Cut { to } => {
                bytes.truncate(usize::from(to) % bytes.len());
                self.inject(!from, &bytes);
                return true;
            }
        }
        self.inject_honest(!from, &bytes);
        true
    }

    fn inject_honest(&mut self, to: bool, bytes: &[u8]) {
        assert_eq!(self.host(to).bed.inject(bytes), Ok(()));
        self.host(to).note_accepted();
    }

    fn inject(&mut self, to: bool, bytes: &[u8]) {
        self.forged |= self.host(to).bed.inject(bytes).is_ok();
        self.host(to).note_accepted();
    }

    /// Everything is carried. While no time passes, hosts have something to say to each other only so often.
    fn settle(&mut self) {
        for _ in 0..SETTLE_MAX {
            if !self.carry(false, Fate::Arrives) && !self.carry(true, Fate::Arrives) {
                return;
            }
        }
        panic!("{SETTLE_MAX} packets, and the hosts have more to say");
    }

    #[expect(clippy::too_many_arguments, reason = "a segment has as many parts")]
    fn forge(
        &mut self,
        to: bool,
        ports: Ports,
        seq: &Near,
        ack: Option<&Near>,
        flags: u8,
        window: u16,
        options: &Options,
        len: u16,
    ) {
        let (ours, theirs) = ports.pair();
        let flow = Flow::new(self.endpoint(!to, theirs), self.endpoint(to, ours));
        let (next, acknowledged) = self.host(to).said.get(&(ours, theirs)).copied().unwrap_or_default();
        let clock = u32::try_from(self.host(to).bed.now().as_nanos() / 1_000_000).unwrap_or(u32::MAX);
        let mut sack = [None; 4];
        for (block, (left, len)) in sack.iter_mut().zip(options.sack.iter().flatten()) {
            let left = Near::Off(*left).to(next);
            *block = Some((left, left + u32::from(*len)));
        }
        let payload = vec![0x5a; usize::from(len) % 1400];
        let segment = Outgoing {
            flow: &flow,
            seq: seq.to(acknowledged),
            ack: ack.map(|ack| ack.to(next)),
            flags: Flags {
                syn: flags & 1 != 0,
                fin: flags & 2 != 0,
                rst: flags & 12 == 12,
                psh: flags & 16 != 0,
                ece: flags & 32 != 0,
                cwr: flags & 64 != 0,
            },
            window,
            options: SegmentOptions {
                mss: options.mss,
                window_scale: options.window_scale,
                sack_permitted: options.sack_permitted,
                sack,
                timestamp: options
                    .timestamp
                    .map(|(off, echo)| Timestamp { value: clock.wrapping_add_signed(off.into()), echo }),
            },
            ecn: Ecn::of(flags >> 2),
            payload: &[&payload],
        };
        let mut room = [0; 1600];
        if let Some(len) = segment.emit(&mut room, false) {
            self.inject(to, &room[..len]);
        }
    }

    /// An error about a segment that a host may have sent.
    fn icmp(&mut self, to: bool, ports: Ports, behind: i16, kind: Kind, word: u32, cut: u8) {
        let (ours, theirs) = ports.pair();
        let (local, remote) = (self.endpoint(to, ours), self.endpoint(!to, theirs));
        let (next, _) = self.host(to).said.get(&(ours, theirs)).copied().unwrap_or_default();
        let quoted = Outgoing {
            flow: &Flow::new(local, remote),
            seq: Near::Off(behind).to(next),
            ack: Some(Seq(0)),
            flags: Flags::default(),
            window: 0,
            options: SegmentOptions::default(),
            ecn: Ecn::NotEct,
            payload: &[],
        };
        let mut room = [0; 100];
        let Some(len) = quoted.emit(&mut room, false) else { return };
        let quote = &room[..len - usize::from(cut) % 20];
        let (kind, code) = match (kind, self.v6) {
            (Kind::Unreachable, false) => (3, 1),
            (Kind::Unreachable, true) => (1, 0),
            (Kind::PacketTooBig, false) => (3, 4),
            (Kind::PacketTooBig, true) => (2, 0),
            (Kind::Any(kind, code), _) => (kind, code),
        };
        let rest = [&word.to_be_bytes()[..], quote].concat();
        let Some(packet) = icmp_packet(remote.ip(), local.ip(), 64, kind, code, &rest) else { return };
        // It may end a handshake, but it alters no byte.
        let forged = self.forged;
        self.inject(to, &packet);
        self.forged = forged;
    }

    fn set(&mut self, side: bool, setting: Setting) {
        let host = self.host(side);
        if let Setting::ConnectionsMax(most) = setting {
            host.connections_max = host.connections_max.max(usize::from(most % 8));
        }
        host.bed.set_options(|settings| match setting {
            Setting::Keepalive(on) => settings.keepalive = on.then_some(Duration::from_secs(2)),
            Setting::UserTimeout(seconds) => settings.user_timeout = Duration::from_secs(u64::from(seconds) + 1),
            Setting::ConnectionsMax(most) => settings.connections_max = usize::from(most % 8),
            Setting::HalfOpenMax(most) => settings.half_open_max = usize::from(most % 4),
            Setting::TimeWaitMax(most) => settings.time_wait_max = usize::from(most % 4),
            Setting::MemoryMax(most) => settings.memory_max = usize::from(most),
            Setting::Cookies(on) => settings.syn_cookies = on,
            Setting::Probing(on) => settings.mtu_probing = on,
        });
    }

    fn check(&mut self) {
        for host in &mut self.hosts {
            host.note_ended();
            assert_eq!(host.bed.audit(), Ok(()));
            let counters = host.bed.counters();
            assert!(counters.connections.value() <= host.connections_max as u64);
            for (connection, _, _) in &host.live {
                let inside = host.bed.inspect(*connection).expect("it lives");
                assert!(inside.flight as usize <= BUFFER + 2 && inside.rcv_wnd as usize <= BUFFER, "{inside:?}");
                assert!(inside.mss > 0 && inside.cwnd >= inside.mss, "{inside:?}");
                assert!(host.bed.unacknowledged(*connection) <= BUFFER);
            }
        }
    }

    /// Nobody answers any more.
    fn end(mut self) {
        for host in &mut self.hosts {
            host.listener = None;
            for (connection, _, _) in std::mem::take(&mut host.live) {
                host.bed.abort(connection);
                assert_eq!((host.bed.state(connection), host.bed.ended(connection)), (State::Closed, None::<Close>));
            }
            host.bed.advance(SILENCE);
            // Connections of a listener that is gone have no other owner.
            while let Some((connection, _)) = host.bed.event() {
                host.bed.abort(connection);
            }
            host.bed.advance(SILENCE);
            while host.bed.take().is_some() {}
            let counters = host.bed.counters();
            let left = [
                &counters.connections,
                &counters.half_open,
                &counters.time_wait,
                &counters.buffered_bytes,
                &counters.timers,
            ];
            assert_eq!(left.map(|gauge| gauge.value()), [0; 5], "something is left");
            assert_eq!((host.bed.next_timer(), host.bed.audit()), (None, Ok(())));
        }
    }
}
