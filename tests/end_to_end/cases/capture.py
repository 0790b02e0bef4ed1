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

from .reencryption import NGINX, TO_NGINX, TO_NGINX_12, _servers


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


def http_is_read_in_a_capture_with_secrets_between_clients_and_the_engine(trial):
    """Full and resumed handshakes of both versions, and of no session that began before or that the filter leaves out."""
    with _telling(trial), trial.client().connect() as early:
        with _captured(trial, "--filter", f"host {HOST} and tcp port 443", "--side", "client", "--tls-secrets") as capture:
            early.sendall(b"name\n")
            read_all(early)
            visits = []
            for version in ("1.3", "1.2"):
                client = trial.client(version)
                visits += [client.visit(), client.visit()]
            other = "198.18.3.1"
            trial.world.address(other)
            hidden = _visit(trial, other)
        assert [visit.resumed for visit in visits] == [False, True] * 2, visits
        assert "with TLS secrets" in capture.told, capture.told
        read = _requests(capture.file)
        assert read == {str(visit.port): "shop.example" for visit in visits}, (read, visits)
        # An answer without a length ends with the connection, which tshark does not see through TLS: it is shown as it begins.
        answers = run("tshark", "-r", capture.file, "-o", "http.desegment_body:FALSE", "-Y", "http.response.code == 200").stdout.splitlines()
        assert len(answers) == len(visits), answers
        # Four secrets of each session of TLS 1.3, one of TLS 1.2.
        log = _key_log(capture.file)
        assert len(log) == 2 * 4 + 2 * 1, [line.split()[0] for line in log]
        assert hidden and stat.S_IMODE(capture.file.stat().st_mode) == 0o600
    return f"{len(log)} secrets"


def http_is_read_in_a_capture_with_secrets_between_the_engine_and_servers(trial):
    _servers(trial)
    with _telling(trial):
        with _captured(trial, "--side", "server", "--filter", f"host {NGINX} and tcp", "--tls-secrets") as capture:
            for service in (TO_NGINX, TO_NGINX_12):
                for version in ("1.3", "1.2"):
                    assert trial.client(version, at(service)).visit().server == "nginx"
        options = [part for port in (8001, 8002) for part in ("-d", f"tcp.port=={port},tls")]
        options += [part for port in (8001, 8002) for part in ("-d", f"tls.port=={port},http")]
        requests = run("tshark", "-r", capture.file, *options, "-Y", "http.request", "-T", "fields", "-e", "tcp.dstport").stdout.split()
        assert sorted(requests) == ["8001", "8001", "8002", "8002"], requests
        labels = {line.split()[0] for line in _key_log(capture.file)}
        assert {"CLIENT_RANDOM", "SERVER_TRAFFIC_SECRET_0"} <= labels, labels
        # Both sides at once: the client's request is seen twice.
        with _captured(trial, "--tls-secrets", "--filter", f"host {NGINX} or host {at(TO_NGINX)}") as capture:
            assert trial.client("1.2", at(TO_NGINX)).visit().server == "nginx"
        requests = run("tshark", "-r", capture.file, *options, "-Y", "http.request", "-T", "fields", "-e", "tcp.dstport").stdout.split()
        assert sorted(requests) == ["443", "8001"], requests


def secrets_are_refused_where_the_configuration_does_not_allow_them(trial):
    command = (binary(), "capture", "--socket", trial.engine.api.path, "--tls-secrets", "-w", trial.world.directory / "refused")
    done = run(*command, check=False)
    assert done.returncode == 1 and "tls_secrets = true in [engine.capture]" in done.stderr, done
    with _telling(trial):
        warned = run(binary(), "check", "--config", trial.engine.file)
        assert "engine.capture.tls_secrets" in warned.stderr and "may record secrets" in warned.stderr, warned
        with _captured(trial, "--tls-secrets", "--filter", "tcp"):
            done = run(*command, check=False)
            assert done.returncode == 1 and "another capture is told the TLS secrets" in done.stderr, done
    done = run(*command, check=False)
    assert done.returncode == 1 and "tells no TLS secrets" in done.stderr, done


@contextlib.contextmanager
def _telling(trial):
    """Has the configuration allow secrets meanwhile."""
    engine = trial.engine.settings["engine"]
    engine["capture"] = {"tls_secrets": True}
    trial.reload()
    try:
        yield
    finally:
        del engine["capture"]
        trial.reload()


def _requests(file):
    """The host that each client's port has asked for, as tshark reads it."""
    rows = run("tshark", "-r", file, "-Y", "http.request", "-T", "fields", "-e", "tcp.srcport", "-e", "http.host").stdout.splitlines()
    return dict(row.split("\t") for row in rows)


def _blocks(file, wanted):
    """The bodies of all blocks of a type."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        kind, size = (int.from_bytes(data[at + offset : at + offset + 4], "little") for offset in (0, 4))
        if kind == wanted:
            yield data[at + 8 : at + size - 4]
        at += size


def _key_log(file):
    """The lines of all Decryption Secrets Blocks."""
    return [line for body in _blocks(file, 10) for line in body[8 : 8 + int.from_bytes(body[4:8], "little")].decode().splitlines()]


def _statistics(file):
    """Frames left out, as the file's Interface Statistics Blocks say."""
    total = 0
    for body in _blocks(file, 5):
        option = 12
        while code := int.from_bytes(body[option : option + 2], "little"):
            length = int.from_bytes(body[option + 2 : option + 4], "little")
            if code == 5:
                total += int.from_bytes(body[option + 4 : option + 12], "little")
            option += 4 + (length + 3) // 4 * 4
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
