"""Creates the tools' network, isolates it from this host by firewall rules, and checks it regularly.

By default tools reach the internet, but nothing on this host: no other tool, no listener on any address of
the host, and no link-local address. The engine isolates networks from each other; the host's
firewall does the rest. Network and rules are checked when the runner starts, when the engine is back and
every few minutes, not for every step. Until they are in place, steps that want this network wait.

The rules are in `raw PREROUTING`, which all packets from the bridge pass before addresses are translated,
so a port that a container publishes on the host still has the host's address. Tools that flush or reorder
the filter table (firewalld, ufw) do not touch them. IPv6 is dropped.

* Packets that are not unicast to another host are dropped: to the host's own addresses on any interface,
  broadcasts and multicasts.
* Packets to link-local addresses and to the metadata addresses of some clouds are dropped.
* Packets to the network's own subnet are dropped, in addition to the engine's own rule (`enable_icc`).
* Port 53 of the name servers that the engine queries for containers stays open, even at these addresses. (The
  engine queries a name server on the host's loopback from the host.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mao_runner.drivers.protocol import Driver, EngineRefused, HostCommand
from mao_runner.labels import HELPER, INSTALLATION
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Network
from mao_shared.reconcile import Backoff, every

log = get_logger(__name__)

CHECK_PERIOD = 300.0  # seconds; a flushed firewall leaves the host open to tools for at most this long
RETRY_DELAY, MAX_RETRY_DELAY = 1.0, 60.0  # seconds until a failed check is repeated
CONDITION = "tool-network"
NOT_ISOLATED = (
    "MAO_TOOL_NETWORK is 'bridge': tools are on the engine's default network, from which they reach other "
    "containers, services that listen on this host, and link-local addresses."
)


class ToolNetwork:
    """Maps a tool's `network` to the engine's, and tracks whether it can be used.

    Args:
        name: of the network; its bridge interface on the host has the same name and a 0.
        isolated: False for the engine's default network as it is (`MAO_TOOL_NETWORK=bridge`).
        installation: owner of the helper container.
    """

    def __init__(
        self, driver: Driver, conditions: Conditions, *, name: str, isolated: bool, installation: str
    ) -> None:
        self.name = name
        self.problem: MaoError = Unavailable(
            f"The network {name} has not been checked since the runner started.", next="Run 'maoctl doctor'."
        )
        self._driver = driver
        self._conditions = conditions
        self._isolated = isolated
        self._installation = installation
        self._ready = asyncio.Event()
        if not isolated:
            self._ready.set()
        self._checking = False
        self._failures = 0
        self._recheck = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []

    @property
    def bridge(self) -> str:
        """The name of its interface on the host."""
        return f"{self.name}0"

    def engine_name(self, network: Network) -> str:
        """Return the engine's name for the `network` of a tool's record."""
        return self.name if network == "bridge" and self._isolated else network

    def is_usable(self, network: Network) -> bool:
        """Return True if a container may start on it now."""
        return self._ready.is_set() or network != "bridge"

    async def wait_usable(self, timeout: float) -> None:
        """Wait until it is usable. Raises Unavailable (`tool-network-open`) after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            detail = f"The tools' network cannot be used yet: {self.problem.detail}"
            raise Unavailable(detail, code="tool-network-open", next=self.problem.next) from None

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the network becomes usable or unusable."""
        self._subscribers.append(callback)

    def invalidate(self, reason: MaoError) -> None:
        """Make it unusable until it has been checked again, which is done at once."""
        if not self._isolated or (self._checking and not self._ready.is_set()):
            return  # a check is in progress
        self.problem = reason
        self._set_ready(False)
        self._recheck.set()

    async def run(self) -> None:
        """Check periodically, until cancelled."""
        if not self._isolated:
            self._conditions.report(
                CONDITION, detail=NOT_ISOLATED, next_step="Remove MAO_TOOL_NETWORK from the settings."
            )
            return
        await every(CHECK_PERIOD, self._check, name=CONDITION, wake=self._recheck)

    async def _check(self) -> float | None:
        """Check once; return the seconds until a retry, None for CHECK_PERIOD. After an error steps wait."""
        self._checking = True
        try:
            firewall = await self.establish()
        except Exception as error:  # noqa: BLE001 (no step starts unprotected, whatever the error)
            self._failures += 1
            self._failed(
                error if isinstance(error, MaoError) else MaoError(f"{type(error).__name__}: {error}")
            )
            return Backoff(RETRY_DELAY, MAX_RETRY_DELAY).pause(self._failures)
        finally:
            self._checking = False
        self._failures = 0
        if not self._recheck.is_set():  # otherwise it was invalidated during this check
            if not self._ready.is_set():
                log.info("tool_network.isolated", network=self.name, firewall=firewall)
            self._conditions.clear(CONDITION)
            self._set_ready(True)
        return None

    def _failed(self, error: MaoError) -> None:
        if error.detail != self.problem.detail:
            log.error("tool_network.open", network=self.name, error=error.detail, next=error.next)
        self.problem = error
        self._conditions.report(
            CONDITION,
            detail=f"The tools' network {self.name} is not isolated from this host, so steps that use it "
            f"wait: {error.detail}",
            next_step=error.next or "See the log of the container engine.",
        )
        self._set_ready(False)

    def _set_ready(self, ready: bool) -> None:
        if ready == self._ready.is_set():
            return
        if ready:
            self._ready.set()
        else:
            self._ready.clear()
        for callback in self._subscribers:
            callback()

    async def establish(self) -> str:
        """Create network and rules where they are missing; return the name of the firewall program used.

        Raises MaoError if they are not all in place afterwards.
        """
        subnets = await self._driver.ensure_network(self.name, self.bridge, {HELPER: "network"})
        code, output = await self._run_on_host(*isolation_script(self.bridge, subnets))
        output = " ".join(output.split())
        if code != 0:
            raise EngineRefused(
                f"the host's firewall cannot be set (exit code {code}): {output or 'no output'}",
                code="tool-network-open",
                next="Fix the problem named here (iptables must work on the host), or accept that tools "
                "reach this host, and set MAO_TOOL_NETWORK=bridge.",
            )
        return output

    async def remove(self) -> None:
        """Remove network and rules. Raises EngineRefused while containers are on it."""
        await self._driver.remove_network(self.name)
        await self._run_on_host(*removal_script(self.bridge))

    async def _run_on_host(self, script: str, arguments: list[str]) -> tuple[int, str]:
        labels = {INSTALLATION: self._installation, HELPER: "network"}
        name = f"mao-network-{self._installation}"
        return await self._driver.run_on_host(HostCommand(name, script, arguments, labels))


LINK_LOCAL = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32")  # and metadata of Azure, Alibaba

_BEGIN = """\
set -eu
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
bridge=$1 chain=MAO-$1 shut=${2-}
fail() { echo "$*"; exit 1; }
tables=none
for program in iptables iptables-legacy iptables-nft; do
    if "$program" -w 5 -t raw -S PREROUTING >/dev/null 2>&1; then tables=$program; break; fi
