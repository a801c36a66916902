"""What browsers are answered."""

import time
from http import HTTPStatus

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from tornado import web

from .gateway import GatewayError

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data: {hub}; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
KEY_HEADER = "X-Dask-Dashboard-Key"
SESSION_HEADER = "X-Dask-Dashboard-Session"
STATES = {"PENDING": "starting", "RUNNING": "running", "STOPPING": "stopping"}


class Page(HubOAuthenticated, web.RequestHandler):
    """A page of this service; `self.current_user` is the Hub's model of the user."""

    @property
    def site(self):
        """The Settings."""
        return self.settings["site"]

    @property
    def gateway(self):
        """The Gateway."""
        return self.settings["gateway"]

    @property
    def token(self):
        """The user's token, which the browser keeps in a signed cookie that no script can read."""
        return self.hub_auth._get_token_cookie(self)

    def set_default_headers(self):
        """Nothing of others runs in these pages, and they are in no other's frame."""
        self.set_header("Content-Security-Policy", POLICY.format(hub=self.site.hub_url))
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    async def prepare(self):
        """Ask the Hub who it is, without blocking others meanwhile."""
        user = await self.hub_auth.get_user(self, sync=False)
        try:
            self.current_user = self.check_hub_user(user) if user else None
        except UserNotAllowed:
            self.current_user = None
            self.refuse(403, "Your account may not use this service.")

    def get_template_namespace(self):
        """What every page shows."""
        names = super().get_template_namespace()
        # A page of somebody who is signed in; the error page of one whose sign-in failed must not ask for it again
        user = self.__dict__.get("_current_user")
        return names | {"site": self.site, "user": user["name"] if user else None}

    def refuse(self, status, sentence, title="This can't be shown"):
        """Answer with a page that says why not."""
        self.set_status(status)
        self.render("refusal.html", title=title, sentence=sentence)

    def write_error(self, status_code, **kwargs):
        """Errors are sentences too."""
        exc = kwargs.get("exc_info", (None, None))[1]
        sentence = exc.log_message if isinstance(exc, web.HTTPError) and exc.log_message else None
        if status_code >= 500:
            sentence = "The service can't be asked at the moment. Try again in a minute."
        self.refuse(status_code, sentence or f"{HTTPStatus(status_code).phrase}.")

    def failed(self, error):
        """Answer for a gateway that said no."""
        if error.status == 422:
            self.refuse(403, str(error))
        elif error.status in (0, 500, 502, 503, 504):
            self.refuse(502, "The gateway does not answer at the moment. Your clusters go on; try again in a minute.")
        elif error.status == 403:
            self.refuse(403, "This cluster belongs to somebody else, and its dashboard is for its owner alone.")
        elif error.status == 409:
            self.refuse(503, "This cluster is still starting. Its dashboard is there when the cluster runs; try again.")
        else:
            self.refuse(404, "There is no such cluster, or it has ended.")


class Clusters(Page):
    """A user's clusters."""

    @web.authenticated
    async def get(self):
        try:
            clusters = await self.gateway.clusters(self.token)
        except GatewayError as error:
            self.failed(error)
            return
        now = time.time()
        for cluster in clusters:
            cluster["age"] = age(now - (cluster["started"] or 0) / 1000)
            cluster["state"] = STATES.get(cluster["status"], cluster["status"].lower())
        self.render("clusters.html", title="Your Dask clusters", clusters=clusters)


class Stop(Page):
    """Stops a cluster."""

    # Below it is the link to the list, which begins the sign-in. A redirect would end: form-action holds for it too
    signed_out = "You have signed out, or in again, since this list was opened. Open it anew to stop the cluster."

    def refuse(self, status, sentence, title="Nothing was stopped"):
        """Answer with a page that says why not."""
        super().refuse(status, sentence, title)

    def check_xsrf_cookie(self):
        """Say what it means, for people, when a form is not of this session."""
        try:
            super().check_xsrf_cookie()
        except web.HTTPError as error:
            raise web.HTTPError(403, self.signed_out) from error

    async def post(self):
        if self.current_user is None:
            self.refuse(403, self.signed_out)
            return
        try:
            await self.gateway.stop(self.token, self.get_body_argument("cluster"))
        except GatewayError as error:
            self.failed(error)
            return
        self.redirect("/", status=303)

    def get(self):
        """Somebody has come back by the browser's history."""
        self.redirect("/")


