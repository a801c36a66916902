"""Keep the certificate authority of a scenario's site, and the certificates it has issued.

What lies in the folder is reused while it is valid long enough and covers the asked names; what is
missing, too old or damaged is made again. Prints one line for each certificate that was made.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=730)
RENEW_BEFORE = datetime.timedelta(days=60)
NOW = datetime.datetime.now(datetime.UTC)


def main() -> None:
    """Parse the command line and make what is needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("domain", help="the site's domain; the authority may certify nothing else")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME[,NAME…]",
        help="a certificate: its names or addresses, the first one also names its files",
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    authority, authority_key = read(arguments.folder / "ca")
    if authority is None or not lasts(authority):
        authority, authority_key = make_authority(arguments.domain)
        write(arguments.folder / "ca", authority, authority_key)
    for argument in arguments.names:
        names = argument.split(",")
        stem = arguments.folder / names[0]
        certificate, _ = read(stem)
        if certificate is None or not (
            lasts(certificate) and covers(certificate, names) and issued_by(certificate, authority)
        ):
            certificate, key = make_certificate(names, authority, authority_key)
            write(stem, certificate, key)


def make_authority(domain: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make an authority that certifies the site's names only, so that trusting it is harmless."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Certificate authority of {domain}")])
    permitted = [
        x509.DNSName(domain),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_network("127.0.0.0/8")),
    ]
    builder = (
        new_certificate(name, key)
        .issuer_name(name)
        .not_valid_after(NOW + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
    )
    return builder.sign(key, hashes.SHA256()), key


def make_certificate(
    names: list[str], authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make the certificate of a server with these names."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        new_certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), key)
        .issuer_name(authority.subject)
        .not_valid_after(min(NOW + LIFETIME, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(n) for n in names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    return builder.sign(authority_key, hashes.SHA256()), key


def new_certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """Begin a certificate with what all have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(hours=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def key_usage(**allowed: bool) -> x509.KeyUsage:
    """Allow a key to be used for what is named, and nothing else."""
    usages = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(usages | allowed))


def general_name(name: str) -> x509.GeneralName:
    """Tell an address from a host name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def lasts(certificate: x509.Certificate) -> bool:
    """Whether the certificate need not be renewed yet."""
    return certificate.not_valid_after_utc - NOW > RENEW_BEFORE


def covers(certificate: x509.Certificate, names: list[str]) -> bool:
    """Whether the certificate has these names and no others."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value) == {general_name(name) for name in names}


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether it was this authority that signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # the library has three for this, one of them from its back end
        return False
    return True


def read(
    stem: Path,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | tuple[None, None]:
    """Read a certificate and its key, or nothing where a pair is not there or damaged."""
    try:
        certificate = x509.load_pem_x509_certificate(file_of(stem, ".crt").read_bytes())
        key = serialization.load_pem_private_key(file_of(stem, ".key").read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return None, None
    if certificate.public_key() != key.public_key():
        return None, None
    return certificate, key


def write(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a certificate and its key, never half of a file, and the key for its owner only."""
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for suffix, mode, content in (
        (".key", 0o600, private),
        (".crt", 0o644, certificate.public_bytes(pem)),
    ):
        new = file_of(stem, f"{suffix}.new")
        new.unlink(missing_ok=True)
        new.touch(mode)
        new.write_bytes(content)
        new.replace(file_of(stem, suffix))
    sys.stdout.write(f"made {file_of(stem, '.crt')}\n")


def file_of(stem: Path, suffix: str) -> Path:
    """Append a suffix; Path.with_suffix would take a dot of the host name for one."""
    return stem.with_name(stem.name + suffix)


if __name__ == "__main__":
    main()
