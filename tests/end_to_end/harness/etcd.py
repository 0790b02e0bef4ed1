"""A real etcd in the world's namespace."""

import signal
import urllib.request

from .processes import Failed, run
from .wait import until

# Of its own, so that an engine can be cut off from it and not from clients.
ADDRESS = "198.18.4.1"
CLIENTS, PEERS = f"http://{ADDRESS}:2379", "http://127.0.0.1:2380"


class Etcd:
    """One member, which keeps its data when it is killed. Engines reach it as everybody reaches the router."""

    address, endpoint = ADDRESS, CLIENTS

    def __init__(self, world):
        self.world, self.starts = world, 0
        if run("which", "etcd", check=False).returncode != 0:
            raise Failed("etcd is not there: run ./scripts/setup")
        world.address(ADDRESS)
        self.start()

    def start(self):
        self.starts += 1
        # fmt: off
        command = ["etcd", "--name", "one", "--data-dir", self.world.directory / "etcd", "--log-level", "error",
                   "--listen-client-urls", CLIENTS, "--advertise-client-urls", CLIENTS,
                   "--listen-peer-urls", PEERS, "--initial-advertise-peer-urls", PEERS, "--initial-cluster", f"one={PEERS}",
                   # Alone it is elected as soon as it may be.
                   "--heartbeat-interval", "20", "--election-timeout", "200"]
        # fmt: on
        self.child = self.world.child(f"etcd-{self.starts}", command, self.world.directory)
        until("etcd to be healthy", self.is_healthy, 30)

    def stop(self):
        """Kills it, the way it dies."""
        self.child.stop(signal.SIGKILL)

    def is_healthy(self):
        if not self.child.is_running():
            raise Failed(f"etcd ended: {self.child.tail()}")
        try:
            with urllib.request.urlopen(f"{CLIENTS}/health", timeout=2) as page:
                return b'"true"' in page.read()
        except OSError:
            return False
