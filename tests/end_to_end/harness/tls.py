"""A TLS client whose every byte is in the test's hands: OpenSSL between two memory buffers, and a plain socket."""

import socket
import ssl


class ByHand:
    """A connection that `send`s its ciphertext the way the test wants."""

    def __init__(self, address, context, name, seconds=15):
        self.socket = socket.create_connection((address, 443), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self.socket.getsockname()[1]
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.send = self.socket.sendall

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def byte_by_byte(self, data):
        """Sends each byte as a segment of its own: there is no Nagle, and the kernel does not merge what it could send."""
        for byte in data:
            self.socket.send(bytes([byte]))

    def flush(self):
        if self.outgoing.pending:
            self.send(self.outgoing.read())

    def fill(self):
        """Takes in what the network has; an end of stream too."""
        data = self.socket.recv(65536)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def drive(self, step):
        """Runs an OpenSSL call to its end, moving bytes as it wants."""
        while True:
            try:
                result = step()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()

    def handshake(self):
        self.drive(self.tls.do_handshake)

    def write(self, data):
        self.drive(lambda: self.tls.write(data))

    def read(self, count=65536):
        """Some bytes, or none after close_notify. A stream that ends without it raises `ssl.SSLEOFError`."""
        try:
            return self.drive(lambda: self.tls.read(count))
        except ssl.SSLZeroReturnError:
            return b""

    def read_all(self):
        parts = []
        while part := self.read():
            parts.append(part)
        return b"".join(parts)

    def close_notify(self):
        """Sends close_notify and does not wait for the peer's."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()
