"""A client of the engine's API, over its Unix socket."""

import contextlib
import http.client
import json
import socket
import socketserver
import threading


class Refused(Exception):
    """The engine refused; `problem` says why."""

    def __init__(self, status, problem):
        super().__init__(f"{status}: {problem}")
        self.status, self.problem = status, problem


class _Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("sealane", timeout=15)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Api:
    def __init__(self, path):
        self.path = path

    def request(self, method, path, body=None, **headers):
        """Status, headers and text of the answer. A dict is sent as JSON, text as a configuration."""
        connection = _Connection(self.path)
        try:
            if isinstance(body, dict):
                headers["Content-Type"], body = "application/json", json.dumps(body)
            elif body is not None:
                headers["Content-Type"] = "application/toml"
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def ask(self, method, path, body=None, **headers):
        """The answer to a request that must not be refused."""
        status, headers, text = self.request(method, path, body, **headers)
        is_json = headers.get_content_type().endswith("json")
        answer = json.loads(text) if is_json else text
        if status >= 300:
            raise Refused(status, answer)
        return answer

    def get(self, path):
        return self.ask("GET", path)

    def change(self, method, path, body=None, **headers):
        """A change that must be in force on every lane when it is answered."""
        changed = self.ask(method, path, body, **headers)
        if not changed["in_force"]:
            raise AssertionError(f"{method} {path} is not in force: {changed}")
        return changed

    @contextlib.contextmanager
    def over_tcp(self):
        """A loopback address that leads to the socket meanwhile, for programs that know of no Unix sockets."""
        path = str(self.path)

        class Relay(socketserver.BaseRequestHandler):
            def handle(self):
                with socket.socket(socket.AF_UNIX) as engine:
                    engine.connect(path)
                    back = threading.Thread(target=_pump, args=(engine, self.request), daemon=True)
                    back.start()
                    _pump(self.request, engine)
                    back.join()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

        with Server(("127.0.0.1", 0), Relay) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield "http://127.0.0.1:{}".format(server.server_address[1])
            finally:
                server.shutdown()


def _pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
