"""Servers that are spoken to in TLS: nginx and HAProxy verified, resumed, shown a certificate, and refused where they are not who they should be."""

import functools
import hashlib
import json
import pathlib

from harness import config
from harness.secure import SecureHaproxy, SecureNginx
from harness.servers import Stream
from harness.trial import PROXIED, WEB, at
from harness.wait import until

VERSIONS = ("1.3", "1.2")
NAME = "web.internal"
NGINX, HAPROXY = "198.18.1.51", "198.18.1.52"

# Virtual services, by the last part of their addresses.
TO_NGINX, TO_NGINX_12, TO_ASKING, TO_HAPROXY, TO_PROXIED, MIXED = range(50, 56)
# Those whose server is not who it should be.
WRONG_NAME, WRONG_CA, EXPIRED, PLAIN, NO_CERTIFICATE, SHY = range(70, 76)
ENDS = {
    WRONG_NAME: "server-certificate-wrong-name",
    WRONG_CA: "server-certificate-unknown-ca",
    EXPIRED: "server-certificate-expired",
    PLAIN: "server-not-tls",
    NO_CERTIFICATE: "server-refused-certificate",
    # TLS 1.2 has no alert of its own for it (RFC 5246 7.4.6).
    SHY: "server-alert-received",
}

# Bytes of each big transfer.
LENGTH = 64 << 20


@functools.cache
def _servers(trial):
    """nginx and HAProxy, and pools and virtual services for them."""
    directory = trial.world.directory
    trial.authority.sign("web", "ecdsa", NAME)
    trial.clients.sign("engine")
    trial.clients.sign("late", "expired")
    own = ["ssl_certificate web.pem", "ssl_certificate_key web.key"]
    # Its default is a cache of none, and of tickets those of TLS 1.3 and 1.2.
    both = ["ssl_protocols TLSv1.2 TLSv1.3"]
    asking = ["ssl_client_certificate clients.pem", "ssl_verify_client on"]
    late = ["ssl_certificate late.pem", "ssl_certificate_key late.key"]
    nginx = SecureNginx(
        trial.world, NGINX, {8001: own + both, 8002: own + ["ssl_protocols TLSv1.2"], 8003: own + both + asking, 8004: late, 8005: []}
    )
    (directory / "web.both").write_text((directory / "web.pem").read_text() + (directory / "web.key").read_text())
    crt = f"crt {directory}/web.both"
    demanding = f"{crt} verify required ca-file {directory}/clients.pem"
    SecureHaproxy(
        trial.world,
        HAPROXY,
        {
            "tcp": (8001, crt, "", WEB["a"]),
            "proxied": (8002, f"{crt} accept-proxy", "send-proxy-v2", PROXIED),
            "demanding": (8003, demanding, "", WEB["a"]),
            "demanding12": (8004, f"{demanding} ssl-max-ver TLSv1.2", "", WEB["a"]),
        },
    )
    trusting = {"ca": "authority.pem", "server_name": NAME}
    shown = {"certificate": "engine.pem", "key": "engine.key"}
    settings = trial.engine.settings
    for name, host, server, tls, more in (
        ("to-nginx", TO_NGINX, (NGINX, 8001), trusting, {}),
        ("to-nginx-12", TO_NGINX_12, (NGINX, 8002), trusting, {}),
        ("to-asking", TO_ASKING, (NGINX, 8003), trusting | shown, {}),
        ("to-haproxy", TO_HAPROXY, (HAPROXY, 8001), trusting, {}),
        ("to-proxied", TO_PROXIED, (HAPROXY, 8002), trusting, {"proxy_protocol": "v2"}),
        ("wrong-name", WRONG_NAME, (NGINX, 8001), {"ca": "authority.pem", "server_name": "shop.internal"}, {}),
        ("wrong-ca", WRONG_CA, (NGINX, 8001), {"ca": "clients.pem", "server_name": NAME}, {}),
        ("expired", EXPIRED, (NGINX, 8004), {"ca": "clients.pem", "server_name": "late"}, {}),
        ("plain", PLAIN, (NGINX, 8005), {"verify": False}, {}),
        ("no-certificate", NO_CERTIFICATE, (HAPROXY, 8003), trusting, {}),
        ("shy", SHY, (HAPROXY, 8004), trusting, {}),
    ):
        settings["pool"].append(config.pool(name, {"server": server}) | {"tls": tls})
        settings["virtual_service"].append(config.service(name, host, name, "shop-ecdsa", **more))
    # One of them is not who it should be.
    settings["pool"].append(config.pool("mixed", {"wrong": (NGINX, 8005), "right": (NGINX, 8001)}) | {"tls": trusting, "passive_health": "off"})
    settings["virtual_service"].append(config.service("mixed", MIXED, "mixed", "shop-ecdsa"))
    trial.reload()
    return nginx


