"""The version endpoint of etcd members, which needs a certificate and no rights.

The gRPC call `Status` returns the version as well, but etcd 3.5.28 to 3.5.31 allow it to administrators only.
"""

from __future__ import annotations

import asyncio
import ssl

import httpx

from mao_shared.store.endpoints import TlsFiles


async def ask_version(endpoint: str, tls: TlsFiles, *, deadline: float = 5.0) -> str | None:
    """Return the version of the etcd member at `host:port`; empty if it names none, None without a response.

    `deadline`: seconds for the connection, and for each part of the response.
    """
    # In a thread: an asynchronous client that is cancelled during the TLS handshake leaves its socket open.
    return await asyncio.to_thread(_get_version, endpoint, tls, deadline)


def _get_version(endpoint: str, tls: TlsFiles, deadline: float) -> str | None:
    try:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.certificate, tls.key)
        with httpx.Client(verify=context, timeout=deadline, trust_env=False) as client:
            response = client.get(f"https://{endpoint}/version")
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return None
    try:
        version = response.json()["etcdserver"] if response.is_success else ""
    except (ValueError, KeyError, TypeError):
        return ""
    return version if isinstance(version, str) else ""
