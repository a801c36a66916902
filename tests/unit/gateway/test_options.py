"""The options of a cluster: what is refused, with which sentence, and what a job gets."""

import asyncio
import grp
import json
import os
import pwd
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_gateway.backend import SiteClusterConfig
from slurm_gateway.messages import one_line
from slurm_gateway.options import OptionsFor

ALICE = SimpleNamespace(name="alice")


class Associations:
    """A SLURM that gives alice two accounts."""

    def __init__(self, answer):
        self.answer = answer

    async def associations(self, user):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def options_for(answer=(), user=ALICE, **settings):
    return asyncio.run(OptionsFor(slurm=Associations(list(answer)), **settings)(user))


def configuration(request, **settings):
    options = options_for(**settings)
    return options.get_configuration(options.parse_options(request), ALICE)


def test_every_setting_is_one_that_a_cluster_has():
    """Upstream only warns of a name that it does not know, and goes on without it."""
    config = configuration({})
    assert set(config) <= set(SiteClusterConfig.class_trait_names())
    SiteClusterConfig(**config)


def test_what_is_asked_for_arrives():
    config = configuration(
        {
            "worker_cores": 4,
            "worker_threads": 8,
            "worker_memory": 1.5,
            "scheduler_cores": 2,
            "scheduler_memory": 1,
            "worker_setup": "module load mine\r\nsource x/bin/activate\n",
            "account": "climate",
            "partition": "debug",
            "qos": "standard",
            "time_limit": "1-02:30:00",
            "scheduler_time_limit": "2 days",
            "environment_variables": {"MY_DATA": "/data; rm -rf ~"},
            "workers": 3,
        },
        limits={"time_limit": "2-00:00:00", "workers": 7},
        environment={"SITE": "1"},
    )
    assert config == {
        "worker_cores": 4,
        "worker_threads": 8,
        "worker_memory": 1536 * 2**20,
        "scheduler_cores": 2,
        "scheduler_memory": 2**30,
        "worker_setup": "module load mine\nsource x/bin/activate\n",
        "account": "climate",
        "partition": "debug",
        "qos": "standard",
        "time_limit": 26 * 60 + 30,
        "scheduler_time_limit": 48 * 60,
        "environment": {"SITE": "1", "MY_DATA": "/data; rm -rf ~"},
        "cluster_max_workers": 7,
        "workers": 3,
    }


def test_a_scheduler_has_at_least_the_time_of_its_workers():
    assert configuration({"time_limit": "2h"})["scheduler_time_limit"] == 120
    assert configuration({"time_limit": "2h", "scheduler_time_limit": "1h"})["scheduler_time_limit"] == 120


