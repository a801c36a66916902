"""What a value must look like, where that is more than a type. No sentence repeats a value."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))+")
GROUP_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# A user who may use the service must not be let in by being in one of these
SYSTEM_GROUPS = {"root", "sudo", "wheel", "adm", "daemon", "bin", "sys", "nogroup", "nobody", "users"}


def host_name(value: str) -> str | None:
    """A name that can stand in a certificate and in an address."""
    if not HOST_NAME.fullmatch(value):
        return "must be a host name in lower case, with its domain and without scheme, port and path"
    return None


def support_address(value: str) -> str | None:
    """Where people find help: what is made a link, with mailto: or as it is."""
    if not re.fullmatch(r"[^\s@<>\"']+@[^\s@<>\"']+|https://[^\s<>\"']+", value):
        return "must be a mail address, or the https address of a page"
    return None


def image(value: str) -> str | None:
    """An image that browsers show, by its name."""
    if value and not re.fullmatch(r"/.+\.(svg|png|jpe?g|webp)", value):
        return "must be the absolute path of a file in SVG, PNG, JPEG or WebP, whose name ends so"
    return None


def https_address(value: str) -> str | None:
    """An address to which a secret or a person's password may go."""
    address = urlsplit(value)
    if address.scheme != "https" or not address.hostname:
        return "must be a whole address that begins with https://"
    if address.query or address.fragment or address.username:
        return "must be an address without ?, # and user"
    return None


def hexadecimal_64(value: str) -> str | None:
    """32 random bytes, as JupyterHub wants them."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return "must be 64 hexadecimal digits; write the output of `openssl rand -hex 32`"
    return None


def token(value: str) -> str | None:
    """A token that cannot be guessed, and needs no quoting in a header or an environment file."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{32,}", value):
        return "must be at least 32 letters, digits, - or _; write the output of `openssl rand -hex 32`"
    return None


def password(value: str) -> str | None:
    """A password that no person has to type."""
    if len(value) < 16:
        return "must have at least 16 characters; write the output of `openssl rand -hex 16`"
    return None


def munge_key(value: str) -> str | None:
    """The content of munge.key, base64 encoded."""
    size = _base64_size(value)
    if size is None or not 32 <= size <= 1024:
        return (
            "must be a munge key of 32 to 1024 bytes in base64; write the output of "
            "`base64 --wrap=0 /etc/munge/munge.key` of the batch cluster, or for a new one of "
            "`openssl rand 128 | base64 --wrap=0`"
        )
    return None


def database_keys(value: list[str]) -> str | None:
    """The gateway's keys: 32 bytes each, newest first."""
    if not value or any(_base64_size(str(key).replace("-", "+").replace("_", "/")) != 32 for key in value):
        return (
            "must be a list of at least one key of 32 bytes in base64, newest first; write the "
            "output of `openssl rand -base64 32` as its first item"
        )
    return None


def group_name(value: str) -> str | None:
    """A group of the directory, whose members the launcher may act for."""
    if not GROUP_NAME.fullmatch(value):
        return "must be the name of a group: lower-case letters, digits, - and _, at most 32"
    if value in SYSTEM_GROUPS:
        return f"must be a group of the directory made for this, not the system's group {value}"
    return None


def networks(value: list[str]) -> str | None:
    """Networks as the firewall's rules have them."""
    for network in value:
        try:
            ipaddress.ip_network(str(network))
        except ValueError:
            return f"has {network}, which is no network; write such as 10.0.0.0/24, 10.0.0.7 or fd00::/8"
    return None


def memory(value: str) -> str | None:
    """A size as JupyterHub reads it, or no limit."""
    if value and not re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMGT]", value):
        return "must be a number with K, M, G or T, such as 8G"
    return None


def slurm_time(value: str) -> str | None:
    """A time as SLURM reads it, and not a number alone, which it takes for minutes."""
    if value and not re.fullmatch(r"[0-9]+-[0-9]{1,2}(:[0-9]{2}){0,2}|[0-9]{1,3}:[0-9]{2}:[0-9]{2}", value):
        return 'must be hours:minutes:seconds or days-hours, in quotes, such as "12:00:00" or "2-00"'
    return None


def profiles(value: list[dict[str, Any]]) -> str | None:
    """Sizes of servers that users can tell apart, and that can be had."""
    names = [profile["name"] for profile in value]
    for profile in value:
        name = profile["name"]
        if names.count(name) > 1:
            return f"has {name} twice; write another name"
        fault = memory(profile["memory"])
        if fault:
            return f"the memory of {name} {fault}"
        if profile["cores"] <= 0:
            return f"the cores of {name} must be more than 0"
        fault = slurm_time(str(profile.get("time") or ""))
        if fault:
            return f"the time of {name} {fault}"
    return None


def certificate(value: str) -> str | None:
    """A server's certificate and those between it and the authority."""
    if "PRIVATE KEY" in value:
        return "must be certificates only, and holds a private key"
    try:
        leaf = x509.load_pem_x509_certificates(value.encode())[0]
    except ValueError:
        return (
            "must be PEM text: -----BEGIN CERTIFICATE----- …, the server's first, then those between "
            "it and the authority"
        )
    if leaf.not_valid_after_utc < datetime.now(UTC):
        return f"is a certificate that expired on {leaf.not_valid_after_utc:%Y-%m-%d}; write a new one"
    if leaf.not_valid_before_utc > datetime.now(UTC):
        return f"is a certificate that is valid only from {leaf.not_valid_before_utc:%Y-%m-%d}"
    return None


def private_key(value: str) -> str | None:
    """A key that nginx can read without asking for a password."""
    try:
        serialization.load_pem_private_key(value.encode(), password=None)
    except TypeError:
        return "must be a private key without a password"
    except ValueError:
        return "must be PEM text: -----BEGIN PRIVATE KEY----- …, of the certificate's key"
    return None


def authorities(content: bytes) -> str | None:
    """One or more certificates of authorities."""
    try:
        x509.load_pem_x509_certificates(content)
    except ValueError:
        return "holds no certificate; write the path of a PEM file: -----BEGIN CERTIFICATE----- …"
    return None


def names_of(certificates: str) -> list[str]:
    """The host names of the first certificate."""
    leaf = x509.load_pem_x509_certificates(certificates.encode())[0]
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return extension.value.get_values_for_type(x509.DNSName)


def covers(names: list[str], host: str) -> bool:
    """Whether one of a certificate's names is this host's, wildcards included."""
    return host in names or f"*.{host.partition('.')[2]}" in names


def key_fits(key: str, certificates: str) -> bool:
    """Whether a private key is that of the first certificate."""
    leaf = x509.load_pem_x509_certificates(certificates.encode())[0]
    return leaf.public_key() == serialization.load_pem_private_key(key.encode(), None).public_key()


def _base64_size(value: Any) -> int | None:
    try:
        return len(base64.b64decode(value.encode(), validate=True))
    except (binascii.Error, ValueError, AttributeError):
        return None
