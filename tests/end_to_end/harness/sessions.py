"""Opens and edits the session files of `openssl s_client -sess_out`: PEM around a DER SSL_SESSION."""

import base64
import re

TICKET = 0xAA  # [10] EXPLICIT OCTET STRING
LIFETIMES = (0xA2, 0xA9)  # [2] timeout and [9] the server's hint, EXPLICIT INTEGERs
PEM = re.compile(r"-----BEGIN SSL SESSION PARAMETERS-----\n(.*?)-----END SSL SESSION PARAMETERS-----\n", re.S)


def ticket(path):
    """The ticket in a session file."""
    _, fields = _open(path)
    content = next(content for tag, content in fields if tag == TICKET)
    return _split(content)[0][1]


def shown_ticket(text):
    """The ticket in what s_client prints of its session, a hexadecimal dump, if there is one."""
    dump = re.search(r"^ +TLS session ticket:\n((?: +[0-9a-f]+ - .*\n)+)", text, re.M)
    lines = re.findall(r"^ +[0-9a-f]+ - ((?:[0-9a-f]{2}[ -])+)", dump[1], re.M) if dump else []
    return bytes.fromhex("".join(lines).replace("-", ""))


def edit(path, into, change=lambda ticket: ticket, lifetime=None):
    """Writes a copy of a session whose ticket is `change(ticket)`, and whose lifetime in seconds, as its client sees it, is `lifetime`."""
    outer, fields = _open(path)
    edited = b""
    for tag, content in fields:
        if tag == TICKET:
            content = _join(0x04, change(_split(content)[0][1]))
        elif tag in LIFETIMES and lifetime is not None:
            # DER allows no leading zero but the one that makes the number positive.
            content = _join(0x02, lifetime.to_bytes(lifetime.bit_length() // 8 + 1, "big"))
        edited += _join(tag, content)
    text = base64.encodebytes(_join(outer, edited)).decode()
    into.write_text(f"-----BEGIN SSL SESSION PARAMETERS-----\n{text}-----END SSL SESSION PARAMETERS-----\n")
    return into


def _open(path):
    der = base64.b64decode(PEM.search(path.read_text())[1])
    ((outer, content),) = _split(der)
    return outer, _split(content)


def _split(der):
    """The values in a sequence, each as tag and content."""
    values = []
    while der:
        tag, length, start = der[0], der[1], 2
        if length >= 0x80:
            start += length - 0x80
            length = int.from_bytes(der[2:start], "big")
        values.append((tag, der[start : start + length]))
        der = der[start + length :]
    return values


def _join(tag, content):
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 + size]) + length.to_bytes(size, "big") + content
