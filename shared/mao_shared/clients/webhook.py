"""Webhooks: signed messages to external addresses, as specified by standardwebhooks.com."""

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
    """Return the value of `webhook-signature`: HMAC-SHA256 over id, `timestamp` (Unix seconds) and body.

    A secret `whsec_…` holds the key in base64, as specified; any other secret is the key itself.
    """
    key = secret.encode()
    if secret.startswith(PREFIX):
        with suppress(binascii.Error):
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class WebhookClient:
    """Client that posts webhooks; it follows no redirects and ignores response bodies.

    A host name is resolved once, and the message is sent to the address that was checked, so that DNS
    rebinding does not help. With a proxy, it is the proxy that resolves names; it cannot reach this machine.

    Args:
        timeout: seconds.
        hosts: names or addresses, optionally with `:port`, that are allowed even if they are this machine
            (`MAO_WEBHOOK_HOSTS`).
        parts: hosts of the node's own services, which are never allowed.
    """

    def __init__(
        self, timeout: float = 10.0, hosts: Collection[str] = (), parts: Collection[str] = ()
    ) -> None:
        self._timeout = timeout
        self._hosts = frozenset(host.strip().lower() for host in hosts if host.strip())
        self._parts = frozenset(parts)
        self._clients: dict[str | None, httpx.AsyncClient] = {}  # by proxy

    async def check(self, url: str) -> str | None:
        """Return why webhooks to a URL are refused; None if they are not, or if its host does not resolve."""
        try:
            await self._resolve(httpx.URL(url))
        except AddressRefused as error:
            return str(error)
        except httpx.InvalidURL as error:
            return f"it is not a valid URL: {error}"
        except (OSError, UnicodeError):
            pass
        return None

    async def post(self, url: str, secret: str, message_id: str, now: datetime, body: bytes) -> str | None:
        """Send one message. Return None if it was accepted (any 2xx), otherwise why it was not."""
        timestamp = int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, message_id, timestamp, body),
        }
        return await self._try(url, headers, body)

    async def ping(self, url: str) -> str | None:
        """Post without a body. Return None if it was accepted (any 2xx), otherwise why it was not."""
        return await self._try(url, {}, b"")

    async def _try(self, url: str, headers: dict[str, str], body: bytes) -> str | None:
        try:
            return await self._send(httpx.URL(url), headers, body)
        except AddressRefused as error:
            return str(error)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            return f"it cannot be reached: {str(error) or type(error).__name__}"

    async def _send(self, url: httpx.URL, headers: dict[str, str], body: bytes) -> str | None:
        if (proxy := _proxy(url)) is not None:
            check_host(url, self._hosts)
            return await _post(self._client(proxy), url, headers, body)
        async with asyncio.timeout(self._timeout):
            addresses = await self._resolve(url)
        client = self._client(None)
        headers |= {"host": url.netloc.decode("ascii").rpartition("@")[2]}
        for address in addresses[:-1]:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await _post(client, url.copy_with(host=address), headers, body, url.host)
        return await _post(client, url.copy_with(host=addresses[-1]), headers, body, url.host)

    async def _resolve(self, url: httpx.URL) -> list[str]:
        """Return the addresses of the URL's host. Raises AddressRefused if one of them is not allowed."""
        check_host(url, self._hosts)
        loop = asyncio.get_running_loop()
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if is_allowed(url, self._hosts):
            return addresses
        for address in addresses:
            if why := refused_kind(address):
                raise AddressRefused(url, address, why)
        own_addresses: set[str] = set()
        for part in self._parts:
            with suppress(OSError, UnicodeError):
                own_addresses |= {str(address[0]) for *_, address in await loop.getaddrinfo(part, None)}
        if used := own_addresses & set(addresses):
            raise AddressRefused(url, used.pop(), "a service of this node")
        return addresses

    def _client(self, proxy: str | None) -> httpx.AsyncClient:
        """Return the client for a proxy, created on first use: certificates take 1 MB, and 20 ms to load."""
        if proxy not in self._clients:
            self._clients[proxy] = httpx.AsyncClient(
                timeout=self._timeout,
                follow_redirects=False,
                trust_env=False,
                verify=httpx.create_ssl_context(),  # respects SSL_CERT_FILE, but no other environment
                proxy=proxy,
            )
        return self._clients[proxy]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()


async def _post(
    client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str], body: bytes, name: str | None = None
) -> str | None:
    extensions = {"sni_hostname": name} if name else {}  # the certificate names the host, not its address
    async with client.stream("POST", url, content=body, headers=headers, extensions=extensions) as response:
        return None if response.is_success else f"it answered {response.status_code}"


def _proxy(url: httpx.URL) -> str | None:
    """Return the proxy that the environment sets for a URL."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return None if proxy is None or urllib.request.proxy_bypass(url.host) else proxy


# Allowed addresses


class AddressRefused(Exception):
    """A URL of this machine, or of an address that only this machine can reach."""

    def __init__(self, url: httpx.URL, address: str, kind: str) -> None:
        name = url.host if url.port is None else f"{url.host}:{url.port}"
        resolved = "" if address == url.host else f" ({address})"
        super().__init__(
            f"nothing is sent to {name}{resolved}, which is {kind}; "
            f"if it is your receiver, set MAO_WEBHOOK_HOSTS={name} for the data manager"
        )


def is_allowed(url: httpx.URL, hosts: Collection[str]) -> bool:
    """True if `hosts` lists the URL's host, with its port or without one."""
    host = url.host.lower().rstrip(".")
    port = url.port or (443 if url.scheme == "https" else 80)
    shown = f"[{host}]" if ":" in host else host
    return not {host, shown, f"{shown}:{port}"}.isdisjoint(hosts)


def check_host(url: httpx.URL, hosts: Collection[str]) -> None:
    """Raise AddressRefused if the host is refused without being resolved."""
    host = url.host.lower().rstrip(".")
    if is_allowed(url, hosts):
        return
    if host == "localhost" or host.endswith(".localhost"):
        raise AddressRefused(url, host, "this machine")
    literal = host
    with suppress(OSError):  # 127.1, 0x7f000001 and 2130706433 are addresses too
        literal = socket.inet_ntoa(socket.inet_aton(host))
    if why := refused_kind(literal):
        raise AddressRefused(url, literal, why)


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_OLD_MAPPED = ipaddress.ip_network("::/96")
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254")))
"""Metadata services of clouds, beside 169.254.169.254. Other private addresses are allowed."""


def refused_kind(text: str) -> str | None:
    """Return what kind of address is refused; None for an allowed address, or for text that is none."""
    try:
        address = _embedded_ipv4(ipaddress.ip_address(text.partition("%")[0]))
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
    return found or ("this machine" if _is_local(address) else None)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _embedded_ipv4(address: Address) -> Address:
    """Return the IPv4 address embedded in an IPv6 address; other addresses unchanged."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (address in _OLD_MAPPED and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_local(address: Address) -> bool:
    """True if an interface of this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
