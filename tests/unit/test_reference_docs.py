"""Pages that are made from the roles are not stale."""

from reference_docs.__main__ import stale


def test_the_tables_of_variables_and_ports_say_what_the_roles_say():
    assert stale() == [], "run script/docs"
