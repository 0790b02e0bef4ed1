"""Real servers that speak TLS: nginx, and HAProxy in front of the obliging servers."""

import json
import socket

from .wait import until

NGINX = """\
daemon off;
master_process off;
pid {directory}/nginx-secure.pid;
error_log {directory}/nginx-secure.errors info;
events {{ worker_connections 4096; }}
http {{
    log_format told escape=json '{{"port": "$server_port", "server_name": "$ssl_server_name", "protocol": "$ssl_protocol", '
        '"resumed": "$ssl_session_reused", "client": "$ssl_client_s_dn", "verified": "$ssl_client_verify", "uri": "$uri", "length": $request_length}}';
    access_log {directory}/nginx-secure.log told;
    client_body_temp_path {directory}/nginx-secure-body;
    proxy_temp_path {directory}/nginx-secure-proxy;
    fastcgi_temp_path {directory}/nginx-secure-fastcgi;
    uwsgi_temp_path {directory}/nginx-secure-uwsgi;
    scgi_temp_path {directory}/nginx-secure-scgi;
    default_type text/plain;
{servers}
}}
"""

NGINX_SERVER = """\
    server {{
        listen {address}:{port} {ssl} backlog=1024;
        {lines}
        location / {{ return 200 "nginx\\n"; }}
    }}
"""


class SecureNginx:
    """One nginx with a server a port. `servers` maps ports to lines of configuration; without any a server speaks plain HTTP."""

    def __init__(self, world, address, servers):
        self.log = world.directory / "nginx-secure.log"
        self.seen = 0
        self.ports = {str(port) for port, lines in servers.items() if lines}
        text = "".join(
            NGINX_SERVER.format(address=address, port=port, ssl="ssl" if lines else "", lines=" ".join(f"{line};" for line in lines))
            for port, lines in servers.items()
        )
        configuration = world.directory / "nginx-secure.conf"
        configuration.write_text(NGINX.format(directory=world.directory, servers=text))
        world.address(address)
        world.child("nginx-secure", ["nginx", "-p", world.directory, "-c", configuration])
        for port in servers:
            until(f"nginx to listen at port {port}", lambda port=port: _listens(address, port))

    def told(self, count):
        """The next requests that came in TLS."""
        lines = until(f"{count} requests in nginx's log", lambda: self._more(count))
        self.seen += count
        return lines

    def _more(self, count):
        lines = self.requests()[self.seen :]
        return lines[:count] if len(lines) >= count else None

    def requests(self):
        """All of them so far."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if line["port"] in self.ports]


HAPROXY = """\
global
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 60s
"""


class SecureHaproxy:
    """One HAProxy that takes TLS and passes on in plain. `ways` maps names to (port, words for its bind, words for its server, its address)."""

    def __init__(self, world, address, ways):
        text = HAPROXY
        for name, (port, bind, server, (host, to)) in ways.items():
            text += f"listen {name}\n    bind {address}:{port} ssl {bind}\n    server {name} {host}:{to} {server}\n"
        configuration = world.directory / "haproxy-secure.conf"
        configuration.write_text(text)
        world.address(address)
        world.child("haproxy-secure", ["haproxy", "-db", "-f", configuration])
        for port, *_ in ways.values():
            until(f"HAProxy to listen at port {port}", lambda port=port: _listens(address, port))


def _listens(address, port):
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False
