"""Servers that refuse, reset or say nothing, and clients that vanish: a record with the reason, a counter, and nobody else notices."""

import socket
import struct

from harness.clients import read_all, told
from harness.trial import HASTY, TO_REFUSING, TO_UNANSWERED, TO_UNREACHABLE, at
from harness.wait import until


def _failed_connect(trial, service, end):
    mark = trial.engine.records.mark()
    with trial.undisturbed(), trial.counted(f"sealane_relay_ended_{end.replace('-', '_')}_total"):
        visit = trial.client(address=at(service)).visit()
        assert visit.refused, visit
    trial.ended(visit.port, mark, end)


def a_server_that_refuses_resets_the_client(trial):
    _failed_connect(trial, TO_REFUSING, "server-refused")


def a_server_that_does_not_answer_the_syn_resets_the_client(trial):
    _failed_connect(trial, TO_UNANSWERED, "server-timed-out")


def a_server_that_is_not_there_resets_the_client(trial):
    _failed_connect(trial, TO_UNREACHABLE, "server-unreachable")


def a_server_that_resets_mid_stream_resets_the_client(trial):
    for version in ("1.3", "1.2"):
        mark = trial.engine.records.mark()
        with trial.undisturbed(), trial.counted("sealane_relay_ended_server_reset_total"):
            with trial.client(version).connect() as tls:
                port = tls.getsockname()[1]
                tls.sendall(b"reset_after 100000\n")
                try:
                    count = len(read_all(tls))
                    raise AssertionError(f"after {count} bytes the stream ended in order")
                except OSError as error:
                    assert told(tls, error) == "reset", error
        trial.ended(port, mark, "server-reset")


def a_server_that_never_answers_is_given_up(trial):
    mark = trial.engine.records.mark()
    with trial.undisturbed(), trial.counted("sealane_relay_ended_idle_timed_out_total"):
        with trial.client(address=at(HASTY)).connect(seconds=15) as tls:
            port = tls.getsockname()[1]
            tls.sendall(b"silence\n")
            try:
                read_all(tls)
            except TimeoutError:
                raise
            except OSError:
                pass  # closed or reset: both are an answer
    trial.ended(port, mark, "idle-timed-out")


def a_client_that_resets_resets_the_server(trial):
    mark = trial.engine.records.mark()
    with trial.undisturbed(), trial.counted("sealane_relay_ended_client_reset_total"):
        tls = trial.client().connect()
        port = tls.getsockname()[1]
        tls.sendall(b"silence vanishing\n")
        until("the server to listen", lambda: trial.servers.recall("a", "vanishing") == "listening")
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tls.close()
        until("the server to see a reset", lambda: trial.servers.recall("a", "vanishing") == "reset")
    trial.ended(port, mark, "client-reset")


def a_client_that_ends_without_close_notify_is_recorded(trial):
    mark = trial.engine.records.mark()
    with trial.undisturbed(), trial.counted("sealane_relay_ended_client_truncated_total"), trial.by_hand() as client:
        client.handshake()
        client.write(b"silence cut\n")
        until("the server to listen", lambda: trial.servers.recall("a", "cut") == "listening")
        client.socket.shutdown(socket.SHUT_WR)
        until("the server to see the end", lambda: trial.servers.recall("a", "cut") != "listening")
        port = client.port
    trial.ended(port, mark, "client-truncated")
