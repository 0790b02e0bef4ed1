"""The end-to-end cases, in the order in which they run. A case is a function with the shared `Trial`; it raises when it fails."""

import importlib

NAMES = (
    "reach",  # ping, IPv6, PROXY protocol
    "frames",  # frames that are wrong
    "handshakes",  # first bytes and names that are wrong, or slow
    "tickets",  # tickets that are forged, cut, foreign or old
    "client_certificates",  # clients that prove who they are, or fail to
    "client_ip",  # clients that are known by their address
    "reencryption",  # servers that are spoken to in TLS
    "servers",  # servers that refuse, reset or say nothing, and clients that do so
    "failover",  # servers that do not connect while there are others, and pools that are down
    "closing",  # the ends of connections, each way
    "reload",  # SIGHUP
    "api",  # the API and `sealane ctl`, and a hundred changes under load
    "page",  # the status page in chromium
    "top",  # `sealane top` on a pseudo-terminal
    "monitors",  # health monitors of every kind
    "limits",  # servers that are full, drained or disabled
    "balancing",  # algorithms of pools
    "metrics",  # what /metrics says of visits that were counted, that it is well-formed, and what Prometheus makes of it
    "log",  # the connection log, and syslog
    "trace",  # what `sealane trace` says of connections
    "capture",  # what `sealane capture` writes, as tshark reads it
    "doctor",  # `sealane doctor`
    "privileges",  # an engine that gives up root's rights, and what it tells its service manager
    "package",  # the Debian package under a real systemd
    "ports",  # a port in a VLAN, two ports, jumbo frames
    "cluster",  # three engines with the same keys behind an ECMP router
    "routes",  # the kernel's interface beside a port, and BGP over it
    "volume",  # 1 GiB each way, many connections, one that stalls
    "after",  # everything has been given back. Runs last, always
)
MODULES = tuple(importlib.import_module(f".{name}", __package__) for name in NAMES)


def all_cases():
    """Every public function of the modules, in their order."""
    for module in MODULES:
        for name, value in vars(module).items():
            if (
                callable(value)
                and getattr(value, "__module__", "") == module.__name__
                and not name.startswith("_")
                and not isinstance(value, type)
            ):
                yield name, value
