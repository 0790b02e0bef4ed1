"""Real clients: curl, openssl s_client and Python's ssl. Each visits a service, comes back with its session or without."""

import dataclasses
import itertools
import re
import socket
import ssl
import subprocess

from . import sessions
from .processes import run
from .world import HOST

NAME = "shop.example"

TCP_CLOSE = 7  # in Linux's struct tcp_info

# Ports below the kernel's ephemeral range, for clients that cannot tell which one they got.
_ports = itertools.cycle(range(20000, 30000))


@dataclasses.dataclass
class Visit:
    """How a visit went, as the client saw it."""

    port: int  # the client's own, by which the engine's record is found
    server: str | None = None
    resumed: bool | None = None
    version: str | None = None
    error: str | None = None  # None, "reset" or something worse

    @property
    def refused(self):
        return self.error == "reset"


class PythonClient:
    """Python's ssl module: one context, and the session of the last visit."""

    program = "Python ssl"
    repeatable = True

    def __init__(self, world, version, address, authority, name=NAME, identity=None, source=None):
        self.address, self.name, self.version, self.source = address, name, version, source
        self.context = ssl.create_default_context(cafile=authority)
        if identity:
            self.context.load_cert_chain(*identity)
        number = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        self.context.minimum_version = self.context.maximum_version = number
        self.session = None

    def connect(self, seconds=15, session=None):
        """A TLS connection. The caller closes it."""
        raw = socket.create_connection((self.address, 443), timeout=seconds, source_address=self.source and (self.source, 0))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = raw.getsockname()[1]
        tls = self.context.wrap_socket(
            raw, server_hostname=self.name, session=session, suppress_ragged_eofs=False, do_handshake_on_connect=False
        )
        try:
            tls.do_handshake()
        except BaseException as error:
            reason = told(tls, error)
            tls.close()
            if isinstance(error, OSError):
                raise HandshakeFailed(port, reason) from error
            raise
        return tls

    def visit(self, keep=True):
        """Visits with the session of the last visit. Without `keep`, as if that had never been."""
        try:
            with self.connect(session=self.session) as tls:
                visit = Visit(tls.getsockname()[1], version=tls.version())
                try:
                    tls.sendall(request(self.name))
                    visit.server = body(read_all(tls))
                    visit.resumed = tls.session_reused
                    # TLS 1.3 tickets come behind the handshake: they have been read by now.
                    if keep:
                        self.session = tls.session
                except OSError as error:
                    visit.error = told(tls, error)
        except HandshakeFailed as error:
            visit = Visit(error.port, error=error.reason)
        return visit


class HandshakeFailed(Exception):
    """A connection that came to nothing, with the client's port."""

    def __init__(self, port, reason):
        super().__init__(f"TLS handshake from port {port}: {reason}")
        self.port, self.reason = port, reason


def told(connection, error):
    """What an error of a TLS socket means. Debian's Python calls a reset an unexpected end; the kernel knows better."""
    reset = isinstance(error, (ConnectionResetError, BrokenPipeError))
    if isinstance(error, ssl.SSLEOFError):
        reset = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE
    return "reset" if reset else str(error) or type(error).__name__


class OpensslClient:
    """openssl s_client: a process a visit, the session in a file between them."""

    program = "openssl s_client"
    repeatable = True

    def __init__(self, world, version, address, authority, name=NAME, identity=None):
        self.address, self.name, self.version, self.authority = address, name, version, authority
        self.identity = ["-cert", identity[0], "-key", identity[1]] if identity else []
        self.file = world.directory / f"session-{next(_ports)}.pem"

    def visit(self, session=None):
        """Visits with the session of the last visit, or with that in the file `session`, and saves the one it gets."""
        port = next(_ports)
        before = session or (self.file if self.file.exists() else None)
        # fmt: off
        command = ["openssl", "s_client", "-connect", f"{self.address}:443", "-bind", f"{HOST}:{port}", "-servername", self.name,
                   "-CAfile", self.authority, "-verify_return_error", f"-tls{self.version.replace('.', '_')}",
                   "-ign_eof", "-sess_out", self.file, *self.identity, *(["-sess_in", before] if before else [])]
        # fmt: on
        visit = Visit(port)
        try:
            # -ign_eof: stay until the answer, and with it the TLS 1.3 tickets, has come.
            result = run(*command, check=False, stdin=request(self.name).decode(), seconds=20)
        except subprocess.TimeoutExpired:
            visit.error = "no answer in 20 s"
            return visit
        kind = re.search(r"^(New|Reused), (TLSv[\d.]+|\(NONE\))", result.stdout, re.M)
        if kind and kind[2] != "(NONE)":
            visit.resumed, visit.version = kind[1] == "Reused", kind[2]
        if before and visit.resumed and visit.version == "TLSv1.2":
            # In TLS 1.2 -sess_out saves no resumed session: s_client only shows the ticket that came with it, which other clients keep.
            sessions.edit(before, self.file, lambda ticket: sessions.shown_ticket(result.stdout) or ticket)
        visit.server = body(result.stdout.encode())
        if visit.server is None:
            reset = re.search(r"errno=104|Connection reset", result.stderr + result.stdout)
            visit.error = "reset" if reset else f"exit {result.returncode}: {result.stderr.strip()[-200:]}"
        return visit


class CurlClient:
    """curl keeps sessions within one run only, so all its visits are one run, each over a connection of its own."""

    program = "curl"
    repeatable = False

    def __init__(self, world, version, address, authority, name=NAME, identity=None):
        self.address, self.name, self.version, self.authority = address, name, version, authority
        self.identity = ["--cert", identity[0], "--key", identity[1]] if identity else []

    def visits(self, count):
        # fmt: off
        command = ["curl", "--silent", "--show-error", "--http1.1", "--cacert", self.authority, "--max-time", "15",
                   f"--tlsv{self.version}", "--tls-max", self.version, "--resolve", f"{self.name}:443:{self.address}",
                   "--header", "Connection: close", "--verbose", *self.identity, "--write-out", "=%{local_port} %{http_code}\\n"]
        # fmt: on
        result = run(*command, *[f"https://{self.name}/{n}" for n in range(1, count + 1)], check=False, seconds=60)
        answers = re.findall(r"(\w*)\n?=(\d+) (\d+)", result.stdout)
        talks = re.split(r"^\* Connected to ", result.stderr, flags=re.M)[1:]
        if len(answers) != count or len(talks) != count:
            raise AssertionError(f"curl made {len(talks)} connections and had {len(answers)} answers of {count}: {result.stderr[-500:]}")
        visits = []
        for (server, port, code), talk in zip(answers, talks):
            version = re.search(r"SSL connection using (TLSv[\d.]+)", talk)
            visit = Visit(int(port), server if code == "200" else None, version=version and version[1])
            # It does not say whether it resumed, but it shows a certificate only in a full handshake.
            visit.resumed = version and "Certificate (11)" not in talk
            visits.append(visit)
        return visits


def request(name):
    return f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()


def read_all(connection):
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def body(response):
    """The server's name, which is the one line of a good response's body."""
    match = re.search(rb"HTTP/1\.1 200 OK\r?\n(?:[^\r\n]+\r?\n)*\r?\n(\w+)\n", response)
    return match[1].decode() if match else None
