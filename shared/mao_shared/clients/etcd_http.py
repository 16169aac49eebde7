"""What a member of a federation's etcd tells everybody who has a certificate, whatever his rights.

gRPC's `Status` tells the version as well, but etcd 3.5.28 to 3.5.31 let only administrators ask for it.
"""

from __future__ import annotations

import asyncio
import ssl

import httpx

from mao_shared.store.endpoints import TlsFiles


async def ask_version(endpoint: str, tls: TlsFiles, *, deadline: float = 5.0) -> str | None:
    """The version of the member at `host:port`; empty when it tells none, None when it does not answer.

    `deadline`: seconds that connecting, and each part of the answer, may take.
    """
    # In a thread: an asynchronous client that is cancelled while it shakes hands leaves its socket open.
    return await asyncio.to_thread(_ask, endpoint, tls, deadline)


def _ask(endpoint: str, tls: TlsFiles, deadline: float) -> str | None:
    try:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.certificate, tls.key)
        with httpx.Client(verify=context, timeout=deadline, trust_env=False) as client:
            answer = client.get(f"https://{endpoint}/version")
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return None
    try:
        version = answer.json()["etcdserver"] if answer.is_success else ""
    except (ValueError, KeyError, TypeError):
        return ""
    return version if isinstance(version, str) else ""
