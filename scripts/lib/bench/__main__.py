"""Measures speed as ratios, in rounds in which the things compared take turns. Started by scripts/bench."""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests/end_to_end"))

from harness import world  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.clients import NAME  # noqa: E402
from harness.processes import Failed  # noqa: E402
from measure import BULK, HANDSHAKES, IDLE, PERSISTED, Scenario, hold, limit, measure, visit  # noqa: E402
from proxies import CERTIFICATES, PEERS, Engine, HaproxyTcp, NginxStream  # noqa: E402

PROVIDERS = ["engine", "aws-lc-rs", "ring", "graviola"]
OURS = "sealane"


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--rounds", type=int, default=5, help="at least five say something (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="of each measurement (default: 2.5, of a latency 5)")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the rows")
    options = parser.parse_args()
    options.seconds = options.seconds or (5 if options.command == "latency" else 2.5)
    world.require_root()
    world.interruptible()
    try:
        with world.World("bench") as stage:
            # A port that has just been used may be used again, as on any proxy's host.
            pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65535")
            pathlib.Path("/proc/sys/net/ipv4/tcp_tw_reuse").write_text("1")
            pathlib.Path("/proc/sys/net/core/somaxconn").write_text("4096")
            authority = Authority(stage.directory)
            for kind, stem in (("ecdsa", CERTIFICATES["P-256"]), ("rsa", CERTIFICATES["RSA-2048"])):
                authority.sign(stem, kind, NAME)
            rows = COMMANDS[options.command](stage, options)
    except KeyboardInterrupt as error:
        print(f"\nStopped ({error or 'Ctrl-C'}); everything is cleaned up.")
        return 130
    except (Failed, AssertionError) as error:
        print(f"FAILED: {error}")
        return 1
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def wanted(scenarios, options):
    # A whole name, or a part of some.
    chosen = [scenario for scenario in scenarios if options.only == scenario.name]
    chosen = chosen or [scenario for scenario in scenarios if options.only in scenario.name]
    if not chosen:
        raise Failed(f"no scenario has {options.only!r} in its name: {', '.join(scenario.name for scenario in scenarios)}")
    return chosen


class Rounds:
    """Figures by scenario and who reached them, a round after the other."""

    def __init__(self):
        self.figures, self.remarks, self.began = {}, [], time.monotonic()

    def note(self, round_, scenario, who, figure, remark=""):
        self.figures.setdefault(scenario, {}).setdefault(who, []).append(figure)
        text = f"{time.monotonic() - self.began:5.0f} s  round {round_ + 1}  {scenario.name:22} {who:14} {figure:12.5g}  {remark}"
        print(text, file=sys.stderr, flush=True)

    def row(self, scenario, ours, others, against, name=None, less_is_better=False):
        """Ours beside the best of some others in each round."""
        name = name or scenario.name
        better, worse = (min, max) if less_is_better else (max, min)
        mine, theirs = self.figures[scenario][ours], [self.figures[scenario][other] for other in others]
        ratios = [own / better(best) for own, *best in zip(mine, *theirs)]
        ratio = statistics.median(ratios)
        value = statistics.median(mine)
        print(f"{name:52} {value:12.5g} {scenario.unit:27} {ratio:6.2f} x {against:10} (best {better(ratios):.2f}, worst {worse(ratios):.2f})")
        row = {"name": name, "value": value, "unit": scenario.unit, "against": against, "ratio": ratio, "rounds": len(ratios)}
        return row | {"ratios": ratios}


def bench_limit(stage, options):
    """rustls in memory, each provider beside the one that the engine takes."""
    rounds = Rounds()
    scenarios = wanted([*HANDSHAKES, Scenario("responses", "download", unit="bytes per second")], options)
    for round_ in range(options.rounds):
        for scenario in scenarios:
            for provider in PROVIDERS:
                rounds.note(round_, scenario, provider, limit(stage, scenario, 0.5, provider))
    return [
        rounds.row(scenario, provider, ["engine"], "limit", f"{scenario.name}, {provider}")
        for scenario in scenarios
        for provider in PROVIDERS
    ]


