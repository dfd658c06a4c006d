"What all tests share: shapes that are checked, golden numbers, real material that may be absent"
import gc
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ: os.environ.setdefault("OMP_NUM_THREADS", "1") # As many test processes as cores: a thread for each, said before numpy is there

import numpy as np # noqa: E402
import pytest # noqa: E402

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE)) # The hook imports its checker by name
sys.path.insert(0, str(HERE/"startup")) # A stand-in for one slow import; its docstring says why
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE/"startup"), *filter(None, [os.environ.get("PYTHONPATH")])]) # An empty part would be the working folder
sys.dont_write_bytecode = False # Hundreds of child processes import the same modules, compiled once
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("RAY_worker_niceness", "0") # Not 15: its workers would wait until all other tests have ended

if signal.getsignal(signal.SIGINT)==signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler) # As in the background of a shell script; children would be deaf to Ctrl-C

import copies # noqa: E402
from hypothesis import settings # noqa: E402
from jaxtyping import install_import_hook # noqa: E402

# The default run tries the same examples every time; `pytest --hypothesis-profile=explore` looks for new ones, and so do the tests marked explore
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("repeatable")

if os.environ.get("AUDIO2POSE_SHAPES", "1")!="0":
    import shapes # noqa: F401
    install_import_hook("audio2pose", "shapes.check")


# ---- side by side

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    "As many processes as cores, four at most; what measures or attacks runs alone"
    return 0 if re.search(r"(?<!not )\b(benchmark|attack)\b", config.option.markexpr) else min(os.cpu_count() or 1, 4)


def pytest_configure(config):
    "Processes of tests, and workers of theirs, may be copies of one that has imported everything, which ends with the session"
    if copies.CAN_COPY: copies.copy_workers()
    if "PYTEST_XDIST_WORKER" in os.environ: return
    copies.start_session()
    config.add_cleanup(copies.end_session)


def pytest_sessionstart(session):
    "Compile librosa before processes start side by side, some of which import it on their own"
    if session.config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        subprocess.run([sys.executable, "-c", "from audio2pose.audio import import_librosa; import_librosa()"], cwd=ROOT, check=True)


def pytest_collection_finish(session):
    "What has been imported stays: the collector of garbage need not look through it again and again, which was a twentieth of the time"
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "A file's tests share what they prepare, so one process runs them all; each notebook goes to whoever is free"
    from xdist.scheduler import LoadScopeScheduling
    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid): return nodeid if "::test_runs[" in nodeid else nodeid.split("::")[0]
    return ByFile(config, log)


# ---- golden numbers and real material

@pytest.fixture(scope="session")
def golden():
    "Loads `tests/golden/NAME.npz`"
    def load(name):
        with np.load(HERE/"golden"/f"{name}.npz", allow_pickle=False) as file: return dict(file)
    return load


@pytest.fixture(scope="session")
def shared():
    "Finds a file of real material beside the repository, or skips the test"
    folder = Path(os.environ.get("AUDIO2POSE_SHARED", ROOT.parent/"shared"))
    def find(name):
        path = folder/name
        if not path.exists(): pytest.skip(f"{name} is not here; set AUDIO2POSE_SHARED to the folder that has it")
        return path
    return find


@pytest.fixture(scope="session")
def real_motion(shared):
    "A motion of AIST++"
    from audio2pose.motion import Motion
    return Motion.load(shared("real/aist/motions/gBR_sBM_cAll_d04_mBR0_ch01.pkl"))


# ---- processes

@pytest.fixture
def processes_begin_anew(monkeypatch):
    "What this test starts, and what that starts, is not copied"
    monkeypatch.delenv(copies.SESSION, raising=False)


# ---- where commands may write

@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    "An empty data folder for this test"
    monkeypatch.setenv("AUDIO2POSE_DATA", str(tmp_path/"data"))
    return tmp_path/"data"
