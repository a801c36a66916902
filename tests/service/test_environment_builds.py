"""Environments that can't be built: what operators read, and that nothing of it is seen; and what mends it."""

import hashlib
import json
import os
import re
import subprocess

import pytest
import scenario

ROLE = scenario.REPOSITORY / "roles/python_environment"
FOLDER = "/var/tmp/builds"
DIGITS = "0123456789ab"
ENVIRONMENT = f"{FOLDER}/envs/small-{DIGITS}"
# A package that needs no other, as the registry has it
WHEEL = "packaging==25.0 --hash=sha256:29572ef2b1f17581046b3a2227d5c611fb25ec70ca1ba8554b24b0e69331a484\n"
# Two packages of which the first needs a newer one of the second
MISFITS = """\
importlib-metadata==8.7.0 --hash=sha256:e5dd1551894c77868a30651cef00984d50e1002d06942a7101d34870c5f02afd
zipp==3.1.0 --hash=sha256:aa36550ff0c0b7ef7fa639055d797116ee891440eac1a56f378e2d3179e0320b
"""
# Says by what the environment would count as complete while it is still being checked
CHECK = """
import os, sys
sys.exit(f"not fit for use, and complete by {[n for n in os.listdir(sys.prefix) if n.startswith('.complete')]}")
"""


@pytest.fixture
def node():
    """A node with a folder for builds, which is removed."""
    node = scenario.host("node1")
    node.run(f"umount {FOLDER}/envs; rm -rf {FOLDER}")
    node.check_output(f"mkdir -p {FOLDER}/envs")
    yield node
    node.run(f"umount {FOLDER}/envs; rm -rf {FOLDER}")


