"""The copies of the federation's records in the node's own store, as all services read them.

The registry keeps them in step (`known.py`). A copy's value is the revision that the record had in the
federation's store, a line break, and the record: a guard that was read here holds there.
"""

from __future__ import annotations

import re

from pydantic import ValidationError

from mao_shared import keys
from mao_shared.models.common import STORED
from mao_shared.models.federation import Contact
from mao_shared.store import Entry, Page, Store

PREFIXES = (  # of keys that are all copied
    keys.registry_root(),
    keys.members_prefix(),
    keys.cores_prefix(),
    keys.identities_prefix(),
    keys.signers_prefix(),
)
_PEER_RUNS = re.compile(re.escape(keys.all_peers()) + r"[^/]+/(?:runs/|parts/|node$)")


def is_copied(key: str) -> bool:
    """Whether a key, or all under a prefix, is kept as a copy. Rounds and what they rest on never are."""
    return key.startswith(PREFIXES) or key == keys.federation() or _PEER_RUNS.match(key) is not None


def pack(entry: Entry) -> bytes:
    """The value of the copy of an entry."""
    return f"{entry.revision}\n".encode() + entry.value


LISTED = (*PREFIXES, keys.federation(), keys.all_peers())  # under which there may be keys that are copied


class Copies:
    """What is known of the federation `name` (its id); of another federation nothing is."""

    def __init__(self, own: Store, node: str) -> None:
        self._own = own
        self._node = node
        self.prefix = keys.known_prefix(node)

    async def read_contact(self) -> tuple[Contact | None, int]:
        """When and how the federation was last heard of, and the revision of that record (0: none)."""
        entry = await self._own.get(keys.contact(self._node))
        if entry is None:
            return None, 0
        try:
            return Contact.model_validate_json(entry.value, context=STORED), entry.revision
        except ValidationError:  # another version's; the registry writes it anew
            return None, entry.revision

    async def contact(self, name: str) -> Contact | None:
        """The contact with this federation; None as well where there is no whole copy of its records."""
        contact, _ = await self.read_contact()
        whole = contact is not None and contact.federation == name and contact.as_of is not None
        return contact if whole else None

    async def get(self, key: str) -> Entry | None:
        entry = await self._own.get(self.prefix + key)
        return None if entry is None else self.unpack(entry)

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        """As `Store.list`; the page's revision is the node's own store's."""
        page = await self._own.list(
            self.prefix + prefix, limit=limit, cursor=cursor, newest_first=newest_first
        )
        return Page([self.unpack(entry) for entry in page.entries], page.revision, page.cursor)

    def unpack(self, entry: Entry) -> Entry:
        """The federation's entry in that of a copy."""
        revision, _, value = entry.value.partition(b"\n")
        ours = revision.isdigit() and len(revision) < 19
        known = int(revision) if ours else 0  # somebody else's write: older than all
        return Entry(entry.key.removeprefix(self.prefix), value, known)
