"Runs: what is refused, what is recorded, what happens to a run that fails, hangs, is killed, or is wanted twice."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import copies
import nbformat
import pytest

from audio2pose.engine import notebooks, runs
from audio2pose.core import InputError

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).with_name("audio2pose")
PARAMETERS = 'name:str = "a"   # Which\nsteps:int = 2    # How many\nrate:float = .5  # How fast\non:bool = False  # Or off\nlog:str = ""     # File that counts\nout:str = "."    # Folder'
COUNT = 'import os, pathlib\nif log: open(log, "a").write(name+"\\n")'
QUICK_ENV = os.environ|{"OMP_NUM_THREADS": "1"}


def notebook(path, *cells, tagged=True, prose="# A title"):
    "A notebook whose first cell holds the parameters"
    made = [nbformat.v4.new_code_cell(cell, id=f"c{i}") for i,cell in enumerate(cells)]
    if tagged: made[0].metadata["tags"] = ["parameters"]
    made.insert(0, nbformat.v4.new_markdown_cell(prose, id="title"))
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=made, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")))))
    return path


def alone(*words, **options):
    "The command in a process of its own"
    return copies.run([COMMAND, "run", *map(str, words)], capture_output=True, text=True, check=False, env=QUICK_ENV, timeout=300, **options)


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    "Kernels that this process starts are copies, where a test's processes may be"
    monkeypatch.setattr(copies.kernel_factory(), "default_provisioner_name", "copy")


def wait_for(condition, seconds=120):
    until = time.monotonic()+seconds
    while not condition():
        assert time.monotonic()<until, "nothing happened"
        time.sleep(.05)


# ---- what is refused, before anything runs

@pytest.fixture
def toy(tmp_path): return notebook(tmp_path/"toy.ipynb", PARAMETERS, COUNT, 'from pathlib import Path\n(Path(out)/"metrics.json").write_text(f\'{{"score": {steps*rate}}}\')')


@pytest.mark.parametrize("parameters,complaint", [
    (dict(step=3), "toy has no parameter step; it takes name, steps, rate, on, log, out"),
    (dict(steps="3"), "steps must be int, got '3'"), (dict(steps=3.), "steps must be int"), (dict(steps=True), "steps must be int"),
    (dict(rate="fast"), "rate must be float, got 'fast'"), (dict(rate=None), "rate must be float"), (dict(on=1), "on must be bool"), (dict(name=5), "name must be str")])
def test_wrong_parameters_are_refused(toy, tmp_path, parameters, complaint):
    with pytest.raises(InputError, match=complaint): runs.run(toy, parameters, tmp_path/"runs")
    with pytest.raises(InputError, match=complaint): runs.run_many(toy, [{}, parameters], tmp_path/"runs")
    assert not (tmp_path/"runs").exists()


def test_wrong_notebooks_are_refused(tmp_path):
    with pytest.raises(InputError, match="no cell is tagged 'parameters'"): runs.run(notebook(tmp_path/"a.ipynb", "x = 1", tagged=False), {}, tmp_path/"runs")
    with pytest.raises(InputError, match="the default of x, list.range.3.., is not a plain value"): runs.run(notebook(tmp_path/"b.ipynb", "x:list = list(range(3))"), {}, tmp_path/"runs")
    (tmp_path/"c.ipynb").write_text("{")
    with pytest.raises(InputError, match="not a notebook that can be read"): runs.run(tmp_path/"c.ipynb", {}, tmp_path/"runs")
    with pytest.raises(InputError, match="no such .ipynb file"): runs.run("4_trains", {}, tmp_path/"runs")


@pytest.mark.parametrize("text,complaint", [
    ("- 1", "expected lines of the form"), ("a: [", "not YAML"), ("steps: 3", "a grid has no steps"), ("notebook: [a]", "notebook must be a str"), ("grid: {}", "say which notebook"),
    ("notebook: toy\ngrid: {seed: 3}", "each line under grid is a name and a list"), ("notebook: toy\nvariants: [3]", "each variant is a set")])