def build(lock: str, provider: str = "pip", imports=("packaging",), **options) -> tuple[bool, str]:
    """Run the role's module on the node: whether it went well, and what it said."""
    arguments = {
        "provider": provider,
        "folder": ENVIRONMENT,
        "marker": f".complete-{DIGITS}",
        "prompt": "small",
        "lock": lock,
        "wheels": f"{FOLDER}/none",
        "uv": {"path": "/opt/uv", "lock": (ROLE / "files/uv.txt").read_text()},
        "rattler": {"path": "/opt/rattler", "lock": (ROLE / "files/rattler.txt").read_text()},
        "python": "/usr/bin/python3",
        "system_python": "/usr/bin/python3",
        "imports": list(imports),
        "ca_bundle": "/etc/ssl/certs/ca-certificates.crt",
        "cache": "/var/cache/python-environments",
    } | options
    done = subprocess.run(
        ["ansible", "node1", "-i", scenario.INVENTORY, "-m", "locked_environment", "-a", json.dumps(arguments)],
        cwd=scenario.REPOSITORY,
        env=os.environ
        | scenario.PLAIN_OUTPUT
        | {
            "ANSIBLE_LIBRARY": str(ROLE / "library"),
            "ANSIBLE_MODULE_UTILS": str(ROLE / "module_utils"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode == 0, json.loads(done.stdout.partition("=>")[2]).get("msg", "")


def seen(node) -> list[str]:
    return node.check_output(f"ls -A {FOLDER}/envs").split()


def test_a_wrong_hash_a_missing_package_and_a_full_disk_are_told_and_the_next_run_mends_them(node):
    for lock, sentence in [
        (WHEEL.replace("29572ef2", "00000000"), "the registry has another file than the lock was made from"),
        (WHEEL.replace("==25.0", "==25.999"), "packages of the lock could not be installed, and nothing was changed"),
    ]:
        went_well, said = build(lock)
        assert not went_well
        assert sentence in said
        assert "packaging" in said
        assert seen(node) == []

    node.check_output(f"mount -t tmpfs -o size=64k none {FOLDER}/envs")
    went_well, said = build(WHEEL)
    assert not went_well
    assert "the disk is full" in said
    assert seen(node) == []
    node.check_output(f"mount -o remount,size=64m {FOLDER}/envs")
    node.check_output(f"mkdir -p {ENVIRONMENT}/bin")  # as a build leaves it that was killed
    assert build(WHEEL) == (True, "")
    assert node.check_output(f"{ENVIRONMENT}/bin/python -c 'import packaging; print(packaging.__version__)'") == "25.0"


def test_packages_that_do_not_fit_together_and_a_failing_check_are_told_before_anybody_sees_the_environment(node):
    for lock, options, sentence in [
        (
            MISFITS,
            {"imports": ()},
            r"The packages of the lock do not fit together: .*`importlib-metadata` requires `zipp",
        ),
        (WHEEL, {"imports": ("packaging", "zipp")}, r"A module that the environment is for can't be imported: zipp: "),
        (WHEEL, {"checks": [["-c", CHECK]]}, r"The check '-c .*' failed: not fit for use, and complete by \[\]"),
    ]:
        went_well, said = build(lock, **options)
        assert not went_well
        assert re.search(sentence, said, re.DOTALL), said
        assert seen(node) == []
    assert build(WHEEL, checks=[["-c", "import packaging"]]) == (True, "")


def test_a_folder_of_wheels_is_all_that_a_host_without_a_registry_needs(node):
    uv = (ROLE / "files/uv.txt").read_text()
    scenario.put_file("node1", "root", f"{FOLDER}/all.txt", uv + WHEEL)
    download = f"-m pip download --quiet --no-deps --require-hashes -d {FOLDER}/wheels -r {FOLDER}/all.txt"
    node.check_output(f"PIP_CERT=/etc/ssl/certs/ca-certificates.crt /opt/uv/bin/python {download}")
    alone = {
        "no_index": True,
        "find_links": f"{FOLDER}/wheels",
        "index_url": "http://127.0.0.1:9/simple",  # nobody answers there
        "uv": {"path": f"{FOLDER}/uv", "lock": uv},
        "cache": f"{FOLDER}/cache",
    }
    node.check_output(f"mv {FOLDER}/wheels/packaging-* {FOLDER}/")
    went_well, said = build(WHEEL, **alone)
    assert not went_well
    assert "packages of the lock could not be installed, and nothing was changed" in said
    assert "packaging" in said
    assert seen(node) == []
    node.check_output(f"mv {FOLDER}/packaging-* {FOLDER}/wheels/")
    assert build(WHEEL, **alone) == (True, "")
    assert node.check_output(f"{ENVIRONMENT}/bin/python -c 'import packaging; print(packaging.__version__)'") == "25.0"
    assert node.file(f"{FOLDER}/uv/bin/uv").exists


def test_conda_packages_of_a_local_channel_are_installed_as_the_lock_names_them(node):
    """No channel can be reached here: the node's Python is repackaged, and what the environment's lock needs of it."""
    subprocess.run(
        [
            "docker",
            "cp",
            "-q",
            scenario.REPOSITORY / "tests/service/conda_channel.py",
            f"{scenario.PREFIX}-node1:{FOLDER}/",
        ],
        check=True,
    )
    release = "/apps/jasmin/jaspy/default/lib/python3.11/site-packages"
    node.check_output(f"cd {FOLDER}; python3 conda_channel.py {FOLDER}/channel lock {release} locket toolz")
    lock = node.check_output(f"cat {FOLDER}/lock")
    imports = ("toolz", "locket", "ssl", "sqlite3")

    toolz = next(line for line in lock.splitlines() if "/toolz-" in line)
    wrong = hashlib.sha256(b"").hexdigest()
    went_well, said = build(lock.replace(toolz.partition("#")[2], wrong), "conda", imports)
    assert not went_well
    assert f"hash mismatch: {toolz.partition('#')[0]} has sha256" in said
    assert seen(node) == []

    assert build(lock, "conda", imports) == (True, "")
    assert node.check_output(
        f"{ENVIRONMENT}/bin/python -c 'import sys, toolz; print(sys.prefix, toolz.__file__)'"
    ).split() == [
        ENVIRONMENT,
        f"{ENVIRONMENT}/lib/python3.11/site-packages/toolz/__init__.py",
    ]
    assert toolz.partition("#")[0] in node.check_output(f"cat {ENVIRONMENT}/conda-meta/toolz-*.json")
