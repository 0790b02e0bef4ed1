"""Ports that are not alike: in a VLAN, two of them, with jumbo frames. Each case has a world and an engine of its own."""

import hashlib
import socket

from harness import config, vlan, world
from harness.certificates import Authority
from harness.clients import NAME, CurlClient, PythonClient
from harness.engine import Engine
from harness.processes import run
from harness.servers import Servers, Stream
from harness.sniffer import Sniffer
from harness.wait import until
from harness.world import HOST, HOST6, TAP

SHOP, SHOP6 = "198.18.0.10", "2001:db8::10"
WEB = {"a": ("198.18.1.11", 8000), "b": ("198.18.1.12", 8000)}
VLAN, OTHER_VLAN = 7, 8
TRANSFER = 64 << 20
JUMBO = 9000


class Stage:
    """A world of which a case says how its taps are plugged in. To an [`Engine`] it is its world."""

    def __init__(self, inner, *interfaces):
        self.inner, self.interfaces = inner, interfaces
        self.directory, self.stack, self.address, self.child = inner.directory, inner.stack, inner.address, inner.child

    def plug(self):
        if any(run("ip", "link", "show", name, check=False).returncode != 0 for name, *_ in self.interfaces):
            return False
        for name, setup in self.interfaces:
            run("ip", "link", "set", name, "up")
            setup(name)
        return True


def _address(name, *addresses):
    for address in addresses:
        run("ip", "address", "replace", address, "dev", name, *(["nodad"] if ":" in address else []))


def _settings(pools, **port):
    settings = config.base()
    settings["port"][0] |= port
    settings["health_monitor"] = [config.monitor("connect")]
    settings["persistence_profile"] = [config.profile("move", "immediate")]
    settings["pool"] = pools
    settings["virtual_service"] = [config.service("shop", 10, "web", "shop", profile="move")]
    return settings


def _certificate(stage):
    authority = Authority(stage.directory)
    authority.sign("shop", "ecdsa", NAME)
    return authority.certificate


def _visits(stage, certificate, *addresses, source=None):
    """Clients come to each address and back; each is served by its own server, and resumes."""
    for address in addresses:
        for version in ("1.3", "1.2"):
            client = PythonClient(stage, version, address, certificate, source=source)
            visits = [client.visit() for _ in range(3)]
            assert all(visit.server and visit.server == visits[0].server for visit in visits), visits
            assert [visit.resumed for visit in visits] == [False, True, True], visits
    if not source:
        visits = CurlClient(stage, "1.3", addresses[0], certificate).visits(3)
        assert [bool(visit.resumed) for visit in visits] == [False, True, True] and all(visit.server for visit in visits), visits


def _ping(address, *options):
    return run("ping", "-c", "1", "-W", "5", *options, address, check=False).returncode == 0


def _arp_request(source, asker, asked):
    return bytes.fromhex("0001080006040001") + source + socket.inet_aton(asker) + bytes(6) + socket.inet_aton(asked)


def a_port_in_a_vlan_is_served_in_it_alone(_):
    with world.World("test") as inner:

        def plug(tap):
            _address(vlan.add(inner, tap, VLAN), f"{HOST}/16", f"{HOST6}/64")

        stage = Stage(inner, (TAP, plug))
        certificate = _certificate(stage)
        Servers(stage, {name: (*address, False) for name, address in WEB.items()})
        engine = Engine(stage, _settings([config.pool("web", WEB, monitor="connect")], vlan=VLAN))
        for name in WEB:
            engine.wait_for_server("web", name, True)
        inside = f"{TAP}.{VLAN}"
        with Sniffer(stage, TAP) as sniffer:
            run("ip", "neighbour", "flush", "dev", inside)
            for address in (SHOP, SHOP6):
                # 1,500 bytes of packet: with the tag the frame is four longer than without.
                overhead = 48 if ":" in address else 28
                assert _ping(address) and _ping(address, "-M", "do", "-s", str(1500 - overhead)), f"no echo from {address}"
            _visits(stage, certificate, SHOP, SHOP6)
            _transfers(stage, certificate, 4 << 20)
        # The kernel's end has that address but for the last bit; what the kernel says there untagged, to routers, is no matter of ours.
        kernel = run("ip", "-brief", "link", "show", TAP).stdout.split()[2]
        engine_mac = kernel[:-1] + f"{int(kernel[-1], 16) ^ 1:x}"
        rows = sniffer.rows("vlan.id", "frame.len", where=f"eth.addr == {engine_mac}")
        tags = {tag for tag, _ in rows}
        assert tags == {str(VLAN)}, f"frames with these tags: {tags}"
        assert max(int(length) for _, length in rows) == 1518, "full frames carry 1,500 bytes"
        kinds = {protocol for row in sniffer.rows("frame.protocols") for protocol in row[0].split(":")}
        assert {"arp", "icmp", "icmpv6", "tcp"} <= kinds, kinds
        assert sniffer.rows("icmpv6.type", where="icmpv6.type == 136"), "no neighbour was advertised"
        _other_vlans_are_not_heard(engine)
        _visits(stage, certificate, SHOP)
        assert engine.stop() == 0
        return f"{len(rows)} frames, all tagged"


