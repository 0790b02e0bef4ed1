"""Another implementation of the ticket seal, after README.md beside it: checks vectors.json, or makes it.

    follow.py            opens every vector; the last line counts
    follow.py --make     writes them anew
"""

import hashlib
import json
import pathlib
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import cmac, hashes
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VECTORS = pathlib.Path(__file__).with_name("vectors.json")
BUCKET, TICKET_MIN, TICKET_MAX = 128, 177, 16_384
MAPPING = {"pool": 8, "server": 8, "generation": 4, "assigned": 8}
NUMBERS = {3: "original_handshake", 4: "issued", 5: "issuer"}


class Refused(Exception):
    pass


def xaes(key, nonce):
    """The AES-256-GCM of one message, and its nonce."""

    def block(counter):
        mac = cmac.CMAC(algorithms.AES(key))
        mac.update(bytes([0, counter]) + b"X\0" + nonce[:12])
        return mac.finalize()

    return AESGCM(block(1) + block(2)), nonce[12:]


def service_key(secret, service):
    return HKDF(hashes.SHA256(), 32, b"sealane ticket", service).derive(secret)


def sha256(text):
    return hashlib.sha256(text.encode()).digest()


def surroundings(vector, key_id):
    service = sha256(vector["service"])[:8]
    return service, b"\1" + key_id + sha256(vector["cluster"]) + service + bytes.fromhex(vector["policy"])


def open_(vector):
    ticket = bytes.fromhex(vector["ticket"])
    if not TICKET_MIN <= len(ticket) <= TICKET_MAX:
        raise Refused("length")
    if ticket[0] != 1:
        raise Refused("version")
    key_id, nonce, sealed = ticket[1:9], ticket[9:33], ticket[33:]
    secrets = {key["id"]: key["secret"] for key in vector["ring"]}
    if key_id.hex() not in secrets:
        raise Refused("unknown-key")
    service, additional = surroundings(vector, key_id)
    gcm, rest = xaes(service_key(bytes.fromhex(secrets[key_id.hex()]), service), nonce)
    try:
        return read(gcm.decrypt(rest, sealed, additional))
    except InvalidTag:
        raise Refused("forged") from None


def read(plaintext):
    if len(plaintext) < 2 or plaintext[0] < 1 or plaintext[1] > 1:
        raise Refused("envelope")
    fields, at = {}, 2
    while at < len(plaintext) and plaintext[at] != 0:
        kind, length = plaintext[at], int.from_bytes(plaintext[at + 1 : at + 3], "big")
        value, at = plaintext[at + 3 : at + 3 + length], at + 3 + length
        if at > len(plaintext) or kind in fields:
            raise Refused("envelope")
        fields[kind] = value
    if not set(range(1, 7)) <= set(fields) or fields[1] not in (b"\2", b"\3") or len(fields[2]) != 29 or fields[2][0] > 1:
        raise Refused("envelope")
    if any(len(fields[kind]) != 8 for kind in NUMBERS):
        raise Refused("envelope")
    client = read_client(fields[7]) if 7 in fields else None
    mapping, at = {}, 1
    for name, size in MAPPING.items():
        mapping[name], at = int.from_bytes(fields[2][at : at + size], "big"), at + size
    envelope = {"version": f"1.{fields[1][0]}", "mapping": mapping if fields[2][0] else None, "session": fields[6].hex()}
    envelope |= {name: int.from_bytes(fields[kind], "big") for kind, name in NUMBERS.items()}
    return envelope | ({"client": client} if client else {})


def read_client(value):
    if len(value) % 32 != 8 or not 1 <= len(value) // 32 <= 8:
        raise Refused("envelope")
    halves = [value[at : at + 16].hex() for at in range(8, len(value), 16)]
    certificates = [{"issuer": issuer, "serial": serial} for issuer, serial in zip(halves[::2], halves[1::2])]
    return {"not_after": int.from_bytes(value[:8], "big"), "certificates": certificates}


def write(envelope):
    """The plaintext without its padding."""
    mapping = envelope["mapping"] or dict.fromkeys(MAPPING, 0)
    fields = {1: bytes([int(envelope["version"][2])]), 2: bytes([envelope["mapping"] is not None])}
    fields[2] += b"".join(mapping[name].to_bytes(size, "big") for name, size in MAPPING.items())
    fields |= {kind: envelope[name].to_bytes(8, "big") for kind, name in NUMBERS.items()}
    fields[6] = bytes.fromhex(envelope["session"])
    if "client" in envelope:
        halves = [certificate[half] for certificate in envelope["client"]["certificates"] for half in ("issuer", "serial")]
        fields[7] = envelope["client"]["not_after"].to_bytes(8, "big") + bytes.fromhex("".join(halves))
    return b"\1\1" + b"".join(bytes([kind]) + len(value).to_bytes(2, "big") + value for kind, value in fields.items())


