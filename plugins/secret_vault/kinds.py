"""How each kind of secret is made, and which of them somebody else gives."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preflight.answers import FORMATS


@dataclass(frozen=True)
class Kind:
    """What one secret is, and how to make one; without `make` it is somebody else's to give."""

    what: str
    make: Callable[[], str] | None = None
    # Several at once: the first is used for what is new, all of them for what there is
    several: bool = False
    # What a new one costs, for who rotates it
    cost: str = ""


def _hexadecimal(size: int) -> Callable[[], str]:
    return lambda: secrets.token_hex(size)


def _base64(size: int) -> Callable[[], str]:
    return lambda: base64.b64encode(secrets.token_bytes(size)).decode()


MUNGE_KEY = Kind(
    "the batch cluster's munge key",
    _base64(128),
    cost="for some seconds SLURM's commands fail, and submissions are tried again; jobs go on",
)
SITES_MUNGE_KEY = Kind(
    "the munge key of the site's batch cluster, the output of `base64 --wrap=0 /etc/munge/munge.key`"
)

# By the role's variable that the secret is for
KINDS = {
    "jupyterhub_cookie_secret": Kind(
        "cookie secret of the Hub",
        _hexadecimal(32),
        cost="everybody has to sign in to the Hub again; servers and tokens go on",
    ),
    "jupyterhub_crypt_key": Kind(
        "key of what the Hub keeps of sign-ins",
        _hexadecimal(32),
        cost="what it has kept of earlier sign-ins is lost",
    ),
    "jupyterhub_proxy_auth_token": Kind(
        "token between the Hub and its proxy",
        _hexadecimal(32),
        cost="the Hub and its proxy restart; pages reconnect by themselves, servers go on",
    ),
    "dask_gateway_jupyterhub_api_token": Kind(
        "token that the Hub knows the gateway by",
        _hexadecimal(32),
        cost="until both sides have it, for some seconds, users' tokens can't be checked; clusters go on",
    ),
    "dask_gateway_proxy_token": Kind(
        "token between the gateway and its proxy",
        _hexadecimal(32),
        cost="the proxy restarts: clients lose their connection and connect again; clusters and computations go on",
    ),
    "monitoring_hub_token": Kind(
        "token with which Prometheus reads the Hub's metrics",
        _hexadecimal(32),
        cost="until both sides have it, the Hub's metrics are missing for some seconds",
    ),
    "dask_gateway_database_keys": Kind(
        "keys of the gateway's database",
        _base64(32),
        several=True,
        cost="the gateway restarts, which nobody notices; the earlier keys stay until they are retired",
    ),
    "slurm_database_password": Kind(
        "password of SLURM's accounting database",
        _hexadecimal(16),
        cost="slurmdbd restarts; slurmctld keeps its records until it is back",
    ),
    "slurm_munge_key": MUNGE_KEY,
    "directory_client_bind_password": Kind("the password of directory_client_bind_dn, from the directory's operators"),
    "dask_gateway_canary_token": Kind("the token that the canary user has made at /hub/token"),
    "accounts_check_client_secret": Kind(
        "the secret that the accounts portal's operators gave for accounts_check_client_id"
    ),
    "jupyterhub_oauth_client_secret": Kind(
        "the secret that the provider's operators gave for jupyterhub_oauth_client_id"
    ),
    "tls_frontend_private_key": Kind("the private key of the certificate, as PEM text without a password"),
}


def kind_of(option: str, own_batch_cluster: bool) -> Kind:
    """The kind of the secret for a role's variable."""
    if option == "slurm_munge_key" and not own_batch_cluster:
        return SITES_MUNGE_KEY
    return KINDS.get(option, Kind("a secret that no role knows"))


def fault(option: str, value: Any) -> str | None:
    """What is wrong with a secret that somebody gives, by preflight's rules."""
    if not value:
        return "is empty"
    return FORMATS[option](value) if option in FORMATS else None
