"""Real nginx servers that answer with their name."""

import signal
import socket

from .wait import until

CONFIGURATION = """\
daemon off;
master_process off;          # one process: what we start is what we stop
pid {directory}/nginx-{name}.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx-{name}-body;
    proxy_temp_path {directory}/nginx-{name}-proxy;
    fastcgi_temp_path {directory}/nginx-{name}-fastcgi;
    uwsgi_temp_path {directory}/nginx-{name}-uwsgi;
    scgi_temp_path {directory}/nginx-{name}-scgi;
    server {{
        listen {address}:{port} backlog=1024;
        default_type text/plain;
        location / {{ return 200 "{name}\\n"; }}
    }}
}}
"""


class Nginx:
    """One server, running once made."""

    def __init__(self, world, name, address, port=8000):
        self.world, self.name, self.address, self.port = world, name, address, port
        self.configuration = world.directory / f"nginx-{name}.conf"
        self.configuration.write_text(CONFIGURATION.format(directory=world.directory, name=name, address=address, port=port))
        world.address(address)
        self.start()

    def start(self):
        self.child = self.world.child(f"nginx-{self.name}", ["nginx", "-p", self.world.directory, "-c", self.configuration])
        until(f"nginx {self.name} to answer", self.answers)

    def stop(self):
        """Kills it, the way a server dies."""
        self.child.stop(signal.SIGKILL)

    def answers(self):
        try:
            with socket.create_connection((self.address, self.port), timeout=1):
                return True
        except OSError:
            return False
