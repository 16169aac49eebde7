"""Asks an SSH server for its host key, as ssh-keyscan does: half a key exchange (RFC 4253, 5656).

Nothing is verified here and no session comes about; the answer is only shown to a person.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

_TIMEOUT = 3.0  # seconds
_MAX_PACKET = 65536
_KEXINIT, _ECDH_INIT, _ECDH_REPLY = 20, 30, 31
_CURVE_POINT = bytes([9]) + bytes(31)  # any valid X25519 public key will do; this is the base point
_ALGORITHMS = (
    b"curve25519-sha256,curve25519-sha256@libssh.org",
    b"ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256",
    *([b"aes128-ctr,aes256-ctr,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"] * 2),
    *([b"hmac-sha2-256,hmac-sha2-512"] * 2),
    *([b"none"] * 2),
    *([b""] * 2),
)


def scan_host_key(host: str, port: int) -> bytes | None:
    """The server's public host key in wire format; None when it does not answer as an SSH server does."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT) as connection:
            connection.settimeout(_TIMEOUT)
            return _exchange(connection)
    except (OSError, struct.error, EOFError):
        return None


def _exchange(connection: socket.socket) -> bytes | None:
    with connection.makefile("rb") as stream:
        connection.sendall(b"SSH-2.0-mao_keyscan\r\n")
        for _ in range(50):  # a server may greet before it says its version
            if stream.readline(1024).startswith(b"SSH-"):
                break
        else:
            return None
        names = b"".join(_string(each) for each in _ALGORITHMS)
        connection.sendall(_packet(bytes([_KEXINIT]) + os.urandom(16) + names + bytes(5)))
        connection.sendall(_packet(bytes([_ECDH_INIT]) + _string(_CURVE_POINT)))
        for _ in range(10):
            payload = _read_packet(stream.read)
            if payload[0] == _ECDH_REPLY:
                (length,) = struct.unpack_from(">I", payload, 1)
                return payload[5 : 5 + length]
    return None


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _packet(payload: bytes) -> bytes:
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def _read_packet(read: Callable[[int], bytes]) -> bytes:
    length, padding = struct.unpack(">IB", read(5))
    if not padding + 2 <= length <= _MAX_PACKET:
        raise EOFError("not an SSH packet")
    body = read(length - 1)
    if len(body) < length - 1:
        raise EOFError("the server closed the connection")
    return body[: length - 1 - padding]
