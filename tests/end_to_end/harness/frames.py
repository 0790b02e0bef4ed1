"""Raw Ethernet frames into the tap, and ICMP echo."""

import fcntl
import functools
import json
import os
import random
import select
import socket
import struct
import time

from .processes import run
from .world import HOST, HOST6, TAP


def checksum(data):
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(payload, kind=0x0800):
    """A frame from the kernel to the engine."""
    return engine_mac() + mac() + struct.pack("!H", kind) + payload


@functools.cache
def engine_mac():
    """The engine's Ethernet address, as the kernel has learned it."""
    ping("198.18.0.10", 1)
    neighbour = json.loads(run("ip", "-json", "neighbour", "show", "198.18.0.10").stdout)
    return bytes.fromhex(neighbour[0]["lladdr"].replace(":", ""))


def mac():
    """The kernel's Ethernet address on the tap."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return fcntl.ioctl(probe, 0x8927, struct.pack("256s", TAP.encode()))[18:24]  # SIOCGIFHWADDR


def ipv4(payload, source=HOST, to="198.18.0.10", protocol=6, length=None, version=0x45, fragment=0, good=True):
    length = 20 + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH4s4s", version, 0, length, 1, fragment, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(to))
    sum_ = checksum(head) if good else checksum(head) ^ 0x5555
    return head[:10] + struct.pack("!H", sum_) + head[12:] + payload


def ipv6(payload, source=HOST6, to="2001:db8::10", following=6, length=None):
    length = len(payload) if length is None else length
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
    return struct.pack("!IHBB", 0x60000000, length, following, 64) + ends + payload


def tcp(flags=0x02, port=33333, to_port=443, offset=5, options=b"", payload=b"", source=HOST, to="198.18.0.10", good=True, seq=1, ack=0):
    head = struct.pack("!HHIIBBHHH", port, to_port, seq, ack, offset << 4, flags, 65535, 0, 0) + options
    pseudo = socket.inet_aton(source) + socket.inet_aton(to) + struct.pack("!BBH", 0, 6, len(head) + len(payload))
    sum_ = checksum(pseudo + head + payload) if good else 0x1234
    return head[:16] + struct.pack("!H", sum_) + head[18:] + payload


def malformed():
    """Frames that are wrong in one way each, by name. None of them may have an effect other than being counted."""
    syn = tcp()
    whole = ipv4(syn)
    return {
        "nothing behind the Ethernet header": engine_mac() + mac() + b"\x08\x00",
        "IPv4 header cut": ethernet(whole[:12]),
        "TCP header cut": ethernet(ipv4(syn[:10])),
        "total length beyond the frame": ethernet(ipv4(syn, length=1500)),
        "total length within the header": ethernet(ipv4(syn, length=10)),
        "IPv4 version 5": ethernet(ipv4(syn, version=0x55)),
        "IPv4 header length 4": ethernet(ipv4(syn, version=0x44)),
        "IPv4 header longer than the packet": ethernet(ipv4(syn[:4], version=0x4F)),
        "IPv4 checksum": ethernet(ipv4(syn, good=False)),
        "TCP checksum": ethernet(ipv4(tcp(good=False))),
        "TCP data offset 2": ethernet(ipv4(tcp(offset=2))),
        "TCP data offset beyond the segment": ethernet(ipv4(tcp(offset=15))),
        "a fragment": ethernet(ipv4(syn, fragment=0x2000)),
        "a later fragment": ethernet(ipv4(syn, fragment=0x0010)),
        "from a multicast address": ethernet(ipv4(tcp(source="224.0.0.1"), source="224.0.0.1")),
        "from the broadcast address": ethernet(ipv4(tcp(source="255.255.255.255"), source="255.255.255.255")),
        "IPv6 header cut": ethernet(ipv6(b"")[:30], kind=0x86DD),
        "IPv6 length beyond the frame": ethernet(ipv6(b"\0" * 20, length=1400), kind=0x86DD),
        "IPv6 extension header beyond the frame": ethernet(ipv6(b"\x00\xff\0\0\0\0\0\0", following=0), kind=0x86DD),
        "ARP cut": ethernet(b"\x00\x01\x08\x00\x06\x04\x00\x01", kind=0x0806),
        "ARP for an unknown hardware": ethernet(b"\x00\x99\x08\x00\x06\x04\x00\x01" + b"\0" * 20, kind=0x0806),
        "an unknown EtherType": ethernet(b"\0" * 46, kind=0x88B5),
    }


def corrupted(seed, count):
    """Good frames with a few bits turned or the end cut off."""
    dice = random.Random(seed)
    samples = [
        ethernet(ipv4(tcp(options=b"\x02\x04\x05\xb4\x01\x03\x03\x07", offset=7))),
        ethernet(ipv4(tcp(flags=0x18, payload=b"\x16\x03\x01\x02\x00" * 20))),
        ethernet(ipv4(struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"ping", protocol=1)),
        ethernet(ipv6(b"\x80\0\0\0\0\x01\0\x01ping", following=58), kind=0x86DD),
        ethernet(ipv6(tcp(), following=6), kind=0x86DD),
    ]
    for _ in range(count):
        frame = bytearray(dice.choice(samples))
        for _ in range(dice.randint(1, 6)):
            # The first 12 bytes are Ethernet addresses: nothing to parse.
            frame[dice.randrange(12, len(frame))] ^= 1 << dice.randrange(8)
        if dice.random() < 0.3:
            del frame[dice.randrange(14, len(frame)) :]
        yield bytes(frame)


def inject(frames):
    """Sends frames to the engine as they are."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((TAP, 0))
        for frame in frames:
            raw.send(frame)


def ping(address, count=3, seconds=3.0):
    """Sends ICMP echo requests one after the other and gives the number of right answers."""
    six = ":" in address
    kind, protocol = (socket.AF_INET6, socket.getprotobyname("ipv6-icmp")) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    request, reply = (128, 129) if six else (8, 0)
    answers = 0
    with socket.socket(kind, socket.SOCK_RAW, protocol) as raw:
        for number in range(count):
            identity, data = os.getpid() & 0xFFFF, os.urandom(48)
            message = struct.pack("!BBHHH", request, 0, 0, identity, number) + data
            if not six:  # the kernel fills in the checksum of ICMPv6 only
                message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
            raw.sendto(message, (address, 0))
            answers += received(raw, reply, message[4:], 0 if six else 20, time.monotonic() + seconds)
    return answers


def received(raw, kind, tail, skip, deadline):
    while (left := deadline - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
        packet = raw.recv(2048)[skip:]
        if packet[:1] == bytes([kind]) and packet[4:] == tail:
            return True
    return False
