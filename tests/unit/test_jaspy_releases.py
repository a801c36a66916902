"""The list of jaspy releases: what follows from it for modules, notebooks and the gateway, and what it may not be."""

from __future__ import annotations

import datetime
import importlib.util
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

PLUGIN = Path(__file__).parents[2] / "plugins" / "filter" / "jaspy.py"
spec = importlib.util.spec_from_file_location("jaspy_filters", PLUGIN)
jaspy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(jaspy)

OLD, NEW, NEWEST = "jaspy3.11-v20250101", "jaspy3.9-v20260101", "jaspy3.11-v20260101"


def release(name, state="current", **more):
    return {"name": name, "state": state, "lock": f"{name}.txt", **more}


def default(*releases) -> str:
    return next(r["name"] for r in jaspy.catalogue(list(releases)) if r["default"])


def test_the_newest_current_release_is_the_default_wherever_it_stands():
    assert default(release(NEWEST), release(OLD), release(NEW)) == NEWEST  # 3.9 is older than 3.11
    assert default(release(OLD), release(NEWEST, "supported")) == OLD


def test_a_python_without_a_current_release_has_its_newest_supported_one_as_its_default():
    found = jaspy.catalogue([release(OLD), release("jaspy3.9-v20240101", "supported"), release(NEW, "retired")])
    assert [r["name"] for r in found if r["default_of_python"]] == [OLD, "jaspy3.9-v20240101"]


def test_a_retired_release_is_refused_with_its_replacement():
    found = {r["name"]: r for r in jaspy.catalogue([release(NEWEST), {"name": OLD, "state": "retired"}])}
    assert found[OLD]["refusal"] == f"{OLD} is retired; {NEWEST} has replaced it: module load jaspy/3.11/v20260101"
    assert found[NEWEST]["refusal"] == found[NEWEST]["warning"] == ""


@pytest.mark.parametrize("day", ["2027-03-01", datetime.date(2027, 3, 1)], ids=["text", "date"])
def test_a_release_that_is_to_be_retired_warns_with_the_date(day):
    found = jaspy.catalogue([release(NEWEST), release(OLD, "supported", retires=day)])
    assert found[1]["warning"].startswith(f"{OLD} will be retired on 2027-03-01. Change to {NEWEST}")


@pytest.mark.parametrize(
    ("releases", "sentence"),
    [
        ([release("jaspy-3")], "'jaspy-3' is no name such as"),
        ([release(OLD), release(OLD)], f"{OLD} is listed twice"),
        ([release(OLD, "supported")], "no release is current"),
        ([release(OLD, "old")], f"the state of {OLD} is one of current, supported, retired"),
        ([{"name": OLD}], f"{OLD} has no lock"),
        ([release(OLD, retires="soon")], f"'retires' of {OLD} is soon; write a date"),
        ([release(OLD, remove_after="2027-01-01")], "only a retired release is removed"),
        ([release(NEWEST), release(OLD, "retired", retires="2027-01-01")], "'remove_after' says"),
        ([release(NEWEST), release(OLD, "retired", replaced_by=NEW)], "which is not listed"),
        ([release(NEWEST), release(NEW, "retired"), release(OLD, "retired", replaced_by=NEW)], "which is retired too"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_told(releases, sentence):
    with pytest.raises(AnsibleFilterError, match="site_jaspy_releases: ") as error:
        jaspy.catalogue(releases)
    assert sentence in str(error.value)


def test_notebooks_have_the_default_under_a_name_that_stays_and_each_release_that_is_offered():
    releases = [release(NEWEST), release(OLD, "supported"), release("jaspy3.11-v20240101", "retired")]
    assert [(k["name"], k["python"]) for k in jaspy.kernels(releases, "/sw")] == [
        ("jaspy", f"/sw/envs/{NEWEST}/bin/python"),
        (NEWEST, f"/sw/envs/{NEWEST}/bin/python"),
        (OLD, f"/sw/envs/{OLD}/bin/python"),
    ]


def test_the_gateway_offers_the_default_first_also_when_a_newer_one_is_not_current():
    releases = [release(NEWEST, "supported"), release(OLD), release("jaspy3.11-v20240101", "retired")]
    choices = jaspy.choices(releases, "module load {module}")
    assert list(choices["releases"].items()) == [
        (OLD, "module load jaspy/3.11/v20250101"),
        (NEWEST, "module load jaspy/3.11/v20260101"),
    ]
    assert choices["retired_releases"] == {
        "jaspy3.11-v20240101": f"jaspy3.11-v20240101 is retired; {OLD} has replaced it"
    }


def test_a_setup_that_would_be_the_same_for_every_release_is_refused():
    with pytest.raises(AnsibleFilterError, match=r"dask_gateway_jaspy_setup holds no \{module\}"):
        jaspy.choices([release(OLD)], "module load jaspy")


def test_versions_are_read_from_locks_of_both_kinds():
    pip = "dask-gateway==2026.3.0 \\\n    --hash=sha256:0\ndask==2026.8.0 \\\n"
    conda = "https://c/noarch/dask-2026.8.0-py_0.conda#0\nfile:///c/noarch/dask-gateway-2026.3.0-0.tar.bz2#0\n"
    for lock in (pip, conda):
        assert jaspy.contents(lock, ["dask", "numpy", "dask-gateway"]) == ["dask 2026.8.0", "dask-gateway 2026.3.0"]