def test_wrong_grid_files_are_refused(tmp_path, text, complaint):
    (tmp_path/"grid.yaml").write_text(text)
    with pytest.raises(InputError, match=complaint): runs.read_grid(tmp_path/"grid.yaml")


def shipped_files():
    "Files of parameters and grids that come with the package"
    return sorted((notebooks.notebooks_folder()/"params").rglob("*.yaml"))


def notebook_of(path):
    "The notebook a flat file is for: that of its name, or the first word of its first line"
    return path.stem if (notebooks.notebooks_folder()/f"{path.stem}.ipynb").is_file() else path.read_text().split("# ")[1].split(":")[0]


@pytest.mark.parametrize("path", shipped_files(), ids=lambda path: str(path.relative_to(notebooks.notebooks_folder()/"params")))
def test_shipped_file_fits_its_notebook(path):
    "Parameter files are of notebooks that take them, grids of notebooks that exist"
    content = runs.documents.read_yaml(path)
    if "notebook" in content:
        wanted = runs.read_grid(path)
        assert runs.plan_runs(wanted.notebook, wanted.settings, "x")
        return
    sections = {name: value for name,value in content.items() if isinstance(value, dict)} or {notebook_of(path): content}
    for name,parameters in sections.items(): assert runs.plan_runs(name, [parameters], "x"), path


@pytest.mark.parametrize("path", shipped_files(), ids=lambda path: str(path.relative_to(notebooks.notebooks_folder()/"params")))
def test_papermill_injects_python(path):
    "Plain papermill writes a file's names and values as code; it must be Python, and say what the file says"
    content = runs.documents.read_yaml(path)
    injected = {}
    exec(compile(notebooks.import_notebook_tool("papermill.translators").PythonTranslator.codify(content), path.name, "exec"), {}, injected)
    assert injected==content


def test_folder_of_parameter_files(tmp_path, toy):
    "A folder stands for the file that is named after the notebook"
    (tmp_path/"params").mkdir()
    (tmp_path/"params"/"toy.yaml").write_text("steps: 7\n")
    assert notebooks.load_parameters(tmp_path/"params", toy)==dict(steps=7)
    with pytest.raises(InputError, match="4_trains.yaml: no such .yaml file"): notebooks.load_parameters("params/paper", Path("4_trains.ipynb"))


# ---- the name of a run

def test_name_follows_code_parameters_and_source(tmp_path, monkeypatch):
    def name(*cells, parameters=None, prose="# A title"):
        path = notebook(tmp_path/"n.ipynb", PARAMETERS, *cells, prose=prose)
        return runs.plan_runs(path, [parameters or {}], tmp_path)[0].folder.name
    plain = name("from audio2pose.core import FPS")
    assert plain==name("from audio2pose.core import FPS", prose="# Another title\nand more")
    assert plain==name("from audio2pose.core import FPS", parameters=dict(steps=2, rate=.5))
    assert plain!=name("from audio2pose.core import FPS", parameters=dict(steps=3))
    assert plain!=name("from audio2pose.core import FPS # 60")
    core = ROOT/"audio2pose"/"core.py"
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self)+b"#" if self==core else read(self))
    assert plain!=name("from audio2pose.core import FPS")
    assert name("1+1")==name("1+1", prose="# T")


def test_source_is_what_is_imported_by_whatever_is_imported():
    names = {str(path.relative_to(ROOT/"audio2pose").with_suffix("")) for path in runs.source_files("%matplotlib inline\nfrom audio2pose import train")}
    assert {"train", "core", "models/fact", "models/weights", "data/windows", "metrics/beat", "motion", "rotation"}<=names
    assert not {"player", "film", "cli", "audio"}&names


# ---- what is recorded

