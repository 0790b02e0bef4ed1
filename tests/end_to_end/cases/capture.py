"""`sealane capture`: what tshark finds in the files, what is left out, and that nobody else notices."""

import contextlib
import os
import signal
import stat
import subprocess
import threading

from harness.clients import read_all
from harness.processes import run
from harness.trial import SHOP, WEB, at, at6
from harness.wait import until
from harness.world import HOST, binary


def a_filter_picks_one_client_of_two_and_the_file_is_its_owners(trial):
    other = "198.18.3.1"
    trial.world.address(other)
    with _captured(trial, "--filter", f"host {HOST} and port 443", "--side", "client") as capture:
        ports = {source: _visit(trial, source) for source in (HOST, other)}
    assert stat.S_IMODE(capture.file.stat().st_mode) == 0o600
    conversations = _fields(capture.file, "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport")
    clients = {(host, int(port)) for one in conversations for host, port in (one[:2], one[2:]) if port != "443"}
    assert (HOST, ports[HOST]) in clients and all(host == HOST for host, _ in clients), clients
    _require_whole(capture.file, ports[HOST])
    assert "left out: none" in capture.told and "it was ended" in capture.told, capture.told
    return f"{len(conversations)} frames"


def each_side_is_captured_alone_and_both_together(trial):
    seen = {}
    for side in ("client", "server", "both"):
        with _captured(trial, "--side", side) as capture:
            port = _visit(trial)
        ends = _fields(capture.file, "tcp.srcport", "tcp.dstport")
        seen[side] = str(port) in {one for ends in ends for one in ends}, "8000" in {one for ends in ends for one in ends}
    assert seen == {"client": (True, False), "server": (False, True), "both": (True, True)}, seen


def a_capture_flows_into_a_pipe_and_ipv6_is_captured(trial):
    command = f"{binary()} capture --socket {trial.engine.api.path} --filter 'ip6 and tcp port 443' --seconds 60 --count 12 -w - | tshark -l -r -"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shell:
        assert "capturing" in shell.stderr.readline()
        for _ in range(3):
            assert trial.client(address=at6(SHOP)).visit().server in WEB
        shown, told = shell.communicate(timeout=30)
    lines = shown.splitlines()
    assert len(lines) == 12 and all(at6(SHOP) in line for line in lines), shown
    assert "12 frames" in told and "as many frames as it may" in told, told


def a_capture_ends_at_its_count_its_bytes_and_its_time(trial):
    for bound, value, told in (("--count", 5, "5 frames"), ("--bytes", 3000, "as many bytes as it may"), ("--seconds", 1, "its time was up")):
        with _captured(trial, "--filter", "tcp port 443", bound, value, interrupt=False) as capture:
            _visit(trial)
        assert told in capture.told, (bound, capture.told)
        frames = _fields(capture.file, "frame.len")
        assert bound != "--count" or len(frames) == 5, frames
        # The end of the file is an Interface Statistics Block.
        assert bound != "--bytes" or 1500 < capture.file.stat().st_size < 3000 + 200, capture.file.stat()


def captures_that_cannot_be_are_refused_with_the_reason(trial):
    for arguments, told in (
        (("--filter", "host 198.18.0.1 and prot 443"), "did you mean port?"),
        (("--lane", "7"), "there is no lane 7; this engine has lanes 0 to 1"),
        (("--port-name", "back"), 'there is no port "back"; this engine has front'),
        (("--seconds", "100000"), "write a number from 1 to 240"),
    ):
        done = run(binary(), "capture", "--socket", trial.engine.api.path, "-w", trial.world.directory / "refused", *arguments, check=False)
        assert done.returncode == 1 and told in done.stderr, done
        assert not (trial.world.directory / "refused").exists()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(_captured(trial, "--filter", "icmp"))
        done = run(binary(), "capture", "--socket", trial.engine.api.path, "-w", "-", check=False)
        assert done.returncode == 1 and "4 captures already" in done.stderr, done
        assert [one["filter"] for one in trial.engine.api.get("/v1/captures")] == ["icmp"] * 4


def both_lanes_capture_and_one_of_them_alone(trial):
    """Visits until both lanes have had some; each frame says by its queue which lane it passed."""
    with _captured(trial, "--filter", "tcp port 443") as capture:
        for _ in range(12):
            _visit(trial)
    queues = {queue for (queue,) in _fields(capture.file, "frame.interface_queue")}
    assert queues == {"0", "1"}, queues
    times = [float(time) for (time,) in _fields(capture.file, "frame.time_epoch")]
    assert times == sorted(times), "frames of two lanes are not in the order of time"
    with _captured(trial, "--filter", "tcp port 443", "--lane", "1") as capture:
        for _ in range(12):
            _visit(trial)
    assert {queue for (queue,) in _fields(capture.file, "frame.interface_queue")} == {"1"}


