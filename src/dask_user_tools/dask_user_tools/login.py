"""Keep a token for the gateway where Dask finds it, without showing it to anybody: the command dask-gateway-login.

The token comes from a prompt that does not echo it, or from standard input, and never from the command line, which
others on the host can see. It is tried at the gateway first, and only one that works is written.
"""

import argparse
import contextlib
import getpass
import json
import os
import re
import socket
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from dask_user_tools.yaml_edit import EditError, with_values

TOKEN = re.compile(r"[A-Za-z0-9_.~+/=-]{8,512}")
PLACE = ("gateway", "auth", "kwargs", "api_token")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
TIMEOUT = 30  # seconds


class LoginError(Exception):
    """What is wrong, and what to do, as a sentence."""


def setting(name: str) -> object:
    """Return what Dask's configuration says, or None.

    Raises
    ------
    LoginError
        When a file of it can't be read: then not even dask can be imported. Its line may hold a token and is not shown.
    """
    try:
        import dask.config

        dask.config.refresh()
    except ValueError as error:
        file, line = re.search(r"'([^']+)'", str(error)), re.findall(r"line (\d+)", str(error))
        raise LoginError(
            f"Dask can't read {file[1] if file else 'a file of its configuration'}: it is not YAML"
            + (f" (line {line[-1]})" if line else "")
            + ". Mend it, or move it away."
        ) from None
    return dask.config.get(name, None)


def configuration_file() -> Path:
    """Return the file that the user's guide names; where a link stands in its place, what that leads to."""
    return (Path.home() / ".config" / "dask" / "gateway.yaml").resolve()


def check_address(address: str) -> None:
    """See that a token can be sent there, and that nobody reads it on the way.

    Raises
    ------
    LoginError
        When it is no address, or that of another host without encryption.
    """
    try:
        parts = urlsplit(address)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port
    except ValueError:  # what stands in the port's place is none
        scheme, host = "", None
    if scheme not in ("http", "https") or not host or re.search(r"\s", address):
        right = "https:// and its host's name" if "//" in address else f"https://{address}"
        raise LoginError(f"{address} is not the address of a gateway: write {right}.")
    if scheme == "http" and host not in LOOPBACK:
        raise LoginError(f"Your token would go to {address} unencrypted, and others could read it: write https://.")


