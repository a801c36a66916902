"""The command that makes users' environments of conda packages, as far as it needs no channel."""

import subprocess
import sys

from dask_user_tools import conda


def test_what_can_not_be_made_is_told_before_anything_is_solved(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rattler", None)
    words = [str(tmp_path / "env"), "python", "--channel", "file:///nowhere"]
    assert conda.main(words) == 1
    assert "python -m pip install py-rattler" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "rattler", object())
    (tmp_path / "env").mkdir()
    assert conda.main(words) == 1
    assert f"{tmp_path}/env is there already" in capsys.readouterr().err


def test_activating_sets_the_path_and_runs_the_scripts_of_packages(tmp_path):
    folder = tmp_path / "with space"
    (folder / "etc/conda/activate.d").mkdir(parents=True)
    (folder / "etc/conda/activate.d/proj.sh").write_text('export PROJ_DATA="$CONDA_PREFIX/share/proj"\n')
    (folder / "bin").mkdir()
    conda.write_activation(folder)
    script = f'set -eu; . \'{folder}/bin/activate\'; echo "$PROJ_DATA"; echo "${{PATH%%:*}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{folder}/share/proj", f"{folder}/bin"]
