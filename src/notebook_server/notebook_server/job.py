"""A notebook server that is a batch job: what the job runs on its node.

It takes its settings from a file that the Hub has had written and that it removes, chooses a port, makes a key, tells
the Hub, and becomes the server with the certificate that the Hub signs. The Hub's token is in none of the job's own
environment, which SLURM has; it is in that of what the server starts.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PATIENCE = 60  # seconds for a Hub, or its front end, that is away
ANSWER_TIME = 60


class ReportError(Exception):
    """The Hub does not take this server; the text is what the user reads."""


def take_settings(path: Path) -> dict:
    """Read the settings and remove them."""
    settings = json.loads(path.read_text())
    path.unlink()
    return settings


def free_port() -> int:
    """Find a port that nobody has, as the kernel chooses it."""
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


def make_key(path: Path) -> str:
    """Make a key, which stays here; the request for its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def report(address: str, token: str, port: int, request: str) -> str:
    """Tell the Hub the port; the certificate that it answers with.

    Raises
    ------
    ReportError
        When the Hub does not want this server, or gives no answer for a time.
    """
    call = urllib.request.Request(  # noqa: S310
        f"{address}/notebook-server",
        data=json.dumps({"port": port, "request": request}).encode(),
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(call, timeout=ANSWER_TIME) as answer:  # noqa: S310
                return json.load(answer)["certificate"]
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise ReportError(f"the Hub does not take this server: {_message(error)}") from error
            fault: Exception = error
        except OSError as error:
            fault = error
        if time.monotonic() > deadline:
            raise ReportError(f"the Hub at {address} gives no answer from {socket.gethostname()}: {fault}") from fault
        time.sleep(2)


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return str(error)


def service_url(given: str, port: int) -> str:
    """Say where the server listens: every address of the node, as the Hub finds it by its name."""
    return urlsplit(given)._replace(scheme="https", netloc=f"0.0.0.0:{port}").geturl()


def main(path: str) -> None:
    """Be the server."""
    settings = take_settings(Path(path))
    os.environ.update(settings["environment"])
    # On this node's own disk, and the user's alone: key, and the sockets of kernels
    folder = Path(tempfile.mkdtemp(prefix="notebook-server-"))
    try:
        key, certificate, port = folder / "server.key", folder / "server.crt", free_port()
        token = os.environ["JUPYTERHUB_API_TOKEN"]
        try:
            certificate.write_text(report(os.environ["JUPYTERHUB_API_URL"], token, port, make_key(key)))
        except ReportError as error:
            sys.exit(str(error))
        os.environ.update(
            JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
            JUPYTERHUB_SSL_KEYFILE=str(key),
            JUPYTERHUB_SSL_CERTFILE=str(certificate),
            JUPYTERHUB_SERVICE_URL=service_url(os.environ["JUPYTERHUB_SERVICE_URL"], port),
        )
        sys.argv = ["jupyterhub-singleuser", *settings["arguments"]]
        runpy.run_module("jupyterhub.singleuser", run_name="__main__", alter_sys=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