def seal(vector, plaintext, nonce):
    key = vector["ring"][0]
    key_id = bytes.fromhex(key["id"])
    service, additional = surroundings(vector, key_id)
    gcm, rest = xaes(service_key(bytes.fromhex(key["secret"]), service), nonce)
    plaintext += bytes(-len(plaintext) % BUCKET)
    return b"\1" + key_id + nonce + gcm.encrypt(rest, plaintext, additional)


# What the engine's generator gives for a seed; tests/seal.rs says what it should be if this is wrong.
NONCES = {
    1: "611830d3641a68f94a690dcc25d1f4b0dac948325ac18f6d",
    2: "1fbec814b18b1d4c3eaa7cec41007e04bf0a98453b06ec75",
    3: "ecd9c4a53ea15f18447b08fb96a13c5ab7dc7d24067b102f",
    4: "e463bcb1a6e57288ffd4671503082fa8656e3eacb78fb192",
}


def make():
    key = lambda name: {"id": sha256(f"id {name}")[:8].hex(), "secret": sha256(f"secret {name}").hex()}  # noqa: E731
    base = {"ring": [key("a"), key("b")], "cluster": "demo", "service": "shop", "policy": sha256("policy").hex()}
    mapping = {"pool": 1, "server": 2, "generation": 3, "assigned": 1_700_000_000}
    envelope = {"version": "1.3", "mapping": mapping, "session": "5a" * 145}
    envelope |= {"original_handshake": 1_700_000_001, "issued": 1_700_000_002, "issuer": 4}
    # A client whose certificate 1, and that of its CA, are of this issuer. Any bytes do for a name.
    name = b"\x30\x0b issuer"
    serial = lambda number: hashlib.sha256(len(name).to_bytes(8, "big") + name + number).digest()[:16].hex()  # noqa: E731
    issuer = hashlib.sha256(name).digest()[:16].hex()
    certificates = [{"issuer": issuer, "serial": serial(number)} for number in (b"\1", b"\x80\2")]
    client = {"not_after": 1_800_000_000, "certificates": certificates}
    vectors = []

    def add(name, comes_to, ticket, **more):
        vectors.append({"name": name, "comes_to": comes_to, **base, **more, "ticket": ticket.hex()})

    for seed, name, change in [
        (1, "a session of TLS 1.3 with a mapping", {}),
        (2, "a session of TLS 1.2 without one", {"version": "1.2", "mapping": None, "session": ""}),
        (3, "one byte more than a bucket", {"session": "a5" * 45}),
        (4, "of a client with certificates", {"client": client}),
    ]:
        said = envelope | change
        add(name, "opens", seal(base, write(said), bytes.fromhex(NONCES[seed])), envelope=said, seed=seed)
    nonce = sha256("nonce")[:24]
    good = seal(base, write(envelope), nonce)
    add("under the key that does not seal", "opens", seal(base | {"ring": base["ring"][::-1]}, write(envelope), nonce), envelope=envelope)
    add("with a field that is not known", "opens", seal(base, write(envelope) + b"\x63\0\2xy", nonce), envelope=envelope)
    add("of a later format for readers of this one", "opens", seal(base, b"\2" + write(envelope)[1:], nonce), envelope=envelope)
    add("of a later format for its own readers", "envelope", seal(base, b"\2\2" + write(envelope)[2:], nonce))
    add("with a field twice", "envelope", seal(base, write(envelope) + b"\5\0\x08" + bytes(8), nonce))
    add("without a field", "envelope", seal(base, b"\1\1", nonce))
    for size in (0, 8, 39, 41, 296):
        add(f"with {size} bytes of certificates", "envelope", seal(base, write(envelope) + b"\7" + size.to_bytes(2, "big") + bytes(size), nonce))
    add("of another service", "forged", good, service="mail")
    add("of another cluster", "forged", good, cluster="other")
    add("of another policy", "forged", good, policy=sha256("other policy").hex())
    add("with another tag", "forged", good[:-1] + bytes([good[-1] ^ 1]))
    add("under the id of another key", "forged", b"\1" + bytes.fromhex(base["ring"][1]["id"]) + good[9:])
    add("under an unknown key", "unknown-key", good, ring=[key("c")])
    add("of another version", "version", b"\2" + good[1:])
    add("too short", "length", good[: TICKET_MIN - 1])
    add("too long", "length", good + bytes(TICKET_MAX + 1 - len(good)))
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n")


def check():
    failed = 0
    vectors = json.loads(VECTORS.read_text())
    for vector in vectors:
        try:
            came_to, envelope = "opens", open_(vector)
        except Refused as refusal:
            came_to, envelope = str(refusal), None
        good = (came_to, envelope) == (vector["comes_to"], vector.get("envelope"))
        if good and "seed" in vector:
            nonce = bytes.fromhex(vector["ticket"])[9:33]
            good = seal(vector, write(envelope), nonce).hex() == vector["ticket"]
        if not good:
            failed += 1
            print(f"FAILED  {vector['name']}: {came_to} {envelope}")
    print(f"{len(vectors) - failed} passed, {failed} failed")
    return failed == 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--make"]:
        make()
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        sys.exit(not check())
