"""python -m dask_user_tools.conda: an environment of conda packages, without conda; needs py-rattler."""

import argparse
import asyncio
import shlex
import sys
import tempfile
from pathlib import Path

# What activates it, as in a venv: the packages' own scripts come after PATH, as conda has it
ACTIVATE = """# Use with: source {prefix}/bin/activate
export CONDA_PREFIX={quoted}
export PATH="$CONDA_PREFIX/bin:$PATH"
hash -r
for _script in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do
    [ ! -e "$_script" ] || . "$_script"
done
unset _script
"""


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dask_user_tools.conda",
        description="Solve, download and install conda packages into a new folder, by py-rattler.",
    )
    parser.add_argument("folder", type=lambda text: Path(text).expanduser().absolute(), help="a new folder")
    parser.add_argument("packages", nargs="+", metavar="package", help="a name, or name=version")
    parser.add_argument(
        "--channel", action="append", required=True, help="where packages are from, best first; may be repeated"
    )
    return parser.parse_args(words)


async def install(folder: Path, channels: list[str], packages: list[str], cache: str) -> int:
    """Choose versions that fit together and install them; how many there are."""
    import rattler

    records = await rattler.solve(
        channels,
        packages,
        gateway=rattler.Gateway(cache_dir=cache),
        virtual_packages=rattler.VirtualPackage.detect(),
    )
    await rattler.install(records, folder, cache_dir=cache, show_progress=False)
    return len(records)


def write_activation(folder: Path) -> None:
    """Write the script that puts the environment on the path of a shell or job."""
    script = folder / "bin/activate"
    script.parent.mkdir(exist_ok=True)
    script.write_text(ACTIVATE.format(prefix=folder, quoted=shlex.quote(str(folder))))


def main(words: list[str] | None = None) -> int:
    """Run the command."""
    chosen = arguments(sys.argv[1:] if words is None else words)
    try:
        import rattler  # noqa: F401
    except ImportError:
        print(f"py-rattler is not in {sys.prefix}: python -m pip install py-rattler", file=sys.stderr)
        return 1
    if chosen.folder.exists():
        print(f"{chosen.folder} is there already: name another folder, or remove it first", file=sys.stderr)
        return 1
    try:
        # Beside the folder, so that files are linked and not copied
        chosen.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".conda-", dir=chosen.folder.parent) as cache:
            count = asyncio.run(install(chosen.folder, chosen.channel, chosen.packages, cache))
        write_activation(chosen.folder)
    except Exception as error:  # rattler's own are of many classes; their text is for people
        print(f"{chosen.folder} could not be made: {error}", file=sys.stderr)
        return 1
    print(
        f"Made {chosen.folder} of {count} packages. In the options of a cluster: "
        f'options.worker_setup = "source {chosen.folder}/bin/activate"'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