def _other_vlans_are_not_heard(engine):
    """Asks for the engine's address by ARP, with its tag and with others."""
    mac = b"\x02\x00\x00\x00\x77\x01"
    request = b"\x08\x06" + _arp_request(mac, "198.18.0.77", "198.18.0.2")

    def tagged(tci):
        return b"\x81\x00" + tci.to_bytes(2) + request

    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    with listener:
        listener.bind((f"{TAP}.{VLAN}", 0x0806))
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with raw:
            raw.bind((TAP, 0))
            dropped = "sealane_lane_frames_of_other_vlans_total"
            before = engine.metrics().sum(dropped)
            # Untagged, of another VLAN, of none but with a priority, of a provider's tag around ours.
            others = [request, tagged(OTHER_VLAN), tagged(0xA000), b"\x88\xa8" + VLAN.to_bytes(2) + tagged(VLAN)]
            for other in others:
                raw.send(b"\xff" * 6 + mac + other)
            # The same from another asker in our VLAN, with a priority, comes last and is answered.
            ours = request.replace(socket.inet_aton("198.18.0.77"), socket.inet_aton("198.18.0.78"))
            raw.send(b"\xff" * 6 + mac + b"\x81\x00" + (0xA000 | VLAN).to_bytes(2) + ours)
            until("the engine to count them", lambda: engine.metrics().sum(dropped) >= before + len(others), 5)
            listener.settimeout(5)
            answered = None
            while answered != "198.18.0.78":
                frame = listener.recv(2048)
                if frame[20:22] == b"\x00\x02" and socket.inet_ntoa(frame[28:32]) == "198.18.0.2":
                    answered = socket.inet_ntoa(frame[38:42])
                    assert answered != "198.18.0.77", "it answered a frame that is not of its VLAN"


def two_ports_have_clients_on_one_side_and_servers_on_the_other(_):
    """Each port has the default route of one family or more, and what is in a port's network goes there, whatever gateways others have."""
    rear, host, host6 = "sealane1", "198.19.0.1", "2001:db8:1::1"
    near, near6, far6 = ("198.19.0.11", 8000), ("2001:db8:1::11", 8000), ("2001:db8:2::11", 8000)
    client, inner_shop = "198.19.200.9", "198.19.0.12"
    with world.World("test") as inner:
        front_end = (TAP, lambda tap: _address(tap, f"{HOST}/24", f"{HOST6}/64"))
        # Linux answers for an IPv6 address only where it has it.
        stage = Stage(inner, front_end, (rear, lambda tap: _address(tap, f"{host}/24", f"{host6}/64", f"{near6[0]}/128")))
        certificate = _certificate(stage)
        pools = {"web": {"near": near}, "web6": {"near6": (f"[{near6[0]}]", 8000)}, "behind": {"far6": (f"[{far6[0]}]", 8000)}}
        settings = _settings(
            [config.pool(name, servers, monitor="connect") for name, servers in pools.items()],
            addresses=["198.18.0.2/24", "2001:db8::2/64"],
            gateways=[HOST],
        )
        back = {"name": "back", "device": f"net_tap1,iface={rear}", "addresses": ["198.19.0.2/24", "2001:db8:1::2/64"], "gateways": [host, host6]}
        settings["port"].append(back)
        settings["virtual_service"] += [
            config.service("six", 11, "web6", "shop", profile="move"),
            config.service("behind", 12, "behind", "shop", profile="move"),
            config.service("inner", 13, "web", "shop", profile="move") | {"addresses": [f"{inner_shop}:443"]},
        ]
        Servers(stage, {"near": (*near, False), "near6": (*near6, False), "far6": (*far6, False)})
        # A client that is in no network of the engine's.
        inner.address(client)
        engine = Engine(stage, settings)
        for pool, servers in pools.items():
            engine.wait_for_server(pool, next(iter(servers)), True)
        with Sniffer(stage, TAP) as before, Sniffer(stage, rear) as behind:
            _visits(stage, certificate, SHOP, SHOP6, "198.18.0.11", "2001:db8::11", "198.18.0.12")
            _visits(stage, certificate, SHOP, source=client)
            for address in (SHOP, SHOP6, "198.18.0.2", "198.19.0.2", "2001:db8:1::2"):
                assert _ping(address), f"no echo from {address}"
        syn = "tcp.flags.syn == 1 and tcp.flags.ack == 0"
        assert {port for (port,) in before.rows("tcp.dstport", where=syn)} == {"443"}, "others than clients' connections are on the front"
        assert {port for (port,) in behind.rows("tcp.dstport", where=syn)} == {"8000"}, "others than servers' connections are on the back"
        spoken = {v4 or v6 for v4, v6 in behind.rows("ip.src", "ipv6.src", where="tcp.dstport == 8000")}
        assert spoken == {"198.19.0.2", "2001:db8:1::2"}, f"servers are spoken to from {spoken}"
        assert before.rows("ip.src", where=f"ip.src == {SHOP} and ip.dst == {client}"), "whoever is behind the front's gateway was answered elsewhere"
        # Both ports have an IPv4 gateway: answers leave by the port to which the address belongs that was spoken to.
        with Sniffer(stage, TAP) as before, Sniffer(stage, rear) as behind:
            _visits(stage, certificate, inner_shop, source=client)
        assert behind.rows("ip.src", where=f"ip.src == {inner_shop} and ip.dst == {client}"), "nothing was answered on the back"
        assert not before.rows("ip.src", where=f"ip.dst == {client}"), "the back's client was answered on the front"
        assert engine.stop() == 0