def bench_handshakes(stage, options):
    """The engine beside rustls in memory, with one ticket a handshake."""
    rounds, scenarios, checks = Rounds(), wanted(HANDSHAKES, options), []
    for round_ in range(options.rounds):
        for scenario in scenarios:
            rounds.note(round_, scenario, "limit", limit(stage, scenario))
            measured = measure(stage, Engine, scenario, options.seconds, tickets=1)
            rounds.note(round_, scenario, OURS, measured.busy, measured.remark())
            checks.append((scenario, measured))
    rows = [rounds.row(scenario, OURS, ["limit"], "limit") for scenario in scenarios]
    for scenario in scenarios:
        all_ = [measured for other, measured in checks if other is scenario]
        wall, busy = (statistics.median(getattr(measured, key) for measured in all_) for key in ("wall", "busy"))
        saturated = [measured for measured in all_ if measured.is_saturated]
        agree = sum(measured.agrees for measured in saturated)
        print(
            f"{scenario.name:22} {wall:12.5g} a second of the clock, {busy:.5g} a busy one; "
            f"saturated and undisturbed in {len(saturated)} of {len(all_)} rounds, in {agree} of them within 5 %"
        )
    return rows


def compare(stage, options, scenarios, peers):
    rounds = Rounds()
    for round_ in range(options.rounds):
        for scenario in scenarios:
            for kind in [Engine, *(kind for kinds in peers.values() for kind in kinds)]:
                # Two tickets are what the peers issue.
                measured = measure(stage, kind, scenario, options.seconds, tickets=2)
                rounds.note(round_, scenario, kind.name, measured.busy, measured.remark())
    return [
        rounds.row(scenario, OURS, [kind.name for kind in kinds], against) for scenario in scenarios for against, kinds in peers.items()
    ]


def bench_peers(stage, options):
    """The engine beside HAProxy and nginx, each in both of its modes."""
    full, resumed, _, resumed12, _ = HANDSHAKES
    return compare(stage, options, wanted([full, resumed, resumed12], options), PEERS)


def bench_bulk(stage, options):
    """Bytes, beside HAProxy and nginx as they relay streams."""
    return compare(stage, options, wanted(BULK, options), {"haproxy": [HaproxyTcp], "nginx": [NginxStream]})


def bench_latency(stage, options):
    """From a client's arrival to the first byte of its answer, at shares of the rate that saturates the engine. Clients come by schedule: at random, as
    independent ones do, and evenly. Percentiles are those of whole runs, and of the median window of 100 ms, which a stop of the machine does not change."""
    rounds, saturating = Rounds(), HANDSHAKES[0]
    # By busy time, so that neither what else runs here nor one bad run decides what 80 % are.
    most = []
    for round_ in range(5):
        measured = measure(stage, Engine, saturating, 1.5, tickets=1)
        most.append(measured.busy)
        rounds.note(round_, saturating, OURS, measured.busy, measured.remark())
    most = statistics.median(most)
    loads = wanted([at_rate(arrivals, share, most) for arrivals in ("random", "even") for share in SHARES], options)
    had_cores = []
    for round_ in range(options.rounds):
        for scenario in loads:
            measured = measure(stage, Engine, scenario, options.seconds, tickets=1)
            rounds.note(round_, scenario, OURS, measured.report["per_second"]["full_handshakes"], measured.machine())
            had_cores.append(measured.had_cores)
            times = measured.report["first_byte"]
            window = {f"{key} of the median window": value for key, value in times["median_window"].items() if key != "windows"}
            for key, value in [(key, times[key]) for key in ("p50", "p99", "p999")] + list(window.items()):
                rounds.note(round_, latency(scenario, key), OURS, value)
    rows = []
    print(f"lane and load had their cores to themselves in {sum(had_cores)} of {len(had_cores)} measurements: elsewhere the figures are the machine's")
    for scenario in loads:
        calm = latency(at_rate(scenario.more[-1], SHARES[0], most), "p50")
        for key in ("p50", "p99", "p999", "p50 of the median window", "p99 of the median window"):
            told, base = rounds.figures.get(latency(scenario, key), {}), rounds.figures.get(calm)
            # A window may hold too few for a percentile, and somebody may have asked for other shares only.
            if base and len(told.get(OURS, [])) == options.rounds:
                told["calm"] = base[OURS]
                rows.append(rounds.row(latency(scenario, key), OURS, ["calm"], "p50 at 30 %", less_is_better=True))
    return rows


