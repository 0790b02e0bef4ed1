"""The host's end of a VLAN: an interface whose frames leave another one tagged, and that hears those alone that arrive there with this tag.

It is the kernel's where the kernel has such (`ip link … type vlan`). Where it has none it is a tap and a process that puts tags in and takes them out,
which is what this file is when it is run.
"""

import fcntl
import os
import pathlib
import select
import socket
import struct
import sys

if __package__:
    from .processes import run
    from .wait import until

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR, SO_RCVBUFFORCE = 263, 8, 15, 33
TP_STATUS_VLAN_VALID = 1 << 4
PACKET_OUTGOING = 4
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
# struct virtio_net_hdr: what is left to do about checksums and length.
TASK = 10


def add(world, outer, vlan):
    """Makes the interface upon `outer` and gives its name. It is up, and goes with `outer`."""
    name = f"{outer}.{vlan}"
    if run("ip", "link", "add", "link", outer, "name", name, "type", "vlan", "id", vlan, check=False).returncode != 0:
        run("ip", "link", "delete", name, check=False)
        child = world.child(f"vlan-{vlan}", [sys.executable, "-B", pathlib.Path(__file__), outer, name, vlan])
        until(f"{name} to be there: {child.tail()}", lambda: run("ip", "link", "show", name, check=False).returncode == 0)
    run("ip", "link", "set", name, "up")
    return name


def main(outer, name, vlan):
    inside = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(inside, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    outside = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    # A virtual machine's frames come with checksums and cutting left to do, which is told in front of each and passed on.
    outside.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    # The kernel takes tags out of what arrives, and tells of them beside it.
    outside.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    outside.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    outside.bind((outer, ETH_P_ALL))
    tag = struct.pack("!HH", 0x8100, vlan)
    while True:
        ready, _, _ = select.select([inside, outside], [], [])
        if inside in ready:
            frame = os.read(inside, 65536)
            # Nobody has asked for more, so nothing is left to do about these.
            outside.send(bytes(TASK) + frame[TASK : TASK + 12] + tag + frame[TASK + 12 :])
        if outside in ready:
            frame, extra, _, sender = outside.recvmsg(65536, 256)
            if sender[2] != PACKET_OUTGOING and told(extra) == vlan:
                os.write(inside, frame)


def told(extra):
    """The VLAN of a frame, by its struct tpacket_auxdata; `None` if it had no tag."""
    for level, kind, data in extra:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, _ = struct.unpack_from("IIIHHHH", data)
            return tci & 0x0FFF if status & TP_STATUS_VLAN_VALID else None
    return None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
