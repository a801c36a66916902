"""The gateway's dashboards, asked with a Hub token which goes to the gateway and nowhere else."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

DASHBOARD = re.compile(r"(/clusters/[0-9a-f]+)(/(status/?)?)?")


def of_the_gateway(url: str, gateway: str) -> str:
    """The address of a cluster's dashboard, if it is one of this gateway's; else an empty string."""
    asked, ours = urlsplit(url), urlsplit(gateway)
    path = DASHBOARD.fullmatch(asked.path)
    if not ours.netloc or (asked.scheme, asked.netloc) != (ours.scheme, ours.netloc) or not path:
        return ""
    return f"{ours.scheme}://{ours.netloc}{path[1]}"


async def plots_of(dashboard: str, token: str) -> dict | None:
    """The plots of a dashboard by their names; None if there is none to see."""
    try:
        answer = await AsyncHTTPClient().fetch(
            f"{dashboard}/individual-plots.json",
            headers={"Authorization": f"token {token}"},
            follow_redirects=False,
            raise_error=False,
            request_timeout=20,
        )
        plots = json.loads(answer.body) if answer.code == 200 else None
    except (OSError, ValueError, HTTPClientError):
        return None
    return plots if isinstance(plots, dict) else None
