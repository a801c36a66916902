"""The sizes of server that users choose from, in the form and by the API."""

import pytest

from notebook_service import profiles
from notebook_service.profiles import ProfileError, chosen, options_from_form

OFFERED = [{"name": "small", "memory": "2G", "cores": 1}, {"name": "large & slow", "memory": "16G", "cores": 4}]


def test_who_does_not_choose_gets_the_first():
    assert chosen(OFFERED, {}) is OFFERED[0]


def test_who_chooses_gets_it():
    assert chosen(OFFERED, {"profile": "large & slow"}) is OFFERED[1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "huge"}, "no notebook server of the size 'huge'; there are small, large & slow"),
        ({"profile": ["small"]}, "no notebook server of the size"),
        ({"profile": None}, "no notebook server of the size 'None'"),
        ({"profile": {"memory": "900G"}}, "no notebook server of the size"),
        ({"profile": "small", "mem_limit": "900G"}, "no option mem_limit"),
        ({"memory": "900G"}, "no option memory; there is 'profile'"),
    ],
)
def test_nothing_else_can_be_asked_for(options, sentence):
    with pytest.raises(ProfileError, match=sentence):
        chosen(OFFERED, options)


def test_the_form_gives_what_the_api_takes_and_its_token_is_no_option():
    given = options_from_form({"profile": ["large & slow"], "_xsrf": ["a", "b"]})
    assert chosen(OFFERED, given) is OFFERED[1]
    with pytest.raises(ProfileError):
        chosen(OFFERED, options_from_form({"profile": ["small", "large & slow"]}))


def test_the_form_shows_what_each_size_is_and_what_was_chosen_last():
    text = profiles.form(OFFERED, "large & slow")
    assert text.count("<input ") == 2
    assert 'value="large &amp; slow" checked' in text
    assert "2G of memory, 1 processor<" in text
    assert "16G of memory, 4 processors<" in text


def test_the_form_shows_for_how_long_a_size_is_where_it_ends():
    assert "1G of memory, 1 processor, for 2-00<" in profiles.form(
        [{"name": "long", "memory": "1G", "cores": 1, "time": "2-00"}], "long"
    )
