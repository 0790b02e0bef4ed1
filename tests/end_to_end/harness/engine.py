"""The engine's process, its metrics and its connection records."""

import json
import re
import signal
import urllib.error
import urllib.request

from . import config
from .api import Api
from .processes import Failed
from .wait import TimedOut, until
from .world import binary

SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: .*)?")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Engine:
    """A running engine. `settings` is the configuration as nested dicts; change it and call `write` and `reload`."""

    def __init__(self, world, settings, name="engine"):
        self.world, self.settings, self.name = world, settings, name
        self.file = world.directory / f"{name}.toml"
        self.starts = 0
        # Engines of other worlds have the same name: each has its socket in its own directory.
        settings["engine"].setdefault("api", {"socket": f"{name}.sock"})
        self.start()

    @property
    def api(self):
        return Api(self.world.directory / self.settings["engine"]["api"]["socket"])

    def write(self):
        self.file.write_text(config.toml(self.settings) + "\n")

    def start(self, seconds=30):
        self.write()
        self.starts += 1
        self.child = self.world.child(f"{self.name}-{self.starts}", [binary(), "run", "--config", self.file], self.world.directory)
        self.records = Records(self.child.output)
        self._while_alive("the engine's tap interface", self.world.plug, seconds)
        self._while_alive("the engine's /healthz", self.is_healthy, seconds)

    def _while_alive(self, what, condition, seconds):
        try:
            until(what, lambda: not self.child.is_running() or condition(), seconds)
        except TimedOut as error:
            raise Failed(f"{error}; the engine said:\n{self.child.tail()}") from None
        self.require_running()

    def require_running(self):
        if not self.child.is_running():
            raise Failed(f"the engine ended with status {self.child.process.returncode}:\n{self.child.tail()}")

    def stop(self, seconds=20):
        """Drains it and gives its exit status."""
        return self.child.stop(signal.SIGTERM, seconds)

    def reload(self):
        self.child.send(signal.SIGHUP)

    def is_healthy(self):
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False

    def get(self, path):
        """Status and body of a page of the admin address."""
        try:
            with urllib.request.urlopen(f"http://{self.settings['engine']['admin']}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def metrics(self):
        status, text = self.get("/metrics")
        if status != 200:
            raise Failed(f"/metrics answered {status}")
        return Metrics(text)

    def wait_for_server(self, pool, server, up, seconds=15):
        """Waits until the health monitors agree."""

        def agreed():
            metrics = self.metrics()
            seen = [metrics.value(name, pool=pool, server=server) for name in ("sealane_server_monitored", "sealane_server_up")]
            return seen == [1, float(up)]

        until(f"server {server} of pool {pool} to be seen {'up' if up else 'down'}", agreed, seconds)


class Metrics:
    """One reading of /metrics."""

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            match = None if line.startswith("#") else SAMPLE.fullmatch(line)
            if match:
                self.samples.append((match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))

    def select(self, name, **labels):
        return [
            value for key, have, value in self.samples if key == name and all(have.get(label) == want for label, want in labels.items())
        ]

    def sum(self, name, **labels):
        """The sum over lanes and whatever else is not named. A metric that does not exist is an error, not zero."""
        values = self.select(name, **labels)
        if not values:
            raise AssertionError(f"there is no metric {name} {labels or ''}")
        return sum(values)

    def value(self, name, **labels):
        """The one sample with these labels, `None` without one."""
        values = self.select(name, **labels)
        return values[0] if values else None

    def matching(self, pattern):
        """The sum of all whose whole name matches the pattern. A reason is a part of the name here: `sealane_relay_ended_server_reset_total`."""
        values = [value for key, labels, value in self.samples if re.fullmatch(pattern, _with_reason(key, labels))]
        if not values:
            raise AssertionError(f"there is no metric like {pattern}")
        return sum(values)


def _with_reason(name, labels):
    reason = labels.get("reason")
    return f"{name.removesuffix('_total')}_{reason.replace('-', '_')}_total" if reason else name


class Record:
    """What the engine wrote about one connection."""

    def __init__(self, fields):
        self.fields = fields
        self.persistence = fields.get("persistence") or {}

    @property
    def port(self):
        """The client's port."""
        return int(str(self.fields["client"]).rpartition(":")[2])

    @property
    def service(self):
        return self.fields.get("service")

    @property
    def end(self):
        return self.fields.get("end")

    @property
    def resumed(self):
        return self.persistence.get("resumed")

    @property
    def server(self):
        """The server that was chosen, without its pool."""
        chosen = self.persistence.get("chosen")
        return chosen and chosen.rpartition("/")[2]

    @property
    def reason(self):
        return self.persistence.get("reason")

    @property
    def key_id(self):
        return self.persistence.get("key_id")

    def __repr__(self):
        return json.dumps(self.fields)


class Records:
    """Follows the engine's output. Connection records are kept, other lines too."""

    def __init__(self, path):
        self.path, self.offset, self.partial = path, 0, b""
        self.all, self.lines = [], []

    def read(self):
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            fresh = file.read()
        self.offset += len(fresh)
        *lines, self.partial = (self.partial + fresh).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            try:
                value = json.loads(text)
            except ValueError:
                value = None
            if isinstance(value, dict) and "client" in value:
                self.all.append(Record(value))
            else:
                self.lines.append(text)

    def mark(self):
        """A place in the records; `of(port, mark)` looks behind it only, since ports come again."""
        self.read()
        return len(self.all)

    def find(self, port, mark=0):
        self.read()
        return next((record for record in reversed(self.all[mark:]) if record.port == port), None)

    def since(self, mark, count, seconds=10):
        """The records behind a mark, once there are so many."""
        until(f"{count} records", lambda: self.mark() >= mark + count, seconds)
        return self.all[mark:]

    def of(self, port, mark=0, seconds=10):
        """The record of the connection from this client port. It is written when the connection ends."""
        return until(f"the engine's record of the connection from port {port}", lambda: self.find(port, mark), seconds)
