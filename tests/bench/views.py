"""A node's file systems seen in different ways, side by side: each view is a mount namespace of its own.

What is mounted there is seen there only, by what is started there, and is gone with the process that holds the view:
the node itself, and the jobs on it, notice nothing. Such processes end with this one, whatever ends this one.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import scenario

from bench import hosts

NODE = "node1"
FOLDER = "/var/tmp/bench-environments"
TREE = "/apps"
# Debian's libfuse for Python
PACKAGE = "python3-fusepy"
SERVER = "slow_tree.py"
MODULES_PATH = "/etc/environment-modules/modulespath"
CLEAN = ["env", "--ignore-environment", "--chdir=/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]


class View:
    """One way to see the node's files, in which commands can be run.

    Parameters
    ----------
    name : str
        One word.
    node : int
        The process on this machine that is the node's first.
    holder : int
        The process on this machine that is in the namespace.
    """

    def __init__(self, name: str, node: int, holder: int):
        self.name = name
        self.node = node
        self.holder = holder

    def run(self, command: list[str], *, user: str = "root", timeout: float = 120) -> str:
        """What a command prints that sees the node's files this way.

        Raises
        ------
        RuntimeError
            When it fails; with what it said.
        """
        # Into the node as it is otherwise; without a session, whose making and end would be work of the node's
        where = [f"--{kind}=/proc/{self.node}/ns/{kind}" for kind in ("pid", "net", "uts", "ipc")]
        call = ["nsenter", *where, *self.files(), "--", *CLEAN, "runuser", "-u", user, "--", *command]
        done = subprocess.run(call, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise RuntimeError(f"{self.name}: code {done.returncode} of {' '.join(command)}: {said}")
        return done.stdout

    def files(self) -> list[str]:
        """The words for nsenter that lead to these files."""
        return [f"--mount=/proc/{self.holder}/ns/mnt", f"--root=/proc/{self.holder}/root"]

    def operations(self) -> list[str]:
        """What the slow tree has done since it was asked last: an operation and a path each."""
        log = Path(f"/proc/{self.holder}/root{FOLDER}/{self.name}.log")
        if not log.exists():
            return []
        lines = log.read_text().splitlines()
        log.write_text("")
        return lines


def copies(fstab: str) -> list[tuple[str, str]]:
    """The copies of releases that a host mounts, each with the place of its release."""
    rows = [line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    return [(row[0], row[1]) for row in rows if len(row) > 3 and row[1].startswith(f"{TREE}/") and "bind" in row[3]]


def without_copies(modules_path: str, mounted: list[tuple[str, str]]) -> str:
    """A search path for modulefiles, of a line each, as a host has it that keeps no copies."""
    folders = {str(Path(copy).parent) for copy, _ in mounted}
    return "".join(line for line in modules_path.splitlines(keepends=True) if str(Path(line).parent) not in folders)


def below(mounted: list[tuple[str, str]], *, slow: bool, staged: bool) -> list[list[str]]:
    """The commands that make what lies below the slow tree, or is all there is without one."""
    commands = []
    if not staged:
        commands += [["umount", place] for _, place in mounted]
        commands += [["mount", "--bind", f"{FOLDER}/modulespath", MODULES_PATH]]
    if slow:
        # What is to be served, without what is mounted in it
        commands += [["mount", "--bind", TREE, f"{FOLDER}/tree"]]
    return commands


@contextmanager
def process(command: list[str], up: Callable[[int], bool]) -> Iterator[int]:
    """A process that ends with this one, and its number as soon as it is what it is to be."""
    started = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stderr=subprocess.PIPE, text=True)

    def there() -> bool:
        if started.poll() is not None:
            raise RuntimeError(f"code {started.returncode} of {' '.join(command)}: {started.stderr.read()}")
        return up(started.pid)

    try:
        scenario.wait_until(f"there is what {' '.join(command)} makes", there, 20)
        yield started.pid
    finally:
        started.kill()
        started.wait(20)


@contextmanager
def view(name: str, wait: float | None = None, *, staged: bool = False) -> Iterator[View]:
    """A view of the node, with copies or without; with a wait before each operation on the tree, or not."""
    mounted = copies(hosts.run(NODE, "cat /etc/fstab"))
    inspect = ["docker", "inspect", "--format", "{{.State.Pid}}", f"{scenario.PREFIX}-{NODE}"]
    node = int(subprocess.run(inspect, capture_output=True, text=True, check=True).stdout)
    hold = ["nsenter", f"--target={node}", "--mount", "--root", "--", *CLEAN, "unshare", "--mount", "sleep", "infinity"]
    with ExitStack() as stack:
        holder = stack.enter_context(process(hold, lambda pid: Path(f"/proc/{pid}/comm").read_text() == "sleep\n"))
        made = View(name, node, holder)
        for command in below(mounted, slow=wait is not None, staged=staged):
            made.run(command)
        if wait is not None:
            # A process of this machine, because the node itself may not open /dev/fuse
            words = [f"{FOLDER}/{SERVER}", f"{FOLDER}/tree", TREE, str(wait), f"{FOLDER}/{name}.log"]
            serve = ["nsenter", *made.files(), "--", *CLEAN, "python3", *words]
            mounts = Path(f"/proc/{holder}/mounts")
            stack.enter_context(process(serve, lambda pid: f"slow-tree {TREE} " in mounts.read_text()))
            if staged:
                # Those that the node has mounted lie below the slow tree here
                for copy, place in mounted:
                    made.run(["mount", "-o", "bind,ro", copy, place])
        yield made


@contextmanager
def room(files: dict[str, str]) -> Iterator[None]:
    """What views need on the node, and these files in their folder; all of it is gone afterwards."""
    had = packages()
    clean()  # what one that was killed has left
    try:
        hosts.run(
            NODE,
            f"mkdir -p {FOLDER}/tree; [ -e /dev/fuse ] || mknod -m 600 /dev/fuse c 10 229\n"
            f"export DEBIAN_FRONTEND=noninteractive\n"
            f"apt-get -qq update && apt-get -qq install --no-install-recommends {PACKAGE}",
            timeout=300,
        )
        shared = without_copies(hosts.run(NODE, f"cat {MODULES_PATH}"), copies(hosts.run(NODE, "cat /etc/fstab")))
        server = (Path(__file__).parent / SERVER).read_text()
        for name, text in {SERVER: server, "modulespath": shared, **files}.items():
            hosts.run(NODE, f"cat > {FOLDER}/{name}", stdin=text)
        yield
    finally:
        clean()
        if come := packages() - had:
            hosts.run(NODE, f"DEBIAN_FRONTEND=noninteractive apt-get -qq purge {' '.join(sorted(come))}", timeout=300)


def packages() -> set[str]:
    """Names of the packages on the node."""
    return set(hosts.run(NODE, "dpkg-query --show --showformat='${Package}\n'").split())


def clean() -> None:
    """Remove the folder. In the node's own namespace nothing is mounted in it."""
    hosts.run(NODE, f"rm -f /dev/fuse; rm -rf --one-file-system {FOLDER}")
