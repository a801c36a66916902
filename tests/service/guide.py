"""The user's guide as its readers have it: rendered, and its steps by the headings that they stand under."""

import re

import jinja2
import scenario

ENVIRONMENT = jinja2.Environment(undefined=jinja2.ChainableUndefined)  # noqa: S701


def steps(heading: str, language: str, user: str, **values: str) -> list[str]:
    """The blocks of code of a language below a heading, with the user's name where the guide asks for it."""
    values = values | scenario.site() | {name: f"<{name}>" for name in ("site_name", "site_support_address")}
    text = ENVIRONMENT.from_string((scenario.REPOSITORY / "docs/users.md.j2").read_text()).render(values)
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    if not section:
        raise AssertionError(f"the user's guide has no heading {heading!r}")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    return [block.replace("<your name>", user) for block in blocks]
