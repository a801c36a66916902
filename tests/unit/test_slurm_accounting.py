"""The module slurm_accounting asks sacctmgr for what is missing or different, and for nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

LIBRARY = Path(__file__).parents[2] / "roles/slurm/library"

CLIMATE = {
    "name": "climate",
    "description": "Climate Science",
    "organization": "lotus",
    "users": [],
    "coordinators": [],
}


@pytest.fixture(scope="module")
def slurm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slurm_accounting", LIBRARY / "slurm_accounting.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHOWN = {
    "qos": [
        {"name": "normal", "priority": "0"},
        {
            "name": "standard",
            "description": "for all | everybody",
            "priority": "10",
            "maxtresperuser": "cpu=16,mem=100G",
            "maxwall": "2-00:00:00",
        },
    ],
    "account": [
        {"account": "climate", "description": "climate science", "organization": "lotus", "coordinators": "alice"},
        {"account": "root", "description": "default root account", "organization": "root"},
    ],
    "user": [{"user": "alice", "adminlevel": "None"}, {"user": "root", "adminlevel": "Administrator"}],
    "associations": [
        {"account": "root"},
        {"account": "root", "user": "root"},
        {"account": "climate", "parentname": "root"},
        {"account": "climate", "user": "alice"},
        {"account": "climate", "user": "bob", "partition": "debug"},
    ],
}


@pytest.fixture
def accounting(slurm, monkeypatch):
    """Accounting that answers with what is SHOWN, without sacctmgr."""

    def run(self, command: list[str]) -> str:
        fields = command[-1].removeprefix("format=").split(",")
        rows = SHOWN[command[command.index("show") + 1]]
        return "".join("|".join(row.get(field, "") for field in fields) + "\n" for row in rows)

    monkeypatch.setattr(slurm.Accounting, "run", run)
    return slurm.Accounting("lotus")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("DenyOnLimit,NoReserve", "noreserve,denyonlimit"),
        ("cpu=16,mem=2048M", "mem=2G,cpu=16"),
        ("mem=1T", "mem=1024G"),
        ("48:00:00", "2-00:00:00"),
        ("60", "01:00:00"),
        ("1-0", "1-00:00:00"),
        ("10:30", "00:10:30"),
        ("-1", ""),
        ("cpu=-1", ""),
        ("10", "10"),
        ("Climate Science", "climate science"),
    ],
)
def test_one_value_in_two_spellings_is_no_difference(slurm, written, shown):
    assert slurm.same(written, shown)


@pytest.mark.parametrize(
    ("written", "shown"),
    [("10", "11"), ("10", ""), ("", "standard"), ("mem=2G", "mem=2M"), ("60", "01:00:01"), ("cpu=1", "cpu=1,mem=1G")],
)
def test_two_values_are_a_difference(slurm, written, shown):
    assert not slurm.same(written, shown)


def test_what_is_so_already_is_left_alone(accounting):
    qos = [
        {
            "name": "standard",
            "description": "For all | everybody",
            "limits": {"Priority": 10, "MaxTRESPerUser": "cpu=16,mem=102400M", "MaxWall": "48:00:00"},
        }
    ]
    accounts = [CLIMATE | {"parent": "root", "users": ["alice"], "coordinators": ["alice"]}]
    assert accounting.changes(accounts, qos, ["root"]) == []


def test_what_is_missing_is_added(accounting):
    changes = accounting.changes(
        [
            CLIMATE | {"users": ["alice", "bob", "carol"]},
            {
                "name": "ocean",
                "parent": "climate",
                "users": ["alice"],
                "coordinators": ["alice"],
                "limits": {"MaxJobs": 5},
            },
        ],
        [{"name": "long", "description": None, "limits": {"MaxWall": "7-0"}}],
        ["alice", "dask-gateway"],
    )
    assert [" ".join(command) for command in changes] == [
        "add qos long MaxWall=7-0",
        # bob may use it in one partition only so far
        "add user name=bob,carol account=climate cluster=lotus",
        "add account ocean cluster=lotus parent=climate MaxJobs=5",
        "add user name=alice account=ocean cluster=lotus",
        "add coordinator account=ocean names=alice",
        "modify user where name=alice set adminlevel=Operator",
        "add user name=dask-gateway account=root cluster=lotus adminlevel=Operator maxsubmitjobs=0",
    ]


def test_what_is_different_is_set(accounting):
    changes = accounting.changes(
        [CLIMATE | {"organization": "ncas", "limits": {"MaxJobs": 7}}],
        [{"name": "standard", "limits": {"Priority": 20}}],
        [],
    )
    assert [" ".join(command) for command in changes] == [
        "modify qos standard set Priority=20",
        "modify account climate set organization=ncas",
        "modify account where name=climate cluster=lotus set MaxJobs=7",
    ]


def test_users_whom_the_host_does_not_know_are_left_out(slurm):
    wanted, strangers = slurm.of_known_users(
        {
            "accounts": [{"name": "climate", "users": ["root", "nobody-at-all"], "coordinators": None}],
            "qos": [],
            "operators": ["nobody-at-all"],
        }
    )
    assert wanted["accounts"] == [{"name": "climate", "users": ["root"], "coordinators": []}]
    assert wanted["operators"] == []
    assert strangers == ["nobody-at-all"]
