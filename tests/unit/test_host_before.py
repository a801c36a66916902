"""What a host had before the service is remembered once, and comes back when the service goes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import ansible.module_utils
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
ROLE = REPOSITORY / "roles/host_before"

ansible.module_utils.__path__.append(str(ROLE / "module_utils"))
host_before: ModuleType = importlib.import_module("ansible.module_utils.host_before")

DIGEST = "0123456789ab"


@pytest.fixture
def etc(tmp_path):
    """A host's /etc, with a configuration of its own, a link and passwords."""
    etc = tmp_path / "etc"
    (etc / "nginx/sites-enabled").mkdir(parents=True)
    (etc / "nginx/nginx.conf").write_text("its own\n")
    (etc / "nginx/nginx.conf").chmod(0o640)
    (etc / "nginx/sites-enabled/default").symlink_to("../default")
    (etc / "shadow").write_text("a password\n")
    (etc / "shadow-").write_text("a password\n")
    (etc / "ssh").mkdir()
    (etc / "ssh/key").write_text("a key\n")
    return etc


@pytest.fixture
def record(tmp_path, etc, monkeypatch):
    """The folder in which the host was remembered; it had nginx."""
    monkeypatch.setattr(host_before, "installed_packages", lambda: ["nginx"])
    monkeypatch.setattr(host_before, "units", lambda *question: ["nginx.service"])
    host_before.remember(tmp_path / "record", etc)
    return tmp_path / "record"


@pytest.fixture
def giving(record, etc):
    return host_before.GivingBack(host_before.Before.read(record, etc))


def test_passwords_and_keys_are_not_remembered_and_all_else_is_for_root_alone(record):
    before = host_before.Before.read(record, record.parent / "etc")
    assert "etc/nginx/nginx.conf" in before.members(before.etc / "nginx")
    assert not any(before.members(before.etc / name) for name in ("shadow", "shadow-", "ssh"))
    assert before.known
    assert before.packages == {"nginx"}
    assert record.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in record.iterdir()} == {0o600}


def test_nothing_is_known_of_a_host_that_was_not_remembered(tmp_path):
    assert not host_before.Before.read(tmp_path).known


def test_a_damaged_record_is_no_host_without_one(record):
    (record / host_before.RECORD).write_text("{")
    with pytest.raises(host_before.HostBeforeError, match="can't be read"):
        host_before.Before.read(record)


def test_what_was_there_comes_back_as_it_was_and_what_was_not_goes(giving, etc, tmp_path):
    (etc / "nginx/nginx.conf").write_text("the service's\n")
    (etc / "nginx/sites-enabled/default").unlink()
    (tmp_path / "opt/ours").mkdir(parents=True)
    (tmp_path / "opt/ours/file").touch()
    (etc / "ours").touch()
    files = [str(tmp_path / "opt/ours"), str(etc / "ours"), str(etc / "never there")]
    originals = [str(etc / "nginx/nginx.conf"), str(etc / "nginx/sites-enabled/default")]
    giving.files(files, originals)
    assert len(giving.done) == 4
    assert (etc / "nginx/nginx.conf").read_text() == "its own\n"
    assert (etc / "nginx/nginx.conf").stat().st_mode & 0o777 == 0o640
    assert str((etc / "nginx/sites-enabled/default").readlink()) == "../default"
    assert not (tmp_path / "opt/ours").exists()
    assert not (etc / "ours").exists()
    giving.done.clear()
    giving.files(files, originals)
    assert giving.done == []


def test_a_check_says_what_would_be_done_and_does_nothing(record, etc, tmp_path):
    giving = host_before.GivingBack(host_before.Before.read(record, etc), dry=True)
    (etc / "nginx/nginx.conf").write_text("the service's\n")
    (tmp_path / "ours").touch()
    giving.files([str(tmp_path / "ours")], [str(etc / "nginx/nginx.conf")])
    assert len(giving.done) == 2
    assert (etc / "nginx/nginx.conf").read_text() == "the service's\n"
    assert (tmp_path / "ours").exists()


