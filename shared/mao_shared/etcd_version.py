"""Check whether a version of etcd enforces its access control, on which federations depend. Pure.

    before 3.4.42 3.5.28 3.6.9          unsafe  CVE-2026-33343: nested transactions bypass all permissions on
                                                keys, for reading and for writing
    before 3.5.33 3.6.14 3.7.1          warned  CVE-2026-73499: permission to read a key allows a watch on all
                                                later keys; also any 3.4, which gets no more fixes

Of release lines newer than these tables, every release is safe. An invalid version counts as unsafe, and a
pre-release as older than its release. `scripts/machine.sh` runs this file as a program.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Literal

Standing = Literal["good", "warned", "unsafe"]
Order = tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]
SECURE_FROM = {
    (3, 4): 42,
    (3, 5): 28,
    (3, 6): 9,
}  # minor line → its first patch release without CVE-2026-33343
RECOMMENDED_FROM = {(3, 5): 33, (3, 6): 14, (3, 7): 1}  # the same for CVE-2026-73499
OUTPUT_FILE = (
    "etcd-version"  # in MAO_FEDERATION_DIR: output of `etcd --version`, written by the node's launcher
)
NEEDED = "3.5.33, 3.6.14, 3.7.1 or newer"
_FIRST_LINE = min(SECURE_FROM)
_VERSION = re.compile(
    r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.+~-]*)?", re.ASCII
)


def parse(text: str | None) -> Order | None:
    """Return a version's sort key, None if invalid; ignores what follows a `+` (`3.5.16+dfsg`)."""
    match = _VERSION.fullmatch((text or "").strip())
    if match is None:
        return None
    major, minor, patch = (int(part) for part in match.groups()[:3])
    if match[4] is None:
        return major, minor, patch, 1, ()
    order = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in match[4].split("."))
    return major, minor, patch, 0, order


def judge(text: str | None) -> Standing:
    version = parse(text)
    if version is None or version[:2] < _FIRST_LINE:
        return "unsafe"
    line, patch = version[:2], version[2:4]
    if patch < (SECURE_FROM.get(line, 0), 1):
        return "unsafe"
    if line not in RECOMMENDED_FROM:
        return "good" if line > max(RECOMMENDED_FROM) else "warned"
    return "good" if patch >= (RECOMMENDED_FROM[line], 1) else "warned"


def worst(texts: Iterable[str]) -> str | None:
    """Return the oldest version of the worst standing in a cluster; None if there are no versions."""
    ranks = {"unsafe": 0, "warned": 1, "good": 2}
    return min(texts, key=lambda text: (ranks[judge(text)], parse(text) or (-1,)), default=None)


def read_output(text: str) -> str:
    """Return the version in the output of `etcd --version`; empty if there is none."""
    first = text.partition("\n")[0]
    return first.rpartition(":")[2].strip() if first.lower().startswith("etcd version:") else ""


def is_preferable(text: str | None, offered: str) -> bool:
    """Return True if the installed version is to be preferred over the offered one."""
    version, other = parse(text), parse(offered)
    if version is None or other is None or judge(text) == "unsafe":
        return False
    return judge(text) == "good" or version >= other


def main(words: list[str]) -> int:
    """Run `etcd_version.py VERSION [OFFERED]`: exit 0 if `is_preferable`, without OFFERED if not unsafe."""
    if len(words) == 1:
        return int(judge(words[0]) == "unsafe")
    return int(not is_preferable(*words[:2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
