"""What each host offers to somebody who should not be there, while alice has a server that is a job."""

import pytest
from servers_as_jobs.test_servers_as_jobs import address_of, start, the_server
from service.test_hardening import (  # noqa: F401
    listening,
    sslscan,
    test_connections_are_tls_1_2_or_better_with_modern_ciphers,
    test_every_unit_of_ours_is_sandboxed_as_far_as_its_work_allows,
    test_no_other_host_has_a_rule_for_sudo,
    test_nobody_can_write_what_the_service_reads,
    test_nothing_listens_that_is_not_in_the_table_of_ports,
    test_sudo_lets_the_gateway_run_the_launcher_and_nobody_anything_else,
    test_what_is_not_in_the_table_is_found,
    test_what_the_table_says_of_a_host_is_there,
)
from service.test_secrets import (  # noqa: F401
    test_a_secret_file_is_its_owners_alone,
    test_no_secret_lies_in_a_file_that_everybody_can_read,
    test_no_secret_shows_in_a_command_line_a_unit_or_a_log,
)


@pytest.fixture(autouse=True, scope="module")
def alices_job(alice):
    """So that what a server opens and writes is there to be found."""
    start(alice, "small")
    yield the_server("alice")
    alice.stop_server()


def test_her_server_is_among_what_listens(alice, alices_job):
    """Else the comparison with the table of ports would say nothing of it."""
    _, port = address_of(alice)
    assert port in [there for _, there, _ in listening(alices_job["node"])]
