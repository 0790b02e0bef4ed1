"""A lot: 1 GiB each way, many connections one after the other and at once, and one that stalls."""

import collections
import concurrent.futures
import hashlib
import socket
import threading

from harness.servers import Stream
from harness.trial import SHOP, Stopwatch, at
from harness.wait import TimedOut, settled, until

# The runner's --bytes changes it.
length = 1 << 30


def a_download_arrives_whole_over_tls_1_3(trial):
    return _download(trial, "1.3")


def a_download_arrives_whole_over_tls_1_2(trial):
    return _download(trial, "1.2")


def an_upload_arrives_whole_over_tls_1_3(trial):
    return _upload(trial, "1.3")


def an_upload_arrives_whole_over_tls_1_2(trial):
    return _upload(trial, "1.2")


def _download(trial, version):
    hasher, buffer, count = hashlib.sha256(), memoryview(bytearray(1 << 18)), 0
    with trial.client(version).connect(seconds=30) as tls:
        watch = Stopwatch()
        tls.sendall(f"download {length} {version}\n".encode())
        while size := tls.recv_into(buffer):
            hasher.update(buffer[:size])
            count += size
        rate = watch.rate(count)
    assert count == length, f"{count} bytes of {length}"
    assert hasher.hexdigest() == Stream(length, version).digest(), "the hash differs"
    return rate


def _upload(trial, version):
    with trial.client(version).connect(seconds=30) as tls:
        watch = Stopwatch()
        tls.sendall(f"upload {length}\n".encode())
        for part in Stream(length, version):
            tls.sendall(part)
        answer = tls.recv(100).decode().strip()
        rate = watch.rate(length)
    assert answer == Stream(length, version).digest(), "the hash differs"
    return rate


def two_thousand_connections_one_after_the_other(trial):
    count, watch = 2000, Stopwatch()
    homes, clients = {}, []
    for number in range(count):
        # Every tenth is a new client; the others return, in turn, and must find their server.
        if number % 10 == 0:
            clients.append(trial.client("1.3" if number % 20 else "1.2"))
        client = clients[number % len(clients)]
        visit = client.visit()
        assert visit.server and visit.error is None, f"connection {number}: {visit}"
        assert visit.server == homes.setdefault(client, visit.server), f"connection {number} came to {visit.server}, not {homes[client]}"
    spread = collections.Counter(homes.values())
    assert min(spread.values()) >= len(clients) // 6, spread
    return f"{count / watch.seconds:.0f} a second"


def three_hundred_connections_at_once(trial):
    count = 300
    together = threading.Barrier(count + 1)

    def talk(number):
        with trial.client("1.3" if number % 2 else "1.2").connect(seconds=60) as tls:
            together.wait(60)  # all are open now
            together.wait(60)  # and have been counted
            tls.sendall(b"name\n")
            return tls.recv(100)

    with concurrent.futures.ThreadPoolExecutor(count) as crowd:
        answers = [crowd.submit(talk, number) for number in range(count)]
        try:
            together.wait(90)
            # Each has one to the server, too; in TLS 1.3 that is opened when the client has finished its handshake already.
            until("the engine to count all", lambda: trial.engine.metrics().sum("sealane_tcp_connections") >= 2 * count, 5)
            together.wait(60)
        except TimedOut:
            together.abort()
            raise
        except threading.BrokenBarrierError:
            for answer in answers:
                if answer.done() and answer.exception() and not isinstance(answer.exception(), threading.BrokenBarrierError):
                    raise AssertionError(f"a connection failed: {answer.exception()}") from None
            raise
        wrong = [answer.result() for answer in answers if answer.result().strip() not in (b"a", b"b", b"c")]
    assert not wrong, wrong[:5]


def a_client_that_stops_reading_stalls_its_server_only(trial):
    total, most = 64 << 20, 8 << 20
    client = trial.client()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    raw.settimeout(30)
    raw.connect((at(SHOP), 443))
    with client.context.wrap_socket(raw, server_hostname=client.name, suppress_ragged_eofs=False) as tls:
        tls.sendall(f"flood stalled {total}\n".encode())
        sent = settled("the server's sending", lambda: trial.servers.recall("a", "stalled") or 0)
        assert 0 < sent <= most, f"the server could send {sent} bytes to a client that does not read"
        with trial.undisturbed():
            for _ in range(20):
                other = trial.client()
                assert other.visit().server and other.visit().resumed
            with trial.client().connect() as busy:
                busy.sendall(b"download 20000000\n")
                count = 0
                while part := busy.recv(1 << 18):
                    count += len(part)
                assert count == 20_000_000
        assert trial.servers.recall("a", "stalled") == sent, "it went on sending"
        hasher, count = hashlib.sha256(), 0
        while part := tls.recv(1 << 18):
            hasher.update(part)
            count += len(part)
    assert hasher.hexdigest() == Stream(total, "1").digest(), f"{count} bytes of {total} with another hash"
    return f"stalled after {sent / 1e6:.1f} MB"
