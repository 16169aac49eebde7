"""SSH signatures of commits, as `git verify-commit` checks them (format: OpenSSH's PROTOCOL.sshsig).

No program is started, and the key stays in this process.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import textwrap
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from .ssh_signatures import ARMOR, MAGIC

NAMESPACE = b"git"
MIN_RSA_BITS = 2048
_HASH = b"sha512"
_WIDTH = 70  # of the armor's lines
_CURVE_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


_Key = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def load_signer(path: Path) -> Callable[[bytes], str]:
    """Return a function that signs a commit's content with the OpenSSH private key in `path`, armored.

    Raises ValueError if the key is absent, unreadable, has a passphrase, or is of a kind
    that is not ed25519, ECDSA or RSA of 2048 bits or more.
    """
    key = _load(path)
    public = base64.b64decode(
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    )

    def sign(content: bytes) -> str:
        fields = _string(NAMESPACE) + _string(b"") + _string(_HASH)
        signed = _signed(key, MAGIC + fields + _string(hashlib.sha512(content).digest()))
        blob = MAGIC + struct.pack(">I", 1) + _string(public) + fields + _string(signed)
        lines = textwrap.wrap(base64.b64encode(blob).decode(), _WIDTH)
        return "\n".join([ARMOR[0], *lines, ARMOR[1]])

    return sign


def public_key(path: Path) -> str:
    """Return the public key of the key in `path`, as `ssh-ed25519 AAAA…`. Raises as `load_signer`."""
    return _load(path).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _load(path: Path) -> _Key:
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ValueError(f"the key {path} cannot be read ({error.strerror})") from error
    except TypeError as error:
        raise ValueError(f"the key {path} has a passphrase; MAO needs a key without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is not an OpenSSH private key; make one: ssh-keygen -t ed25519") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVE_HASHES:
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key
    raise ValueError(f"the key {path} is too weak, or of a kind that git does not verify")


def _signed(key: _Key, data: bytes) -> bytes:
    """Return the algorithm's name and the signature, in SSH's wire format."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return _string(b"ssh-ed25519") + _string(key.sign(data))
    if isinstance(key, rsa.RSAPrivateKey):
        return _string(b"rsa-sha2-512") + _string(key.sign(data, padding.PKCS1v15(), hashes.SHA512()))
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_CURVE_HASHES[key.curve.name])))
    name = f"ecdsa-sha2-nistp{key.curve.key_size}".encode()
    return _string(name) + _string(_mpint(r) + _mpint(s))


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _mpint(number: int) -> bytes:
    """Encode a positive number, with a leading zero byte if its first bit would make it negative."""
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
