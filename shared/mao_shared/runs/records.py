"""Documents of runs in little room: a tenth to a quarter of their JSON.

The first byte tells the format, so that there can be others: `{` is plain JSON, 1 is deflated with the
dictionary below. A dictionary that was used once stays as it is for as long as there are stores with it.
"""

from __future__ import annotations

import zlib

LARGEST = 16_000_000  # bytes of a document; etcd takes a tenth of it
_DEFLATED = b"\x01"
_RAW = -zlib.MAX_WBITS  # without header and checksum, which etcd has of its own
_DICTIONARY = (
    b'"covers":{"since":","until":","count":"reproduces":{"run":","step":","snapshot":","attempt":1}'
    b'"retry_of":"cancel":{"requested_at":","reason":","missed":"late","overlap","coalesced","paused"'
    b'"error":{"code":","detail":","next":"maoctl ","fault":"tool"}"request_id":"'
    b'"waiting":"oom":true"timed_out":true"not_before":"reproduced":{"identical":'
    b'"vote":{"algorithm_name":","parameters":{"fields":{"key":{"lfs_above":'
    b'"metrics":[{"name":","file":","column":","unit":","kind":"rows","path":"'
    b'"trigger":"manual","phase":"failed","phase":"cancelled","phase":"missed","phase":"skipped","phase":"lost"'
    b'{"id":"20260101T000000Z-","pipeline":","node":"node-1","trigger":"schedule","phase":"succeeded",'
    b'"scheduled_for":"2026-01-01T00:00:00Z","schedule":","created_at":"2026-01-01T00:00:00.0Z","started_at":"2026'
    b'","finished_at":"2026-","overlap":"skip","steps":[{"spec":{"name":","tool":","image":{"name":"'
    b':latest","pinned":"@sha256:","platform":"linux/amd64"},"command":["python","sh","-c","--'
    b'"],"env":{},"limits":{"memory":1073741824,"pids":512,"time":3600.0,"grace":10.0},"network":"bridge",'
    b'"privileges":{"capabilities":[],"new_privileges":false},"output":{"name":","master":"ssh://git@https://.git'
    b'","branch":"node-1"},"input":{"name":","master":".git","branch":"ground-truth"},'
    b'"retry":{"attempts":1,"backoff":30.0,"on":["tool","engine","infrastructure"]},"allow_empty":false,'
    b'"on_late_truth":"skip","metrics":[]},"phase":"succeeded","attempt":1,"times":{"preparing":"2026-'
    b'Z","ready":"Z","starting":"Z","running":"Z","exited":"Z","publishing":"Z","succeeded":"'
    b'Z"},"container_id":"","exit":{"code":0,"oom":false,"timed_out":false},"log_bytes":0,"log_sha256":"'
    b'","user":"1000:1000","engine":"docker 28.0.1","base_commit":","input_commit":","snapshot":"'
    b'","ground_truth":","pushed":true,"metrics":{}},{"spec":{"name":"}]}'
)


def pack(document: bytes) -> bytes:
    """What `unpack` makes the same document of, byte for byte."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, _RAW, zdict=_DICTIONARY)
    packed = _DEFLATED + deflate.compress(document) + deflate.flush()
    return packed if len(packed) < len(document) or document[:1] != b"{" else document


def unpack(packed: bytes) -> bytes:
    """Raises ValueError for what `pack` has not made, or another version's."""
    if packed[:1] == b"{":
        return packed
    if packed[:1] != _DEFLATED:
        raise ValueError("it is packed in a way that this version does not know")
    inflate = zlib.decompressobj(_RAW, zdict=_DICTIONARY)
    try:
        document = inflate.decompress(packed[1:], LARGEST)
    except zlib.error:
        raise ValueError("it is damaged: it cannot be unpacked") from None
    if not inflate.eof or inflate.unused_data:
        raise ValueError("it is damaged: a part is missing or too much")
    return document
