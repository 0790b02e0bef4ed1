"""A server that does what its client asks for, good and bad. One line of text a command, then plain bytes.

It runs in a process of its own, so that it does not share the interpreter's lock with the client it serves.
"""

import fcntl
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import socketserver
import struct
import termios
import threading
import time

from .wait import until

CHUNK = 256 * 1024


class Stream:
    """A pseudo-random stream of `length` bytes, made on the fly: a random block with a running number in it."""

    def __init__(self, length, seed=1):
        self.length = length
        self.block = bytearray(hashlib.shake_256(str(seed).encode()).digest(CHUNK))

    def __iter__(self):
        for number, start in enumerate(range(0, self.length, CHUNK)):
            # Every 16 KiB differs from all others, so that a block lost, doubled or moved shows in the hash.
            for at in range(0, CHUNK, 16384):
                struct.pack_into("<QQ", self.block, at, number, at)
            yield memoryview(self.block)[: min(CHUNK, self.length - start)]

    def digest(self):
        hasher = hashlib.sha256()
        for part in self:
            hasher.update(part)
        return hasher.hexdigest()


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    rbufsize = CHUNK

    def handle(self):
        # A connection of the health monitor, or a client that went away, says nothing.
        try:
            header = self.proxy_header() if self.server.proxied else None
            words = self.rfile.readline(1024).decode(errors="replace").split()
            if words and words[0].isidentifier() and not words[0].startswith("_"):
                getattr(self, f"do_{words[0]}", self.do_unknown)(header, *words[1:])
        except OSError:
            pass

    def say(self, text):
        self.wfile.write(text.encode() + b"\n")

    def note(self, token, value):
        self.server.notes[token] = value

    def do_unknown(self, _):
        self.say("unknown command")

    def do_name(self, _):
        """Says who this is and closes."""
        self.say(self.server.name)

    def do_GET(self, _, *__):
        """The same for those who speak HTTP."""
        # Closing with anything unread would be a reset.
        while self.rfile.readline(4096).strip():
            pass
        self.wfile.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{self.server.name}\n".encode())

    def do_whoami(self, header):
        """Says what the PROXY protocol told."""
        self.say(json.dumps(header))

    def do_echo(self, _):
        """Sends back what comes until the client has finished."""
        while part := self.rfile.read1(CHUNK):
            self.connection.sendall(part)

    def do_download(self, _, length, seed="1"):
        for part in Stream(int(length), seed):
            self.connection.sendall(part)

    def do_upload(self, _, length):
        """Takes so many bytes and answers with their hash."""
        hasher, left, buffer = hashlib.sha256(), int(length), memoryview(bytearray(CHUNK))
        while left and (count := self.rfile.readinto1(buffer[: min(CHUNK, left)])):
            hasher.update(buffer[:count])
            left -= count
        self.say(hasher.hexdigest())

    def do_flood(self, _, token, length, seed="1"):
        """Sends a stream and notes how many bytes the socket has taken so far."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
        taken = 0
        for part in Stream(int(length), seed):
            while part:
                count = self.connection.send(part)
                taken += count
                part = part[count:]
                self.note(token, taken)

    def do_after_end(self, _):
        """Answers only after the client has finished sending: with how much it was."""
        count = 0
        while part := self.rfile.read1(CHUNK):
            count += len(part)
        self.say(f"{count} bytes, then the end")

    def do_end_first(self, _, token):
        """Finishes sending at once and goes on listening; notes the hash of what comes."""
        self.say("that was all")
        self.connection.shutdown(socket.SHUT_WR)
        hasher = hashlib.sha256()
        while part := self.rfile.read1(CHUNK):
            hasher.update(part)
        self.note(token, hasher.hexdigest())

    def do_reset_after(self, _, length):
        """Sends so many bytes, then resets."""
        self.connection.sendall(bytes(int(length)))
        # Wait until they have left, or the reset would overtake them.
        deadline = time.monotonic() + 5
        while unsent(self.connection) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def do_silence(self, _, token="silence"):
        """Says nothing, until the client has gone; notes that."""
        self.note(token, "listening")
        try:
            while self.rfile.read1(CHUNK):
                pass
            self.note(token, "ended")
        except OSError:
            self.note(token, "reset")

    def do_recall(self, _, token):
        """Says what was noted."""
        self.say(json.dumps(self.server.notes.get(token)))

    def proxy_header(self):
        """Reads a PROXY protocol header, version 1 or 2."""
        start = self.rfile.peek(12)[:12]
        if start == b"\r\n\r\n\x00\r\nQUIT\n":
            head = self.rfile.read(16)
            # The version shares its byte with the command, of which 1 is PROXY.
            version, command, family, length = head[12] >> 4, head[12] & 0xF, head[13], int.from_bytes(head[14:16], "big")
            rest = self.rfile.read(length)
            kind, size = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}[family]
            source, destination = (socket.inet_ntop(kind, rest[at : at + size]) for at in (0, size))
            ports = struct.unpack("!HH", rest[2 * size : 2 * size + 4])
            if command != 1:
                return {"error": f"command {command}"}
            told = {"version": version, "source": [source, ports[0]], "destination": [destination, ports[1]]}
            rest = rest[2 * size + 4 :]
            return told | ({"ssl": ssl_told(rest)} if rest else {})
        words = self.rfile.readline(108).decode(errors="replace").split()
        if len(words) != 6 or words[0] != "PROXY":
            return {"error": f"no PROXY header but {words}"}
        return {"version": 1, "source": [words[2], int(words[4])], "destination": [words[3], int(words[5])]}


def ssl_told(tlv):
    """What a PP2_TYPE_SSL TLV says, if it is the only one (proxy-protocol.txt, 2.2)."""
    kind, length = struct.unpack("!BH", tlv[:3])
    if (kind, length) != (0x20, len(tlv) - 3):
        return {"error": tlv.hex()}
    flags, verify = struct.unpack("!BI", tlv[3:8])
    told, rest = {"flags": flags, "verify": verify}, tlv[8:]
    while rest:
        kind, length = struct.unpack("!BH", rest[:3])
        told[{0x21: "version", 0x22: "cn"}[kind]], rest = rest[3 : 3 + length].decode(), rest[3 + length :]
    return told


def unsent(connection):
    """Bytes in a socket's send queue."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 2048

    def __init__(self, name, address, proxied, notes):
        self.name, self.proxied, self.notes = name, proxied, notes
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)

    def handle_error(self, *_):
        """A handler's failure is the client's to notice."""


class Servers:
    """All of a world's obliging servers in one process. `listeners` maps names to (address, port, proxied)."""

    def __init__(self, world, listeners):
        for host in {host for host, _, _ in listeners.values()}:
            world.address(host)
        self.addresses = {name: (host, port) for name, (host, port, _) in listeners.items()}
        self.process = multiprocessing.get_context("fork").Process(target=serve, args=(listeners, os.getpid()), daemon=True)
        self.process.start()
        world.stack.callback(self.stop)
        for name, (host, port) in self.addresses.items():
            until(f"server {name} to listen", lambda host=host, port=port: listens(host, port))

    def recall(self, name, token):
        """What a server noted under a token, asked directly and not through the engine."""
        with socket.create_connection(self.addresses[name], timeout=5) as connection:
            connection.sendall(f"recall {token}\n".encode())
            return json.loads(connection.makefile().readline())

    def stop(self):
        self.process.terminate()
        self.process.join(5)


def listens(host, port):
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def serve(listeners, parent):
    """The process: a thread a listener, one set of notes for all. Ends with its parent."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    notes = {}
    for name, (host, port, proxied) in listeners.items():
        server = Listener(name, (host, port), proxied, notes)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() == parent:
        time.sleep(0.5)
