"""The tools' network: created, isolated from this host by firewall rules, and checked regularly.

By default tools reach the internet, and nothing on or beside this host: no other tool, no listener on any
address of the host, no link-local address. The engine isolates networks from each other; the host's
firewall does the rest. Network and rules are checked when the runner starts, when the engine is back and
every few minutes, not for every step. Until they are in place, steps that want this network wait.

The rules are in `raw PREROUTING`, which all packets from the bridge pass before addresses are translated,
so a port that a container publishes on the host still has the host's address. Tools that flush or reorder
the filter table (firewalld, ufw) do not touch them. IPv6 is dropped.

* All addresses that are not unicast to another host are dropped: the host's own on any interface,
  broadcasts and multicasts.
* Link-local is dropped, and what clouds use in its place for their metadata.
* The network's own subnet is dropped, in addition to the engine's own rule (`enable_icc`).
* Port 53 of the name servers that the engine asks for containers stays open, where they are among these. (A
  name server on the host's loopback is asked by the engine from the host.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mao_runner.drivers import Driver, EngineRefused, HostCommand
from mao_runner.labels import HELPER, INSTALLATION
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Network

log = get_logger(__name__)

CHECK_PERIOD = 300.0  # seconds; whoever flushes the firewall opens the host to tools for so long at most
RETRY_DELAY, MAX_RETRY_DELAY = 1.0, 60.0  # seconds until what failed is tried again
CONDITION = "tool-network"

NOT_ISOLATED = (
    "MAO_TOOL_NETWORK is 'bridge': tools are on the engine's default network, from which they reach other "
    "containers, what listens on this host, and link-local addresses."
)


def isolation_script(bridge: str, subnets: Sequence[str]) -> tuple[str, list[str]]:
    """Script and arguments that put the rules of a bridge in place, all at once, as often as it is run.

    The script exits 0 once they are there, else its last lines say why they are not.
    """
    return _ISOLATE, [bridge, " ".join([*LINK_LOCAL, *subnets])]


def removal_script(bridge: str) -> tuple[str, list[str]]:
    """Script and arguments that take the rules of a bridge away."""
    return _REMOVE, [bridge]


class ToolNetwork:
    """What a tool's `network` means on this engine, and whether it may be used now.

    Args:
        name: of the network; its interface on the host bears the same name and a 0.
        shut_off: False for the engine's default network as it is (`MAO_TOOL_NETWORK=bridge`).
        installation: whose the helper container is.
    """

    def __init__(
        self, driver: Driver, conditions: Conditions, *, name: str, shut_off: bool, installation: str
    ) -> None:
        self.name = name
        self.trouble: MaoError = Unavailable(
            f"The network {name} has not been looked at since the runner started.", next="maoctl doctor"
        )
        self._driver = driver
        self._conditions = conditions
        self._shut_off = shut_off
        self._installation = installation
        self._ready = asyncio.Event()
        if not shut_off:
            self._ready.set()
        self._looking = False
        self._asked = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []

    @property
    def bridge(self) -> str:
        """The interface on the host."""
        return f"{self.name}0"

    def engine_name(self, network: Network) -> str:
        """How the engine calls what a tool's record calls so."""
        return self.name if network == "bridge" and self._shut_off else network

    def usable(self, network: Network) -> bool:
        """Whether a container may start on it now."""
        return self._ready.is_set() or network != "bridge"

    async def until_usable(self, seconds: float) -> None:
        """Waits so long at most; raises Unavailable (`tool-network-open`) with why it cannot be used then."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            detail = f"The tools' network cannot be used yet: {self.trouble.detail}"
            raise Unavailable(detail, code="tool-network-open", next=self.trouble.next) from None

    def subscribe(self, callback: Callable[[], None]) -> None:
        """`callback` is called when the network becomes usable or is so no more."""
        self._subscribers.append(callback)

    def doubt(self, why: MaoError) -> None:
        """Nobody starts on it before it has been looked at again, which is done at once."""
        if not self._shut_off or (self._looking and not self._ready.is_set()):
            return  # a look that is under way will tell
        self.trouble = why
        self._set_ready(False)
        self._asked.set()

    async def run(self) -> None:
        """Looks for ever."""
        if not self._shut_off:
            self._conditions.report(
                CONDITION, detail=NOT_ISOLATED, next_step="Take MAO_TOOL_NETWORK out of the settings."
            )
            return
        again = RETRY_DELAY
        while True:
            self._asked.clear()
            self._looking = True
            again = RETRY_DELAY if await self._look() else min(again * 2, MAX_RETRY_DELAY)
            self._looking = False
            try:
                async with asyncio.timeout(CHECK_PERIOD if self._ready.is_set() else again):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _look(self) -> bool:
        try:
            tables = await self.establish()
        except Exception as error:  # noqa: BLE001 (whatever it is, no step starts unprotected, and it is tried again)
            self._failed(
                error if isinstance(error, MaoError) else MaoError(f"{type(error).__name__}: {error}")
            )
            return False
        if self._asked.is_set():
            return True  # somebody doubts it since this look began
        if not self._ready.is_set():
            log.info("tool_network.shut_off", network=self.name, by=tables)
        self._conditions.clear(CONDITION)
        self._set_ready(True)
        return True

    def _failed(self, error: MaoError) -> None:
        if error.detail != self.trouble.detail:
            log.error("tool_network.open", network=self.name, error=error.detail, next=error.next)
        self.trouble = error
        self._conditions.report(
            CONDITION,
            detail=f"The tools' network {self.name} is not shut off from this host, so steps that use it "
            f"wait: {error.detail}",
            next_step=error.next or "The engine's log says more: journalctl -u docker.",
        )
        self._set_ready(False)

    def _set_ready(self, ready: bool) -> None:
        if ready != self._ready.is_set():
            if ready:
                self._ready.set()
            else:
                self._ready.clear()
            for callback in self._subscribers:
                callback()

    async def establish(self) -> str:
        """Makes network and rules where they are not there; the firewall program that has them.

        Raises MaoError when they are not all there in the end.
        """
        subnets = await self._driver.ensure_network(self.name, self.bridge, {HELPER: "network"})
        code, said = await self._on_host(*isolation_script(self.bridge, subnets))
        said = " ".join(said.split())
        if code != 0:
            raise EngineRefused(
                f"the host's firewall cannot be set (exit code {code}): {said or 'it said nothing'}",
                code="tool-network-open",
                next="Mend what is said here (it needs iptables on the host), or accept that tools reach "
                "this host, and set MAO_TOOL_NETWORK=bridge.",
            )
        return said

    async def remove(self) -> None:
        """Takes network and rules away; raises EngineRefused while containers are on it."""
        await self._driver.remove_network(self.name)
        await self._on_host(*removal_script(self.bridge))

    async def _on_host(self, script: str, arguments: list[str]) -> tuple[int, str]:
        labels = {INSTALLATION: self._installation, HELPER: "network"}
        name = f"mao-network-{self._installation}"
        return await self._driver.run_on_host(HostCommand(name, script, arguments, labels))


LINK_LOCAL = (
    "169.254.0.0/16",
    "168.63.129.16/32",
    "100.100.100.200/32",
)  # and Azure's and Alibaba's metadata

_BEGIN = """\
set -eu
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
bridge=$1 chain=MAO-$1 shut=${2-}
fail() { echo "$*"; exit 1; }
tables=none
for each in iptables iptables-legacy iptables-nft; do
    if "$each" -w 5 -t raw -S PREROUTING >/dev/null 2>&1; then tables=$each; break; fi
done
six=ip6${tables#ip}
"""

_ISOLATE = (
    _BEGIN
    + """\
[ "$tables" != none ] ||
    fail "no iptables works on this host: $(iptables -w 5 -t raw -S PREROUTING 2>&1 | head -n 1)"
[ "$(cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null)" = 1 ] ||
    fail "what goes from tool to tool does not pass the firewall: net.bridge.bridge-nf-call-iptables is not 1"
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