def test_without_a_record_files_of_the_distribution_stay_and_are_named(tmp_path, etc):
    giving = host_before.GivingBack(host_before.Before())
    (etc / "ours").touch()
    giving.files([str(etc / "ours")], [str(etc / "nginx/nginx.conf"), str(etc / "never there")])
    assert giving.left == [str(etc / "nginx/nginx.conf")]
    assert (etc / "nginx/nginx.conf").exists()
    assert not (etc / "ours").exists()


def test_environments_go_with_their_links_and_their_namesakes_stay(giving, tmp_path):
    for name in (f"gateway-{DIGEST}", "gateway-ffffffffffff", "gateway-notebook-is", f"other-{DIGEST}"):
        (tmp_path / name / "bin").mkdir(parents=True)
    (tmp_path / "gateway").symlink_to(f"gateway-{DIGEST}")
    giving.environments([str(tmp_path / "gateway")])
    left = {path.name for path in tmp_path.iterdir()} - {"etc", "record"}
    assert left == {"gateway-notebook-is", f"other-{DIGEST}"}


def test_of_a_folder_of_environments_only_those_that_were_built_go(giving, tmp_path):
    folder = tmp_path / "envs"
    (folder / f"jaspy-{DIGEST}").mkdir(parents=True)
    (folder / f"jaspy-{DIGEST}/.complete-{DIGEST}").touch()
    (folder / "jaspy").symlink_to(f"jaspy-{DIGEST}")
    (folder / f"theirs-{DIGEST}").mkdir()
    (folder / "theirs").symlink_to(f"theirs-{DIGEST}")
    giving.environments_of([str(folder)])
    assert {path.name for path in folder.iterdir()} == {"theirs", f"theirs-{DIGEST}"}


def test_folders_go_only_where_nothing_is_left_in_them_and_they_were_not_there(giving, etc, tmp_path):
    (etc / "nginx/sites-enabled/default").unlink()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/theirs").touch()
    (tmp_path / "empty").mkdir()
    giving.folders([str(etc / "nginx/sites-enabled"), str(tmp_path / "full"), str(tmp_path / "empty")])
    assert (etc / "nginx/sites-enabled").is_dir()
    assert (tmp_path / "full").is_dir()
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("path", ["/", "/etc", "/home", "etc/nginx", "/opt/../etc/nginx"])
def test_a_path_that_no_role_may_remove_is_refused(giving, path):
    with pytest.raises(host_before.HostBeforeError, match="nothing that a role may remove"):
        giving.files([path], [])


