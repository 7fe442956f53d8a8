"""The converter, the pipelines and the analyses on two Dask workers, one of which is killed: the same bytes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from utils.errors import InputError, OptionError
from utils.fits_io import cluster

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("Bias", "Darks", "Flats")
RUNS = {
    "bias": ("bias_pipeline/run_pipeline.py", "--basepath", "campaign"),
    "dark": ("dark_pipeline/run_pipeline.py", "--basepath", "campaign"),
    "flat": ("flat_pipeline/run_pipeline.py", "--basepath", "campaign"),
    "structure": ("structure_analysis.py", "campaign", "--reduce"),
    "degradation": ("dark_pipeline/steps/outgasing_destruction_analysis.py", "campaign", "--calibrate"),
}
ENVIRONMENT = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}


def start(words, folder, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=folder, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


def command(words, folder):
    """Run a command to its end and return what it printed; status 0 is asked for."""
    process = start(words, folder)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


class Cluster:
    """A scheduler and workers without nanny, each a process that knows nothing of this program."""

    def __init__(self, folder):
        self.folder, self.file = folder, folder / "scheduler.json"
        self.scheduler = self._start("dask_scheduler", "--port", "0", "--scheduler-file", self.file)
        deadline = time.monotonic() + 120
        while not self.file.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.workers = [self.worker() for _ in range(2)]

    def _start(self, what, *words):
        words = ["-m", f"distributed.cli.{what}", "--no-dashboard", *map(str, words)]
        return subprocess.Popen(
            [sys.executable, *words], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def worker(self):
        return self._start(
            "dask_worker", "--scheduler-file", self.file, "--nthreads", "1", "--no-nanny",
            "--local-directory", self.folder,
        )  # fmt: skip

    def close(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with a raw campaign, as the simulator writes it."""
    folder = tmp_path_factory.mktemp("scheduler")
    words = ["-m", "utils.simulate_campaign", folder / "campaign", "--plan", "epochs"]
    command([*words, "--size", "96", "64", "--frames", "3"], ROOT)
    return folder


