"""tshark on an interface: what the wire saw, tags and lengths included, as another program reads it."""

import itertools
import os
import socket

from .processes import run
from .wait import until

# Free for whoever likes (IEEE 802): the frames that show what dumpcap has seen already.
MARK = 0x88B5


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
        # A mark is sent anew each time, until it listens.
        mark = os.urandom(16)
        until("dumpcap to listen", lambda: self.send(mark) or self.has(mark), 20)
        return self

    def __exit__(self, failure, *_):
        # It forgets what it has not read yet when it is stopped, so it is stopped when the last frame is in its file.
        if failure is None:
            mark = os.urandom(16)
            self.send(mark)
            until("dumpcap to write down all", lambda: self.has(mark), 20)
        self.child.stop(seconds=10)

    def send(self, mark):
        """Puts a frame on the wire that nobody takes."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((self.interface, 0))
            raw.send(bytes.fromhex("02000000ffff02000000fffe") + MARK.to_bytes(2, "big") + mark.ljust(46, b"\0"))

    def has(self, mark):
        return self.file.exists() and mark in self.file.read_bytes()

    def rows(self, *fields, where=""):
        """A list of values for each frame that the display filter lets pass."""
        command = ["tshark", "-r", self.file, "-T", "fields", *[word for field in fields for word in ("-e", field)]]
        output = run(*command, "-Y", f"eth.type != {MARK:#x}" + (f" and ({where})" if where else ""), seconds=90).stdout
        return [line.split("\t") for line in output.splitlines()]
