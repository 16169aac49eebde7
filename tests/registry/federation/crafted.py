"""Certificate requests of a hostile member: correctly signed, each with one unusual part."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SEQUENCE, SET, BIT_STRING, UTF8, OID = 0x30, 0x31, 0x03, 0x0C, 0x06
COMMON_NAME = bytes.fromhex("550403")
ECDSA_SHA256 = bytes.fromhex("2a8648ce3d040302")
GOST = bytes.fromhex("2a8503020213")
BASIC = bytes.fromhex("551d13")
EXTENSIONS = bytes.fromhex("2a864886f70d01090e")


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])
    return bytes([tag]) + length + body


def request(name: bytes, *, key_info: bytes | None = None, attributes: bytes = b"") -> str:
    """PEM, signed by the key that it names, unless `key_info` names another."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    subject = der(SEQUENCE, der(SET, der(SEQUENCE, der(OID, COMMON_NAME), name)))
    info = der(SEQUENCE, b"\x02\x01\x00", subject, key_info or own, der(0xA0, attributes))
    signature = der(BIT_STRING, b"\0", key.sign(info, ec.ECDSA(hashes.SHA256())))
    text = base64.encodebytes(der(SEQUENCE, info, der(SEQUENCE, der(OID, ECDSA_SHA256)), signature))
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text.decode()}-----END CERTIFICATE REQUEST-----\n"


def crafted(user: str) -> dict[str, str]:
    """Return requests for `user` by what is unusual in them."""
    good = der(UTF8, user.encode())
    extension = der(SEQUENCE, der(OID, BASIC), der(0x04, der(SEQUENCE)))
    twice = der(SEQUENCE, der(OID, EXTENSIONS), der(SET, der(SEQUENCE, extension, extension)))
    return {
        "a name that is no text": request(der(UTF8, b"\xff\xfe")),
        "a name of another type": request(der(BIT_STRING, b"\0", user.encode())),
        "a key of an unknown kind": request(
            good, key_info=der(SEQUENCE, der(SEQUENCE, der(OID, GOST)), der(BIT_STRING, b"\0abc"))
        ),
        "an extension given twice": request(good, attributes=twice),
    }