@pytest.fixture(scope="module")
def dask_cluster(folder):
    made = Cluster(folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def local(folder):
    """Converted campaign, and what every command makes of it without a cluster."""
    # The raw tree once more, for the cluster.
    shutil.copytree(folder / "campaign", folder / "again" / "campaign")
    convert(folder)
    for name, words in RUNS.items():
        run(name, words, folder, "local")
    return folder / "local"


def convert(folder, *options):
    sections = [f"campaign/{name}" for name in SECTIONS]
    return command([ROOT / "utils" / "raw_to_fits.py", *sections, *options], folder)


def run(name, words, folder, place, *options):
    """Run a command into folder/place/name under the name that it has in all places, as that stands in products."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    plots = ("--plots", "none")
    printed = command([ROOT / words[0], *words[1:], "--output-dir", "out", *plots, *options], folder)
    (folder / place).mkdir(exist_ok=True)
    (folder / "out").rename(folder / place / name)
    return printed


def files(folder, pattern="*"):
    return {path.relative_to(folder): path for path in folder.rglob(pattern) if path.is_file()}


def differing(one, other):
    """Names of files that only one folder has, or whose bytes differ; run.json and the report tell when they were made."""
    mine, theirs = files(one), files(other)
    told = {"run.json", "report.html"}
    return sorted(
        str(name) for name in mine.keys() | theirs.keys()
        if name not in mine or name not in theirs
        or (name.name not in told and mine[name].read_bytes() != theirs[name].read_bytes())
    )  # fmt: skip


def without_times(path):
    """What run.json says of products and frames."""
    content = json.loads(path.read_text(encoding="utf-8"))
    (one,) = content["runs"]
    kept = ("status", "inputs", "products", "warnings", "missing", "rejected")
    del content["products"]["report.html"]["digest"]  # which tells times
    return content["products"], {key: one[key] for key in kept}


def test_conversion_is_the_same(folder, local, dask_cluster):
    printed = convert(folder / "again", "--scheduler", dask_cluster.file)
    assert "converted, 0 kept, 0 BADSIZE, 0 not converted" in printed
    here, there = (files(place / "campaign", "*.fits") for place in (folder, folder / "again"))
    assert here.keys() == there.keys()
    assert sum("fits" in name.parts for name in here) == 180
    assert not [name for name in here if here[name].read_bytes() != there[name].read_bytes()]


@pytest.mark.parametrize("name", RUNS)
def test_products_are_the_same(name, folder, local, dask_cluster):
    printed = run(name, RUNS[name], folder, "remote", "--scheduler", dask_cluster.file)
    assert "2 workers, 2 threads" in printed
    assert len(files(local / name, "*.fits")) > 5
    assert differing(local / name, folder / "remote" / name) == []
    here, there = (without_times(place / name / "run.json") for place in (local, folder / "remote"))
    assert here == there


def kill_at_work(made, found):
    """Kill the first worker that has a unit under way, and note its process."""

    def busy(dask_scheduler):
        return [state.address for state in dask_scheduler.workers.values() if state.processing]

    with distributed.Client(scheduler_file=str(made.file), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        numbers = client.run(os.getpid)
        while not found:
            for address in client.run_on_scheduler(busy):
                os.kill(numbers[address], signal.SIGKILL)
                found.append(numbers[address])
                break


def test_a_worker_killed_at_work_is_survived(folder, local, dask_cluster):
    found = []
    killer = threading.Thread(target=kill_at_work, args=(dask_cluster, found), daemon=True)
    killer.start()
    run("bias", RUNS["bias"], folder, "killed", "--scheduler", dask_cluster.file)
    killer.join(timeout=30)
    (pid,) = found
    (dead,) = [process for process in dask_cluster.workers if process.pid == pid]
    assert dead.wait(timeout=10) == -signal.SIGKILL
    dask_cluster.workers.append(dask_cluster.worker())  # one that joins later gets the program, too
    assert differing(local / "bias", folder / "killed" / "bias") == []


def test_a_killed_run_is_taken_up(folder, local, dask_cluster):
    shutil.rmtree(folder / "out", ignore_errors=True)
    words = [ROOT / RUNS["bias"][0], *RUNS["bias"][1:], "--output-dir", "out", "--plots", "none"]
    words += ["--scheduler", dask_cluster.file]
    process = start(words, folder)
    while process.poll() is None and not list((folder / "out").glob(".spool-*")):
        time.sleep(0.001)
    process.kill()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, printed
    assert list((folder / "out").glob(".spool-*"))
    command([*words, "--resume"], folder)
    assert differing(local / "bias", folder / "out") == []


def children_of(pid):
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found |= {int(path.parent.name)} | children_of(int(path.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_ctrl_c_leaves_no_worker_of_a_local_cluster(folder, local):
    words = [ROOT / RUNS["dark"][0], *RUNS["dark"][1:], "--output-dir", "stopped", "--scheduler", "local:2"]
    process = start(words, folder, start_new_session=True)
    for line in process.stdout:
        if "2 workers" in line:
            break
    children = children_of(process.pid)
    assert len(children) >= 2
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "interrupted, nothing half-written is left" in printed
    assert "Traceback" not in printed
    deadline = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in children if alive(pid)]


def refusal(words, folder):
    process = start(words, folder)
    printed, _ = process.communicate(timeout=120)
    assert "Traceback" not in printed
    return process.returncode, printed


def test_a_scheduler_that_is_not_there(folder, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.5)
    with (
        pytest.raises(InputError, match=r"--scheduler tcp://127\.0\.0\.1:9: no answer within 0\.5 s"),
        cluster.connect("tcp://127.0.0.1:9"),
    ):
        pass
    words = [ROOT / RUNS["bias"][0], "--basepath", "campaign", "--output-dir", "none"]
    status, printed = refusal([*words, "--scheduler", "gone.json"], folder)
    assert status == 2
    assert "--scheduler gone.json: no such file, expected one that a scheduler has written" in printed
    assert not (folder / "none").exists()


@pytest.mark.parametrize("address", ["local:0", "local:many", "local:"])
def test_a_local_cluster_of_no_number(address):
    expected = rf"--scheduler {address}: got '.*', expected local:N with a whole number N above 0"
    with pytest.raises(OptionError, match=expected), cluster.connect(address):
        pass


def test_without_dask_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    expected = "--scheduler local: got no package dask.distributed, expected it: pip install distributed"
    with pytest.raises(OptionError, match=expected), cluster.connect("local"):
        pass


def test_a_mode_that_reads_no_frames_refuses_the_option(folder, local):
    words = [ROOT / RUNS["bias"][0], "--mode", "fit_model", "--output-dir", local / "bias"]
    status, printed = refusal([*words, "--scheduler", "local"], folder)
    assert status == 2
    assert "--scheduler: got --mode fit_model, which does not use it" in printed


def sizes(paths):
    return [os.path.getsize(path) for path in paths]


def test_workers_that_do_not_see_the_frames(dask_cluster, tmp_path, monkeypatch):
    """The size of a file tells a file system that is not shared."""
    path = tmp_path / "here.fits"
    path.write_bytes(b"xyz")
    with cluster.connect(str(dask_cluster.file)):
        for told, expected in (
            (
                (str(path), 5),
                r"here\.fits: worker .* sees 3 bytes, expected 5: a file system that all machines",
            ),
            (
                (str(tmp_path / "no"), 5),
                r"no: worker .* does not see it \(No such file or directory\), expected a",
            ),
        ):
            monkeypatch.setattr(cluster.cluster_unit, "witness_of", lambda file, told=told: told)
            with pytest.raises(InputError, match=expected):
                list(cluster.units(cluster._calling, (sizes, ()), [[path]], what="files", witness=path))
