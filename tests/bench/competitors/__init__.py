"""Ways to a Dask cluster on SLURM, behind one interface; runs on the login host, as a user.

Started as a program it carries out what it reads from standard input, see __main__.py. It is copied to the login host
and imports nothing of the rest of the repository.
"""

from importlib import import_module

# Loaded when wanted: not everybody who imports this package has what all of them need.
COMPETITORS = {
    "by-hand": ("by_hand", "ByHand"),
    "jobqueue": ("jobqueue", "JobQueue"),
    "stock": ("gateway", "StockGateway"),
    "service": ("gateway", "Service"),
}


def load(name: str) -> type:
    """The class of a competitor, and everything that it imports."""
    module, attribute = COMPETITORS[name]
    return getattr(import_module(f".{module}", __package__), attribute)