def test_record(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"songs.txt").write_text("a song")
    before = toy.read_bytes()
    folder = runs.run(toy, dict(steps=3, name="songs.txt"), "runs")
    assert toy.read_bytes()==before
    record = json.loads((folder/"manifest.json").read_text())
    assert record["status"]=="done" and record["attempts"]==1 and record["seconds"]>0 and record["parameters"]["steps"]==3 and record["data"].keys()=={"name"}
    assert record["versions"]["python"].startswith("3.") and record["device"] and len(record["code"])==len(record["source"])==64
    if (ROOT/".git").exists(): assert len(record["commit"])==40 and record["dirty"] in (True, False)
    assert json.loads((folder/"metrics.json").read_text())==dict(score=1.5)
    assert nbformat.read(folder/"run.ipynb", 4).cells[2].source.startswith("# Parameters")
    assert "<html" in (folder/"run.html").read_text()
    assert not list(folder.glob(".part-*")) and not (folder/"running.ipynb").exists()
    (found,) = runs.collect_runs("runs")
    assert found["metrics"]==dict(score=1.5) and found["run"]==f"toy/{folder.name}"


def test_notebook_may_hold_its_own_folder(tmp_path):
    "Preparing and extracting lock the folder they write to, which is the folder of the run"
    holding = notebook(tmp_path/"holding.ipynb", PARAMETERS, "from pathlib import Path\nfrom audio2pose.core import lock_folder",
                       'with lock_folder(Path(out)): (Path(out)/"done.txt").write_text("yes")')
    assert (runs.run(holding, {}, tmp_path/"runs")/"done.txt").exists()


def test_fingerprint_sees_names_sizes_and_contents(tmp_path):
    (tmp_path/"d").mkdir()
    (tmp_path/"d"/"a").write_bytes(bytes(100))
    seen = [runs.fingerprint(tmp_path/"d")]
    (tmp_path/"d"/"a").write_bytes(bytes(99)+b"1")
    seen.append(runs.fingerprint(tmp_path/"d"))
    (tmp_path/"d"/"a").rename(tmp_path/"d"/"b")
    seen.append(runs.fingerprint(tmp_path/"d"))
    (tmp_path/"d"/"c").touch()
    seen.append(runs.fingerprint(tmp_path/"d"))
    assert len(set(seen))==4 and seen[-1]==runs.fingerprint(tmp_path/"d")


# ---- what fails

def test_failure_names_the_cell_and_keeps_the_notebook(tmp_path):
    path = notebook(tmp_path/"faulty.ipynb", PARAMETERS, COUNT, "x = 1/(steps-2)")
    log = tmp_path/"log"
    with pytest.raises(InputError, match=r"faulty/\w{12}, code cell 4 \(x = 1/\(steps-2\)\): ZeroDivisionError: division by zero"): runs.run(path, dict(log=str(log)), tmp_path/"runs")
    (record,) = runs.collect_runs(tmp_path/"runs")
    folder = Path(record["folder"])
    assert record["status"]=="failed" and "ZeroDivisionError" in (folder/"failed.ipynb").read_text() and not (folder/"run.ipynb").exists()
    (outcome,) = runs.run_many(path, [dict(log=str(log))], tmp_path/"runs") # Left alone
    assert outcome.status=="failed" and log.read_text()=="a\n"
    (outcome,) = runs.run_many(path, [dict(log=str(log))], tmp_path/"runs", retry=True)
    assert outcome.status=="failed" and log.read_text()=="a\na\n"
    assert runs.collect_runs(tmp_path/"runs")[0]["attempts"]==2


def test_hanging_and_dying_kernels(tmp_path):
    path = notebook(tmp_path/"odd.ipynb", PARAMETERS, 'import os, time\nif name=="hangs": time.sleep(600)\nif name=="dies": os.kill(os.getpid(), 9)\nif name=="full": open("/dev/full", "w").write("x"*99999)')
    outcomes = runs.run_many(path, [dict(name=name) for name in ("hangs", "dies", "full", "well")], tmp_path/"runs", timeout=3)
    assert [outcome.status for outcome in outcomes]==["failed", "failed", "failed", "done"]
    for outcome,said in zip(outcomes, ("took longer than the time it was given; allow more with --timeout", "its kernel died", "No space left on device")):
        assert said in outcome.reason and "code cell 3" in outcome.reason and "\n" not in outcome.reason


