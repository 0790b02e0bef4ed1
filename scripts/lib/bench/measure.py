"""One measurement: a proxy, a load, and what the one spent while it served the other."""

import contextlib
import dataclasses
import json
import os
import time

from harness.processes import Failed, run
from harness.wait import until
from harness.world import binary

from proxies import CERTIFICATES, LOAD_CORE, PROXY_CORE, SERVER, SERVICE, Engine, thread_seconds

# At least so much of its core a lane must have been busy for the load to have saturated it.
SATURATED = 0.95
# At least so much of the clock its thread must have had its core.
UNDISTURBED = 0.98
# So far apart rates by the clock and by busy time may be at saturation.
AGREE = 0.05


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What clients do."""

    name: str
    mode: str
    tls: str = "1.3"
    certificate: str = "P-256"
    bytes: int = 1
    connections: int = 128
    unit: str = "handshakes per busy second"
    more: tuple = ()  # arguments for the load


HANDSHAKES = [
    Scenario("TLS 1.3 full P-256", "full"),
    Scenario("TLS 1.3 resumed", "resumed"),
    Scenario("TLS 1.2 full P-256", "full", tls="1.2"),
    Scenario("TLS 1.2 resumed", "resumed", tls="1.2"),
    Scenario("TLS 1.3 full RSA-2048", "full", certificate="RSA-2048"),
]

# More connections than this hold more bytes than a virtio queue has room for, which loses some.
BULK = [
    Scenario(f"{direction} {size}", mode, bytes=length, connections=4, unit="bytes per busy second")
    for mode, direction in (("download", "responses of"), ("upload", "uploads of"))
    for size, length in (("1 MiB", 1 << 20), ("64 MiB", 64 << 20))
]


IDLE = [
    Scenario(f"idle, {connections:,} held", "idle", connections=connections, unit="bytes a connection") for connections in (10_000, 50_000, 250_000)
]

PERSISTED = [Scenario("a million clients' tickets", "resumed", connections=1_000_000, unit="bytes an idle persisted client")]


@dataclasses.dataclass
class Measured:
    """What came of it, a second.

    A lane counts busy time by the clock, which goes on while another process has its core; a kernel proxy's time is what the kernel gave it. So that both
    are paid in the same coin, a lane's busy time is taken times the share of the clock in which its thread had its core: 1 on a machine that does
    nothing else. Rates by the clock and by busy time are compared in rounds only in which it was.
    """

    busy: float  # of the time that the proxy's core worked for it
    wall: float  # of the clock, as the load saw it
    share: float  # how much of the time its core worked
    generator: float  # how much of its time the load had something to do
    core: float  # how much of the clock its thread was given its core
    report: dict  # all that the load says
    load_core: float = 1.0  # how much of the clock the load's thread was given its core, which one that polls asks for all the time
    stolen: tuple = (0.0, 0.0)  # how much of the clock the hypervisor took of the proxy's core, and of the load's

    def remark(self):
        remarks = [f"{self.wall:.4g} by the clock, {self.share:.0%} busy, load {self.generator:.0%}"]
        if self.share < SATURATED:
            remarks.append("not saturated")
        elif self.core < UNDISTURBED:
            remarks.append(f"other processes took {1 - self.core:.0%} of its core")
        elif not self.agrees:
            remarks.append("DISAGREE by more than 5 %")
        return ", ".join(remarks)

    def machine(self):
        """How much of the two cores there was, for whoever reads latencies."""
        gaps, (proxy, load) = self.report["gaps"], self.stolen
        return (
            f"lane {self.share:.0%} busy, had {self.core:.0%} of its core, {proxy:.1%} stolen; load {self.generator:.0%} busy, had {self.load_core:.0%}, "
            f"{load:.1%} stolen, {gaps['count']} gaps over 500 µs, together {gaps['milliseconds']:.0f} ms"
        )

    @property
    def had_cores(self):
        """Whether nobody else took a lane's core or the load's, both of which poll."""
        return min(self.core, self.load_core) >= UNDISTURBED and max(self.stolen) <= 1 - UNDISTURBED

    @property
    def is_saturated(self):
        """Whether the two rates must agree."""
        return self.share >= SATURATED and self.core >= UNDISTURBED

    @property
    def agrees(self):
        return abs(self.wall / self.busy - 1) <= AGREE


@contextlib.contextmanager
def loaded(world, proxy, scenario, seconds):
    """A proxy under load, from when it is measured on. Gives the load, and both end with it."""
    report = world.directory / "report.json"
    report.unlink(missing_ok=True)
    # fmt: off
    command = [binary(), "load", f"{SERVICE[0]}:{SERVICE[1]}", *proxy.load, "--core", LOAD_CORE, "--mode", scenario.mode, "--tls", scenario.tls,
               "--bytes", scenario.bytes, "--connections", scenario.connections, "--warm-up", "700ms",
               "--duration", f"{round(seconds * 1000)}ms", "--patience", "30s", "--json", report, *scenario.more]
    # fmt: on
    log = world.directory / "load.log"
    log.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(proxy.stop)
        if not proxy.loads_first:
            proxy.start()
        load = world.child("load", command)
        stack.callback(load.stop)
        if proxy.loads_first:
            proxy.start()
        patience = 60 + scenario.connections / 200
        until("the load to be measured", lambda: not load.is_running() or "measuring" in log.read_text(), patience, every=0.01)
        yield load
        until("the load to end", lambda: not load.is_running(), seconds + 30)
        if load.process.returncode != 0 or not report.exists():
            raise Failed(f"the load through {proxy.name} failed: {load.tail()}")


def measure(world, kind, scenario, seconds, tickets):
    """What a proxy does for a scenario, and what it spends."""
    proxy = kind(world, scenario.certificate, tickets)
    with loaded(world, proxy, scenario, seconds) as load:
        before, load_before = proxy.read(), thread_seconds(load.pid)
        # The load ends its measurement when its own time is over: the reading is to be before that.
        time.sleep(seconds - 0.3)
        spent, load_spent = proxy.read().since(before), thread_seconds(load.pid) - load_before
    measured = evaluate(scenario, json.loads((world.directory / "report.json").read_text()), spent)
    stolen = tuple(seconds / spent.wall for seconds in spent.stolen)
    return dataclasses.replace(measured, load_core=load_spent / spent.wall, stolen=stolen)


def hold(world, scenario):
    """Bytes of the engine's resident memory a connection that is held, above those of an engine that has just started."""
    # A server's address and port take 49,152 connections of a lane, and so does a client's address.
    many = range(1 + scenario.connections // 40_000)
    proxy = Engine(world, scenario.certificate, 1, servers=[(SERVER[0], SERVER[1] + number) for number in many])
    sources = [argument for number in many for argument in ("--source", f"198.18.2.{number + 1}")]
    scenario = dataclasses.replace(scenario, more=tuple(sources))
    with loaded(world, proxy, scenario, 2):
        memory = proxy.resident() - proxy.resident_at_start
    held = json.loads((world.directory / "report.json").read_text())["held"]
    if held != scenario.connections:
        raise Failed(f"{held} of {scenario.connections} connections were held")
    return memory / held


def visit(world, scenario):
    """Resident memory of the engine while so many distinct clients visit it, each with a ticket of its own from its second visit on.

    Gives the visits so far, of those the resumed ones, and bytes, about once a second. As many visit it twice; nobody stays.
    """
    proxy = Engine(world, scenario.certificate, 2)
    # A lane has to keep up also while the machine does other things: what is measured is memory.
    rate = 5000
    scenario = dataclasses.replace(scenario, more=("--rate", rate, "--arrivals", "even", "--allow-failures"))
    seen = []
    with loaded(world, proxy, scenario, 2.05 * scenario.connections / rate) as load:

        def is_over():
            counts = proxy.read().counts
            seen.append((sum(counts.values()), counts["resumed"], proxy.resident()))
            return counts["resumed"] >= scenario.connections or not load.is_running()

        until("every client's second visit", is_over, 3 * scenario.connections / rate, every=1)
    return seen


def evaluate(scenario, report, spent):
    rates = report["per_second"]
    key = {"full": "full_handshakes", "resumed": "resumed_handshakes", "download": "bytes_received", "upload": "bytes_sent"}[scenario.mode]
    share, core = spent.busy / spent.wall, spent.core / spent.wall
    counted = spent.counts.get(scenario.mode)
    if not spent.counts:
        # The kernel's count of its time, and the load's count of what it did.
        return Measured(rates[key] / share, rates[key], share, report["busy"], 1.0, report)
    # The engine is taken at its word for handshakes, which the load's own count must agree with; bytes it counts when a connection ends.
    done = rates[key] / share if counted is None else counted / spent.busy
    return Measured(done / min(core, 1.0), rates[key], share, report["busy"], core, report)


def limit(world, scenario, seconds=1.0, provider="engine", tickets=1):
    """What rustls does in memory, for the same thing, while the other core works as it does under load."""
    stem = world.directory / CERTIFICATES[scenario.certificate]
    # fmt: off
    command = [os.environ["SEALANE_LIMIT"], "--certificate", f"{stem}.pem", "--key", f"{stem}.key", "--roots", world.directory / "authority.pem",
               "--tls", scenario.tls, "--mode", scenario.mode, "--provider", provider, "--tickets", tickets]
    # fmt: on
    beside = world.child("beside", ["taskset", "-c", LOAD_CORE, *command, "--seconds", 60])
    try:
        return float(run("taskset", "-c", PROXY_CORE, *command, "--seconds", seconds, seconds=60).stdout)
    finally:
        beside.stop()
