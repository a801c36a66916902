"""A playbook says what it will do before it does it; the one of the firewall has a way back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar, trust_as_template

REPOSITORY = Path(__file__).parents[2]
PLAYBOOKS = sorted((REPOSITORY / "playbooks").glob("*.yml"))
FIREWALL = REPOSITORY / "roles/firewall"

# Whether there is something to do, and what
LOOKS = {f"ansible.builtin.{name}" for name in ("assert", "find", "set_fact", "stat")} | {"check_inventory"}
IMPORT, INCLUDE = "ansible.builtin.import_playbook", "ansible.builtin.include_tasks"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_playbook_says_what_it_will_do_before_it_does_it(path: Path):
    first = next(play for play in yaml.safe_load(path.read_text()) if IMPORT not in play)
    assert not {"roles", "pre_tasks"} & set(first), "these come before its tasks"
    tasks = list(tasks_of(first["tasks"], path.parent))
    said = [index for index, task in enumerate(tasks) if says(task)]
    assert said, "nothing is said"
    assert [task["name"] for task in tasks[: said[0]] if not only_looks(task)] == [], "done before anything is said"


def tasks_of(tasks: list[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Tasks with those of the files that they include."""
    for task in tasks:
        if INCLUDE in task:
            yield from tasks_of(yaml.safe_load((folder / task[INCLUDE]).read_text()), folder)
        else:
            yield task


def says(task: dict[str, Any]) -> bool:
    return "when" not in task and bool((task.get("ansible.builtin.debug") or {}).get("msg"))


def only_looks(task: dict[str, Any]) -> bool:
    modules = {name for name in task if name not in Task.fattributes}
    return modules <= LOOKS or task.get("changed_when") is False


# -- the firewall -----------------------------------------------------------------------------------------------

RULES = {
    **yaml.safe_load((FIREWALL / "defaults/main.yml").read_text()),
    "firewall_service_networks": ["192.0.2.4/31"],
    "firewall_batch_networks": ["192.0.2.8/29"],
    "firewall_operators_networks": ["192.0.2.1/32"],
}


@pytest.mark.parametrize(("variables", "port"), [({}, 22), ({"ansible_port": 2222}, 2222), ({"ansible_port": ""}, 22)])
@pytest.mark.parametrize("group", ["login", "monitoring"])
def test_ssh_is_let_in_at_the_port_at_which_ansible_comes(group, variables, port):
    known = RULES | yaml.safe_load((FIREWALL / "vars/main.yml").read_text()) | variables
    known |= {"ansible_managed": "managed", "group_names": [group]}
    template = trust_as_template((FIREWALL / "templates/nftables.conf.j2").read_text())
    rules = Templar(DataLoader(), variables=known).template(template).splitlines()
    assert [rule.strip() for rule in rules if "192.0.2.1/32" in rule] == [
        f"ip saddr 192.0.2.1/32 tcp dport {port} accept"
    ]


# What these programs do on a host, in a folder. A file `late` lets the way back be taken while rules are loaded, and of
# a try that was `interrupted` the timer ends when it is asked for a second time.
PROGRAMS = {
    "nft": """
        case "$1 $2" in
          "-c -f") ;;
          "list ruleset") cat loaded ;;
          "flush ruleset") : > loaded ;;
          "-f "*) if grep -q wrong "$2"; then echo "no such rule" >&2; exit 1; fi
                  grep -v "flush ruleset" "$2" > loaded
                  if [ -e late ]; then rm late active/*.timer; sh -c "$(cat way-back)"; fi ;;
        esac""",
    "systemd-run": """
        timer=active/${1#--unit=}.timer
        if [ -e "$timer" ]; then echo "Unit was already loaded" >&2; exit 1; fi
        touch "$timer"; for last; do :; done; echo "$last" > way-back""",
    "systemctl": """
        command=$1; shift
        case "$command" in
          show) if [ -e "active/$1" ]; then echo LoadState=loaded; echo ActiveState=active
                elif [ "$1" = rules.service ]; then echo LoadState=loaded; echo ActiveState=inactive
                else echo LoadState=not-found; fi ;;
          is-active) if [ $# = 2 ] && [ -e asked ]; then rm asked active/*.timer; fi
                     if [ $# = 2 ] && [ -e interrupted ]; then mv interrupted asked; fi
                     for unit; do if [ -e "active/$unit" ]; then echo active; else echo inactive; fi; done ;;
          is-enabled) [ -e "enabled/$1" ] ;;
          enable) touch "enabled/$1" ;;
          start) touch "active/$1"; nft -f nftables.conf ;;
          stop) rm "active/$1" ;;
        esac""",
}


