"""The stand-in portal as a process of this machine, on loopback over TLS."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests
from portal_control import CATEGORY, SERVICE, PortalControl

SHARED = Path(__file__).resolve().parents[2] / "molecule/shared"
SCOPE = "jasmin.services.userservices.all:read"
CLIENT = {"id": "dask-gateway", "secret": "the-client's-secret+/= %", "scopes": [SCOPE]}
SIGN_IN_CLIENT = {
    "id": "notebooks",
    "secret": "the-other-client's-secret-of-some-length",
    "scopes": ["openid", "profile", "groups"],
    "redirect_uris": ["https://notebooks.lotus.test/hub/oauth_callback"],
    "post_logout_redirect_uris": ["https://notebooks.lotus.test/hub/login"],
}


class StandIn:
    """A portal of its own: alice is granted the service, bob is not, mary manages it.

    Parameters
    ----------
    folder : pathlib.Path
        Where its files lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.port, self.control_port = free_port(), free_port()
        self.url = f"https://localhost:{self.port}"
        self.ca = str(folder / "ca/ca.crt")
        self.control = PortalControl(self._call)
        self.process: subprocess.Popen | None = None
        subprocess.run(
            [sys.executable, SHARED / "files/make_certificates.py", folder / "ca", "lotus.test", "localhost"],
            check=True,
            capture_output=True,
        )
        pem = folder / "portal.pem"
        pem.write_text("".join((folder / f"ca/localhost{suffix}").read_text() for suffix in (".crt", ".key")))
        users = [{"name": name, "password": f"{name}'s password"} for name in ("alice", "bob", "carol", "mary")]
        of_the_service = {"category": CATEGORY, "service": SERVICE}
        self.site_file = folder / "site.json"
        self.site_file.write_text(
            json.dumps(
                {
                    "name": "Test site",
                    "support": "support@lotus.test",
                    "secret_key": "0123456789abcdef" * 4,
                    "database": str(folder / "portal.sqlite"),
                    "time_zone": "Europe/London",
                    "client": CLIENT,
                    "sign_in_client": SIGN_IN_CLIENT,
                    "users": users,
                    "services": [{"category": CATEGORY, "name": SERVICE, "summary": "Dask clusters"}],
                    "grants": [
                        {"user": "alice", **of_the_service},
                        {"user": "mary", "role": "MANAGER", **of_the_service},
                    ],
                }
            )
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            *[sys.executable, "-m", "accounts_portal", self.site_file, "--host", "127.0.0.1", "--port", str(self.port)],
            *["--control-port", str(self.control_port), "--certificate", self.folder / "portal.pem"],
        ]
        log = (self.folder / "portal.log").open("ab")
        self.process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(SHARED / "portal")}, stdout=log, stderr=log
        )
        log.close()
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(f"{self.url}/accounts/login/", verify=self.ca, timeout=5).raise_for_status()
                self.control.requests()
            except (requests.ConnectionError, requests.Timeout):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no portal: {(self.folder / 'portal.log').read_text()}") from None
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """Stop it; its data stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _call(self, method: str, path: str, body: str) -> str:
        url = f"http://127.0.0.1:{self.control_port}/control/{path}"
        return requests.request(method, url, data=body, timeout=10).text


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
