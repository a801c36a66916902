"""Set values in a YAML text and leave the rest of it, comments included, as it is."""

import copy
import json
from collections.abc import Mapping

import yaml


class EditError(Exception):
    """The text is not one in which the values can be set, as a sentence."""


def with_values(text: str, values: Mapping[tuple[str, ...], str]) -> str:
    """Return the text with a string at each of these places, each a path of keys.

    Raises
    ------
    EditError
        When the text is not YAML, or holds something else than mappings along a path. The result is read again and
        compared with what it should say, so a text in a form that is not foreseen here is refused, never spoilt.
    """
    wanted = _load(text)
    for path, value in values.items():
        text = _with_value(text, path, value)
        _set(wanted, path, value)
    try:
        same = yaml.safe_load(text) == wanted
    except yaml.YAMLError:
        same = False
    if not same:
        raise EditError("it is written in a form that this can't handle.")
    return text


def _load(text: str) -> dict:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise EditError(f"it is not YAML (line {mark.line + 1})." if mark else "it is not YAML.") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise EditError("it holds no settings, but something else.")
    return copy.deepcopy(data)


def _set(data: dict, path: tuple[str, ...], value: str) -> None:
    for key in path[:-1]:
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
        if not isinstance(data, dict):
            raise EditError(f"'{key}' has a value where settings belong.")
    data[path[-1]] = value


def _with_value(text: str, path: tuple[str, ...], value: str) -> str:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None or not node.value:
        return _joined(text if node is None else "", _block(path, value, 0))
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise EditError(f"'{path[depth - 1]}' has a value where settings belong.")
        found = [pair for pair in node.value if pair[0].value == key]
        if not found:
            return _inserted(text, node, path[depth:], value)
        name, node = found[-1]
        if depth < len(path) - 1 and isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
            rest = "\n" + _block(path[depth + 1 :], value, name.start_mark.column + 2).rstrip("\n")
            return text[: node.start_mark.index] + rest + text[node.end_mark.index :]
    spaced = "" if text[: node.start_mark.index].endswith((" ", "\n")) else " "
    return text[: node.start_mark.index] + spaced + json.dumps(value) + text[node.end_mark.index :]


def _inserted(text: str, node: yaml.MappingNode, path: tuple[str, ...], value: str) -> str:
    """Put a setting before the first one of a mapping."""
    if node.flow_style:
        at = node.start_mark.index + 1
        entry = json.dumps(value)
        for key in reversed(path[1:]):
            entry = f"{{{key}: {entry}}}"
        return text[:at] + f"{path[0]}: {entry}" + (", " if node.value else "") + text[at:]
    first = node.value[0][0].start_mark
    at = first.index - first.column
    return text[:at] + _block(path, value, first.column) + text[at:]


def _block(path: tuple[str, ...], value: str, column: int) -> str:
    lines = [f"{' ' * (column + 2 * depth)}{key}:" for depth, key in enumerate(path)]
    return "\n".join(lines) + f" {json.dumps(value)}\n"


def _joined(text: str, block: str) -> str:
    return text + ("\n" if text and not text.endswith("\n") else "") + block
