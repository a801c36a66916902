"""Runs on a login host, with nothing but the standard library: somebody at the accounts portal's pages.

Reads {"url", "user", "password", "steps"} from standard input and prints what each step showed; see accounts_portal.py.
"""

import http.cookiejar
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

asked = json.load(sys.stdin)
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))


def show(path, form=None, referer=""):
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    address = urllib.parse.urljoin(asked["url"], path)
    request = urllib.request.Request(address, data, {"Referer": referer or address})  # noqa: S310  https, see asked
    try:
        answer = browser.open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    return {"status": answer.status, "address": answer.url, "text": answer.read().decode()}


def fill_in(page, form, action=None):
    text = show(page)["text"]
    csrf = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', text)[1]
    return show(action or page, form | {"csrfmiddlewaretoken": csrf}, urllib.parse.urljoin(asked["url"], page))


fill_in("/accounts/login/", {"username": asked["user"], "password": asked["password"], "next": "/services/"})
shown = []
for step in asked["steps"]:
    if "form" in step:
        shown.append(fill_in(step["page"], step["form"], step.get("action")))
    else:
        shown.append(show(step["page"]))
print(json.dumps(shown))