def test_killed_run_goes_on_in_its_folder(tmp_path):
    path = notebook(tmp_path/"slow.ipynb", PARAMETERS, COUNT, 'from pathlib import Path\nimport time\nmark = Path(out)/"half"\nif not mark.exists():\n    mark.touch()\n    time.sleep(600)\n(Path(out)/"whole").touch()')
    log = tmp_path/"log"
    process = copies.Popen([COMMAND, "run", path, "-p", f"log={log}", "--out", tmp_path/"runs"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=QUICK_ENV)
    wait_for(lambda: list(tmp_path.glob("runs/slow/*/half")))
    assert runs.collect_runs(tmp_path/"runs")[0]["status"]=="running"
    with pytest.raises(InputError, match=rf"slow/\w+: process {process.pid} on .* is at work there"): runs.run(path, dict(log=str(log)), tmp_path/"runs")
    process.kill()
    process.wait()
    folder = runs.run(path, dict(log=str(log)), tmp_path/"runs")
    assert (folder/"whole").exists() and runs.collect_runs(tmp_path/"runs")[0]["attempts"]==2 and log.read_text()=="a\na\n"


def test_disk_that_fills_up(toy, tmp_path):
    "The page of a run does not fit any more; the run is not called done, and is done when there is room"
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); from audio2pose.cli import run; raise SystemExit(run(['run', {str(toy)!r}, '--out', {str(tmp_path/'runs')!r}]))"
    said = copies.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=QUICK_ENV|dict(PYTHONDONTWRITEBYTECODE="1")) # A compiled module would be cut off, too
    assert said.returncode==2 and "File too large" in said.stderr and "Traceback" not in said.stderr
    assert runs.collect_runs(tmp_path/"runs")[0]["status"]!="done"
    folder = runs.run(toy, {}, tmp_path/"runs")
    assert (folder/"run.html").stat().st_size>100_000 and not list(folder.glob(".part-*"))


# ---- several at a time

def test_grid_on_processes(toy, tmp_path):
    log = tmp_path/"log"
    settings = [dict(name=name, log=str(log)) for name in ("a", "b", "c", "a")]
    told = []
    outcomes = runs.run_many(toy, settings, tmp_path/"runs", workers=2, on_outcome=told.append)
    assert [outcome.plan.parameters["name"] for outcome in outcomes]==["a", "b", "c", "a"] and len(told)==3
    assert sorted(log.read_text().split())==["a", "b", "c"]
    assert [outcome.status for outcome in runs.run_many(toy, settings, tmp_path/"runs", workers=2)]==["kept"]*4
    assert sorted(log.read_text().split())==["a", "b", "c"]


KILLER = 'import os, pathlib, signal, time\nif name=="killer" and not (pathlib.Path(out)/"tried").exists():\n    (pathlib.Path(out)/"tried").touch()\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(600)'


def read_manifest(outcome): return json.loads((outcome.plan.folder/"manifest.json").read_text())


def test_worker_that_dies(tmp_path, processes_begin_anew):
    path = notebook(tmp_path/"n.ipynb", PARAMETERS, KILLER)
    settings = [dict(name=name) for name in ("killer", "b", "c")]
    outcomes = runs.run_many(path, settings, tmp_path/"runs", workers=2)
    assert [outcome.status for outcome in outcomes]==["done", "done", "done"], "a death is no attempt; the run goes on in its folder"
    assert read_manifest(outcomes[0])["attempts"]==2


ALWAYS = 'import os, pathlib, signal, time\nif name=="deadly":\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(600)'


