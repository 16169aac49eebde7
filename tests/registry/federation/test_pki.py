"""Certificates and invitations of a federation."""

from __future__ import annotations

import base64
import zlib
from datetime import UTC, datetime, timedelta

import pytest

from mao_registry.federation import pki
from mao_registry.federation.access import (
    INVITATION_PREFIX,
    InvitationToken,
    decode_token,
    encode_token,
    make_token,
)
from mao_shared.errors import InvalidInput

from .crafted import crafted

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.make_authority("MAO federation artefacts")


def _token(authority: pki.Authority, lifetime: timedelta = DAY) -> InvitationToken:
    key = pki.make_key()
    request = pki.make_request(key, "join-node-2@1")
    certificate = pki.sign(authority, request, "join-node-2@1", [], lifetime)
    return make_token(
        "artefacts", "node-2", ["127.0.0.1:2379"], ca=authority.certificate, certificate=certificate, key=key
    )


def test_certificate_facts(authority: pki.Authority) -> None:
    key = pki.make_key()
    request = pki.make_request(key, "node-1@2", ["node-1.example.org", "127.0.0.1"])
    assert pki.read_request(request) == pki.RequestFacts("node-1@2", ["node-1.example.org", "127.0.0.1"])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = pki.sign(authority, request, "node-1@2", ["::1", "a.b"], 90 * DAY, server=True, now=now)
    facts = pki.facts(certificate)
    assert facts.user == "node-1@2"
    assert facts.hosts == ["a.b", "::1"]  # the signer's word, not the request's
    assert facts.not_after == now + 90 * DAY
    assert facts.not_before == now - pki.CLOCK_SKEW
    assert pki.is_signed_by(certificate, authority.certificate)
    assert pki.belongs_to(key, certificate)


def test_certificate_of_other_authority_or_key(authority: pki.Authority) -> None:
    token = _token(authority)
    other = pki.make_authority("MAO federation artefacts")
    assert not pki.is_signed_by(token.certificate, other.certificate)
    assert not pki.belongs_to(pki.make_key(), token.certificate)


def test_sign_rejects_request_for_other_user(authority: pki.Authority) -> None:
    request = pki.make_request(pki.make_key(), "node-1@1")
    with pytest.raises(InvalidInput, match=r"for 'node-1@1', not for 'node-2@1'") as refused:
        pki.sign(authority, request, "node-2@1", [], DAY)
    assert refused.value.code == "request-other-user"


def test_sign_rejects_request_with_other_signature() -> None:
    """Nobody gets a certificate for a key of somebody else."""
    request = pki.make_request(pki.make_key(), "node-1@1")
    lines = request.splitlines()
    der = bytearray(base64.b64decode("".join(lines[1:-1])))
    der[-1] ^= 1
    forged = "\n".join([lines[0], base64.b64encode(der).decode(), lines[-1], ""])
    with pytest.raises(InvalidInput) as refused:
        pki.read_request(forged)
    assert refused.value.code == "request-invalid"


@pytest.mark.parametrize("odd", crafted("node-1@1"))
def test_sign_rejects_crafted_request(authority: pki.Authority, odd: str) -> None:
    request = crafted("node-1@1")[odd]
    for act in (pki.read_request, lambda text: pki.sign(authority, text, "node-1@1", [], DAY)):
        with pytest.raises(InvalidInput) as refused:
            act(request)
        assert refused.value.code == "request-invalid"


@pytest.mark.parametrize("user", ["", "n" * 65])
def test_common_name_length(user: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        pki.make_request(pki.make_key(), user)
    assert refused.value.code == "user-too-long"


@pytest.mark.parametrize("junk", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_facts_rejects_invalid_certificate(junk: str) -> None:
    with pytest.raises(InvalidInput):
        pki.facts(junk)
    with pytest.raises(InvalidInput):
        pki.read_request(junk)


def test_keys_not_in_repr(authority: pki.Authority) -> None:
    token = _token(authority)
    assert "PRIVATE" not in repr(authority)
    assert "PRIVATE" not in repr(token)


def test_token_round_trip(authority: pki.Authority) -> None:
    token = _token(authority)
    text = encode_token(token)
    assert text.startswith(INVITATION_PREFIX)
    assert "\n" not in text
    wrapped = "\n".join([text[:80], text[80:], ""])  # as a terminal or a mail wraps it
    assert decode_token(wrapped) == token


@pytest.mark.parametrize("damage", ["", "mao2.x", "mao1.", "mao1.AAAA", "mao1.ä", "mao1." + "A" * 50_000])
def test_token_invalid(damage: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_token(damage)
    assert refused.value.code == "token-invalid"


def test_token_cut_or_changed(authority: pki.Authority) -> None:
    text = encode_token(_token(authority))
    middle = len(text) // 2
    changed = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
    for damaged in (text[:-1], text[:-40], text[:middle], changed):
        with pytest.raises(InvalidInput) as refused:
            decode_token(damaged)
        assert refused.value.code == "token-invalid"


def test_token_decompression_limit() -> None:
    bomb = base64.urlsafe_b64encode(zlib.compress(b" " * 10_000_000)).decode()
    with pytest.raises(InvalidInput, match="invalid invitation"):
        decode_token(INVITATION_PREFIX + bomb)


def test_token_expired(authority: pki.Authority) -> None:
    text = encode_token(_token(authority))
    with pytest.raises(InvalidInput) as refused:
        decode_token(text, now=datetime.now(UTC) + 2 * DAY)
    assert refused.value.code == "token-expired"
    assert refused.value.next is not None
    assert "federation invite node-2" in refused.value.next


def test_token_inconsistent_parts(authority: pki.Authority) -> None:
    token, other = _token(authority), _token(pki.make_authority("other"))
    changes: list[dict[str, object]] = [
        {"ca": other.ca},
        {"ca": other.ca, "fingerprint": other.fingerprint},
        {"key": other.key},
        {"user": "node-1@1"},
        {"endpoints": ["no endpoint"]},
        {"certificate": "x"},
        {"ca": "x"},
    ]
    for change in changes:
        with pytest.raises(InvalidInput) as refused:
            decode_token(encode_token(token.model_copy(update=change)))
        assert refused.value.code == "token-invalid"
