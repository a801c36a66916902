"""What an installation says of itself; written by the role dask_gateway."""

import base64
import hashlib
import hmac
import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Settings:
    """The settings of this service; the secret comes from the environment."""

    url: str  # under which browsers reach it, https://<gateway host>
    hub_url: str  # https://<notebook host>
    gateway_api: str  # the gateway's own address on the loopback
    site_name: str
    support_address: str
    guide_url: str = ""  # of the user's guide
    logo_url: str = ""  # of an image; the site's name stands there without one
    service_name: str = "dask-gateway"
    address: str = "127.0.0.1"
    port: int = 8003
    dashboards: bool = True
    networks: tuple = ()  # from which dashboards may be opened; () for all
    remote_desktop: str = ""
    check_interval: float = 10  # seconds for which an answer of the gateway counts
    api_token: str = field(default="", repr=False)

    @classmethod
    def read(cls, path, api_token):
        """Read the file; what is wrong with it is a ValueError."""
        values = json.loads(Path(path).read_text())
        values["networks"] = tuple(ipaddress.ip_network(network) for network in values.get("networks", ()))
        return cls(**values, api_token=api_token)

    @property
    def cookie_secret(self):
        """Signs cookies; made from the service's token, so that a restart signs nobody out."""
        return hmac.new(self.api_token.encode(), b"cookies", hashlib.sha256).hexdigest()

    @property
    def session_key(self):
        """Encrypts what schedulers get to ask by whether somebody is still signed in."""
        return base64.urlsafe_b64encode(hmac.new(self.api_token.encode(), b"sessions", hashlib.sha256).digest())

    @property
    def support_link(self):
        """The address of a link to help."""
        return self.support_address if "://" in self.support_address else f"mailto:{self.support_address}"

    @property
    def origin(self):
        """The origin of this service's pages, as browsers write it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def admits(self, address):
        """Whether dashboards may be opened from this address."""
        if not self.networks:
            return True
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self.networks)