done
six=ip6${tables#ip}
"""

_ISOLATE = (
    _BEGIN
    + """\
[ "$tables" != none ] ||
    fail "no iptables works on this host: $(iptables -w 5 -t raw -S PREROUTING 2>&1 | head -n 1)"
[ "$(cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null)" = 1 ] ||
    fail "traffic between tools does not pass the firewall: net.bridge.bridge-nf-call-iptables is not 1"
rules() {
    echo "*raw"
    echo ":$chain - [0:0]"
    while read -r word server rest; do
        case $word:$server in
            nameserver:127.* | nameserver:*[!0-9.]*) continue ;;
            nameserver:*.*) ;;
            *) continue ;;
        esac
        for kind in udp tcp; do echo "-A $chain -d $server/32 -p $kind --dport 53 -j RETURN"; done
    done </etc/resolv.conf
    for net in $shut; do echo "-A $chain -d $net -j DROP"; done
    echo "-A $chain -m addrtype ! --dst-type UNICAST -j DROP"
    echo COMMIT
}
rules | "$tables-restore" -w 5 --noflush 2>&1 || fail "$tables-restore refuses the rules"
has() { "$@" 2>/dev/null >&2; }
has "$tables" -w 5 -t raw -C PREROUTING -i "$bridge" -j "$chain" ||
    "$tables" -w 5 -t raw -I PREROUTING -i "$bridge" -j "$chain" 2>&1 || fail "$tables takes no rule"
if [ -e /proc/sys/net/ipv6 ]; then
    has "$six" -w 5 -t raw -C PREROUTING -i "$bridge" -j DROP ||
        "$six" -w 5 -t raw -I PREROUTING -i "$bridge" -j DROP 2>&1 || fail "$six takes no rule"
fi
"$tables" -w 5 -t raw -C PREROUTING -i "$bridge" -j "$chain" 2>&1 || fail "$tables does not keep the rule"
echo "$tables"
"""
)

_REMOVE = (
    _BEGIN
    + """\
[ "$tables" != none ] || exit 0
while "$six" -w 5 -t raw -D PREROUTING -i "$bridge" -j DROP 2>/dev/null; do :; done
while "$tables" -w 5 -t raw -D PREROUTING -i "$bridge" -j "$chain" 2>/dev/null; do :; done
"$tables" -w 5 -t raw -F "$chain" 2>/dev/null || exit 0
"$tables" -w 5 -t raw -X "$chain"
"""
)


def isolation_script(bridge: str, subnets: Sequence[str]) -> tuple[str, list[str]]:
    """Return script and arguments that install a bridge's rules, all at once; it may be run repeatedly.

    The script exits with 0 if they are in place; otherwise its last lines say why not.
    """
    return _ISOLATE, [bridge, " ".join([*LINK_LOCAL, *subnets])]


def removal_script(bridge: str) -> tuple[str, list[str]]:
    """Return script and arguments that remove a bridge's rules."""
    return _REMOVE, [bridge]
