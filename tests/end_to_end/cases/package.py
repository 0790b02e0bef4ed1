"""The Debian package under a real systemd, in a container over this machine's own root: installed, started, reloaded, killed, stopped, removed."""

import pathlib
import re

from harness.processes import Failed, run
from harness.trial import Trial
from harness.wait import TimedOut, until
from harness.world import REPOSITORY, World


def the_package_installs_a_hardened_service(trial):
    packages = [path for path in (REPOSITORY / "target/package").glob("sealane_*.deb")]
    assert len(packages) == 1, f"`./scripts/package` makes the package; there are {packages}"
    with World("test") as world:
        other = Trial(world)
        assert other.engine.stop() == 0
        with Container(world, packages[0].parent) as container:
            _installs(container, packages[0].name)
            _serves(container, other)
            _has_no_rights(container)
            _reloads(container, other.engine)
            _comes_back_when_killed(container, other)
            _stops(container)
            _is_removed(container)


def _installs(container, package):
    container.run("dpkg", "--install", f"/mnt/package/{package}", seconds=120)
    assert container.run("systemctl", "is-enabled", "sealane").stdout.strip() == "enabled"
    # Without a configuration there is nothing to start, and that is no failure.
    container.run("systemctl", "start", "sealane")
    assert container.show("ActiveState", "Result") == ["inactive", "success"]
    verified = container.run("systemd-analyze", "verify", "sealane.service")
    assert "sealane" not in verified.stderr, verified.stderr
    score = container.run("systemd-analyze", "security", "--no-pager", "sealane.service").stdout
    exposure = float(re.search(r"Overall exposure level for sealane.service: (\d+\.\d+)", score)[1])
    # A service that is not confined at all has 9.6.
    assert exposure < 4.0, score
    for page in ("sealane", "sealane-run", "sealane-keys-rotate", "sealane-ctl-explain"):
        assert page.upper() in container.run("man", page).stdout.upper(), page
    completions = container.run("bash", "-c", ". /usr/share/bash-completion/completions/sealane && complete -p sealane").stdout
    assert "_sealane" in completions, completions


def _serves(container, trial):
    settings = trial.engine.settings
    settings["engine"] |= {"user": "sealane", "api": {"socket": "/run/sealane/engine.sock"}}
    settings["ticket_keys"] |= {"source": "own", "file": "/var/lib/sealane/keys.ring"}
    settings["engine"]["log"] = {"format": "json", "file": "/var/log/sealane/connections.log"}
    trial.engine.write()
    container.run("sh", "-c", "cp /mnt/world/*.pem /mnt/world/*.key /mnt/world/*.crl /etc/sealane/ && cp /mnt/world/engine.toml /etc/sealane/sealane.toml")
    container.run("sh", "-c", "chown sealane /etc/sealane/*.key && chmod 0600 /etc/sealane/*.key")
    container.run("systemctl", "start", "sealane", seconds=60)
    # systemctl has waited for an engine that is ready.
    assert trial.engine.is_healthy(), "systemd says that it runs, and /healthz does not"
    assert container.show("ActiveState", "StatusText") == ["active", "serving"]
    assert trial.world.plug()
    for name in ("a", "b", "c"):
        trial.engine.wait_for_server("web", name, True)
    container.client = trial.client()
    container.home = container.client.visit().server
    _is_recognised(container)
    assert "web" in container.run("sealane", "ctl", "--socket", "/run/sealane/engine.sock", "pools").stdout


def _is_recognised(container):
    visit = container.client.visit()
    assert visit.resumed and visit.server == container.home, visit


def _has_no_rights(container):
    (pid,) = container.show("MainPID")
    user = container.run("id", "-u", "sealane").stdout.strip()
    threads = container.run("sh", "-c", f"cat /proc/{pid}/task/*/status").stdout
    assert re.findall(r"^Uid:\t(\d+)", threads, re.M) == [user] * threads.count("Name:"), threads
    assert set(re.findall(r"^Cap(?:Prm|Eff|Amb):\t(\w+)", threads, re.M)) == {"0" * 16}, threads
    assert set(re.findall(r"^NoNewPrivs:\t(\d)", threads, re.M)) == {"1"}, threads


