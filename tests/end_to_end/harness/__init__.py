"""What the demo and the end-to-end tests stand on: a namespace, an engine, real servers, real clients. Standard library only.

- `wait`: waiting for a condition, with a deadline that fails.
- `processes`: children that never outlive this process.
- `world`: a network namespace with everything that runs in it; leaves nothing behind.
- `certificates`: a certificate authority and certificates, made by openssl.
- `config`: the engine's configuration file.
- `engine`: the engine's process, its metrics and its connection records.
- `nginx`: real web servers that answer with their name.
- `servers`: a server that does what a test asks for, good and bad.
- `clients`: curl, openssl s_client and Python's ssl, each visiting with and without a session.
- `tls`: a TLS client whose every byte is in the test's hands.
- `sessions`: opens and edits the session files of openssl s_client.
- `frames`: raw Ethernet frames and ICMP echo.
- `routed`: engines that announce their addresses to a router by BGP.
"""
