"""Before a gateway gets other keys: whether they open what its database holds."""

import asyncio
import base64
import subprocess
import sys

import pytest
from dask_gateway_server.backends.db_base import DataManager, _normalize_encrypt_key

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


@pytest.fixture
def database(tmp_path):
    """A database with one cluster from the time of the old key."""
    path = tmp_path / "dask_gateway.sqlite"

    async def make():
        manager = DataManager(url=f"sqlite:///{path}", encrypt_keys=[_normalize_encrypt_key(OLD)])
        manager.create_cluster("alice", {}, {})
        manager.db.dispose()

    asyncio.run(make())
    return path


def ask(database, *keys):
    return subprocess.run(
        [sys.executable, "-m", "slurm_gateway.database_keys", database],
        input="\n".join(keys), env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True,
    )  # fmt: skip


def test_a_new_key_above_the_old_one_loses_nothing(database):
    done = ask(database, NEW, OLD)
    assert done.returncode == 0, done.stderr
    assert "The keys open everything" in done.stdout


def test_the_new_key_alone_would_lose_the_cluster(database):
    done = ask(database, NEW)
    assert done.returncode == 1
    assert "1 clusters in" in done.stdout
    assert "Put that key back below the first one" in done.stdout
    assert OLD not in done.stdout + done.stderr


def test_a_gateway_without_a_database_has_nothing_to_lose(tmp_path):
    assert ask(tmp_path / "none.sqlite", NEW).returncode == 0
