"""Dask Gateway: this service, and a stock gateway on the same hosts. Users of both write the same."""

from dask_gateway import BasicAuth, Gateway, JupyterHubAuth

from .base import Competitor


class GatewayCompetitor(Competitor):
    """A cluster of a gateway; which gateway and with which options, say the subclasses."""

    cluster = None

    def __init__(self, settings: dict):
        super().__init__(settings)
        self.gateway = self.make_gateway()

    def make_gateway(self) -> Gateway:
        raise NotImplementedError

    def options(self) -> dict:
        return {"partition": self.settings["partition"]}

    def create(self, workers: int) -> None:
        together = {"workers": workers} if workers else {}
        self.cluster = self.gateway.new_cluster(**self.options(), **together)

    def connect(self) -> None:
        self.client = self.cluster.get_client()

    def scale(self, workers: int) -> None:
        self.cluster.scale(workers)

    def close(self) -> None:
        super().close()
        if self.cluster is not None:
            self.cluster.shutdown()

    def sweep(self) -> None:
        for cluster in self.gateway.list_clusters():
            self.gateway.stop_cluster(cluster.name)


class Service(GatewayCompetitor):
    """This service, at the address that the login host knows it by."""

    def make_gateway(self) -> Gateway:
        return Gateway(auth=JupyterHubAuth(api_token=self.settings["service_token"]))

    def can_submit_together(self) -> bool:
        return "workers" in self.gateway.cluster_options()

    def options(self) -> dict:
        cores, memory = self.settings["cores"], self.settings["memory_mib"] / 1024
        sizes = {f"{kind}_{what}": size for kind in ("scheduler", "worker")
                 for what, size in (("cores", cores), ("memory", memory))}  # fmt: skip
        return super().options() | sizes


class StockGateway(GatewayCompetitor):
    """A gateway as upstream ships it; sizes and setup stand in its configuration."""

    def make_gateway(self) -> Gateway:
        stock = self.settings["stock"]
        return Gateway(
            stock["address"],
            proxy_address=stock["proxy_address"],
            public_address=stock["address"],
            auth=BasicAuth(password=stock["password"]),
        )
