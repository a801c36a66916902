"""dask-jobqueue: the scheduler runs in the user's own process, each worker is a job."""

from dask_jobqueue import SLURMCluster
from distributed import Client

from .base import Competitor


class JobQueue(Competitor):
    """``SLURMCluster`` as its documentation shows it."""

    cluster = None

    def create(self, workers: int) -> None:
        self.cluster = SLURMCluster(
            queue=self.settings["partition"],
            cores=self.settings["cores"],
            processes=1,
            memory=f"{self.settings['memory_mib']}MiB",
            job_cpu=self.settings["cores"],
            job_mem=f"{self.settings['memory_mib']}M",
            python="python",
            job_script_prologue=[self.settings["setup"]],
            log_directory=self.settings["folder"],
            n_workers=workers,
        )

    def connect(self) -> None:
        self.client = Client(self.cluster)

    def scale(self, workers: int) -> None:
        self.cluster.scale(jobs=workers)

    def close(self) -> None:
        super().close()
        if self.cluster is not None:
            self.cluster.close()
