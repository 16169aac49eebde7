"""A federation's certificates: its authority, and the keys, requests and certificates of nodes. No I/O.

The only module of the registry that imports `cryptography`. Certificates, keys and requests are PEM text, the
form that etcd, gRPC and the records need. The common name of a certificate is an etcd user.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import Field

from mao_shared.errors import InvalidInput
from mao_shared.models import Record

MAX_USER = 64  # characters of a common name, a limit of X.509
AUTHORITY_LIFETIME = timedelta(days=20 * 365)
LIFETIME = timedelta(days=180)  # of a node's certificates, which are renewed after two thirds of it
CLOCK_SKEW = timedelta(hours=1)  # certificates start this much earlier, for nodes whose clocks are behind
_HASH = hashes.SHA256()


class Authority(Record):
    """The authority that signs a federation's certificates; its key gives the access rights of any member.

    Stored on disk while a federation is being created, then in its store, readable by core nodes alone.
    """

    certificate: str
    key: str = Field(repr=False)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """The content of a certificate. `fingerprint`: SHA-256 of its DER form, lower-case hexadecimal."""

    user: str
    serial: int
    not_before: datetime
    not_after: datetime
    fingerprint: str
    hosts: list[str]


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The content of a certificate request whose signature was checked."""

    user: str
    hosts: list[str]


def make_authority(name: str, *, now: datetime | None = None) -> Authority:
    """Create an authority with the common name `name` (at most 64 characters), valid for 20 years."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = (
        _builder(subject, subject, key.public_key(), now or datetime.now(UTC), AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(certificate=_pem(builder.sign(key, _HASH)), key=_key_pem(key))


def make_key() -> str:
    """Create a private key (ECDSA P-256)."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def make_request(key: str, user: str, hosts: Sequence[str] = ()) -> str:
    """Create a certificate request for `key` and the common name `user`, with `hosts` for servers."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(user))
    if hosts:
        builder = builder.add_extension(_alternatives(hosts), critical=False)
    return _pem(builder.sign(_load_key(key), _HASH))


def read_request(request: str) -> RequestFacts:
    """Parse a request. Raises InvalidInput (`request-invalid`) if unreadable or not signed by its own key."""
    return _read_request(request)[0]


def sign(
    authority: Authority,
    request: str,
    user: str,
    hosts: Sequence[str],
    lifetime: timedelta,
    *,
    server: bool = False,
    now: datetime | None = None,
) -> str:
    """Sign a request and return the certificate: for clients, with `server` also for servers and peers.

    The request is not trusted: it must name `user`, and only `hosts`, which the signer knows to be the
    node's, are certified. Raises InvalidInput (`request-invalid`, `request-other-user`).
    """
    requested, certified = _read_request(request)
    if requested.user != user:
        raise InvalidInput(
            f"The certificate request is for {requested.user!r}, not for {user!r}.", code="request-other-user"
        )
    issuer = _load_certificate(authority.certificate)
    key = _load_key(authority.key)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] + [ExtendedKeyUsageOID.SERVER_AUTH] * server
    builder = (
        _builder(issuer.subject, _name(user), certified, now or datetime.now(UTC), lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(_alternatives(hosts), critical=False)
    return _pem(builder.sign(key, _HASH))


def issue(authority: Authority, user: str, now: datetime, hosts: tuple[str, ...] = ()) -> tuple[str, str]:
    """Create a key and its certificate; with `hosts` also for servers. Returns certificate and key."""
    key = make_key()
    request = make_request(key, user, hosts)
    return sign(authority, request, user, hosts, LIFETIME, server=bool(hosts), now=now), key


def facts(certificate: str) -> CertificateFacts:
    """Parse a certificate. Raises InvalidInput (`certificate-invalid`)."""
    parsed = _load_certificate(certificate)
    try:
        return CertificateFacts(
            user=_common_name(parsed.subject),
            serial=parsed.serial_number,
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
            fingerprint=parsed.fingerprint(_HASH).hex(),
            hosts=_hosts(parsed.extensions),
        )
    except Exception as error:
        raise _certificate_invalid(error) from error


def is_signed_by(certificate: str, ca: str) -> bool:
    """True if the certificate was signed with the key of `ca`; its validity period is not checked."""
    try:
        _load_certificate(certificate).verify_directly_issued_by(_load_certificate(ca))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def belongs_to(key: str, certificate: str) -> bool:
    """True if the certificate is for this private key."""
    return _load_key(key).public_key() == _load_certificate(certificate).public_key()


def needs_renewal(certificate: str, ca: str, now: datetime) -> bool:
    """True if the certificate is from another authority, or past two thirds of its lifetime."""
    if not is_signed_by(certificate, ca):
        return True
    current = facts(certificate)
    return now >= current.not_before + (current.not_after - current.not_before) * 2 / 3


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]"))))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def _hosts(extensions: x509.Extensions) -> list[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return names.get_values_for_type(x509.DNSName) + addresses


def _name(common: str) -> x509.Name:
    if not 0 < len(common) <= MAX_USER:
        raise InvalidInput(
            f"A certificate's common name has 1 to {MAX_USER} characters, but {common!r} has {len(common)}.",
            code="user-too-long",
            next="Give the node or federation a shorter name.",
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _common_name(name: x509.Name) -> str:
    names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _load_certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except Exception as error:
        raise _certificate_invalid(error) from error


def _read_request(pem: str) -> tuple[RequestFacts, CertificatePublicKeyTypes]:
    """Parse a request; return its content and the key to certify.

    `cryptography` parses most parts only on access, and raises errors of many types for malformed ones:
    ValueError, TypeError, UnsupportedAlgorithm, …
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        valid, key = request.is_signature_valid, request.public_key()
        content = RequestFacts(_common_name(request.subject), _hosts(request.extensions))
    except Exception as error:
        raise _request_invalid(str(error)) from error
    if not valid:
        raise _request_invalid("its signature does not match its key")
    return content, key


def _certificate_invalid(error: Exception) -> InvalidInput:
    return InvalidInput(f"This is not a certificate in PEM form ({error}).", code="certificate-invalid")


def _request_invalid(why: str) -> InvalidInput:
    return InvalidInput(f"This certificate request cannot be used: {why}.", code="request-invalid")


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"This is not a private key in PEM form ({error}).", code="key-invalid") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput("The private key is not an ECDSA key.", code="key-invalid")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _pem(signed: x509.Certificate | x509.CertificateSigningRequest) -> str:
    return signed.public_bytes(Encoding.PEM).decode()
