"""Opens and edits the session files of `openssl s_client -sess_out`: PEM around a DER SSL_SESSION."""

import base64
import re

TICKET = 0xAA  # [10] EXPLICIT OCTET STRING
PEM = re.compile(r"-----BEGIN SSL SESSION PARAMETERS-----\n(.*?)-----END SSL SESSION PARAMETERS-----\n", re.S)


def ticket(path):
    """The ticket in a session file."""
    _, fields = _open(path)
    content = next(content for tag, content in fields if tag == TICKET)
    return _split(content)[0][1]


def edit(path, into, change):
    """Writes a copy of a session whose ticket is `change(ticket)`."""
    outer, fields = _open(path)
    edited = b"".join(
        _join(tag, _join(0x04, change(_split(content)[0][1]))) if tag == TICKET else _join(tag, content) for tag, content in fields
    )
    text = base64.encodebytes(_join(outer, edited)).decode()
    into.write_text(f"-----BEGIN SSL SESSION PARAMETERS-----\n{text}-----END SSL SESSION PARAMETERS-----\n")


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
