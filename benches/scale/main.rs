//! Growth: what a handshake costs a lane with ever more connections in the table, virtual services, servers and lanes, and which cache lines lanes share. For
//! `scripts/bench scale`.
//!
//! Each figure is a line of JSON with the figure that it is to be compared with, both of one round, in which the things compared took turns.

#[path = "../common/cpu.rs"]
mod cpu;
mod growth;
mod lanes;
mod lines;
mod world;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use sealane::load::{Mode, Version};
use sealane::sim;

// That of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What grows.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Connections in the table
    Connections,
    /// Virtual services
    Services,
    /// Servers of a pool
    Servers,
    /// Lanes
    Lanes,
    /// Nothing: which cache lines two lanes both touch
    Lines,
    /// What `lines` runs under valgrind
    #[value(hide = true)]
    Traced,
}

#[derive(Debug, Parser)]
struct Arguments {
    /// What grows
    what: What,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Most connections that are held
    #[arg(long, default_value_t = 1_000_000)]
    most: usize,
    /// Of `lines`: the handshake
    #[arg(long, default_value = HANDSHAKES[0].name)]
    handshake: String,
    /// Of `lines`: on which lane frames arrive
    #[arg(long, default_value = "right")]
    arrival: lanes::Arrival,
    /// What cargo bench says
    #[arg(long)]
    bench: bool,
}

/// A handshake that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshake {
    pub(crate) name: &'static str,
    pub(crate) version: Version,
    pub(crate) mode: Mode,
}

/// The one that most is done for, and the one in which anything but cryptography shows.
pub(crate) const HANDSHAKES: [Handshake; 2] = [
    Handshake { name: "TLS 1.3 full P-256", version: Version::Tls13, mode: Mode::Full },
    Handshake { name: "TLS 1.2 resumed", version: Version::Tls12, mode: Mode::Resumed },
];

/// A figure beside the one that it is compared with.
pub(crate) struct Pair<'a> {
    pub(crate) round: u32,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) against: &'a str,
    pub(crate) other: f64,
    pub(crate) less_is_better: bool,
}

impl Pair<'_> {
    /// Prints it for `scripts/bench`.
    pub(crate) fn say(&self) {
        let Self { round, name, unit, value, against, other, less_is_better } = self;
        let line = serde_json::json!({
            "round": round, "name": name, "unit": unit, "value": value, "against": against, "other": other,
            "less_is_better": less_is_better,
        });
        println!("{line}");
    }
}

/// A self-signed certificate for the services.
fn identity() -> sim::Identity {
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let params = rcgen::CertificateParams::new(vec![world::NAME.to_owned()]).expect("it is a name");
    let certificate = params.self_signed(&key).expect("the key signs");
    sim::Identity { chain: certificate.pem(), key: key.serialize_pem(), root: certificate.der().clone() }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let identity = identity();
    match arguments.what {
        What::Connections => growth::connections(&identity, arguments.rounds, arguments.most),
        What::Services => growth::services(&identity, arguments.rounds),
        What::Servers => growth::servers(&identity, arguments.rounds),
        What::Lanes => lanes::measure(&identity, arguments.rounds),
        What::Lines => return lines::check(&arguments.handshake, arguments.arrival),
        What::Traced => lines::traced(&identity, &arguments.handshake, arguments.arrival),
    }
    ExitCode::SUCCESS
}
