"""The sizes of notebook server that a site offers."""

from __future__ import annotations

from html import escape
from typing import Any

OPTION = "profile"


class ProfileError(Exception):
    """No such server is offered; the text is for who asked."""


def chosen(profiles: list[dict[str, Any]], user_options: dict[str, Any]) -> dict[str, Any]:
    """Find the profile that is asked for, or the first where none is.

    Parameters
    ----------
    profiles : list of dict
        What the site offers: name, memory, cores, and perhaps time.
    user_options : dict
        What came with the request, from the form or from the API: it may hold anything.

    Raises
    ------
    ProfileError
        When something else is asked for than one of the profiles.
    """
    names = [profile["name"] for profile in profiles]
    strange = [str(key) for key in user_options if key != OPTION]
    if strange:
        raise ProfileError(f"A notebook server has no option {', '.join(strange)[:100]}; there is '{OPTION}'.")
    name = user_options.get(OPTION, names[0])
    if name not in names:
        raise ProfileError(
            f"There is no notebook server of the size {str(name)[:100]!r}; there are {', '.join(names)}."
        )
    return profiles[names.index(name)]


def form(profiles: list[dict[str, Any]], selected: str) -> str:
    """Write the form's part in which users choose."""
    choices = "".join(
        f'<div class="form-check"><label class="form-check-label">'
        f'<input class="form-check-input" type="radio" name="{OPTION}" value="{escape(profile["name"])}"'
        f"{' checked' if profile['name'] == selected else ''}> "
        f"{escape(profile['name'])} <small>{escape(size(profile))}</small></label></div>"
        for profile in profiles
    )
    return f'<fieldset><legend class="fs-5">Size of your server</legend>{choices}</fieldset>'


def size(profile: dict[str, Any]) -> str:
    """Tell what a profile comes with."""
    cores = f"{profile['cores']:g}"
    words = f"{profile['memory']} of memory, {cores} {'processor' if cores == '1' else 'processors'}"
    return f"{words}, for {profile['time']}" if profile.get("time") else words


def options_from_form(form_data: dict[str, list[str]]) -> dict[str, Any]:
    """Take the choice from the form; what else stands in it is refused later, as that of the API is."""
    return {
        key: values[0] if len(values) == 1 else values for key, values in form_data.items() if not key.startswith("_")
    }