@pytest.mark.slow
def test_run_that_kills_every_worker(tmp_path, processes_begin_anew):
    "It is recorded, with the death; and the next call tries it again without being asked"
    path = notebook(tmp_path/"n.ipynb", PARAMETERS, ALWAYS)
    outcomes = runs.run_many(path, [dict(name="deadly"), dict(name="b")], tmp_path/"runs", workers=2)
    assert [outcome.status for outcome in outcomes]==["failed", "done"] and "its worker died (SIGKILL(-9))" in outcomes[0].reason
    assert read_manifest(outcomes[0])["killed"] and read_manifest(outcomes[0])["attempts"]==3
    assert runs.finished_outcome(outcomes[0].plan, retry=False) is None


def test_kernels_do_not_import_from_the_working_folder(toy, tmp_path):
    "While they start; a notebook may import what lies beside it"
    for name in ("ipykernel_launcher", "ipykernel", "multiprocessing", "traitlets", "json"): (tmp_path/f"{name}.py").write_text(f"open({str(tmp_path/'run')!r}, 'a').write({name!r})")
    done = subprocess.run([COMMAND, "run", toy, "--out", tmp_path/"runs"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env=QUICK_ENV)
    assert done.returncode==0, done.stderr[-800:]
    assert not (tmp_path/"run").exists(), (tmp_path/"run").read_text()


def test_two_grids_on_one_folder(toy, tmp_path):
    "Every run is done once, whoever does it, and both grids end well"
    log = tmp_path/"log"
    (tmp_path/"grid.yaml").write_text(f"notebook: {toy}\nparameters: {{log: {log}}}\ngrid: {{name: [a, b, c, d]}}\n")
    words = [COMMAND, "run", "--grid", tmp_path/"grid.yaml", "--out", tmp_path/"runs"]
    both = [copies.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=QUICK_ENV) for _ in range(2)]
    for process in both:
        said,complained = process.communicate(timeout=300)
        assert process.returncode==0, complained
        assert "4 runs" in said and "0 failed" in said
    assert sorted(log.read_text().split())==["a", "b", "c", "d"]


def test_ctrl_c_ends_a_grid_and_its_kernels(tmp_path):
    path = notebook(tmp_path/"slow.ipynb", PARAMETERS, 'import os, pathlib, time\n(pathlib.Path(out)/"pid").write_text(str(os.getpid()))\ntime.sleep(600 if not (pathlib.Path(out)/"again").exists() else 0)')
    (tmp_path/"grid.yaml").write_text(f"notebook: {path}\ngrid: {{name: [a, b]}}\n")
    words = [COMMAND, "run", "--grid", tmp_path/"grid.yaml", "--out", tmp_path/"runs", "--workers", "2"]
    process = copies.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=QUICK_ENV)
    wait_for(lambda: len(list(tmp_path.glob("runs/slow/*/pid")))==2 and all(file.read_text() for file in tmp_path.glob("runs/slow/*/pid")))
    process.send_signal(signal.SIGINT)
    _,complained = process.communicate(timeout=120)
    assert process.returncode==130 and "Traceback" not in complained, complained
    for file in tmp_path.glob("runs/slow/*/pid"):
        wait_for(lambda: not Path(f"/proc/{file.read_text()}").exists() or Path(f"/proc/{file.read_text()}/status").read_text().split("State:\t")[1][0]=="Z", 30)
        (file.parent/"again").touch()
    said = alone("--grid", tmp_path/"grid.yaml", "--out", tmp_path/"runs")
    assert said.returncode==0 and "2 done" in said.stdout


