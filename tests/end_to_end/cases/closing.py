"""The ends of connections: either side may finish first, and the other goes on."""

import hashlib
import socket

from harness.wait import until


def a_client_may_finish_first(trial):
    for version in ("1.3", "1.2"):
        for with_fin in (False, True):
            with trial.by_hand(version) as client:
                client.handshake()
                client.write(b"after_end\n" + bytes(100_000))
                client.close_notify()
                if with_fin:
                    client.socket.shutdown(socket.SHUT_WR)
                answer = client.read_all()
                assert answer == b"100000 bytes, then the end\n", (version, with_fin, answer)


def a_server_may_finish_first(trial):
    data = hashlib.shake_256(b"late").digest(1_000_000)
    for version in ("1.3", "1.2"):
        token = f"late-{version}"
        mark = trial.engine.records.mark()
        with trial.by_hand(version) as client:
            client.handshake()
            client.write(f"end_first {token}\n".encode())
            assert client.read_all() == b"that was all\n"
            client.write(data)
            client.close_notify()
            client.socket.shutdown(socket.SHUT_WR)
            until("the server to have it all", lambda token=token: trial.servers.recall("a", token) == hashlib.sha256(data).hexdigest())
            port = client.port
        trial.ended(port, mark, "finished")


def an_answer_ends_with_close_notify(trial):
    for version in ("1.3", "1.2"):
        with trial.by_hand(version) as client:
            client.handshake()
            client.write(b"name\n")
            # `read_all` raises when the stream ends without close_notify.
            assert client.read_all().strip() in (b"a", b"b", b"c")
