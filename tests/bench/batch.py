"""Room on the batch cluster, and a partition that holds every job, for as long as it is measured.

The scenario's nodes are made for a handful of jobs. Here they promise more processors and memory than they have,
which SLURM takes on trust; ``playbooks/slurm.yml`` puts back what a benchmark that was killed has left.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import scenario

from bench import hosts

CONFIGURATION = "/etc/slurm/slurm.conf"
PLUGIN = "/etc/slurm/job_submit.lua"
KEPT = "/etc/slurm/slurm.conf.before-bench"
HELD = "held"
MARK = "# Enlarged by script/bench"


def roomy(configuration: str, cpus: int, memory_mib: int) -> str:
    """slurm.conf with at least that much on each node, and with the partition that holds."""
    found = False

    def enlarge(line: re.Match) -> str:
        nonlocal found
        found = True
        text = line[0]
        for name, wanted in (("CPUs", cpus), ("RealMemory", memory_mib)):
            value = re.search(rf"\b{name}=([0-9]+)", text)
            if value is None:
                text += f" {name}={wanted}"
            elif int(value[1]) < wanted:
                text = text.replace(value[0], f"{name}={wanted}")
        return text

    configuration = re.sub(r"^NodeName=.*$", enlarge, configuration, flags=re.MULTILINE)
    if not found:
        raise ValueError(f"{CONFIGURATION} names no node")
    return configuration.rstrip("\n") + f"\n{MARK}\nPartitionName={HELD} Nodes=ALL State=UP\nJobSubmitPlugins=lua\n"


def holding(seconds: int) -> str:
    """The plugin that gives each job of that partition a begin time."""
    return f"""function slurm_job_submit(job, partitions, uid)
  if job.partition == "{HELD}" then
    job.begin_time = os.time() + {seconds}
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""


def _restart() -> None:
    hosts.run("controller", "systemctl restart slurmctld")
    for node in hosts.NODES:
        hosts.run(node, "systemctl restart slurmd")

    def idle() -> bool:
        try:
            states = hosts.run("controller", "sinfo --noheader --Node --format=%T").split()
        except RuntimeError:
            return False  # slurmctld is starting
        return bool(states) and set(states) == {"idle"}

    scenario.wait_until("all nodes of the batch cluster are idle", idle, timeout=60)


@contextmanager
def room(cpus: int, memory_mib: int, hold: int) -> Iterator[dict]:
    """A batch cluster with room for all that is measured; as it was, afterwards."""
    original = hosts.run("controller", f"cat {CONFIGURATION}")
    if MARK in original:  # left by a benchmark that was killed
        original = hosts.run("controller", f"cat {KEPT}")
    else:
        hosts.run("controller", f"cp -p {CONFIGURATION} {KEPT}")
    try:
        hosts.run("controller", f"cat > {PLUGIN} && chmod 644 {PLUGIN}", stdin=holding(hold))
        hosts.run("controller", f"cat > {CONFIGURATION}", stdin=roomy(original, cpus, memory_mib))
        _restart()
        parameters = re.search(r"^SchedulerParameters=(.*)$", original, re.MULTILINE)
        yield {
            "nodes": len(hosts.NODES),
            "promised_cpus_each": cpus,
            "promised_memory_mib_each": memory_mib,
            "scheduler_parameters": parameters[1] if parameters else "",
            "held_for_seconds": hold,
        }
    finally:
        hosts.run("controller", f"mv {KEPT} {CONFIGURATION} && rm -f {PLUGIN}")
        _restart()
