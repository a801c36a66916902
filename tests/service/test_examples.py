"""The example notebooks, found in the file browser and run cell by cell in a user's server, as a person would."""

import json

import pytest
import scenario

FOLDER = "dask-examples"
# What the cells show that a person would look at: the number of the code cell from the end, and a part of its text
SHOWN = {
    "1_first_cluster": {
        1: "[]",
        2: "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]",
        3: "2.66666646",
    },
    "2_xarray_on_zarr": {2: "True", 3: "month"},
    "3_your_own_environment": {2: "1.2 billion", 4: "installed"},
    "4_adaptive_scaling": {2: "0", 3: f"{sum(n**2 for n in range(36))} with more than one worker: True"},
    "5_reading_errors": {2: "[0.25, 0.5]", 3: "ZeroDivisionError", 4: "/no/such/environment", 5: "worker_cores"},
}


def contents(user, path: str = "") -> dict:
    """What the file browser shows of a folder or file."""
    answer = user.api.get(f"{user.server_url}/api/contents/{path}", timeout=30)
    answer.raise_for_status()
    return answer.json()


@pytest.fixture(scope="module", autouse=True)
def nothing_left():
    yield
    scenario.as_user("hub", "alice", "rm -rf ~/dask-example* ~/*-Copy*.ipynb")


def test_every_example_is_in_the_file_browser_and_nothing_of_it_can_be_overwritten(alices_server):
    assert FOLDER in [entry["name"] for entry in contents(alices_server)["content"]]
    entries = contents(alices_server, FOLDER)["content"]
    assert sorted(entry["name"] for entry in entries) == sorted(f"{name}.ipynb" for name in SHOWN)
    for entry in entries:
        path = f"{alices_server.server_url}/api/contents/{entry['path']}"
        notebook = contents(alices_server, entry["path"])
        assert notebook["writable"] is False
        saved = alices_server.api.put(path, json={"type": "notebook", "content": notebook["content"]}, timeout=30)
        assert saved.status_code == 403
    # What the user wants to change is a file of the user's own
    copied = alices_server.api.post(
        f"{alices_server.server_url}/api/contents/", json={"copy_from": entries[0]["path"]}, timeout=30
    )
    assert copied.status_code == 201
    assert contents(alices_server, copied.json()["path"])["writable"] is True


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.usefixtures("no_clusters_left")
def test_an_example_shows_what_it_promises(alices_server, name):
    notebook = contents(alices_server, f"{FOLDER}/{name}.ipynb")["content"]
    assert notebook["metadata"]["kernelspec"]["name"] == "jaspy"
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"])
    with alices_server.kernel("jaspy") as kernel:
        shown = [kernel.run(code) for code in cells]
    for number, text in SHOWN[name].items():
        assert text in shown[-number], json.dumps(shown, indent=1)
    scenario.wait_until("the example has left no job behind", lambda: not scenario.jobs_of("alice"))
