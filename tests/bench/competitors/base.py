"""The interface that all competitors have."""

from distributed import Client


class Competitor:
    """One way to one Dask cluster. What a user has done before the cluster is wanted happens in the constructor.

    Parameters
    ----------
    settings : dict
        cores, memory_mib: of each scheduler and each worker
        setup: the lines of shell that make ``dask`` available to a job
        folder: a folder on the shared file system, for logs and addresses
        partition: SLURM's partition
    """

    def __init__(self, settings: dict):
        self.settings = settings
        self.client: Client | None = None

    def can_submit_together(self) -> bool:
        """Whether workers can be submitted along with the scheduler."""
        return False

    def create(self, workers: int) -> None:
        """Ask for a cluster; with that many workers at once where this can be said."""
        raise NotImplementedError

    def connect(self) -> None:
        """Make ``client``, as soon as that is possible."""
        raise NotImplementedError

    def scale(self, workers: int) -> None:
        """Ask for that many workers in all."""
        raise NotImplementedError

    def close(self) -> None:
        """End the cluster and its jobs."""
        if self.client is not None:
            self.client.close()

    def sweep(self) -> None:
        """End the clusters that failed runs have left, but for their jobs."""
