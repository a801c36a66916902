"""Whether a value is what an option of a role's argument specs asks for.

Stricter than Ansible's own validation, which takes "" for a value, a string for a list, and 3.10
written without quotes for the string "3.1"; and no sentence ever repeats a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TYPES = {
    "str": (str, "a string"),
    "path": (str, "a string"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "list": (list, "a list"),
    "dict": (dict, "a mapping"),
}


def faults(option: dict[str, Any], value: Any) -> Iterator[tuple[str, str]]:
    """Each fault as the place inside the value ("" for the whole) and a sentence."""
    if value is None or value == "":
        if option.get("required"):
            yield "", f"is empty; what to write: {description(option)}"
            return
        if value is None or option.get("default") == value:
            return

    kind = option.get("type", "str")
    python_type, name = TYPES.get(kind, (object, "anything"))
    if not isinstance(value, python_type) or (isinstance(value, bool) and kind in ("int", "float")):
        quotes = " in quotes" if kind in ("str", "path") and not isinstance(value, list | dict) else ""
        yield "", f"must be {name}, not {_type_name(value)}; write it{quotes}, as: {description(option)}"
        return
    choices = option.get("choices")
    for index, part in enumerate(value) if kind == "list" else [(None, value)]:
        if choices and part not in choices:
            yield _place(index), f"must be one of {', '.join(map(str, choices))}"

    element = {"type": option.get("elements", "raw"), "required": True, "options": option.get("options")}
    element["description"] = description(option)
    if kind == "list":
        for index, part in enumerate(value):
            yield from _below(_place(index), faults(element, part))
    elif kind == "dict" and option.get("options"):
        yield from _suboption_faults(option["options"], value)


def description(option: dict[str, Any]) -> str:
    """What an option is for, as one paragraph."""
    text = option.get("description", "")
    return " ".join(text if isinstance(text, list) else [text]).strip()


def _suboption_faults(options: dict[str, Any], value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, option in options.items():
        if name in value:
            yield from _below(f".{name}", faults(option, value[name]))
        elif option.get("required"):
            yield f".{name}", f"is not defined; what to write: {description(option)}"
    for name in value:
        if name not in options:
            yield f".{name}", f"does not exist; there are {', '.join(options)}"


def _below(place: str, found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((f"{place}{rest}", sentence) for rest, sentence in found)


def _place(index: int | None) -> str:
    return "" if index is None else f"[{index}]"


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    for python_type, name in TYPES.values():
        if isinstance(value, python_type):
            return name
    return f"a {type(value).__name__}"
