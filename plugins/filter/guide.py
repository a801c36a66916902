"""The user's guide as a page: Markdown with anchors, and a button that copies on each block of code."""

from __future__ import annotations

import re
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml


def guide_html(text: str) -> dict[str, Any]:
    """Render Markdown; the answer has `html`, the `title`, and of each section its `id` and `title`.

    HTML in the text is shown as text: what a site's variables hold stays a text.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("fence", code_block)
    for name, rule in TABLE.items():
        markdown.add_render_rule(name, rule)
    environment: dict[str, Any] = {"heading": ""}
    tokens = markdown.parse(text, environment)
    title, sections, ids = "", [], set()
    for number, token in enumerate(tokens):
        if token.type != "heading_open":
            continue
        words = plain(tokens[number + 1])
        token.attrSet("id", anchor(words, ids))
        if token.tag == "h1":
            title = title or words
        elif token.tag == "h2":
            sections.append({"id": token.attrGet("id"), "title": words})
        for following in tokens[number + 1 :]:
            if following.type == "heading_open":
                break
            following.meta["heading"] = words
    return {
        "html": markdown.renderer.render(tokens, markdown.options, environment),
        "title": title,
        "sections": sections,
    }


def plain(inline: Any) -> str:
    """A heading's words, without its markup."""
    return "".join(child.content for child in inline.children or []).strip()


def anchor(words: str, taken: set[str]) -> str:
    """The part of an address that leads to a heading."""
    base = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "section"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name


def code_block(renderer: Any, tokens: Any, index: int, options: Any, environment: Any) -> str:
    """A block of code that the keyboard reaches, with a button that says what it copies."""
    token = tokens[index]
    heading = escapeHtml(token.meta.get("heading", ""))
    number = environment["blocks"] = environment.get("blocks", 0) + 1
    language = escapeHtml(token.info.split()[0]) if token.info.strip() else "text"
    return (
        '<div class="code"><button type="button" class="copy" hidden>Copy'
        f'<span class="hidden"> block {number}, {heading}</span></button>'
        f'<pre tabindex="0" role="region" aria-label="Code, block {number}">'
        f'<code class="language-{language}">{escapeHtml(token.content)}</code></pre></div>\n'
    )


def table_open(renderer: Any, tokens: Any, index: int, options: Any, environment: Any) -> str:
    """A table that is wider than the page moves in a frame of its own."""
    number = environment["tables"] = environment.get("tables", 0) + 1
    return f'<div class="table" tabindex="0" role="region" aria-label="Table {number}"><table>\n'


def table_close(renderer: Any, tokens: Any, index: int, options: Any, environment: Any) -> str:
    """The end of its frame."""
    return "</table></div>\n"


TABLE = {"table_open": table_open, "table_close": table_close}


class FilterModule:
    """The filter as Ansible finds it."""

    def filters(self):
        """Return it by its name in templates."""
        return {"guide_html": guide_html}