@pytest.fixture
def host(tmp_path):
    """A host with rules of its own, as a folder."""
    for name in ("bin", "active", "enabled"):
        (tmp_path / name).mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "nftables.conf").write_text("its own file\n")
    (tmp_path / "loaded").write_text("its own rules\n")
    return tmp_path


def firewall(host: Path, *options: str, **variables: Any) -> str:
    """Run the playbook on it, from behind the installation of nftables on."""
    variables = RULES | variables | {"firewall_enabled": True, "_firewall_installed": {"changed": False}}
    variables |= {"_firewall_unit": "rules.service", "_firewall_program": f"{host}/bin/nft"}
    variables |= {"_firewall_rules_file": f"{host}/nftables.conf", "_firewall_try_folder": f"{host}/try"}
    local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (host / "hosts").write_text(f"[login]\nlogin1 {local}\n")
    return subprocess.run(
        [shutil.which("ansible-playbook"), "-i", host / "hosts", "-e", json.dumps(variables), *options,
         "--start-at-task", "Compare the rules with those that the host has", "playbooks/firewall.yml"],
        env=os.environ | {"PATH": f"{host}/bin:{os.environ['PATH']}", "ANSIBLE_BECOME": "0", "ANSIBLE_NOCOLOR": "1"},
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip


def test_rules_that_let_ansible_in_are_those_with_which_the_host_starts(host):
    checked = firewall(host, "--check")
    assert "failed=0" in checked
    assert "changed=0" not in checked
    assert state_of(host) == ("its own file\n", "its own rules\n", [], [])

    (host / "interrupted").touch()
    (host / "active/dask-service-firewall-way-back.timer").touch()
    done = firewall(host)
    assert "failed=0" in done
    assert not any((host / name).exists() for name in ("interrupted", "asked", "try"))
    file, loaded, active, enabled = state_of(host)
    assert "policy drop" in file
    assert "policy drop" in loaded
    assert (active, enabled) == (["rules.service"], ["rules.service"])

    again = firewall(host)
    assert "changed=0" in again


def test_rules_go_where_the_way_back_was_taken_before_ansible_came_again(host):
    (host / "late").touch()
    done = firewall(host)
    assert "login1 has not kept its new rules" in done
    assert state_of(host) == ("its own file\n", "its own rules\n", [], [])


def test_rules_that_can_not_be_loaded_change_nothing(host):
    done = firewall(host, firewall_more_rules=["wrong"])
    assert "no such rule" in done
    assert state_of(host) == ("its own file\n", "its own rules\n", ["dask-service-firewall-way-back.timer"], [])

    way_back = ["sh", "-c", (host / "way-back").read_text()]
    subprocess.run(way_back, check=True)
    assert state_of(host)[1] == "its own rules\n"
    # Rules that nft lists and can't read
    (host / "try/before.conf").write_text("wrong")
    subprocess.run(way_back, check=True)
    assert state_of(host)[1] == ""


def state_of(host: Path) -> tuple[str, str, list[str], list[str]]:
    """The file with which it starts, the rules in use, units that are active and that are enabled."""
    files = ((host / name).read_text() for name in ("nftables.conf", "loaded"))
    return *files, *(sorted(path.name for path in (host / name).iterdir()) for name in ("active", "enabled"))