def nginx_is_asked_for_by_its_name_and_resumes_the_sessions_of_the_engine(trial):
    nginx = _servers(trial)
    for service, protocol in ((TO_NGINX, "TLSv1.3"), (TO_NGINX_12, "TLSv1.2")):
        # Whatever the client speaks; each visit is one of its own, of one lane or the other.
        with trial.counted("sealane_relay_server_handshakes_full_total"), trial.counted("sealane_relay_server_handshakes_resumed_total", 4):
            for version in VERSIONS:
                for visit in trial.curl(version, at(service)).visits(4):
                    assert visit.server == "nginx", visit
        lines = nginx.told(8)
        assert all((line["protocol"], line["server_name"]) == (protocol, NAME) for line in lines), lines
        # The first connection of each lane has nothing to resume.
        fresh = [line["resumed"] for line in lines].count(".")
        assert fresh in (1, 2), lines


def nginx_is_shown_the_certificate_that_it_asks_for(trial):
    nginx = _servers(trial)
    for visit in trial.curl("1.3", at(TO_ASKING)).visits(3):
        assert visit.server == "nginx", visit
    for line in nginx.told(3):
        assert (line["verified"], line["client"]) == ("SUCCESS", "CN=engine,O=Shop"), line


def a_server_that_is_not_who_it_should_be_gets_nothing_of_the_client(trial):
    nginx = _servers(trial)
    before = len(nginx.requests())
    for service, end in ENDS.items():
        mark = trial.engine.records.mark()
        with trial.undisturbed(), trial.counted(f"sealane_relay_ended_{end.replace('-', '_')}_total"):
            visit = trial.client(address=at(service)).visit()
            assert visit.refused and visit.server is None, (end, visit)
        record = trial.ended(visit.port, mark, end)
        assert record.fields["bytes_received"] == 0 or service == NO_CERTIFICATE, record
    assert len(nginx.requests()) == before
    # It has been told why, by an alert.
    errors = pathlib.Path(trial.world.directory, "nginx-secure.errors")
    for words in ("alert unknown ca", "alert bad certificate", "alert certificate expired"):
        until(f"nginx to log {words!r}", lambda words=words: words in errors.read_text(errors="replace"))


def who_meets_a_server_that_is_not_who_it_should_be_is_served_by_another(trial):
    nginx = _servers(trial)
    with trial.counted("sealane_relay_connects_retried_total", 2):
        for visit in trial.curl("1.3", at(MIXED)).visits(4):
            assert visit.server == "nginx", visit
    assert len(nginx.told(4)) == 4


def haproxy_gets_the_proxy_header_before_the_client_hello(trial):
    _servers(trial)
    for version in VERSIONS:
        answer, end = trial.ask("whoami", version, at(TO_PROXIED))
        assert json.loads(answer)["source"] == [end[0], end[1]], answer


def bulk_arrives_whole_both_ways_through_both_sessions(trial):
    _servers(trial)
    for version in VERSIONS:
        with trial.client(version, at(TO_HAPROXY)).connect(seconds=60) as tls:
            tls.sendall(f"download {LENGTH} {version}\n".encode())
            hasher, count = hashlib.sha256(), 0
            while part := tls.recv(1 << 18):
                hasher.update(part)
                count += len(part)
        assert (count, hasher.hexdigest()) == (LENGTH, Stream(LENGTH, version).digest())
        with trial.client(version, at(TO_HAPROXY)).connect(seconds=60) as tls:
            tls.sendall(f"upload {LENGTH}\n".encode())
            for part in Stream(LENGTH, version):
                tls.sendall(part)
            assert tls.recv(100).decode().strip() == Stream(LENGTH, version).digest()


def new_files_are_used_after_a_reload(trial):
    nginx = _servers(trial)
    trial.clients.sign("engine-2")
    for suffix in ("pem", "key"):
        pathlib.Path(trial.world.directory, f"engine-2.{suffix}").replace(pathlib.Path(trial.world.directory, f"engine.{suffix}"))
    trial.reload()
    assert trial.curl("1.3", at(TO_ASKING)).visits(1)[0].server == "nginx"
    assert nginx.told(1)[0]["client"] == "CN=engine-2,O=Shop"