def test_a_link_is_removed_and_not_what_it_leads_to(giving, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").touch()
    (tmp_path / "ours").symlink_to("theirs")
    giving.files([str(tmp_path / "ours")], [])
    assert (tmp_path / "theirs/file").exists()


def test_a_command_undoes_what_is_there_unless_the_host_had_its_package(giving, tmp_path):
    (tmp_path / "done").touch()
    undo = {"needed": f"test -e {tmp_path}/done", "run": f"rm {tmp_path}/done"}
    giving.commands([{"unless_before": "nginx", **undo}])
    assert (tmp_path / "done").exists()
    giving.commands([{"unless_before": "sssd", **undo}])
    giving.commands([{"unless_before": "sssd", **undo}])
    assert giving.done == [undo["run"]]


# -- packages ---------------------------------------------------------------------------------------------------


@pytest.fixture
def apt(monkeypatch):
    """A host with munge and its library, logrotate, which something needs, and an operator's tool with a library.

    With munge came an awk, which base-files could do without, a shell, which an operator's package
    needs, and a pager, which an operator has asked for since.
    """
    marks: list[list[str]] = []
    plan = {"munge": "libmunge2", "htop": "libnl"}
    goes_with = {
        "gawk": ["munge", "gawk"],
        "libmpfr6": ["munge", "gawk", "libmpfr6"],
        "ksh": ["munge", "script", "ksh"],
        "libksh": ["munge", "ksh", "libksh"],
        "logrotate": ["logrotate", "something"],
        "less": ["less"],
    }

    def run(*command: str, **_) -> str:
        if command[0] == "dpkg-query":
            return "".join(f"ii  {name}\n" for name in ("nginx", "logrotate", *plan, *plan.values()))
        if command[:2] == ("apt-mark", "showmanual"):
            return "munge\nlogrotate\n"
        if command[:2] == ("apt-mark", "showauto"):
            return "".join(f"{name}\n" for name in command[2:] if name != "less")
        if command[0] == "apt-mark":
            marks.append(list(command[1:]))
            return ""
        if command[:2] == ("apt-cache", "depends"):
            return "munge\n  Depends: libmunge2\nlibmunge2\nlogrotate\ngawk\nlibmpfr6\nksh\nlibksh\nless\nnginx\n"
        if "autoremove" in command:
            return "Purg munge [1]\nPurg libmunge2 [1]\nPurg libnl [1]\n"
        if command[:4] == ("apt-get", "--simulate", "--purge", "remove") and command[4] in goes_with:
            return "".join(f"Purg {name} [1]\n" for name in goes_with[command[4]])
        if "remove" in command:
            return "Purg munge [1]\nPurg libmunge2:amd64 [1]\nPurg htop [1]\n"
        raise AssertionError(command)

    monkeypatch.setattr(host_before, "run", run)
    return marks


def test_packages_go_with_what_came_with_them_and_what_others_need_stays(apt):
    before = host_before.Before(known=True, packages={"nginx"})
    gone, needed = host_before.removable(before, ["munge", "logrotate", "nginx"])
    assert gone == ["gawk", "libmpfr6", "libmunge2", "munge"]
    assert needed == ["logrotate"]
    assert apt == [["auto", "logrotate", "munge"], ["manual", "logrotate"]]


def test_no_package_goes_that_the_host_had(apt):
    before = host_before.Before(known=True, packages={"nginx", "munge", "libmunge2", "logrotate"})
    assert host_before.removable(before, ["munge", "logrotate", "nginx"]) == ([], [])
    assert apt == []


def test_apt_does_not_take_others_along(apt):
    with pytest.raises(host_before.HostBeforeError, match="would remove htop too"):
        host_before.purge(["munge", "libmunge2"])


# -- roles ------------------------------------------------------------------------------------------------------


def test_every_role_that_site_yml_gives_to_hosts_is_taken_away_by_uninstall_yml():
    def roles(book: str, tasks_from: str = "") -> set[str]:
        plays = yaml.safe_load((REPOSITORY / book).read_text())
        uses = [task.get("ansible.builtin.import_role") for play in plays for task in play.get("tasks", [])]
        return {use["name"] for use in uses if use and use.get("tasks_from", "").startswith(tasks_from)}

    plays = yaml.safe_load((REPOSITORY / "site.yml").read_text())
    books = [play["ansible.builtin.import_playbook"] for play in plays if "hosts" not in play]
    given = set().union(*map(roles, books))
    taken = roles("playbooks/uninstall.yml", "uninstall")
    assert "dask_gateway" in given
    # Used by others, and itself
    assert taken - given == {"backup", "python_environment"}
    assert given - taken == set()


def test_a_record_is_json_that_people_can_read(record):
    assert json.loads((record / host_before.RECORD).read_text())["packages"] == ["nginx"]


def test_what_a_package_leaves_goes_and_a_folder_of_it_only_where_nothing_is_left_in_it(tmp_path):
    page, site = tmp_path / "www/html/index.html", tmp_path / "www/site.html"
    page.parent.mkdir(parents=True)
    page.touch()
    site.touch()
    host_before.remove_remains(f"{page.parent}/")
    assert page.exists()
    for remains in (str(page), f"{page.parent}/", f"{site.parent}/", f"{tmp_path}/none/"):
        host_before.remove_remains(remains)
    assert not page.parent.exists()
    assert site.exists()
