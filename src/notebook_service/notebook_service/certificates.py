"""The authority for the certificates of notebook servers that are batch jobs.

What their users' browsers send comes from the Hub's proxy to a node over a network. A server makes its key on the
node, and the Hub, which knows by the server's token whose it is, signs a certificate for it: no key travels, and the
proxy and the Hub take no server for one that has none.

JupyterHub's own way (`internal_ssl`) makes the keys on the Hub before it is known on which node a server will run,
would have them lie in the user's home, and changes how Hub, proxy and services speak to each other, too.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

AUTHORITY_DAYS = 3650
SERVER_DAYS = 400  # longer than any job
KEY, CERTIFICATE = "authority.key", "authority.crt"
# With which the Hub itself connects; JupyterHub takes an authority only together with such a pair
HUB_KEY, HUB_CERTIFICATE = "hub.key", "hub.crt"
REQUEST_LIMIT = 8 * 1024


class RequestError(Exception):
    """What came is no request for a certificate."""


class ServerAuthority:
    """The authority whose files are in a folder."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.key = serialization.load_pem_private_key((folder / KEY).read_bytes(), password=None)
        self.certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())

    def sign(self, request: str, names: list[str]) -> str:
        """Sign a server's request; what it says besides its key counts for nothing.

        Parameters
        ----------
        request : str
            A certificate signing request in PEM.
        names : list of str
            The names by which the Hub and its proxy connect.

        Raises
        ------
        RequestError
            When it is none.
        """
        try:
            asked = x509.load_pem_x509_csr(request[:REQUEST_LIMIT].encode())
            good = asked.is_signature_valid
        except Exception as error:  # of many kinds, by what is wrong with it
            raise RequestError("the request for a certificate can't be read") from error
        if not good:
            raise RequestError("the request for a certificate is not signed by its key")
        return _pem(_signed(self, asked.public_key(), "notebook server", names, SERVER_DAYS))


def make(folder: str | Path) -> None:
    """Make an authority and the Hub's own pair; the key comes first, and is root's alone from the beginning."""
    folder = Path(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / KEY, key)
    subject = _subject("Notebook servers of this Hub")
    certificate = (
        _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / CERTIFICATE).write_text(_pem(certificate))
    (folder / CERTIFICATE).chmod(0o644)
    hub = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / HUB_KEY, hub)
    (folder / HUB_CERTIFICATE).write_text(
        _pem(_signed(ServerAuthority(folder), hub.public_key(), "Hub", [], AUTHORITY_DAYS))
    )


def _signed(authority: ServerAuthority, key, name: str, names: list[str], days: int) -> x509.Certificate:
    builder = (
        _builder(_subject(name), authority.certificate.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=10))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(**given: bool) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**dict.fromkeys(every, False) | given)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
        file.write(text)


if __name__ == "__main__":
    make(sys.argv[1])
