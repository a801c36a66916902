"""A user does what can be done to the gateway's folders in a home folder, and a stop still stops."""

import json

import scenario

FOLDERS = """
import os, sys
folder = f"/home/users/alice/.dask-gateway/{sys.argv[1]}"
os.makedirs(f"{folder}/closed/within")
os.chmod(f"{folder}/closed", 0)
here = os.open(folder, os.O_RDONLY)
for _ in range(2000):
    os.mkdir("d", dir_fd=here)
    here, parent = os.open("d", os.O_RDONLY, dir_fd=here), here
    os.close(parent)
os.symlink("/etc", f"{folder}/link")
logs = f"/home/users/alice/.dask-gateway/logs/{sys.argv[1]}"
os.rename(f"{logs}/scheduler.log", f"{logs}/moved.log")
os.mkfifo(f"{logs}/scheduler.log")
"""


def test_what_a_user_made_of_the_folders_keeps_no_job_and_no_key_alive(new_cluster):
    name = new_cluster("alice")
    scenario.put_file("login", "alice", "/home/users/alice/tricks.py", FOLDERS)
    done = scenario.as_user("login", "alice", f"python3 tricks.py {name}")
    assert done.returncode == 0, done.stderr
    gateway = scenario.host("gateway")
    try:
        gateway.check_output("gateway-admin stop %s", name)
        scenario.wait_until("no job of alice is left", lambda: not scenario.jobs_of("alice"), timeout=30)
        states = scenario.wait_until(
            "the cluster has ended",
            lambda: [
                cluster["state"]
                for cluster in json.loads(gateway.check_output("gateway-admin clusters --ended --json"))["clusters"]
                if cluster["cluster"] == name and cluster["state"] != "stopping"
            ],
            timeout=30,
        )
        assert states == ["stopped"]
        assert scenario.staged_files_of("alice") == []
        left = scenario.host("node1").check_output("ls /home/users/alice/.dask-gateway/%s", name)
        assert left == "d"
        assert gateway.file("/etc/passwd").exists
    finally:
        scenario.host("node1").check_output(
            "rm -rf /home/users/alice/.dask-gateway/%s /home/users/alice/.dask-gateway/logs/%s", name, name
        )
