"""Measures speed as ratios, in rounds in which the things compared take turns. Started by scripts/bench."""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests/end_to_end"))

from harness import world  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.clients import NAME  # noqa: E402
from harness.processes import Failed  # noqa: E402
from measure import BULK, HANDSHAKES, IDLE, Scenario, hold, limit, measure  # noqa: E402
from proxies import CERTIFICATES, PEERS, Engine, HaproxyTcp, NginxStream  # noqa: E402

PROVIDERS = ["engine", "aws-lc-rs", "ring", "graviola"]
OURS = "sealane"


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--rounds", type=int, default=5, help="at least five say something (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each measurement (default: %(default)s)")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the rows")
    options = parser.parse_args()
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
        print(f"{name:33} {value:12.5g} {scenario.unit:27} {ratio:6.2f} x {against:10} (best {better(ratios):.2f}, worst {worse(ratios):.2f})")
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
    """From a client's arrival to the first byte of its answer, at shares of the rate that saturates the engine. Clients come by schedule."""
    rounds, saturating = Rounds(), HANDSHAKES[0]
    shares = [30, 60, 80]
    for round_ in range(options.rounds):
        most = measure(stage, Engine, saturating, options.seconds, tickets=1)
        rounds.note(round_, saturating, OURS, most.wall, most.remark())
        for share in shares:
            rate = ("--rate", round(most.wall * share / 100))
            at_rate = dataclasses.replace(saturating, name=f"at {share} %", connections=4096, more=rate)
            measured = measure(stage, Engine, at_rate, options.seconds, tickets=1)
            times = measured.report["first_byte"]
            for key in ("p50", "p99", "p999"):
                scenario = dataclasses.replace(at_rate, name=f"first byte {key} at {share} %", unit="microseconds", more=())
                rounds.note(round_, scenario, OURS, times[key], measured.remark() if key == "p50" else "")
            calm = dataclasses.replace(at_rate, name=f"first byte p50 at {shares[0]} %", unit="microseconds", more=())
    scenarios = [scenario for scenario in rounds.figures if scenario.unit == "microseconds"]
    for scenario in scenarios:
        rounds.figures[scenario]["calm"] = rounds.figures[calm][OURS]
    return [rounds.row(scenario, OURS, ["calm"], "p50 at 30 %", less_is_better=True) for scenario in scenarios]


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


COMMANDS = {"idle": bench_idle, "latency": bench_latency, "limit": bench_limit, "handshakes": bench_handshakes, "peers": bench_peers, "bulk": bench_bulk}

if __name__ == "__main__":
    sys.exit(main())