def test_threads_are_as_many_as_cores_unless_asked_for():
    assert configuration({"worker_cores": 3})["worker_threads"] == 3


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("", 0), ("90m", 90), ("90 minutes", 90), ("2h", 120), ("1 day", 1440), ("00:30:00", 30), ("12:00", 720),
     ("1-00:00", 1440), ("00:00:30", 1)],
)  # fmt: skip
def test_a_time_limit_can_be_written_in_several_ways(text, minutes):
    assert configuration({"time_limit": text})["time_limit"] == minutes


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"worker_cores": 17}, "worker_cores is limited to 16 cores here; 17 was asked for"),
        ({"worker_cores": 0}, "worker_cores must be at least 1 cores; 0 was asked for"),
        ({"worker_cores": "2"}, "worker_cores must be a whole number, got '2'"),
        ({"worker_cores": True}, "worker_cores must be a whole number, got True"),
        ({"worker_cores": 1.5}, "worker_cores must be a whole number, got 1.5"),
        ({"worker_memory": 64.5}, "worker_memory is limited to 64 GiB here; 64.5 was asked for"),
        ({"worker_memory": float("nan")}, "worker_memory must be a finite number, got nan"),
        ({"worker_memory": float("inf")}, "worker_memory must be a finite number, got inf"),
        ({"time_limit": "48:00:00"}, "time_limit is limited to 24:00:00 here; 48:00:00 was asked for"),
        ({"time_limit": "UNLIMITED"}, "time_limit must look like '12:00:00'"),
        ({"time_limit": "0:00:00"}, "time_limit must be at least a minute"),
        ({"worker_setup": "x\0y"}, "worker_setup must hold no control characters"),
        ({"worker_setup": "x" * 20_000}, "worker_setup is limited to 16384 bytes here"),
        ({"worker_setup": "\ud800"}, "worker_setup is not valid text"),
        ({"account": "a\n--uid=0"}, "account must be one name that SLURM knows"),
        ({"partition": "-p"}, "partition must be one name that SLURM knows"),
        ({"qos": "%u"}, "qos must be one name that SLURM knows"),
        ({"qos": 7}, "qos must be a string, got 7"),
        ({"environment_variables": []}, "environment_variables must be a mapping of names to strings"),
        ({"environment_variables": {"A B": "1"}}, "'A B' is not a name of a variable"),
        ({"environment_variables": {"A": 1}}, "the value of A must be a string, got 1"),
        ({"environment_variables": {"A": "x\ny"}}, "the value of A must be one line"),
        ({"environment_variables": {"A": "x\0y"}}, "the value of A must be one line"),
        ({"environment_variables": {"A": "x" * 9000}}, "the value of A is limited to 8192 bytes here"),
        ({"environment_variables": {f"A{i}": "" for i in range(65)}}, "is limited to 64 variables here; there are 65"),
        ({"worker_core": 2}, "there is no option 'worker_core'; the options are worker_cores, "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_is_refused_with_a_sentence(request_, sentence):
    with pytest.raises((TypeError, ValueError)) as error:
        configuration(request_)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "name",
    ["PATH", "Path", "HOME", "LD_PRELOAD", "ld_library_path", "BASH_ENV", "BASH_FUNC_module%%", "IFS", "SLURM_CONF",
     "SBATCH_ACCOUNT", "DASK_GATEWAY_API_TOKEN", "DASK_GATEWAY_API_URL", "DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
     "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "SUDO_USER"],
)  # fmt: skip
def test_variables_that_act_on_the_gateways_part_are_refused(name):
    with pytest.raises(ValueError, match=r"can.t be set here|is not a name"):
        configuration({"environment_variables": {name: "x"}})


RELEASES = {
    "releases": {"new": "module load new", "old": "module load old"},
    "retired_releases": {"older": "older is retired; new has replaced it"},
}


def test_the_first_release_is_the_default_and_another_can_be_chosen_by_its_name():
    assert configuration({}, **RELEASES)["worker_setup"] == "module load new"
    assert configuration({"jaspy": "old"}, **RELEASES)["worker_setup"] == "module load old"
    assert configuration({"worker_setup": " "}, **RELEASES)["worker_setup"] == "module load new"


def test_a_users_own_setup_takes_the_place_of_the_release():
    setup = "source ~/env/bin/activate"
    assert configuration({"jaspy": "old", "worker_setup": setup}, **RELEASES)["worker_setup"] == setup


def test_a_release_that_is_retired_is_refused_with_its_replacement_and_an_unknown_one_with_the_names():
    with pytest.raises(ValueError, match=r"older is retired; new has replaced it\. .* \(new, old\)"):
        configuration({"jaspy": "older"}, **RELEASES)
    with pytest.raises(ValueError, match=r"jaspy must be one of those that are offered \(new, old\), got 'x'"):
        configuration({"jaspy": "x"}, **RELEASES)


def test_a_site_without_releases_has_no_such_option():
    assert "jaspy" not in {field["field"] for field in options_for().get_specification()}


def test_only_the_accounts_that_slurm_gives_are_offered_with_their_default():
    options = options_for([("other", "", ["standard"], "climate"), ("climate", "", ["standard"], "climate")])
    field = next(f for f in options.get_specification() if f["field"] == "account")
    assert field["spec"] == {"type": "select", "options": ["other", "climate"]}
    assert field["default"] == "climate"
    with pytest.raises(ValueError, match=r"account must be one of those that you may use \(other, climate\), got 'x'"):
        options.parse_options({"account": "x"})


def test_when_slurm_gives_no_answer_about_accounts_any_name_may_be_tried():
    options = asyncio.run(OptionsFor(slurm=Associations(RuntimeError("away")))(ALICE))
    assert options.parse_options({"account": "climate"})["account"] == "climate"


def test_limits_hold_for_groups_and_users(monkeypatch):
    monkeypatch.setattr(OptionsFor, "_groups", lambda self, user: ["big", "bigger"])
    options = OptionsFor(
        limits={"worker_cores": 4, "workers": 10, "time_limit": "1h"},
        group_limits={
            "big": {"worker_cores": 8},
            "bigger": {"worker_cores": 16, "workers": None},
            "no": {"workers": 1},
        },
        user_limits={"alice": {"time_limit": "2h"}},
    )
    limits = options.limits_of("alice")
    assert (limits["worker_cores"], limits["workers"], limits["time_limit"]) == (16, None, 120)
    assert options.limits_of("carol")["time_limit"] == 60


def test_limits_of_groups_are_found_in_the_directory():
    me = pwd.getpwuid(os.getuid())
    mine = [grp.getgrgid(gid).gr_name for gid in os.getgrouplist(me.pw_name, me.pw_gid)]
    options = OptionsFor(
        limits={"workers": 10}, group_limits={group: {"workers": 77} for group in mine} | {"no-group": {"workers": 99}}
    )
    assert options.limits_of(me.pw_name)["workers"] == 77
    assert options.limits_of("nobody-of-this-name")["workers"] == 10
    options.group_limits = {"no-group": {"workers": 99}}
    assert options.limits_of(me.pw_name)["workers"] == 10


def test_a_default_above_a_limit_is_lowered_to_it():
    options = options_for(limits={"worker_memory": 1, "time_limit": "1h"})
    defaults = {f["field"]: f["default"] for f in options.get_specification()}
    assert (defaults["worker_memory"], defaults["time_limit"]) == (1, "1:00:00")


@given(
    request=st.dictionaries(
        st.sampled_from(["worker_cores", "worker_memory", "worker_setup", "account", "time_limit",
                         "environment_variables", "no_option"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
            lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=8), c, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    )
)  # fmt: skip
@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")), deadline=None)
def test_whatever_is_sent_is_either_a_valid_configuration_or_a_sentence(request):
    try:
        config = configuration(request)
    except (TypeError, ValueError) as exc:
        sentence = one_line(exc)
        assert sentence
        assert "\n" not in sentence
        assert len(sentence) <= 1500
    else:
        json.dumps(SiteClusterConfig(**config).to_dict()).encode()
