"""The scripts of the jobs, run by bash."""

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_gateway import jobs
from slurm_gateway.messages import NO_DASK, SETUP_FAILED


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A place with a module command, and a `dask` that shows how it was started."""
    path = tmp_path_factory.mktemp("node")
    (path / "modules.sh").write_text(
        f'module() {{ echo "module $*"; [ "$2" != jaspy ] || PATH="{path}/jaspy:$PATH"; }}\n'
    )
    for name in ("jaspy", "venv"):
        (path / name).mkdir()
        (path / name / "dask").write_text(f'#!/bin/bash\necho "{name} $*"; env -0 > {path}/environment\n')
        (path / name / "dask").chmod(0o755)
    (path / "activate").write_text(f'PATH="{path}/venv:$PATH"\n')
    return path


def run(node, *, shell="/bin/bash", task=None, **parts):
    parts = {
        "modules_init": str(node / "modules.sh"),
        "setup": "module load jaspy",
        "environment": {},
        "gateway_environment": {},
        "command": ["dask", "scheduler"],
        **parts,
    }
    environment = {"PATH": "/usr/bin:/bin"} | ({"SLURM_ARRAY_TASK_ID": str(task)} if task is not None else {})
    return subprocess.run(
        [shell], input=jobs.script(**parts), capture_output=True, text=True, env=environment, check=False
    )


def test_module_load_works(node):
    assert run(node).stdout == "module load jaspy\njaspy scheduler\n"


def test_source_works(node):
    assert run(node, setup=f"source {node}/activate").stdout == "venv scheduler\n"


def test_a_virtual_environment_over_another_one_needs_no_dask_command_of_its_own(node, tmp_path):
    """`dask` on the path would be that of the environment below, which does not know what the upper one adds."""
    packages = tmp_path / "packages"
    (packages / "dask").mkdir(parents=True)
    (packages / "dask" / "__main__.py").write_text("import sys\ndef main():\n    print(sys.argv, '' in sys.path)\n")
    (packages / "dask" / "__init__.py").write_text("")
    (tmp_path / "python").write_text(f'#!/bin/bash\nPYTHONPATH={packages} exec /usr/bin/python3 "$@"\n')
    (tmp_path / "python").chmod(0o755)
    for below in ("module load jaspy\n", ""):
        done = run(node, setup=f'{below}PATH="{tmp_path}:$PATH"')
        assert done.stdout.splitlines()[-1] == "['dask', 'scheduler'] False", done.stderr


def test_a_python_without_dask_takes_nothing_from_a_dask_on_the_path(node, tmp_path):
    (tmp_path / "python").symlink_to("/usr/bin/python3")
    done = run(node, setup=f'module load jaspy\nPATH="{tmp_path}:$PATH"')
    assert done.stdout.splitlines()[-1] == "jaspy scheduler"


def test_the_script_asks_for_bash(node):
    assert jobs.script(modules_init="", setup="", environment={}, gateway_environment={}, command=["dask"]).startswith(
        "#!/bin/bash -l\n"
    )


def test_a_job_has_what_the_user_has_set_in_a_profile_and_the_modules_of_the_site(node, tmp_path):
    (tmp_path / ".bash_profile").write_text("export PROXY=http://proxy.test\n")
    script = tmp_path / "script"
    script.write_text(
        jobs.script(
            modules_init=str(node / "modules.sh"),
            setup="module load jaspy",
            environment={},
            gateway_environment={},
            command=["dask", "scheduler"],
        )
    )
    script.chmod(0o755)
    subprocess.run([script], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True)
    assert b"PROXY=http://proxy.test" in (node / "environment").read_bytes().split(b"\0")


@pytest.mark.parametrize("setup", ["cat <<EOF", "echo 'open", 'echo "open', "if true; then", "(", "for"])
def test_a_setup_that_is_no_complete_script_does_not_swallow_the_rest(node, setup):
    done = run(node, setup=f"source {node}/activate\n{setup}")
    assert done.returncode in (0, 127)
    assert "scheduler" in done.stdout or NO_DASK in done.stderr


def test_a_setup_that_exits_ends_the_job_with_its_code(node):
    done = run(node, setup="exit 3")
    assert (done.returncode, done.stdout) == (3, "")


def test_a_failed_setup_and_a_missing_dask_are_told_in_the_log(node):
    done = run(node, setup="false")
    assert done.returncode == 127
    assert SETUP_FAILED in done.stderr
    assert NO_DASK in done.stderr


def test_no_line_of_a_setup_is_a_directive_of_sbatch(node):
    script = jobs.script(
        modules_init="", setup="#SBATCH --uid=0", environment={}, gateway_environment={}, command=["dask"]
    )
    # sbatch reads its directives up to the first line that is neither empty nor a comment
    head = script.split("\n#SBATCH")[0].splitlines()
    assert any(line and not line.startswith("#") for line in head[1:]) or "\n#SBATCH" not in script


def test_each_task_of_an_array_is_the_worker_of_its_number(node):
    command = ["dask", "worker", "tls://10.0.0.1:1", "--name", "worker_name", "--lifetime", "worker_lifetime"]
    tasks = {"worker_name": ["first", "second", "third"], "worker_lifetime": ["1s", "2s", "3s"]}
    out = [run(node, command=command, tasks=tasks, task=task).stdout for task in range(3)]
    assert [line.split()[-3::2] for line in out] == [["first", "1s"], ["second", "2s"], ["third", "3s"]]


@pytest.mark.parametrize(
    ("first_line", "expected"),
    [
        ("#!{python}", "{python} program.py worker --name x"),
        ("#!/bin/bash", "dask worker tls://10.0.0.1:1 --name x"),
        ("#!/no/such/python -s", "dask worker tls://10.0.0.1:1 --name x"),
        ("\x7fELF", "dask worker tls://10.0.0.1:1 --name x"),
    ],
)
def test_a_job_runs_its_program_with_the_python_of_dask_and_else_dasks_own_command(tmp_path, first_line, expected):
    (tmp_path / "dask").write_text(first_line.format(python=tmp_path / "python3.11") + "\n")
    (tmp_path / "dask").chmod(0o755)
    (tmp_path / "activate").write_text(f'PATH="{tmp_path}:$PATH"\nexec() {{ echo "$@"; }}\n')
    done = run(
        tmp_path,
        modules_init="",
        setup=f"source {tmp_path}/activate",
        command=["--name", "x"],
        program=["program.py", "worker"],
        instead=["dask", "worker", "tls://10.0.0.1:1"],
    )
    assert done.stdout.strip() == expected.format(python=tmp_path / "python3.11")


def test_what_the_gateway_needs_cannot_be_lost_by_a_setup(node):
    done = run(
        node,
        setup="module load jaspy\nexport DASK_GATEWAY_CLUSTER_NAME=other",
        environment={"MINE": "1"},
        gateway_environment={"DASK_GATEWAY_CLUSTER_NAME": "mine"},
    )
    assert done.returncode == 0
    environment = (node / "environment").read_text().split("\0")
    assert "DASK_GATEWAY_CLUSTER_NAME=mine" in environment
    assert "MINE=1" in environment


@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")), deadline=None)
def test_any_value_of_a_variable_arrives_as_it_is(node, value):
    done = run(node, environment={"MINE": value})
    assert done.returncode == 0
    assert f"MINE={value}".encode() in (node / "environment").read_bytes().split(b"\0")
