"""The always-on trace: what `sealane trace` says is what was on the wire, as lines and as a capture that tshark reads.

A trace has segments in the order in which the connection's lane took them. The kernel sends the ACK of a handshake into
the tap's queue of the SYN, and what follows into the one that the SYN,ACK came from: data may overtake that ACK on its
way from lane to lane.
"""

import contextlib
import re

from harness import config
from harness.clients import read_all
from harness.processes import run
from harness.trial import SHOP, at, at6
from harness.wait import until
from harness.wire import Tap
from harness.world import binary

FIN, SYN, ACK = 0x01, 0x02, 0x10
TAIL_PROBE = re.compile(r" > [^|]* tail-probe( |$)")
SEGMENT = re.compile(r"lane \d+ \S+ \S+ ([<>]) ([A-Z.]+) (\d+):(\d+)\((\d+)\)(?: ack (\d+))?")


def a_traced_connection_is_in_the_capture_as_it_was_on_the_wire(trial):
    with _all_traced(trial):
        return ", ".join(_compare(trial, address) for address in (at(SHOP), at6(SHOP)))


def a_traced_connection_reads_from_syn_to_the_end(trial):
    with _all_traced(trial):
        lines = _lines(*_visit(trial, at(SHOP), 20_000))
    assert re.search(r" < S 0:0\(0\) win \d+ <mss 1460,sackOK,wscale \d+,ts \d+ 0>", lines[0]), lines[0]
    assert re.search(r" > S\. 0:0\(0\) ack 1 win \d+ <mss 1460,", lines[1]), lines[1]
    assert " | ESTABLISHED cwnd " in lines[2], lines[2]
    assert any(" < . 1:1(0) ack 1 " in line for line in lines[2:]), lines
    assert [line.split(" | ")[0].partition(" closed ")[2] for line in lines if " closed " in line] == ["finished"]
    segments = _segments(_without_repeating_probes(lines))
    for mark in "<>":
        data = [(int(first), int(end)) for direction, _, first, end, length, _ in segments if direction == mark and length != "0"]
        # Every byte once, from the first on, in order: nothing is lost on a tap.
        assert data[0][0] == 1 and all(one[1] == other[0] for one, other in zip(data, data[1:], strict=False)), data
        fin = [int(first) + int(length) for direction, flags, first, _, length, _ in segments if direction == mark and "F" in flags]
        assert fin == [data[-1][1]], f"FIN at {fin} behind {data[-1]}"
    return f"{len(lines)} lines"


def nothing_is_traced_when_the_trace_is_off(trial):
    with _sample(trial, 0):
        with trial.client().connect() as tls:
            port = tls.getsockname()[1]
            tls.sendall(b"name\n")
            read_all(tls)
        assert _trace("--flow", f"198.18.0.1:{port}") == []


def _compare(trial, address):
    """Requires that the capture file of a connection holds the packets that a socket on the tap has seen of it; says how many."""
    with Tap() as tap:
        ends = _visit(trial, address, 200_000)
        # What is traced has left with the same breath: the last acknowledgement may be the one that is not on the wire yet.
        _lines(*ends)
        until("the engine's next breath", _breath(trial))
        seen = [packet for packet in tap.packets() if ends[2] in (packet.source_port, packet.port)]
    capture = trial.world.directory / "trace.pcap"
    _trace(*_flow(*ends), "--pcap", capture)
    fields = ("srcport", "dstport", "seq_raw", "ack_raw", "flags", "window_size_value", "len")
    wanted = [part for field in fields for part in ("-e", f"tcp.{field}")]
    rows = run("tshark", "-r", capture, "-T", "fields", *wanted).stdout.splitlines()
    traced = [tuple(int(field, 0) for field in row.split("\t")) for row in rows]
    for port, order in (443, list), (ends[2], sorted):
        there = order(packet.fields() for packet in seen if packet.source_port == port)
        here = order(packet for packet in traced if packet[0] == port)
        assert here == there, _difference(here, there)
    flags = [(packet[0], packet[4]) for packet in traced]
    assert flags[:2] == [(ends[2], SYN), (443, SYN | ACK)] and (ends[2], ACK) in flags, flags[:4]
    assert {packet[0] for packet in traced if packet[4] & FIN} == {443, ends[2]}
    assert sum(packet[6] for packet in traced) > 200_000
    complaints = run("tshark", "-r", capture, "-Y", "_ws.malformed || tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment").stdout
    assert not complaints, complaints
    return f"{len(traced)} packets"


def _breath(trial):
    """A condition that is true once every lane has begun another breath."""

    def breaths():
        return trial.engine.metrics().select("sealane_lane_breaths_total")

    before = breaths()
    return lambda: all(now > then + 1 for now, then in zip(breaths(), before, strict=True))


def _difference(here, there):
    for number, (one, other) in enumerate(zip(here, there, strict=False)):
        if one != other:
            return f"packet {number} is {one} in the trace and was {other} on the wire"
    return f"{len(here)} packets in the trace, and {len(there)} on the wire"


def _visit(trial, address, length):
    """A connection that downloads so much: its service's address, its own address and port."""
    with trial.client(address=address).connect(seconds=30) as tls:
        host, port = tls.getsockname()[:2]
        tls.sendall(f"download {length} trace\n".encode())
        read_all(tls)
    return address, host, port


def _flow(address, host, port):
    there, here = (f"[{end}]" if ":" in end else end for end in (address, host))
    return "--flow", f"{there}:443", "--flow", f"{here}:{port}"


def _segments(lines):
    """Direction, flags, first and last number, length of data and acknowledgement of each."""
    return [match.groups() for match in map(SEGMENT.search, lines) if match]


def _without_repeating_probes(lines):
    """All lines but tail probes that send nothing new: where the client stands still for two round trips, RFC 8985 7.3 has the tail sent again."""
    furthest = 0
    for line in lines:
        segment = SEGMENT.search(line)
        if segment and segment[1] == ">":
            beyond = int(segment[4]) + ("F" in segment[2])
            if TAIL_PROBE.search(line) and beyond <= furthest:
                continue
            furthest = max(furthest, beyond)
        yield line


def _lines(*ends):
    """The lines of a connection, once it is traced to its end and each side's FIN has been acknowledged."""

    def is_acknowledged(mark, segments):
        fins = [int(end) + 1 for direction, flags, _, end, *_ in segments if direction == mark and "F" in flags]
        acks = [int(ack) for direction, *_, ack in segments if direction != mark and ack]
        return fins and acks and max(fins) == max(acks)

    def ended():
        lines = _trace(*_flow(*ends))
        segments = _segments(lines)
        return lines if any(" closed " in line for line in lines) and all(is_acknowledged(mark, segments) for mark in "<>") else None

    return until("the connection's end in the trace", ended)


def _trace(*arguments):
    host, port = config.ADMIN
    return run(binary(), "trace", "--from", f"{host}:{port}", *arguments).stdout.splitlines()


@contextlib.contextmanager
def _sample(trial, one_in):
    """Has the engine trace one connection in so many, and as before afterwards."""
    settings = trial.engine.settings["engine"]["trace"]
    before = settings["one_in"]
    try:
        _reload(trial, settings, one_in)
        yield
    finally:
        _reload(trial, settings, before)


def _all_traced(trial):
    return _sample(trial, 1)


def _reload(trial, settings, one_in):
    def version():
        return trial.engine.metrics().sum("sealane_control_configuration_version")

    settings["one_in"], old = one_in, version()
    trial.engine.write()
    trial.engine.reload()
    until("the reload", lambda: version() > old)