class Dashboard(Page):
    """A dashboard that the front end did not let the browser see: sign in, or read why not."""

    async def answer(self, name):
        """Say why, or send them to sign in."""
        if self.current_user is None:
            # What a page loads by itself would only pile up attempts to sign in
            navigates = self.request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
            if self.request.method != "GET" or not navigates or "Upgrade" in self.request.headers:
                self.refuse(403, "Sign in first.")
                return
            self.redirect(self.get_login_url())
            return
        if not self.site.dashboards:
            self.refuse(403, "This site serves no dashboards.")
            return
        if not self.site.admits(self.request.remote_ip):
            self.refuse(
                403,
                "Dashboards can only be opened inside the site's network."
                + (
                    f" Open this address in a browser on {self.site.remote_desktop}."
                    if self.site.remote_desktop
                    else ""
                ),
            )
            return
        try:
            await self.gateway.dashboard_key(self.token, name)
        except GatewayError as error:
            self.failed(error)
            return
        if self.request.method not in ("GET", "HEAD"):
            self.refuse(405, "Dashboards are only looked at.")
            return
        if self.request.path == f"/clusters/{name}":
            self.redirect(f"/clusters/{name}/status")
            return
        self.refuse(502, "The dashboard of this cluster does not answer at the moment. Try again in a minute.")

    get = head = post = put = patch = delete = options = answer

    def check_xsrf_cookie(self):
        """Nothing is changed here."""


class Authorize(Page):
    """The front end's question whether a request to a dashboard may pass: 200 with the key, 401 or 403.

    It may with the cookie of a browser, or with a Hub token in the header that the gateway's API knows too, as
    JupyterLab's panel asks for what a dashboard shows.
    """

    async def prepare(self):
        """The gateway is asked, not the Hub."""

    async def get(self):
        try:
            cluster = self.request.headers.get("X-Original-URI", "").split("/")[2]
        except IndexError:
            cluster = ""
        token = self._token()
        status, key = await self._decide(token, cluster)
        self.set_status(status)
        if key:
            self.set_header(KEY_HEADER, key)
            if "Upgrade" in self.request.headers:
                self.set_header(SESSION_HEADER, self.settings["sessions"].ticket(token, cluster))
        self.finish()

    def _token(self):
        kind, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() in ("token", "bearer") and token:
            return token
        cookie = self.get_signed_cookie(self.hub_auth.cookie_name)
        return cookie.decode() if cookie else ""

    async def _decide(self, token, cluster):
        headers = self.request.headers
        if headers.get("X-Original-Method") not in ("GET", "HEAD"):
            return 403, None
        # Pages of others on the same site, such as other users' notebooks, can't read what they fetch from here, but
        # a websocket they could
        if "Upgrade" in headers and headers.get("Origin") != self.site.origin:
            return 403, None
        if not self.site.dashboards or not self.site.admits(self.request.remote_ip):
            return 403, None
        if not token:
            return 401, None
        try:
            return 200, await self.gateway.dashboard_key(token, cluster)
        except GatewayError:
            return 403, None


class Session(web.RequestHandler):
    """A scheduler's question whether a session goes on: 204, or 410 when whoever watches must not see more."""

    async def get(self):
        try:
            token, cluster = self.settings["sessions"].read(self.request.headers.get(SESSION_HEADER, ""))
            await self.settings["gateway"].dashboard_key(token, cluster)
        except ValueError:
            raise web.HTTPError(400) from None
        except GatewayError as error:
            ended = error.status in (401, 403, 404, 410, 422)
            self.set_status(410 if ended else 503)
            return
        self.set_status(204)


class NotFound(Page):
    """Everything else."""

    async def prepare(self):
        """Anybody may hear it."""
        self.refuse(404, "There is no such page.")


class Callback(HubOAuthCallbackHandler, Page):
    """Where the Hub sends browsers back to."""

    async def prepare(self):
        """The user becomes known here."""
        self.current_user = None


class Health(web.RequestHandler):
    """Tells that this service runs."""

    def get(self):
        self.write({"status": "pass"})


def age(seconds):
    """A duration for people."""
    minutes = max(0, int(seconds // 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days"
