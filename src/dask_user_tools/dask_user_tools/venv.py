"""jaspy-venv: a virtual environment of one's own over the jaspy release that is loaded."""

import subprocess
import sys
import sysconfig
from pathlib import Path

from dask_user_tools import versions

USAGE = """usage: jaspy-venv FOLDER

Make a virtual environment over the jaspy release that is loaded: its packages, and your own over them."""


def packages_folder() -> str:
    """The folder of this environment's packages, by the release's name, which stays when the release is mended."""
    folder = Path(sysconfig.get_path("purelib"))
    name = versions.this_release()
    for part in folder.parents:
        if name and part.name.startswith(f"{name}-") and (part.parent / name).exists():
            return str(part.parent / name / folder.relative_to(part))
    return str(folder)


def make(folder: Path) -> None:
    """Make it. A venv over a venv would see the packages of the Python below both, and none of these."""
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", folder], check=True)
    if sys.prefix != sys.base_prefix:
        minor = "{}.{}".format(*sys.version_info)
        # Where the name leads to when Python starts: a process keeps that release's files when it is mended, and does
        # not ask a shared file system for the link's target with each import
        line = f"import os, site; site.addsitedir(os.path.realpath({packages_folder()!r}))\n"
        (folder / f"lib/python{minor}/site-packages/jaspy.pth").write_text(line)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(USAGE)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    folder = Path(arguments[0]).expanduser().absolute()
    try:
        make(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{folder} could not be made: {error}", file=sys.stderr)
        return 1
    print(f'Made {folder}. In the options of a cluster: options.worker_setup = "source {folder}/bin/activate"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
