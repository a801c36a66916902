"""Fixtures of the scenario existing-batch-cluster: those of the service's other tests."""

from service.conftest import (  # noqa: F401
    alice,
    hub_url,
    hub_user,
    login_python,
    new_cluster,
    no_clusters_left,
    pytest_runtest_makereport,
    token_file,
)
