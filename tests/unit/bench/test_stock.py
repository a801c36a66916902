"""The stock gateway's configuration is one that a stock gateway understands."""

import importlib

from bench import stock
from dask_gateway_server.backends.jobqueue.slurm import SlurmBackend
from traitlets.config import Config

SETTINGS = {"cores": 1, "memory_mib": 512, "setup_for_sh": "module load jaspy"}
CLASSES = {
    "DaskGateway": "dask_gateway_server.app",
    "Proxy": "dask_gateway_server.proxy",
    "SimpleAuthenticator": "dask_gateway_server.auth",
    "SlurmBackend": "dask_gateway_server.backends.jobqueue.slurm",
    "SlurmClusterConfig": "dask_gateway_server.backends.jobqueue.slurm",
}


def configured():
    config = Config()
    text = stock.configuration(SETTINGS, "http://gateway:9001", 'a "secret"')
    exec(compile(text, "config", "exec"), {"get_config": lambda: config})  # noqa: S102
    return config


def test_each_setting_of_the_stock_gateway_is_one_that_it_has():
    # traitlets ignores others without a word
    config = configured()
    assert set(config) == set(CLASSES)
    for name, module in CLASSES.items():
        traits = getattr(importlib.import_module(module), name).class_trait_names(config=True)
        assert set(config[name]) <= set(traits), name


def test_the_stock_backend_takes_them():
    backend = SlurmBackend(config=configured())
    cluster = backend.cluster_config_class(config=backend.config)
    assert backend.cluster_config_class.__module__ == "dask_gateway_server.backends.jobqueue.slurm"
    assert cluster.worker_cmd == ["dask", "worker"]
    assert cluster.worker_memory == 512 * 2**20
    assert [field.field for field in backend.cluster_options.fields] == ["partition"]
