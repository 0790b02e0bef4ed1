"""The engine's configuration file, written from Python values of the same shape. dpdk-config/tap.toml explains the keys."""

import json
import os

from .world import HOST, HOST6, TAP

ADMIN = ("127.0.0.1", 9900)


def base(**ticket_keys):
    """An engine with two lanes on a tap and no service yet."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("Two lanes need two cores; this process may run on one only.")
    return {
        "engine": {
            "name": "engine-1",
            "cluster": "trial",
            "cores": cores,
            "control_core": cores[0],
            "poll": "adaptive",
            "admin": f"{ADMIN[0]}:{ADMIN[1]}",
            "hugepages": "auto",
            "buffers": 16384,
            "drain_timeout": "10s",
            "log": {"format": "json", "file": "-"},
            "trace": {"one_in": 64, "file": "engine.trace"},
        },
        "port": [
            {
                "name": "front",
                "device": f"net_tap0,iface={TAP}",
                "addresses": ["198.18.0.2/16", "2001:db8::2/64"],
                "gateways": [HOST, HOST6],
                "mtu": 1500,
            }
        ],
        "virtual_service": [],
        "pool": [],
        "health_monitor": [],
        "persistence_profile": [],
        "ticket_keys": ticket_keys or {"source": "own", "rotation": "6h", "lifetime": "24h"},
    }


def service(name, host, pool, *stems, profile=None, **more):
    """A virtual service at 198.18.0.HOST and 2001:db8::HOST, port 443, with the certificates of these file stems."""
    table = {
        "name": name,
        "addresses": [f"198.18.0.{host}:443", f"[2001:db8::{host}]:443"],
        "pool": pool,
        "certificates": [{"certificate": f"{stem}.pem", "key": f"{stem}.key"} for stem in stems],
        "minimum_version": "1.2",
        "alpn": ["http/1.1"],
    }
    if profile:
        table["persistence_profile"] = profile
    return table | more


def clients(mode, authority="clients"):
    """Client certificates of this authority, with its revocation list."""
    return {"mode": mode, "ca": f"{authority}.pem", "crl": [f"{authority}.crl"]}


def pool(name, servers, monitor=None, algorithm="round-robin"):
    """A pool; `servers` maps names to (address, port)."""
    table = {"name": name, "algorithm": algorithm}
    if monitor:
        table["health_monitor"] = monitor
    return table | {"server": [{"name": key, "address": f"{host}:{port}"} for key, (host, port) in servers.items()]}


def monitor(name):
    """A monitor that is quick to notice, so that nobody waits long."""
    return {"name": name, "type": "tcp", "interval": "1s", "timeout": "500ms", "successful_checks": 2, "failed_checks": 2}


def profile(name, when_down):
    return {"name": name, "type": "tls", "select_new_server_when_persistent_server_down": when_down}


def by_address(name):
    """A profile by address, under which the hosts of a network of 16 addresses are one client."""
    return {"name": name, "type": "client-ip", "ipv4_mask": 28, "ipv6_mask": 124, "timeout": "5m"}


def toml(tables, path=()):
    """TOML of nested dicts; a list of dicts is an array of tables, except that certificates stay inline, of servers and clients."""
    lines, below = [], []
    for key, value in tables.items():
        if isinstance(value, dict) and key != "client_certificates":
            below += ["", f"[{'.'.join((*path, key))}]", toml(value, (*path, key))]
        elif isinstance(value, list) and value and isinstance(value[0], dict) and key != "certificates":
            for item in value:
                below += ["", f"[[{'.'.join((*path, key))}]]", toml(item, (*path, key))]
        elif not (value == [] and not path):
            lines.append(f"{key} = {inline(value)}")
    return "\n".join(lines + below)


def inline(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)  # TOML writes strings, numbers and booleans as JSON does
