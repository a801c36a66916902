"""The Hub's configuration file, as the role writes it."""

from pathlib import Path

import jupyterhub.app
import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from jupyterhub.proxy import ConfigurableHTTPProxy
from traitlets.config.loader import PyFileConfigLoader

from notebook_service import batch
from notebook_service.authenticator import NotebookAuthenticator
from notebook_service.batch import BatchNotebookSpawner
from notebook_service.oauth import NotebookOAuthenticator
from notebook_service.spawner import NotebookSpawner

ROLE = Path(__file__).parents[3] / "roles/jupyterhub"
COMMON = {jupyterhub.app.JupyterHub, ConfigurableHTTPProxy}
SPAWNERS = {"systemd": NotebookSpawner, "slurm": BatchNotebookSpawner}
AUTHENTICATORS = {"pam": NotebookAuthenticator, "oauth": NotebookOAuthenticator}
EVERYTHING = {
    "site_notebook_user_domains": True,
    "jupyterhub_allowed_groups": ["climate"],
    "jupyterhub_admin_groups": ["operators"],
    "jupyterhub_required_service": "dask",
    "jupyterhub_oauth_logout_url": "https://accounts.site.test/logout",
    "jupyterhub_oauth_client_id": "notebooks of this site",
    "jupyterhub_oauth_groups_claim": "groups",
    "jupyterhub_profiles": [{"name": "small", "memory": "2G", "cores": 0.5}],
    "jupyterhub_named_servers": 2,
    "jupyterhub_services": [{"name": "dask-gateway", "api_token": "x" * 40, "oauth_no_confirm": True}],
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """``written(jupyterhub_named_servers=2)``: the configuration with these values and the role's defaults."""
    monkeypatch.setenv("JUPYTERHUB_SERVICE_TOKEN_1", "x" * 40)

    def write(**given):
        loader = DataLoader()
        values = {"ansible_managed": "managed", "site_name": "Site", "site_support_address": "help@site.test"}
        values |= {"role_path": str(ROLE), "site_notebook_host": "notebooks.site.test"}
        values |= {"site_jaspy_directory": "/apps/jaspy", "site_notebook_user_domains": False}
        values |= {"site_gateway_host": "dask-gateway.site.test", "site_logo": "", "ansible_parent_role_paths": []}
        for name in ("defaults/main.yml", "vars/main.yml", "vars/debian.yml"):
            values |= loader.load_from_file(str(ROLE / name), trusted_as_template=True)
        template = trust_as_template((ROLE / "templates/jupyterhub_config.py.j2").read_text())
        (tmp_path / "config.py").write_text(Templar(loader, variables=values | given).template(template))
        return PyFileConfigLoader("config.py", path=str(tmp_path)).load_config()

    return write


@pytest.mark.parametrize("authentication", AUTHENTICATORS)
@pytest.mark.parametrize("spawner", SPAWNERS)
@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_setting_names_a_class_and_a_trait_that_there_are(written, authentication, spawner, given):
    """A name that is not there is ignored without a word, and one that says who may sign in is a hole."""
    config = written(jupyterhub_authentication=authentication, jupyterhub_spawner=spawner, **given)
    assert config.JupyterHub.authenticator_class.endswith(f".{AUTHENTICATORS[authentication].__name__}")
    assert config.JupyterHub.spawner_class == f"{SPAWNERS[spawner].__module__}.{SPAWNERS[spawner].__name__}"
    used = COMMON | {AUTHENTICATORS[authentication], SPAWNERS[spawner]}
    known = {cls.__name__: cls for one in used for cls in one.mro() if cls is not object}
    unknown = [
        f"{cls}.{name}"
        for cls, settings in config.items()
        for name in settings
        if cls not in known or name not in known[cls].class_trait_names(config=True)
    ]
    assert unknown == []


@pytest.mark.parametrize("authentication", AUTHENTICATORS)
def test_everybody_may_sign_in_only_where_no_group_is_named(written, authentication):
    assert written(jupyterhub_authentication=authentication).Authenticator.allow_all is True
    config = written(jupyterhub_authentication=authentication, **EVERYTHING)
    assert "allow_all" not in config.Authenticator
    chosen = config.OAuthenticator if authentication == "oauth" else config.PAMAuthenticator
    assert (chosen.allowed_groups, chosen.admin_groups) == (["climate"], ["operators"])


def test_after_signing_out_browsers_are_sent_to_the_provider_and_come_back(written):
    config = written(jupyterhub_authentication="oauth", **EVERYTHING)
    assert config.OAuthenticator.logout_redirect_url == (
        "https://accounts.site.test/logout?client_id=notebooks%20of%20this%20site"
        "&post_logout_redirect_uri=https%3A//notebooks.site.test/hub/login"
    )


def test_what_stops_idle_servers_may_do_that_and_nothing_else_and_is_no_service_for_users(written):
    config = written(**EVERYTHING)
    assert [service["name"] for service in config.JupyterHub.services] == ["dask-gateway", "idle-culler"]
    (role,) = [role for role in config.JupyterHub.load_roles if role.get("services")]
    assert role["scopes"] == ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    assert "access:services!service=idle-culler" not in config.Spawner.server_token_scopes
    off = written(jupyterhub_idle_timeout=0)
    assert [service["name"] for service in off.JupyterHub.services] == []
    assert not [role for role in off.JupyterHub.load_roles if role.get("services")]


@pytest.mark.parametrize(("timeout", "every"), [(86400, 300), (12, 6), (1, 1)])
def test_idle_servers_are_looked_for_often_enough(written, timeout, every):
    (culler,) = written(jupyterhub_idle_timeout=timeout).JupyterHub.services
    assert culler["command"][-2:] == [f"--timeout={timeout}", f"--cull-every={every}"]


def test_servers_with_names_are_off_and_a_site_says_how_many(written):
    assert "allow_named_servers" not in written().JupyterHub
    config = written(jupyterhub_named_servers=2)
    assert (config.JupyterHub.allow_named_servers, config.JupyterHub.named_server_limit_per_user) == (True, 2)


def test_servers_that_are_jobs_speak_with_the_hub_through_the_front_end_and_are_known_by_the_names_of_browsers(written):
    config = written(jupyterhub_spawner="slurm", jupyterhub_other_hosts=["jupyter.site.test"])
    assert config.JupyterHub.extra_handlers == batch.HANDLERS
    assert config.Spawner.hub_connect_url == "https://notebooks.site.test"
    assert config.BatchNotebookSpawner.public_hosts == ["notebooks.site.test", "jupyter.site.test"]
    assert config.BatchNotebookSpawner.python == "/apps/notebook-servers/environment/bin/python"
    assert config.Spawner.environment["JUPYTER_PATH"] == "/apps/notebook-servers/data"
    assert config.JupyterHub.tornado_settings["cookie_options"] == {"secure": True}
    assert "extra_handlers" not in written().JupyterHub