def whoever_captures_and_goes_away_leaves_nothing_behind(trial):
    with contextlib.ExitStack() as stack:
        captures = [stack.enter_context(_captured(trial, "--filter", "tcp", interrupt=False, whole=False)) for _ in range(4)]
        assert len(trial.engine.api.get("/v1/captures")) == 4
        for capture in captures:
            capture.process.kill()
    until("the captures to be gone", lambda: trial.engine.api.get("/v1/captures") == [])
    # Their memory, too: there is room for as many again.
    until("room for another", lambda: _begins(trial))


def a_capture_under_load_leaves_clients_unharmed_and_counts_what_it_left_out(trial):
    """Downloads over two connections, with a rate of frames that they exceed by far, and then with nobody who reads."""
    length = 32 << 20
    with _captured(trial, "--filter", "tcp", "--rate", "500", "--snaplen", "128") as capture:
        got = _downloads(trial, length)
    assert got == [length] * 2, got
    left_out = int(capture.told.rpartition("left out: ")[2].partition(" by rate")[0])
    assert left_out > 1000, capture.told
    drops = _statistics(capture.file)
    assert drops == left_out, (drops, capture.told)
    # A client that is stopped takes nothing: lanes have no room, and leave out.
    before = trial.engine.metrics().sum("sealane_lane_frames_not_captured_total")
    with _captured(trial, "--filter", "tcp", "--rate", "1000000", "--byte-rate", "1000000000") as capture:
        os.kill(capture.process.pid, signal.SIGSTOP)
        try:
            got = _downloads(trial, length)
        finally:
            os.kill(capture.process.pid, signal.SIGCONT)
    assert got == [length] * 2, got
    assert trial.engine.metrics().sum("sealane_lane_frames_not_captured_total") > before and " by slow" in capture.told, capture.told
    return capture.told.strip().rpartition("; ")[2]


def _statistics(file):
    """Frames left out, as the file's Interface Statistics Blocks say."""
    data = file.read_bytes()
    total, at = 0, 0
    while at < len(data):
        kind, size = (int.from_bytes(data[at + offset : at + offset + 4], "little") for offset in (0, 4))
        if kind == 5:
            option = at + 20
            while code := int.from_bytes(data[option : option + 2], "little"):
                length = int.from_bytes(data[option + 2 : option + 4], "little")
                if code == 5:
                    total += int.from_bytes(data[option + 4 : option + 12], "little")
                option += 4 + (length + 3) // 4 * 4
        at += size
    return total


def _downloads(trial, length):
    got = [0, 0]

    def download(number):
        with trial.client().connect(seconds=120) as tls:
            tls.sendall(f"download {length} capture\n".encode())
            got[number] = len(read_all(tls))

    threads = [threading.Thread(target=download, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return got


def _visit(trial, source=None):
    """A visit's port."""
    visit = trial.client(source=source).visit()
    assert visit.server in WEB, visit
    return visit.port


def _begins(trial):
    """Whether another capture may begin."""
    done = run(binary(), "capture", "--socket", trial.engine.api.path, "--seconds", "1", "-w", trial.world.directory / "another", check=False)
    return done.returncode == 0


class _Capture:
    def __init__(self, process, file):
        self.process, self.file, self.told = process, file, ""


@contextlib.contextmanager
def _captured(trial, *arguments, interrupt=True, whole=True):
    """Captures meanwhile: every lane has begun when the body runs. Ends by Ctrl-C, or by itself."""
    file = trial.world.directory / f"capture-{next(_numbers)}.pcapng"
    command = [binary(), "capture", "--socket", trial.engine.api.path, "-w", file, *arguments]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    capture = _Capture(process, file)
    try:
        first = process.stderr.readline()
        assert "capturing" in first, first + process.stderr.read()
        yield capture
        if interrupt:
            process.send_signal(signal.SIGINT)
        _, capture.told = process.communicate(timeout=30)
        assert not whole or process.returncode == 0, (process.returncode, capture.told)
    finally:
        process.kill()
        process.wait()


def _fields(file, *names, options=()):
    wanted = [part for name in names for part in ("-e", name)]
    return [tuple(line.split("\t")) for line in run("tshark", "-r", file, *options, "-T", "fields", *wanted).stdout.splitlines()]


def _require_whole(file, port):
    """Requires that tshark finds a connection from SYN to FIN, and nothing missing in it."""
    rows = run("tshark", "-r", file, "-Y", f"tcp.port == {port}", "-T", "fields", "-e", "tcp.flags.syn", "-e", "tcp.flags.fin").stdout.splitlines()
    assert len([row for row in rows if row.startswith("1")]) == 2 and len([row for row in rows if row.endswith("1")]) >= 2, rows
    wrong = run("tshark", "-r", file, "-Y", "_ws.malformed || tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment").stdout
    assert not wrong, wrong


def _numbering():
    number = 0
    while True:
        yield (number := number + 1)


_numbers = _numbering()