def jumbo_frames_carry_nine_thousand_bytes(_):
    with world.World("test") as inner:
        stage = Stage(inner, (TAP, lambda tap: _address(tap, f"{HOST}/16", f"{HOST6}/64")))
        certificate = _certificate(stage)
        Servers(stage, {name: (*address, False) for name, address in WEB.items()})
        engine = Engine(stage, _settings([config.pool("web", WEB, monitor="connect")], mtu=JUMBO))
        for name in WEB:
            engine.wait_for_server("web", name, True)
        assert f"mtu {JUMBO} " in run("ip", "link", "show", TAP).stdout, "the kernel's end has another MTU"
        for address in (SHOP, SHOP6):
            overhead = 48 if ":" in address else 28
            assert _ping(address, "-M", "do", "-s", str(JUMBO - overhead)), f"no echo of {JUMBO} bytes from {address}"
        _visits(stage, certificate, SHOP, SHOP6)
        with Sniffer(stage, TAP) as sniffer:
            _transfers(stage, certificate, TRANSFER)
            _transfers(stage, certificate, 4 << 20, SHOP6)
        longest = {}
        for source, source6, length, length6 in sniffer.rows("ip.src", "ipv6.src", "ip.len", "ipv6.plen"):
            size = int(length or 0) or int(length6 or 0) + 40
            # An uncut packet of the kernel's own would be longer than the link carries.
            longest[source or source6] = max(longest.get(source or source6, 0), size)
        # Which of the servers had the transfers is the engine's choice.
        longest["servers"] = max(longest.get(host, 0) for host, _ in WEB.values())
        for sender in (SHOP, SHOP6, HOST, HOST6, "198.18.0.2", "servers"):
            assert longest.get(sender) == JUMBO, f"the longest packets by sender: {longest}"
        _visits(stage, certificate, SHOP, SHOP6)
        assert engine.stop() == 0
        return f"the longest packets: {sorted(set(longest.values()))}"


def _transfers(stage, certificate, length, address=SHOP):
    """So many bytes each way, whose hash is right at the other end."""
    client = PythonClient(stage, "1.3", address, certificate)
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(1 << 18))
    with client.connect(seconds=60) as tls:
        tls.sendall(f"download {length} down\n".encode())
        while size := tls.recv_into(buffer):
            hasher.update(buffer[:size])
    assert hasher.hexdigest() == Stream(length, "down").digest(), "what came down differs"
    with client.connect(seconds=60) as tls:
        tls.sendall(f"upload {length}\n".encode())
        for part in Stream(length, "up"):
            tls.sendall(part)
        answer = tls.recv(100).decode().strip()
    assert answer == Stream(length, "up").digest(), "what went up differs"
