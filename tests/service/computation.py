"""A user's program on the login host that says, line by line, how far its computation is."""

import subprocess

import scenario


class Computation:
    """A program that runs; the first thing it prints is ``computing <name of its cluster>``.

    Parameters
    ----------
    user : str
        A user of the site's directory, with a token file on the login host.
    code : str
        Python, run with jaspy.
    timeout : int
        Seconds after which it is ended.
    """

    def __init__(self, user: str, code: str, timeout: int):
        path = f"{scenario.site()['site_home_directory']}/{user}/computation.py"
        scenario.put_file("login", user, path, code)
        self.process = subprocess.Popen(
            ["docker", "exec", f"{scenario.PREFIX}-login", "runuser", "-l", user, "-c",
             f"module load jaspy && timeout {timeout} python {path}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.cluster = self.line("computing")

    def line(self, first_word: str) -> str:
        """The rest of the next line that the program prints; it must begin with `first_word`."""
        line = self.process.stdout.readline()
        if not line.startswith(first_word):
            out, err = self.process.communicate()
            raise AssertionError(f"expected a line {first_word!r}, the program printed: {line}{out}\n{err}")
        return line.removeprefix(first_word).strip()

    def rest(self) -> list[str]:
        """The lines that are left, up to its end."""
        out, _ = self.process.communicate(timeout=400)
        return out.splitlines()

    def end(self) -> None:
        """End the program; its cluster goes on."""
        self.process.kill()
        self.process.communicate()
