"""The user's guide as its readers have it: rendered, its steps by the headings that they stand under, and its files."""

import re

import jinja2
import scenario

ENVIRONMENT = jinja2.Environment(undefined=jinja2.ChainableUndefined)  # noqa: S701
# As plugins/filter/jaspy.py answers it, with what the guide names of the current release
ENVIRONMENT.filters["jaspy_catalogue"] = lambda _: [
    {"default": True, "name": release, "module": scenario.jaspy_module(release)}
    for release in scenario.offered_releases()[:1]
]


def steps(heading: str, language: str, user: str, **values: str) -> list[str]:
    """The blocks of code of a language below a heading, with the user's name where the guide asks for it."""
    values = values | scenario.site() | {name: f"<{name}>" for name in ("site_name", "site_support_address")}
    text = ENVIRONMENT.from_string((scenario.REPOSITORY / "docs/users.md.j2").read_text()).render(values)
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    if not section:
        raise AssertionError(f"the user's guide has no heading {heading!r}")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    return [block.replace("<your name>", user) for block in blocks]


def gateway_yaml(token: str) -> str:
    """The token file that people write by hand on a login host."""
    (block,) = steps("On a login host", "yaml", "")
    if "<the token>" not in block:
        raise AssertionError("the guide's token file has no place for the token")
    return block.replace("<the token>", token)
