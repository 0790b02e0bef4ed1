"""Sees every TCP packet on the tap, both ways."""

import dataclasses
import socket
import struct

from .world import TAP

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33


@dataclasses.dataclass
class Packet:
    """A TCP segment's header. `length` is that of its data."""

    source_port: int
    port: int
    seq: int
    ack: int
    flags: int
    window: int
    length: int

    def fields(self):
        return dataclasses.astuple(self)


class Tap:
    """Use it in a `with`: from then on it sees all, with room for 64 MiB."""

    def __enter__(self):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.socket.bind((TAP, ETH_P_ALL))
        self.socket.setblocking(False)
        return self

    def __exit__(self, *_):
        self.socket.close()

    def packets(self):
        """What has been seen until now."""
        while True:
            try:
                frame = self.socket.recv(65536)
            except BlockingIOError:
                return
            if packet := parse(frame):
                yield packet


def parse(frame):
    """The TCP packet in a frame, `None` for anything else. IPv6 extension headers are not expected here."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and frame[23] == 6:
        start = 14 + 4 * (frame[14] & 15)
        end = 14 + int.from_bytes(frame[16:18])
    elif kind == b"\x86\xdd" and frame[20] == 6:
        start = 54
        end = start + int.from_bytes(frame[18:20])
    else:
        return None
    source, port, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", frame, start)
    return Packet(source, port, seq, ack, flags, window, end - start - 4 * (offset >> 4))