@pytest.mark.slow
def test_grid_on_ray(tmp_path):
    "With a worker that dies among them"
    pytest.importorskip("ray")
    path = notebook(tmp_path/"n.ipynb", PARAMETERS, KILLER, "1/(steps-7)")
    outcomes = runs.run_many(path, [dict(name="killer"), dict(), dict(steps=7), dict(steps=3)], tmp_path/"runs", workers=2, engine="ray")
    assert [outcome.status for outcome in outcomes]==["done", "done", "failed", "done"]
    assert "ZeroDivisionError" in outcomes[2].reason
    outcomes = runs.run_many(path, [dict(name="killer"), dict()], tmp_path/"runs", workers=2, engine="ray", retry=True)
    assert [outcome.status for outcome in outcomes]==["kept", "kept"]


def test_wrong_engines_are_refused(toy, tmp_path):
    with pytest.raises(InputError, match="engine 'steam': choose one of serial, processes, ray"): runs.run_many(toy, [{}], tmp_path/"runs", engine="steam")
    with pytest.raises(InputError, match="give at least one worker"): runs.run_many(toy, [{}], tmp_path/"runs", workers=0)


# ---- from grid to report, from a wheel too

SMALL_GRID = "notebook: 7_ablation\nparameters: {{steps: 6, dances: 2, seconds: 2.0}}\ngrid: {{future: {}}}\nreport: 8_report\n"


def check_report(folder, said, rows):
    "The report shows our rows beside the paper's"
    report = Path(said.strip().splitlines()[-1])
    assert report.is_relative_to(folder) and report.name=="run.html"
    page = report.read_text()
    for number in ("111.7", "207.7", "35.35", "0.241", "45.66"): assert f"<td>{number}</td>" in page
    assert "Measured with 6 steps" in page
    assert json.loads((report.parent/"metrics.json").read_text())["ablation_rows"]==rows


@pytest.mark.slow
def test_grid_file_to_report(tmp_path):
    (tmp_path/"grid.yaml").write_text(SMALL_GRID.format([10, 20]))
    said = alone("--grid", "grid.yaml", "--workers", "2", cwd=tmp_path)
    assert said.returncode==0, said.stderr
    check_report(tmp_path/"data"/"runs"/"8_report", said.stdout, 2)
    again = alone("--grid", "grid.yaml", cwd=tmp_path)
    assert "2 runs: 0 done, 2 kept, 0 failed" in again.stdout and again.stdout.splitlines()[-1]==said.stdout.splitlines()[-1]


@pytest.mark.slow
def test_run_notebooks_travel_with_the_wheel(tmp_path):
    source = tmp_path/"source"
    for name in ("audio2pose", "nbs"): shutil.copytree(ROOT/name, source/name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "setup.py", "README.md", "LICENSE", "MANIFEST.in"): shutil.copy(ROOT/name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    wanted = {f"audio2pose/assets/runs/{path.relative_to(source/'nbs'/'runs')}" for path in (source/"nbs"/"runs").rglob("*") if path.suffix in (".ipynb", ".yaml") and not path.name.startswith(".")}
    assert len(wanted)>=6 and wanted<=set(zipfile.ZipFile(wheel).namelist())
    shutil.rmtree(source)
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path/"site", wheel], check=True, capture_output=True)
    home = tmp_path/"home"
    home.mkdir()
    (home/"grid.yaml").write_text(SMALL_GRID.format([10]))
    said = subprocess.run([tmp_path/"site"/"bin"/"audio2pose", "run", "--grid", "grid.yaml"], capture_output=True, text=True, check=False, cwd=home, env=QUICK_ENV|{"PYTHONPATH": str(tmp_path/"site")})
    assert said.returncode==0, said.stderr
    check_report(home/"data"/"runs"/"8_report", said.stdout, 1)
    (record,*_) = runs.collect_runs(home/"data"/"runs", "7_ablation")
    assert record["commit"] is None


@pytest.mark.parametrize("name,parameters", [("literal.ipynb", dict(swallow="european")), ("hash.ipynb", dict(colour="#ff0000", n=3))])
def test_parameters_that_papermill_takes_are_taken(shared, name, parameters):
    assert {key: entry["default"] for key,entry in notebooks.notebook_parameters(shared(f"cases/notebooks/{name}")).items()}==parameters
