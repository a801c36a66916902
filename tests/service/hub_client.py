"""A person at a browser, as far as the Hub can tell: signs in, starts a server, runs code in a kernel, makes tokens.

Everything goes through the Hub's public address; nothing reaches into a host. ``script/demo`` and the tests share it.

Sources: JupyterHub REST API (https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html), Jupyter Server's
``/api/kernels`` and the Jupyter messaging protocol 5.3 over websockets.
"""

import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests
import websocket


class KernelError(Exception):
    """Code that ran in a kernel raised: ``name`` and ``text`` are the exception's, ``shown`` is what the user reads."""

    def __init__(self, name: str, text: str, traceback: str):
        super().__init__(f"{name}: {text}\n{traceback}")
        self.name = name
        self.text = text
        self.shown = traceback


class SignInRefusedError(Exception):
    """The Hub's sign-in page came back, with its sentence."""


def trusting(ca: str) -> requests.Session:
    """A session that trusts the authority `ca` and nothing else.

    Without ``trust_env`` off, requests prefers a REQUESTS_CA_BUNDLE of the environment to ``verify``
    (psf/requests#3829).
    """
    session = requests.Session()
    session.verify = ca
    session.trust_env = False
    return session


class HubUser:
    """One user of the Hub.

    Parameters
    ----------
    url : str
        The Hub's public address, e.g. ``https://notebooks.lotus.test``.
    ca : str
        Path of the certificate authority's PEM file.
    name, password : str
        The user's credentials in the site's directory.
    """

    def __init__(self, url: str, ca: str, name: str, password: str):
        self.url = url.rstrip("/")
        self.ca = ca
        self.name = name
        self.password = password
        self.browser = trusting(ca)
        self.api = trusting(ca)

    # -- signing in and tokens ---------------------------------------------------------------------------------

    def sign_in(self) -> None:
        """Fill in the sign-in form.

        Raises
        ------
        SignInRefusedError
            With the text that the page shows.
        """
        self.browser = trusting(self.ca)
        page = self.browser.get(f"{self.url}/hub/login", timeout=30)
        page.raise_for_status()
        answer = self.browser.post(
            f"{self.url}/hub/login",
            data={"username": self.name, "password": self.password, "_xsrf": self._xsrf()},
            headers={"Referer": f"{self.url}/hub/login"},
            allow_redirects=False,
            timeout=60,
        )
        if answer.status_code != 302:
            raise SignInRefusedError(f"{answer.status_code}: {_visible_error(answer.text)}")
        # Good for as long as all tests take
        self.api.headers["Authorization"] = f"token {self.new_token(note='tests', expires_in=6 * 3600)}"

    def _xsrf(self) -> str:
        return next(c.value for c in self.browser.cookies if c.name == "_xsrf" and c.path == "/hub/")

    def new_token(self, note: str, expires_in: int | None = 3600, scopes: list[str] | None = None) -> str:
        """Make an API token as the page ``/hub/token`` does.

        Parameters
        ----------
        note : str
            What the token is for.
        expires_in : int, optional
            Life in seconds; None asks for the site's default.
        scopes : list of str, optional
            The token's scopes; all of the user's when not given.
        """
        body: dict = {"note": note}
        if expires_in is not None:
            body["expires_in"] = expires_in
        if scopes is not None:
            body["scopes"] = scopes
        page = self.browser.get(f"{self.url}/hub/token", timeout=30)
        page.raise_for_status()
        if "/hub/login" in page.url:  # signing out in one browser ends the user's sessions in all of them
            self.sign_in()
        answer = self.browser.post(
            f"{self.url}/hub/api/users/{self.name}/tokens",
            json=body,
            headers={"X-XSRFToken": self._xsrf(), "Referer": f"{self.url}/hub/token"},
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json()["token"]

    def revoke_token(self, token: str) -> None:
        """Revoke one of the user's tokens."""
        listed = self.api.get(f"{self.url}/hub/api/user", headers={"Authorization": f"token {token}"}, timeout=30)
        listed.raise_for_status()
        token_id = listed.json()["token_id"]
        self.api.delete(f"{self.url}/hub/api/users/{self.name}/tokens/{token_id}", timeout=30).raise_for_status()

    def holds(self, token: str) -> bool:
        """Whether the Hub still takes `token`."""
        headers = {"Authorization": f"token {token}"}
        return trusting(self.ca).get(f"{self.url}/hub/api/user", headers=headers, timeout=30).ok

    # -- the notebook server -----------------------------------------------------------------------------------

    @property
    def server_url(self) -> str:
        return f"{self.url}/user/{self.name}"

    def start_server(self, timeout: float = 120) -> None:
        """Start the user's server and wait until the Hub says that it is ready.

        Raises
        ------
        RuntimeError
            With the Hub's own message when the start failed.
        TimeoutError
            When it is not ready within `timeout` seconds.
        """
        answer = self.api.post(f"{self.url}/hub/api/users/{self.name}/server", timeout=60)
        if answer.status_code == 400 and "already running" in answer.text:
            return
        if answer.status_code >= 400:
            raise RuntimeError(answer.json().get("message", answer.text))
        with self.api.get(
            f"{self.url}/hub/api/users/{self.name}/server/progress", stream=True, timeout=timeout
        ) as events:
            for line in events.iter_lines(decode_unicode=True):
                if not line.startswith("data:"):
                    continue
                event = json.loads(line[5:])
                if event.get("failed"):
                    raise RuntimeError(event["message"])
                if event.get("ready"):
                    return
        raise TimeoutError(f"{self.name}'s server was not ready after {timeout} s")

    def server_pid(self) -> int:
        """Process id of the running server, as the server itself says (by a kernel's parent)."""
        with self.kernel("jaspy") as kernel:
            return int(kernel.run("import os; print(os.getppid())"))

    def server_answers(self) -> bool:
        """Whether the running server answers through the Hub's proxy."""
        return self.api.get(f"{self.server_url}/api/status", timeout=30).ok

    def stop_server(self) -> None:
        """Stop the user's server and wait until it is gone."""
        self.api.delete(f"{self.url}/hub/api/users/{self.name}/server", timeout=60)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            user = self.api.get(f"{self.url}/hub/api/users/{self.name}", timeout=30).json()
            if not user.get("server") and not user.get("pending"):
                return
            time.sleep(0.5)
        raise TimeoutError(f"{self.name}'s server was still there after 60 s")

    def kernels(self) -> dict:
        """The kernel specifications that the server offers, by name."""
        answer = self.api.get(f"{self.server_url}/api/kernelspecs", timeout=30)
        answer.raise_for_status()
        return answer.json()["kernelspecs"]

    @contextmanager
    def kernel(self, name: str = "jaspy") -> Iterator["Kernel"]:
        """A kernel of the user's server; ended on leaving the block."""
        answer = self.api.post(f"{self.server_url}/api/kernels", json={"name": name}, timeout=60)
        answer.raise_for_status()
        kernel_id = answer.json()["id"]
        kernel = Kernel(self, kernel_id)
        try:
            yield kernel
        finally:
            kernel.close()
            self.api.delete(f"{self.server_url}/api/kernels/{kernel_id}", timeout=30)


class Kernel:
    """A running kernel and the websocket to it."""

    def __init__(self, user: HubUser, kernel_id: str):
        self._user = user
        self._id = kernel_id
        self._session = uuid.uuid4().hex
        self._socket: websocket.WebSocket | None = None

    def _connect(self) -> websocket.WebSocket:
        url = self._user.server_url.replace("https://", "wss://", 1)
        return websocket.create_connection(
            f"{url}/api/kernels/{self._id}/channels?session_id={self._session}",
            header=[f"Authorization: {self._user.api.headers['Authorization']}"],
            sslopt={"ca_certs": self._user.ca, "cert_reqs": ssl.CERT_REQUIRED},
            timeout=30,
        )

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def run(self, code: str, timeout: float = 180, show: Callable[[str], None] | None = None) -> str:
        """Execute `code` and return what it printed (text of stdout, without the last newline).

        Parameters
        ----------
        code : str
            One cell.
        timeout : float
            Seconds until the cell must be done.
        show : callable, optional
            Called with each piece of text while the cell runs.

        Raises
        ------
        KernelError
            When the code raised.
        TimeoutError
            When it was not done in time; with what it had printed.
        """
        if self._socket is None:
            self._socket = self._connect()
        message_id = uuid.uuid4().hex
        self._socket.send(
            json.dumps(
                {
                    "header": {
                        "msg_id": message_id,
                        "msg_type": "execute_request",
                        "username": self._user.name,
                        "session": self._session,
                        "version": "5.3",
                    },
                    "parent_header": {},
                    "metadata": {},
                    "content": {"code": code, "silent": False, "store_history": True, "allow_stdin": False},
                    "channel": "shell",
                    "buffers": [],
                }
            )
        )
        printed: list[str] = []
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"a cell was not done after {timeout} s; it had printed:\n{''.join(printed)}")
            self._socket.settimeout(left)
            try:
                message = json.loads(self._socket.recv())
            except websocket.WebSocketTimeoutException:
                continue
            if message.get("parent_header", {}).get("msg_id") != message_id:
                continue
            content = message["content"]
            kind = message["msg_type"]
            if kind == "stream":
                if content["name"] == "stdout":
                    printed.append(content["text"])
                if show is not None:
                    show(content["text"])
            elif kind == "execute_result":
                printed.append(content["data"].get("text/plain", ""))
            elif kind == "error":
                raise KernelError(content["ename"], content["evalue"], "\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return "".join(printed).removesuffix("\n")


def _visible_error(html: str) -> str:
    """The sentence in the sign-in page's error paragraph."""
    _, found, rest = html.partition('class="login_error"')
    return rest.partition(">")[2].partition("<")[0].strip() if found else html[:300]
