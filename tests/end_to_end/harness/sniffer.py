"""tshark on an interface: what the wire saw, tags and lengths included, as another program reads it."""

import itertools

from .processes import Failed, run
from .wait import until


class Sniffer:
    """Use it in a `with`; it sees every frame from the beginning to the end of that. `rows` gives fields of them."""

    count = itertools.count(1)

    def __init__(self, world, interface, snap=200):
        self.world, self.interface, self.snap = world, interface, snap
        self.name = f"dumpcap-{interface}-{next(self.count)}"
        self.file = world.directory / f"{self.name}.pcap"

    def __enter__(self):
        command = ["dumpcap", "-q", "-P", "-B", "64", "-s", self.snap, "-i", self.interface, "-w", self.file]
        self.child = self.world.child(self.name, command)
        # It writes the file's header when it listens.
        until("dumpcap to listen", lambda: "File:" in self.child.tail() and self.file.exists(), 20)
        return self

    def __exit__(self, *_):
        # It writes what it has seen when it is asked to stop.
        self.child.stop(seconds=10)
        if not self.file.exists():
            raise Failed(f"dumpcap wrote nothing: {self.child.tail()}")

    def rows(self, *fields, where=""):
        """A list of values for each frame that the display filter lets pass."""
        command = ["tshark", "-r", self.file, "-T", "fields", *[word for field in fields for word in ("-e", field)]]
        output = run(*command, *(["-Y", where] if where else []), seconds=90).stdout
        return [line.split("\t") for line in output.splitlines()]
