"""The gateway's configuration file, as the role writes it."""

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from dask_gateway_server.app import DaskGateway
from dask_gateway_server.proxy import Proxy
from traitlets.config.loader import PyFileConfigLoader

from slurm_gateway.authenticator import SiteAuthenticator
from slurm_gateway.backend import SlurmGatewayBackend
from slurm_gateway.options import OptionsFor
from slurm_gateway.revocations import Revocations
from slurm_gateway.slurm import Slurm

ROLE = Path(__file__).parents[3] / "roles/dask_gateway"
CLASSES = {
    cls.__name__: cls
    for cls in (DaskGateway, OptionsFor, Proxy, Revocations, SiteAuthenticator, Slurm, SlurmGatewayBackend)
}


@pytest.fixture
def config(tmp_path):
    """The configuration with the role's defaults, made by Ansible as in a play."""
    loader = DataLoader()
    values = {"ansible_managed": "managed", "site_support_address": "help@site.test", "role_path": str(ROLE)}
    values["site_jaspy_releases"] = [{"name": "jaspy3.11-v20261101", "lock": "a.txt", "state": "current"}]
    values |= {f"site_{name}_host": f"{name}.site.test" for name in ("gateway", "notebook")}
    for name in ("defaults/main.yml", "vars/main.yml", "vars/debian.yml"):
        values |= loader.load_from_file(str(ROLE / name), trusted_as_template=True)
    template = trust_as_template((ROLE / "templates/dask_gateway_config.py.j2").read_text())
    (tmp_path / "config.py").write_text(Templar(loader, variables=values).template(template))
    return PyFileConfigLoader("config.py", path=str(tmp_path)).load_config()


def test_every_setting_names_a_class_and_a_trait_that_there_are(config):
    """A name that is not there, such as the JobQueueClusterBackend of upstream's guide, is ignored without a word."""
    unknown = [
        f"{cls}.{name}"
        for cls, settings in config.items()
        for name in settings
        if cls not in CLASSES or name not in CLASSES[cls].class_trait_names(config=True)
    ]
    assert unknown == []


def test_the_gateway_takes_it_and_outlives_its_restarts(config, monkeypatch):
    monkeypatch.setenv("DASK_GATEWAY_ENCRYPT_KEYS", "A" * 43 + "=")
    gateway = DaskGateway(config=config)
    assert gateway.backend_class is SlurmGatewayBackend
    assert gateway.authenticator_class is SiteAuthenticator
    backend = SlurmGatewayBackend(parent=gateway, log=gateway.log)
    assert backend.db_url.startswith("sqlite:////var/lib/")
    assert backend.stop_clusters_on_shutdown is False
    assert Proxy(parent=backend).externally_managed is True
    assert backend.logfmt is True
