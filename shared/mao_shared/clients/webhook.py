"""Posting signed messages to addresses outside, in the manner of Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import socket
import urllib.request
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime

import httpx

PREFIX = "whsec_"


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 over id, time (Unix seconds) and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    """`whsec_` and base64 as the standard has it; any other secret is taken as it is."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            return secret.encode()
    return secret.encode()


class WebhookClient:
    """Follows no redirect and reads no answer beyond its status. `timeout` in seconds.

    A name is resolved here, and the message goes to the address that was judged: a name that means another
    address a moment later (DNS rebinding) gets nothing. Where a proxy is set it is the proxy that resolves,
    and cannot reach this machine.

    Args:
        hosts: names or addresses, with `:port` or without, that may be this machine (`MAO_WEBHOOK_HOSTS`).
        parts: hosts of the node's own services, which take no calls from outside.
    """

    def __init__(
        self, timeout: float = 10.0, hosts: Collection[str] = (), parts: Collection[str] = ()
    ) -> None:
        self._timeout = timeout
        self._hosts = frozenset(each.strip().lower() for each in hosts if each.strip())
        self._parts = frozenset(parts)
        self._clients: dict[str | None, httpx.AsyncClient] = {}  # by the proxy that they use

    async def check(self, url: str) -> str | None:
        """Why nothing may be sent to an address; None as well while its name cannot be resolved."""
        try:
            await self._places(httpx.URL(url))
        except AddressRefused as error:
            return str(error)
        except httpx.InvalidURL as error:
            return f"it is no address: {error}"
        except (OSError, UnicodeError):
            pass
        return None

    async def post(self, url: str, secret: str, message_id: str, now: datetime, body: bytes) -> str | None:
        """Sends one message; why it was not taken, None when it was (any 2xx)."""
        timestamp = int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, message_id, timestamp, body),
        }
        try:
            return await self._send(httpx.URL(url), headers, body)
        except AddressRefused as error:
            return str(error)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            return f"it cannot be reached: {str(error) or type(error).__name__}"

    async def _send(self, url: httpx.URL, headers: dict[str, str], body: bytes) -> str | None:
        if (proxy := _proxy(url)) is not None:
            judge_name(url, self._hosts)
            return await _post(self._client(proxy), url, headers, body)
        async with asyncio.timeout(self._timeout):
            places = await self._places(url)
        client = self._client(None)
        headers |= {"host": url.netloc.decode("ascii").rpartition("@")[2]}
        for place in places[:-1]:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await _post(client, url.copy_with(host=place), headers, body, url.host)
        return await _post(client, url.copy_with(host=places[-1]), headers, body, url.host)

    async def _places(self, url: httpx.URL) -> list[str]:
        """The addresses of the URL's host. Raises AddressRefused when one of them must not be used."""
        judge_name(url, self._hosts)
        loop = asyncio.get_running_loop()
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        places = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if not is_allowed(url, self._hosts):
            for place in places:
                if why := refused_kind(place):
                    raise AddressRefused(url, place, why)
            if ours := await self._of_parts() & set(places):
                raise AddressRefused(url, ours.pop(), "a service of this node")
        return places

    async def _of_parts(self) -> set[str]:
        found: set[str] = set()
        for part in self._parts:
            with suppress(OSError, UnicodeError):
                addresses = await asyncio.get_running_loop().getaddrinfo(part, None)
                found |= {str(address[0]) for *_, address in addresses}
        return found

    def _client(self, proxy: str | None) -> httpx.AsyncClient:
        """Made when it is first needed: the certificates take a megabyte, and 20 ms to load."""
        if proxy not in self._clients:
            self._clients[proxy] = httpx.AsyncClient(
                timeout=self._timeout,
                follow_redirects=False,
                trust_env=False,
                verify=httpx.create_ssl_context(),  # SSL_CERT_FILE holds; of the environment nothing else
                proxy=proxy,
            )
        return self._clients[proxy]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()


async def _post(
    client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str], body: bytes, name: str | None = None
) -> str | None:
    extensions = {"sni_hostname": name} if name else {}  # the certificate is of the name, not of the address
    async with client.stream("POST", url, content=body, headers=headers, extensions=extensions) as answer:
        return None if answer.is_success else f"it answered {answer.status_code}"


def _proxy(url: httpx.URL) -> str | None:
    """The proxy that the environment names for it."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return None if proxy is None or urllib.request.proxy_bypass(url.host) else proxy


# which addresses


class AddressRefused(Exception):
    """The message would go to this machine or to a place that only this machine can reach."""

    def __init__(self, url: httpx.URL, place: str, kind: str) -> None:
        name = url.host if url.port is None else f"{url.host}:{url.port}"
        meant = "" if place == url.host else f" ({place})"
        super().__init__(
            f"nothing is sent to {name}{meant}, which is {kind}; "
            f"if a receiver of yours is there, set MAO_WEBHOOK_HOSTS={name} for the data manager"
        )


def is_allowed(url: httpx.URL, hosts: Collection[str]) -> bool:
    host = url.host.lower().rstrip(".")
    port = url.port or (443 if url.scheme == "https" else 80)
    shown = f"[{host}]" if ":" in host else host
    return not {host, shown, f"{shown}:{port}"}.isdisjoint(hosts)


def judge_name(url: httpx.URL, hosts: Collection[str]) -> None:
    """Raises AddressRefused for a host that is refused whatever resolves it."""
    host = url.host.lower().rstrip(".")
    if is_allowed(url, hosts):
        return
    if host == "localhost" or host.endswith(".localhost"):
        raise AddressRefused(url, host, "this machine")
    literal = host
    with suppress(OSError):  # 127.1, 0x7f000001 and 2130706433 are addresses as well
        literal = socket.inet_ntoa(socket.inet_aton(host))
    if why := refused_kind(literal):
        raise AddressRefused(url, literal, why)


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_OLD_MAPPED = ipaddress.ip_network("::/96")
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254")))
"""Where clouds tell a machine its secrets, beside 169.254.169.254. Private networks are allowed otherwise."""


def refused_kind(place: str) -> str | None:
    """What an address is that nothing is sent to; None for all others, and for what is no address."""
    try:
        address = _inner(ipaddress.ip_address(place.partition("%")[0]))
    except ValueError:
        return None
    kinds = {
        "this machine": address.is_loopback or address.is_unspecified,
        "a link-local address": address.is_link_local,
        "a multicast address": address.is_multicast,
        "a cloud's metadata service": address in _METADATA,
        "a reserved address": (address.version == 4 and (address.is_reserved or address in _THIS_NETWORK))
        or address in _LOCAL_NAT64,
    }
    found = next((kind for kind, holds in kinds.items() if holds), None)
    return found or ("this machine" if _is_here(address) else None)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _inner(address: Address) -> Address:
    """The IPv4 address embedded in an IPv6 address, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (address in _OLD_MAPPED and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_here(address: Address) -> bool:
    """Whether an interface of this machine has it: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