def _reloads(container, engine):
    # A rotated log is opened anew.
    container.run("mv", "/var/log/sealane/connections.log", "/var/log/sealane/connections.log.1")
    container.run("systemctl", "reload", "sealane")
    try:
        until("the reload to be in force", lambda: engine.metrics().sum("sealane_control_reloads_total") == 1, 10)
    except TimedOut as error:
        raise Failed(f"{error}; it said:\n{container.journal()}") from None
    _is_recognised(container)


def _comes_back_when_killed(container, trial):
    (before,) = container.show("MainPID")
    container.run("kill", "-KILL", before)
    until("systemd to start the engine again", lambda: container.show("MainPID", "StatusText") not in ([before, "serving"], ["0", ""]) and trial.engine.is_healthy(), 30)
    assert container.show("NRestarts") == ["1"]
    until("the tap interface to be back", trial.world.plug, 10)
    for name in ("a", "b", "c"):
        trial.engine.wait_for_server("web", name, True)
    # The keys are those of before, from /var/lib/sealane.
    _is_recognised(container)


def _stops(container):
    container.run("systemctl", "stop", "sealane", seconds=60)
    assert container.show("ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]
    assert not pathlib.Path("/sys/class/net/sealane0").exists(), "the tap interface is still there"
    records = container.run("sh", "-c", "cat /var/log/sealane/connections.log*").stdout
    # Of four visits; what ended in the last moment before the engine was killed is lost.
    assert records.count('"service":"shop"') >= 3, records


def _is_removed(container):
    container.run("dpkg", "--purge", "sealane", seconds=60)
    left = container.run("sh", "-c", "ls -d /usr/bin/sealane /lib/systemd/system/sealane.service /var/lib/sealane /etc/sealane/sealane.toml", check=False).stdout.split()
    assert left == ["/etc/sealane/sealane.toml"], left


class Container:
    """systemd as process 1 over this machine's root, of which it sees a copy that goes with it; in the namespace of the world's network."""

    def __init__(self, world, package):
        self.world, self.package = world, package

    def __enter__(self):
        root = self.world.directory / "container"
        # In a mount namespace of its own, so that no mount outlives it.
        prepare = (
            f"mkdir {root} && mount -t tmpfs tmpfs {root} && mkdir {root}/upper {root}/work {root}/root && "
            f"mount -t overlay overlay -o lowerdir=/,upperdir={root}/upper,workdir={root}/work {root}/root && exec \"$@\""
        )
        binds = [f"--bind-ro={self.world.directory}:/mnt/world", f"--bind-ro={self.package}:/mnt/package", "--bind=/dev/net/tun"]
        nspawn = ["systemd-nspawn", "--quiet", f"--directory={root}/root", f"--machine={self.world.name}", "--register=no", "--keep-unit"]
        nspawn += ["--capability=all", "--console=pipe", *binds, "--boot", "systemd.unit=basic.target"]
        self.child = self.world.child("container", ["unshare", "--mount", "sh", "-ec", prepare, "sh", *nspawn])
        until("systemd to be up", self._is_up, 60)
        return self

    def __exit__(self, *_):
        self.child.stop(seconds=20)

    def _is_up(self):
        if not self.child.is_running():
            raise Failed(f"the container ended:\n{self.child.tail(40)}")
        children = run("pgrep", "-P", str(self.child.pid), check=False).stdout.split()
        self.init = children[0] if children else None
        return self.init and self.run("systemctl", "is-active", "basic.target", check=False).stdout.strip() == "active"

    def run(self, *command, seconds=30, check=True):
        """Runs a command in the container."""
        inside = ["nsenter", f"--target={self.init}", "--mount", "--uts", "--ipc", "--pid", "--root", "--wd", "--"]
        try:
            return run(*inside, *command, seconds=seconds, check=check)
        except Failed as error:
            raise Failed(f"{error}\n{self.journal()}") from None

    def journal(self):
        """What was said in the container last."""
        return self.run("journalctl", "--no-pager", "--lines=40", "--output=cat", check=False).stdout

    def show(self, *properties):
        """What systemd says of the service."""
        said = self.run("systemctl", "show", "sealane", *(f"--property={name}" for name in properties)).stdout
        values = dict(line.split("=", 1) for line in said.splitlines())
        return [values[name] for name in properties]
