"""The connection log: where a connection's time went, and syslog that is there, slow, or gone."""

import contextlib
import json
import re
import socket

from harness import world
from harness.clients import read_all, request
from harness.trial import BANK, TO_REFUSING, TO_UNANSWERED, Trial, at
from harness.wait import until

# RFC 5424 6, as far as the engine makes use of it.
SYSLOG = re.compile(r"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (\S+) sealane (\d+) connection - (\{.*\})")


def a_record_splits_the_time_of_its_connection(trial):
    mark = trial.engine.records.mark()
    with trial.client("1.3", at(BANK)).connect() as tls:
        port = tls.getsockname()[1]
        tls.sendall(request("shop.example"))
        read_all(tls)
    fields = trial.engine.records.of(port, mark).fields
    parts = [fields[key] for key in ("handshake_ms", "connect_ms", "first_byte_ms")]
    assert all(part > 0 for part in parts) and sum(parts) <= fields["duration_ms"], fields
    assert 0 < fields["client_rtt_ms"] < fields["handshake_ms"], fields
    assert fields["version"] == "1.3" and fields["cipher"].startswith("TLS_") and fields["sni"] == "shop.example", fields
    assert (fields["end"], fields["ended_by"]) == ("finished", "both")
    return ", ".join(f"{key} {fields[key]:g}" for key in ("client_rtt_ms", "handshake_ms", "connect_ms", "first_byte_ms", "duration_ms"))


def a_record_says_whose_doing_the_end_was_and_has_no_times_of_what_never_came(trial):
    for service, end in ((TO_REFUSING, "server-refused"), (TO_UNANSWERED, "server-timed-out")):
        mark = trial.engine.records.mark()
        visit = trial.client(address=at(service)).visit()
        fields = trial.ended(visit.port, mark, end).fields
        assert fields["ended_by"] == "server" and fields["handshake_ms"] > 0, fields
        assert fields["connect_ms"] is None and fields["first_byte_ms"] is None, fields


def records_go_to_syslog_and_one_that_is_slow_or_gone_is_counted_and_holds_up_nobody(_):
    with world.World("test") as other:
        own = Trial(other)
        for open_syslog in (_UnixSocket, _UdpSocket):
            with contextlib.closing(open_syslog(other.directory)) as (daemon, name):
                own.engine.settings["engine"]["log"] = {"format": "json", "syslog": name, "facility": "local3"}
                own.reload()
                visit = own.client(address=at(BANK)).visit()
                priority, _, _, process, text = SYSLOG.fullmatch(daemon.recv(65536).decode()).groups()
                record = json.loads(text)
                # local3, informational.
                assert (int(priority), int(process)) == (19 * 8 + 6, own.engine.child.pid)
                assert record["client"].endswith(f":{visit.port}") and record["persistence"]["chosen"] == f"web/{visit.server}", record
        return _slow_and_gone(own)


def _slow_and_gone(own):
    before = own.engine.metrics().sum("sealane_control_records_failed_total")
    with contextlib.closing(_UnixSocket(own.world.directory)) as (_, name):
        own.engine.settings["engine"]["log"] = {"format": "json", "syslog": name}
        own.reload()
        # Nobody reads: the kernel keeps some and then no more.
        client, visits = own.client(address=at(BANK)), 0

        def failed():
            nonlocal visits
            visits += 1
            assert client.visit().server, "the client is held up"
            return own.engine.metrics().sum("sealane_control_records_failed_total") - before

        until("a record to find no room", failed, 60, every=0)
    # Gone altogether.
    count = own.engine.metrics().sum("sealane_control_records_failed_total")
    assert client.visit().server and own.engine.is_healthy()
    until("the lost record to be counted", lambda: own.engine.metrics().sum("sealane_control_records_failed_total") > count, 5)
    return f"{visits} visits until a socket that nobody reads was full"


class _UnixSocket:
    """A syslog daemon's socket, and its name in the configuration."""

    def __init__(self, directory):
        self.path = directory / "syslog"
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(10)

    def __iter__(self):
        return iter((self.socket, str(self.path)))

    def close(self):
        self.socket.close()
        self.path.unlink(missing_ok=True)


class _UdpSocket:
    def __init__(self, _):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(10)

    def __iter__(self):
        host, port = self.socket.getsockname()
        return iter((self.socket, f"{host}:{port}"))

    def close(self):
        self.socket.close()
