"""The form of an SSH signature (OpenSSH's PROTOCOL.sshsig), and who made one.

Apart from `signing`, which needs a library that takes memory and time.
"""

from __future__ import annotations

import base64
import hashlib

MAGIC = b"SSHSIG"
ARMOR = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----")


def signing_key(signature: str) -> str | None:
    """Return the fingerprint of the key in an armored SSH signature, as `ssh-keygen -l` prints it.

    None for other signatures. The signature itself is not checked.
    """
    lines = signature.strip().splitlines()
    if len(lines) < 3 or lines[0] != ARMOR[0] or lines[-1] != ARMOR[1]:
        return None
    try:
        blob = base64.b64decode("".join(lines[1:-1]), validate=True)
    except ValueError:
        return None
    head, length = len(MAGIC) + 4, len(MAGIC) + 8  # magic, version; then the public key's length
    if not blob.startswith(MAGIC) or len(blob) < length:
        return None
    end = length + int.from_bytes(blob[head:length], "big")
    if end > len(blob):
        return None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob[length:end]).digest()).decode().rstrip("=")
