"""Users who lost the service while their clusters run: they are warned, and then their clusters are stopped."""

import asyncio
import time

from traitlets import Float, Instance, Integer
from traitlets.config import LoggingConfigurable

from . import metrics
from .accounts import AccountsCheck

LOST = ("not held", "held before")


class Revocations(LoggingConfigurable):
    """Asks again and again about the users who have clusters, and stops those of a user who lost the service.

    A cluster is stopped after two answers that say no, the second one when the time of the warning is over. No answer,
    an answer from memory, and whatever else can be wrong with a user are no reason to stop anything.

    `clusters` knows the clusters; it has

    - ``running()``: a list of those that run, each with `name`, `username`, and `lost_since`: what was last said
      to ``remember``, or None;
    - ``remember(cluster, lost_since)``: keep that over a restart;
    - ``await warn(cluster, sentence)``: put a sentence where its user sees it;
    - ``await stop(cluster, sentence)``: stop it, and say why.
    """

    within = Float(
        600,
        help="""
        Seconds within which the clusters of a user who lost the service are stopped; 0 for never.

        For the first half of it, at least, the user is warned in the cluster's log.
        """,
        config=True,
    )
    batch_size = Integer(20, min=1, help="How many users are asked about at a time.", config=True)

    check = Instance(AccountsCheck)
    clusters = Instance(object)
    clock = staticmethod(time.time)

    @property
    def period(self):
        """Seconds between two rounds: short enough that a loss is seen, warned of and seen again in time."""
        return self.within / 6

    @property
    def warning_time(self):
        """Seconds between the warning and the end."""
        return self.within / 2

    async def run(self):
        """Rounds, for ever."""
        while self.within > 0:
            await asyncio.sleep(self.period)
            try:
                await self.round()
            except Exception:
                self.log.error("Exception while asking who lost the service", exc_info=True)

    async def round(self):
        """Ask about every user who has clusters."""
        by_user = {}
        for cluster in self.clusters.running():
            by_user.setdefault(cluster.username, []).append(cluster)
        users = sorted(by_user)
        for start in range(0, len(users), self.batch_size):
            decisions = await asyncio.gather(
                *(self.check.check(user, fresh=True, audited=False) for user in users[start : start + self.batch_size])
            )
            for decision in decisions:
                if decision.source == "live" and decision.known:
                    await self._conclude(by_user[decision.user], decision)
            if not any(decision.known and decision.source == "live" for decision in decisions):
                self.log.warning("It can't be found out who lost the service; nothing is concluded from that")
                return

    async def _conclude(self, clusters, decision):
        lost = not decision.allowed and decision.kind in LOST
        for cluster in clusters:
            try:
                if decision.allowed and cluster.lost_since is not None:
                    await self._relieve(cluster, decision)
                elif lost and cluster.lost_since is None:
                    await self._warn(cluster, decision)
                elif lost and self.clock() - cluster.lost_since >= self.warning_time:
                    await self._stop(cluster, decision)
            except Exception as exc:
                self.log.error("Cluster %s of %s: %s: %s", cluster.name, decision.user, type(exc).__name__, exc)

    async def _warn(self, cluster, decision):
        end = time.strftime("%H:%M", time.localtime(self.clock() + self.warning_time))
        self.clusters.remember(cluster, self.clock())
        self._write(decision, "warned", cluster)
        await self.clusters.warn(
            cluster, f"This cluster will be stopped at {end}, save your results: {decision.message}"
        )

    async def _relieve(self, cluster, decision):
        self.clusters.remember(cluster, None)
        self._write(decision, "relieved", cluster)
        await self.clusters.warn(
            cluster, f"This cluster goes on: {decision.user} holds the service '{self.check.service}' again."
        )

    async def _stop(self, cluster, decision):
        self._write(decision, "stopped", cluster)
        await self.clusters.stop(cluster, f"The cluster was stopped: {decision.message}")

    def _write(self, decision, done, cluster):
        metrics.REVOCATIONS.labels(done).inc()
        self.log.warning("Cluster %s of %s: %s, %s", cluster.name, decision.user, done, decision.rule)
        self.check.audit.write(
            user=decision.user,
            decision=f"cluster {done}",
            reason=decision.rule,
            source=decision.source,
            service=self.check.service,
            cluster=cluster.name,
        )
