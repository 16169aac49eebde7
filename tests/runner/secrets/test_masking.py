"""Masking of secret values in a log: every spelling, however the output is cut into pieces."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mao_runner.secrets.masking import MASK_BYTES, StreamMask, spellings

CANARY = "caNary+/=7 ü&secret"
KEY = """-----BEGIN PRIVATE KEY-----
MIIBVAIBADANBgkqhkiG9w0
AQEFAASCAT4wggE6AgEAAk
-----END PRIVATE KEY-----
"""


def mask(data: bytes, *values: str, size: int = 1 << 20) -> bytes:
    stream = StreamMask(values)
    return b"".join(stream.masked(data[at : at + size] for at in range(0, len(data), size)))


@pytest.mark.parametrize(
    "shown",
    [
        CANARY.encode(),
        quote(CANARY).encode(),
        quote(CANARY, safe="").encode(),
        quote_plus(CANARY).encode(),
        quote(CANARY, safe="").lower().replace("canary", "caNary").encode(),
        base64.b64encode(CANARY.encode()),
        base64.urlsafe_b64encode(CANARY.encode()),
        json.dumps(CANARY).strip('"').encode(),
    ],
)
def test_mask_every_spelling(shown: bytes) -> None:
    assert mask(b"before " + shown + b" after", CANARY) == b"before " + MASK_BYTES + b" after"


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "user:p"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
def test_mask_value_inside_longer_base64(before: str, after: str) -> None:
    encoded = base64.b64encode(f"{before}{CANARY}{after}".encode())
    masked = mask(encoded, CANARY)
    assert MASK_BYTES in masked
    rest = masked.replace(MASK_BYTES, b"")
    assert len(rest) <= len(encoded) - len(CANARY.encode())  # what is left does not hold the value


def test_mask_lines_of_a_key() -> None:
    shown = b"".join(b"  > %s\n" % line.encode() for line in KEY.splitlines())
    assert b"MIIB" not in mask(shown, KEY)
    assert b"AQEF" not in mask(shown, KEY)
    assert mask(base64.b64encode(KEY.encode()), KEY) == MASK_BYTES


def test_mask_longest_of_several() -> None:
    assert mask(b"x token-12 token-1234 token-123 y", "token-12", "token-1234") == (
        b"x " + MASK_BYTES + b" " + MASK_BYTES + b" " + MASK_BYTES + b"3 y"
    )


def test_mask_keeps_all_else() -> None:
    data = bytes(range(256)) * 50
    assert mask(data, CANARY, size=7) == data
    assert mask(data) == data


def test_stream_holds_back_only_what_may_be_a_secret() -> None:
    stream = StreamMask(["token-1234"])
    assert stream.feed(b"progress 10 %\r") == b"progress 10 %\r"
    assert stream.feed(b"tok") == b""
    assert stream.feed(b"en ring\n") == b"token ring\n"
    assert stream.feed(b"token-12") == b""
    assert stream.end() == b"token-12"


VALUES = st.lists(st.text("ab/+ü\n", min_size=4, max_size=12), min_size=1, max_size=3)


@given(values=VALUES, data=st.data())
def test_stream_is_masked_the_same_however_it_is_cut(values: list[str], data: st.DataObject) -> None:
    known = sorted(one for value in values for one in spellings(value))
    parts = st.one_of(st.sampled_from(known), st.text("ab/+ü\nx").map(str.encode))
    text = b"".join(data.draw(st.lists(parts, max_size=6)))
    whole = mask(text, *values)
    for size in (1, 2, 3, 5, 8):
        assert mask(text, *values, size=size) == whole
    assert not [one for one in known if one in whole and one not in MASK_BYTES]