SHARES = [30, 60, 80]


def at_rate(arrivals, share, most):
    """Clients who come whether others have been served or not."""
    more = ("--rate", round(most * share / 100), "--arrivals", arrivals)
    return dataclasses.replace(HANDSHAKES[0], name=f"{arrivals} at {share} %", connections=4096, unit="handshakes per second", more=more)


def latency(scenario, key):
    """A percentile of the time to the first byte as a scenario of its own."""
    return dataclasses.replace(scenario, name=f"first byte {key}, {scenario.name}", unit="microseconds", more=())


def bench_idle(stage, options):
    """Resident memory of the engine an idle connection, its half to the server with it. Hugepages, which hold packets, are not in it."""
    rounds = Rounds()
    sizes = wanted(IDLE, options)
    # Memory does not depend on what else the machine does, and a quarter of a million connections take a minute to open.
    for round_ in range(min(options.rounds, 2)):
        for scenario in sizes:
            held = hold(stage, scenario)
            rounds.note(round_, scenario, OURS, held, f"{scenario.connections} held")
            rounds.note(round_, scenario, "6 KiB", 6144)
    return [rounds.row(scenario, OURS, ["6 KiB"], "6 KiB", less_is_better=True) for scenario in sizes]


def bench_persisted(stage, options):
    """Resident memory of the engine for clients who have been there, have a mapping in their ticket, and are away: what the visits of all but the first tenth add."""
    rounds = Rounds()
    for scenario in wanted(PERSISTED, options):
        seen = visit(stage, scenario)
        settled = next(reading for reading in seen if reading[0] >= scenario.connections // 10)
        visits, resumed, resident = seen[-1]
        if resumed < scenario.connections:
            raise Failed(f"{resumed} of {scenario.connections} clients came back with their ticket")
        for count, _, held in (settled, *seen[len(seen) // 8 :: len(seen) // 8], seen[-1]):
            print(f"{int(count):10,} visits  {held / 1e6:8.1f} MB resident", file=sys.stderr)
        rounds.note(0, scenario, OURS, (resident - settled[2]) / scenario.connections, f"{int(visits):,} visits, {int(resumed):,} of them resumed")
        rounds.note(0, scenario, "a table of 16-byte entries", 16)
    return [rounds.row(scenario, OURS, ["a table of 16-byte entries"], "a table of 16-byte entries", less_is_better=True) for scenario in wanted(PERSISTED, options)]


# What grows.
GROWTH = ["connections", "services", "servers", "lanes"]


def bench_scale(stage, options):
    """What a handshake costs a lane as things grow, small and large in turn in one process, in memory."""
    rounds, rows = Rounds(), []
    for what in wanted([Scenario(what, "scale") for what in GROWTH], options):
        compared = {}
        for line in lines_of(os.environ["SEALANE_SCALE"], what.name, "--rounds", str(options.rounds)):
            figure = json.loads(line)
            against = figure["against"]
            # A row's name beside each that it is compared with: the same figure may be compared with several.
            scenario = Scenario(figure["name"], against, unit=figure["unit"])
            compared[scenario] = figure["less_is_better"]
            rounds.note(figure["round"], scenario, OURS, figure["value"])
            rounds.note(figure["round"], scenario, against, figure["other"])
        rows += [rounds.row(scenario, OURS, [scenario.mode], scenario.mode, less_is_better=less) for scenario, less in compared.items()]
    return rows


def lines_of(*command):
    """What a program says, line by line as it says it."""
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], stdout=subprocess.PIPE, text=True)
    try:
        yield from process.stdout
        if process.wait() != 0:
            raise Failed(f"{' '.join(command)} ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


COMMANDS = {
    "idle": bench_idle,
    "latency": bench_latency,
    "limit": bench_limit,
    "handshakes": bench_handshakes,
    "peers": bench_peers,
    "bulk": bench_bulk,
    "persisted": bench_persisted,
    "scale": bench_scale,
}

if __name__ == "__main__":
    sys.exit(main())