def in_plain(token: str) -> str:
    """Return the token; as Dask's client does, one that begins with a brace is read from the environment.

    Raises
    ------
    LoginError
        When it is not there.
    """
    if not token.startswith("{"):
        return token
    try:
        return token.format(**os.environ)
    except (LookupError, ValueError, AttributeError):
        # In braces may also stand a token, which is not shown
        name = f", as {token}," if re.fullmatch(r"\{[A-Z_]+\}", token) else ""
        raise LoginError(
            f"Dask's configuration takes the token from the environment{name} and it is not there. "
            "dask-gateway-login without --check keeps one in a file."
        ) from None


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the token is for the address that the user has named."""

    def redirect_request(self, *args):
        """Follow none; the answer is an error then."""


def try_token(address: str, token: str) -> None:
    """Ask the gateway for the clusters of whoever holds the token.

    Raises
    ------
    LoginError
        When there is no answer, or the gateway does not take the token.
    """
    opener = urllib.request.build_opener(NoRedirects)
    request = urllib.request.Request(  # noqa: S310 (the site's address, or the user's own)
        f"{address.rstrip('/')}/api/v1/clusters/", headers={"Authorization": f"token {token}"}
    )
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            json.load(answer)
    except urllib.error.HTTPError as error:
        said = ""
        with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
            said = str(json.load(error)["error"])
        raise LoginError(said or f"The gateway at {address} answers with {error.code} {error.reason}.") from None
    except urllib.error.URLError as error:
        raise LoginError(_unreachable(address, error.reason)) from None
    except (OSError, ValueError) as error:
        raise LoginError(f"What answers at {address} is not the gateway: {error}") from None


def _unreachable(address: str, reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"The certificate of {address} is not signed by an authority that this Python trusts "
            f"({reason.verify_message}). Try it with SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt."
        )
    if isinstance(reason, socket.gaierror):
        return f"This host knows no address for {address}: is the name right?"
    return f"The gateway at {address} can't be reached from this host: {reason}"


def write(path: Path, text: str) -> None:
    """Write a file that is its user's alone from its first moment, in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def store(path: Path, token: str, address: str | None) -> None:
    """Put the token into the file of Dask's configuration, and leave everything else in it as it is.

    Raises
    ------
    LoginError
        When the file can't be read or written, or is no configuration.
    """
    values: dict[tuple[str, ...], str] = {("gateway", "auth", "type"): "jupyterhub", PLACE: token}
    if address:
        values[("gateway", "address")] = address
    try:
        text = path.read_text() if path.exists() else ""
        write(path, with_values(text, values))
    except EditError as error:
        raise LoginError(f"{path} can't be changed by this command: {error} Mend it, or move it away.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LoginError(f"{path} can't be written: {error}") from None


def what_stands_before(token: str, path: Path) -> str:
    """Name what makes Dask use another token than the one in the file; an empty string if nothing does."""
    if setting(".".join(PLACE)) == token:
        return ""
    variable = "DASK_GATEWAY__AUTH__KWARGS__API_TOKEN"
    if variable in os.environ:
        return f"The environment variable {variable} stands before the file: unset it to use this token."
    return f"Another file of Dask's configuration stands before {path}; look for api_token in {path.parent}."


def read_token(page: str | None) -> str:
    """Ask for the token, without an echo.

    Raises
    ------
    LoginError
        When what was given can't be a token.
    """
    if sys.stdin.isatty():
        if page:
            print(f"Make a token at {page} and copy it.")
        token = getpass.getpass("Token (it is not shown): ")
    else:
        token = sys.stdin.readline()
    token = token.strip()
    if not token:
        raise LoginError("No token was given; nothing is changed.")
    if not TOKEN.fullmatch(token):
        raise LoginError("What was given is not a token: copy it whole, without spaces or quotes. Nothing is changed.")
    return token


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the options; what else stands there may be a token and is not repeated."""
    parser = argparse.ArgumentParser(
        prog="dask-gateway-login",
        description="Keep a token for the Dask Gateway service in ~/.config/dask/gateway.yaml, readable by you alone.",
    )
    parser.add_argument("--address", help="the gateway's address; that of this site where not given")
    parser.add_argument("--check", action="store_true", help="only try the token that is there")
    options, others = parser.parse_known_args(arguments)
    if others:
        raise LoginError(
            "The token is asked for and never an argument: others see those in the list of processes. If that was your "
            "token, revoke it and make a new one."
        )
    return options


def login(arguments: list[str]) -> str:
    """Do it; return what to tell."""
    options = parse(arguments)
    address = options.address or setting("gateway.address")
    if not address:
        raise LoginError("This host's configuration names no gateway: give --address https://….")
    check_address(str(address))
    page = setting("dask-user-tools.token-page")
    path = configuration_file()
    if options.check:
        token = setting(".".join(PLACE))
        if not isinstance(token, str) or not token:
            raise LoginError(f"There is no token in {path}. dask-gateway-login without --check asks for one.")
        try_token(address, in_plain(token))
        return f"The gateway at {address} takes your token."
    token = read_token(page)
    try:
        try_token(address, token)
    except LoginError as error:
        raise LoginError(f"{error} Nothing is changed.") from None
    store(path, token, options.address)
    return (
        f"The gateway at {address} takes your token. It is in {path}, which only you can read. "
        + what_stands_before(token, path)
    ).rstrip()


def main() -> int:
    """Run the command."""
    try:
        print(login(sys.argv[1:]))
    except LoginError as error:
        print(f"dask-gateway-login: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print("\nNothing is changed.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
