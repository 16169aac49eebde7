"""What shuts the tools' network off from the host, from link-local and from itself, as scripts: pure.

The rules stand in `raw PREROUTING`, which everything passes that comes in over the bridge, before addresses
are translated: a port that a container publishes on the host is the host's address still. Who flushes or
reorders the filter table, as firewalld and ufw do, does not touch them. IPv6 is not let through at all.

* All addresses that are not somebody's elsewhere are dropped: the host's own, whatever interface or bridge
  they belong to, broadcasts and multicasts.
* Link-local is dropped, and what clouds use in its place for their metadata.
* The network's own subnet is dropped, beside the engine's own rule (`enable_icc`).
* Port 53 of the name servers that the engine asks for containers stays open, where they are one of these.
  (One on the host's loopback is asked by the engine from the host.)
"""

from __future__ import annotations

from collections.abc import Sequence

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
_SHUT_OFF = (
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
_OPEN = (
    _BEGIN
    + """\
[ "$tables" != none ] || exit 0
while "$six" -w 5 -t raw -D PREROUTING -i "$bridge" -j DROP 2>/dev/null; do :; done
while "$tables" -w 5 -t raw -D PREROUTING -i "$bridge" -j "$chain" 2>/dev/null; do :; done
"$tables" -w 5 -t raw -F "$chain" 2>/dev/null || exit 0
"$tables" -w 5 -t raw -X "$chain"
"""
)


def shut_off(bridge: str, subnets: Sequence[str]) -> tuple[str, list[str]]:
    """Script and arguments that put the rules of a bridge in place, all at once, as often as it is run.

    The script exits 0 once they are there, else its last lines say why they are not.
    """
    return _SHUT_OFF, [bridge, " ".join([*LINK_LOCAL, *subnets])]


def open_again(bridge: str) -> tuple[str, list[str]]:
    """Script and arguments that take the rules of a bridge away."""
    return _OPEN, [bridge]
