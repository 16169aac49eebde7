"""Pure: whether a version of etcd keeps the rights of its users, on which a federation rests.

    before 3.4.42 3.5.28 3.6.9          unsafe  CVE-2026-33343: a transaction inside a transaction passes
                                                every right on keys, for reading and for writing
    before 3.5.33 3.6.14 3.7.1          warned  CVE-2026-73499: who may read one key may watch all behind it;
                                                any 3.4, which gets no corrections any more

Of a line that is newer than these tables its first release counts. What cannot be read counts as unsafe, a
pre-release as older than its release. This file alone, run as a program, answers `scripts/machine.sh`.
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
RECOMMENDED_FROM = {(3, 5): 33, (3, 6): 14, (3, 7): 1}  # and without CVE-2026-73499
OUTPUT_FILE = (
    "etcd-version"  # in MAO_FEDERATION_DIR: what `etcd --version` prints, by who would start etcd there
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
    """Return the version that decides for a cluster: the oldest of the worst standing; None without any."""
    ranks = {"unsafe": 0, "warned": 1, "good": 2}
    return min(texts, key=lambda text: (ranks[judge(text)], parse(text) or (-1,)), default=None)


def read_output(text: str) -> str:
    """Return the version in what `etcd --version` prints; empty when there is none."""
    first = text.partition("\n")[0]
    return first.rpartition(":")[2].strip() if first.lower().startswith("etcd version:") else ""


def is_preferable(text: str | None, offered: str) -> bool:
    """Return whether to use the etcd found, rather than the version offered in its place."""
    version, other = parse(text), parse(offered)
    if version is None or other is None or judge(text) == "unsafe":
        return False
    return judge(text) == "good" or version >= other


def main(words: list[str]) -> int:
    """`etcd_version.py VERSION OFFERED`: exit code 0 for `is_preferable`; without OFFERED, if not unsafe."""
    if len(words) == 1:
        return int(judge(words[0]) == "unsafe")
    return int(not is_preferable(*words[:2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
