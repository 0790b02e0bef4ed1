"""An engine that becomes another user has none of root's rights left, serves, reloads and ends as before."""

import contextlib
import os
import pathlib
import pwd
import shutil
import socket

from harness.trial import Trial
from harness.wait import until
from harness.world import World

USER = "nobody"


def an_engine_gives_up_roots_rights_and_tells_its_service_manager(trial):
    with World("test") as world, contextlib.ExitStack() as stack:
        manager = stack.enter_context(ServiceManager(world.directory))
        shutil.chown(world.directory, USER)
        other = Trial(world)
        engine = other.engine
        for name in world.directory.glob("*.key"):
            shutil.chown(name, USER)
        assert engine.stop() == 0
        engine.settings["engine"]["user"] = USER
        with _environment(NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="2000000"):
            engine.start()
        manager.wait_for("READY=1")
        _requires_no_rights(engine.child.pid)
        client = other.client()
        home = client.visit().server
        manager.forget()
        engine.settings["virtual_service"][0]["tickets"] = 1
        engine.write()
        engine.reload()
        until("the reload to be in force", lambda: engine.metrics().sum("sealane_control_reloads_total") == 1, 10)
        manager.wait_for("RELOADING=1", "READY=1", "WATCHDOG=1")
        visit = client.visit()
        assert visit.resumed and visit.server == home, visit
        # What was read as root before is not this user's to read: the configuration of before stays in force.
        key = next(world.directory.glob("shop-rsa.key"))
        shutil.chown(key, "root")
        key.chmod(0o600)
        engine.reload()
        until("the reload to be refused", lambda: engine.metrics().sum("sealane_control_reloads_refused_total") == 1, 10)
        assert client.visit().server == home
        _requires_no_rights(engine.child.pid)
        assert engine.stop() == 0
        manager.wait_for("STOPPING=1")
        assert not pathlib.Path("/sys/class/net/sealane0").exists(), "the tap interface is still there"


@contextlib.contextmanager
def _environment(**variables):
    """What children that are started inside find in their environment."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def _requires_no_rights(pid):
    user = str(pwd.getpwnam(USER).pw_uid)
    threads = list(pathlib.Path(f"/proc/{pid}/task").iterdir())
    assert len(threads) >= 3, threads
    for thread in threads:
        status = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines() if ":" in line)
        assert set(status["Uid"].split()) == {user}, (status["Name"], status["Uid"])
        for capabilities in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(status[capabilities], 16) == 0, (status["Name"], capabilities, status[capabilities])
        assert "0" not in status["Groups"].split(), (status["Name"], status["Groups"])


class ServiceManager:
    """What systemd is for sd_notify(3): a datagram socket, and what was said there."""

    def __init__(self, directory):
        self.path = directory / "notify.sock"
        self.said = []

    def __enter__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.path.chmod(0o666)
        self.socket.setblocking(False)
        return self

    def __exit__(self, *_):
        self.socket.close()

    def forget(self):
        self._listen()
        self.said.clear()

    def wait_for(self, *words):
        def heard():
            self._listen()
            return all(word in self.said for word in words)

        until(f"the engine to say {', '.join(words)} to its service manager; it said {self.said}", heard, 10)

    def _listen(self):
        while True:
            try:
                self.said += self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return
