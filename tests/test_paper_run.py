"The paper's run on a twin of AIST++: from the archive to the table, by audio2pose run, killed in every stage, and by plain papermill, undisturbed, with the shipped parameter files."
import functools
import http.server
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import copies
import numpy as np
import pytest
import soundfile
import typer

from audio2pose.audio_decoding import resample
from audio2pose.cli import app
from audio2pose.data.aist import split_names
from audio2pose.data.synthetic import synthesise_official
from audio2pose.engine.notebooks import find_file, load_parameters, notebooks_folder
from audio2pose.engine.runs import plan_runs, read_grid, read_json
from audio2pose.motion import Motion

BIN = Path(sys.executable).parent
PARAMS = notebooks_folder()/"params"/"paper"
CPU = dict(device="cpu", precision="fp32", threads=1)
TINY = dict(size="tiny", batch=4)
STAGES = { # What is smaller than in the full run, and nothing else
    "1_prepare": dict(workers=2), "4_train": CPU|TINY|dict(compile=False, steps=8, validate_every=8, save_every=4),
    "16_baselines": dict(device="cpu", threads=1, steps=2, batch=2, save_every=1, seconds=1.25), "5_generate": CPU|dict(seconds=3., commit=10, pages=1),
    "6_evaluate": dict(references=50, draws=10, threads=1), "7_ablation": CPU|TINY|dict(steps=6, save_every=3, seconds=3., commit=10, draws=10, dances=4), "8_report": {}}
KILLED_AT = { # Files that show that a stage is in its middle, and how many of them
    "1_prepare": ("aist-prepared/records/*.json", 9), "4_train": ("paper/train/checkpoint.pt", 1), "16_baselines": ("paper/baselines/DanceNet/checkpoint.pt", 1),
    "5_generate": ("paper/dances/*.npz", 3), "6_evaluate": ("paper/evaluate", 1), "7_ablation": ("paper/trained/*/checkpoint.pt", 1), "8_report": ("runs/8_report/*", 1)}
ENVIRONMENT = {name: value for name,value in os.environ.items() if name!="AUDIO2POSE_SHARED"} | {"OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}


def start(*words, cwd, anew=False):
    "A command in a process of its own: a copy of one that has imported everything, or begun anew as a user's is"
    begin = subprocess.Popen if anew else copies.Popen
    return begin([str(word) for word in words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True)


def command(*words, cwd, code=0, running=None, **options):
    "A command in a process of its own, and what it says"
    process = running or start(*words, cwd=cwd, **options)
    out,err = process.communicate(timeout=300)
    assert process.returncode==code and "Traceback" not in err*(words[0].name=="audio2pose"), out[-2000:]+err[-2000:]
    return out+err


def flags(parameters): return [word for name,value in parameters.items() for word in ("-p", f"{name}={value}")]


def words_of(stage, **more): return BIN/"audio2pose", "run", stage, "-f", "params/paper", *flags(STAGES[stage]|more)


def times(folder): return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.suffix in (".npz", ".npy", ".pt", ".safetensors", ".json") and ".part-" not in str(path)}


def kill_in_its_middle(stage, home):
    "Begin a stage and kill it, children and all, as soon as it has made something; what it had made, and when"
    pattern,count = KILLED_AT[stage]
    process,deadline = start(*words_of(stage), cwd=home),time.monotonic()+240
    while process.poll() is None and len(list((home/"data").glob(pattern)))<count and time.monotonic()<deadline: time.sleep(.02)
    made = times(home/"data")
    if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
    _,err = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), f"{stage} failed before it could be killed: {err[-2000:]}" # 0: it was over already
    return made


def papermill_stage(stage, cwd):
    "Plain papermill, with the very same file"
    pairs = [word for name,value in STAGES[stage].items() for word in ("-p", name, str(value))]
    command(BIN/"papermill", notebooks_folder()/f"{stage}.ipynb", cwd/f"{stage}.ipynb", "-f", PARAMS/f"{stage}.yaml", *pairs, "--no-progress-bar", "--cwd", cwd, cwd=cwd, anew=stage=="8_report")
    return (cwd/f"{stage}.ipynb").read_text()


# ---- the guide is the rehearsal

GUIDE = Path(__file__).parents[1]/"nbs"/"guides"/"bring_aist.ipynb"


def guide_commands():
    "Every command of the guide as words, in order: of indented lines and between backticks"
    text = "\n".join("".join(cell["source"]) for cell in json.loads(GUIDE.read_text())["cells"] if cell["cell_type"]=="markdown")
    return [shlex.split(found[1] or found[2], comments=True) for found in re.finditer(r"^    (audio2pose .*)$|`((?:audio2pose|papermill) [^`]+)`", text, re.M)]


def parsed(words):
    "Arguments and options of `audio2pose WORDS`; nothing is run"
    command = typer.main.get_command(app)
    while hasattr(command, "commands"): command,words = command.commands[words[0]],words[1:]
    return command.make_context(command.name, list(words)).params


def test_commands_of_the_guide():
    "Each is one that there is, with options that there are"
    commands = guide_commands()
    for words in commands:
        if words[0]=="audio2pose": parsed(words[1:])
        else: assert all((GUIDE.parents[2]/path).is_file() for path in (words[1], words[words.index("-f")+1])), words
    assert len(commands)>=13


def test_lines_of_the_guide_lead_to_each_other():
    "The paper's run in the guide is the one rehearsed here; what a line reads is what an earlier one has left, and the report reads all"
    lines = [parsed(words[1:]) for words in guide_commands() if words[1]=="run"]
    grid = read_grid(next(line["grid"] for line in lines if line["grid"]))
    assert [line["notebook"] or grid.notebook for line in lines]==list(STAGES)
    left = ["data/aist"] # By data download
    for line in lines:
        settings,root = (grid.settings, str(line["out"])) if line["grid"] else ([load_parameters(line["file"], find_file(line["notebook"], ".ipynb"))], None)
        for plan in plan_runs(line["notebook"] or grid.notebook, settings, root):
            read = [value for name,given in plan.parameters.items() if name!="out" for value in (given if isinstance(given, list) else [given]) if str(value).startswith("data/")]
            assert read and all(any(f"{made}/".startswith(f"{value}/") or f"{value}/".startswith(f"{made}/") for made in left) for value in read), (plan.name, read, left)
        left.append(os.path.relpath(plan.parameters["out"]))
    report = left.pop()
    assert "data/paper/7_ablation" in {os.path.dirname(made) for made in left} and os.path.dirname(report)=="data/paper" # Two folders deep, as far as collect_runs looks
    row = load_parameters(PARAMS, find_file("7_ablation", ".ipynb"))
    assert {name: grid.settings[0].get(name) for name in row if name!="out"}=={name: value for name,value in row.items() if name!="out"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "The archive of annotations, the songs and the list of videos of a twin with official names, behind a local address"
    home = tmp_path_factory.mktemp("server")
    tree = home/"twin"
    names = synthesise_official(tree, 52, song_seconds=12.5, workers=2, progress=False)
    (home/"music").mkdir()
    for path in (tree/"wav").glob("*.wav"):
        y,sr = soundfile.read(path)
        soundfile.write(home/"music"/f"{path.stem}.mp3", resample(y, sr, 32000), 32000)
    with zipfile.ZipFile(home/"fullset.zip", "w") as archive:
        for folder in ("motions", "keypoints3d", "keypoints2d", "cameras", "splits"):
            for path in sorted((tree/folder).iterdir()): archive.write(path, f"aist_plusplus_final/{folder}/{path.name}")
        archive.write(tree/"ignore_list.txt", "aist_plusplus_final/ignore_list.txt")
    (home/"video_list.txt").write_text("\n".join(names))
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words): pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=home)) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}", names
        serving.shutdown()


@pytest.fixture(scope="module")
def chain(server, tmp_path_factory):
    "A folder in which the whole chain was run by audio2pose run"
    (address,names),home = server,tmp_path_factory.mktemp("paper")
    command(BIN/"audio2pose", "data", "download", "--accept-terms", "--genre", "all", "--what", "annotations,music", "--annotations-url", f"{address}/fullset.zip",
            "--music-base", f"{address}/music", "--list", f"{address}/video_list.txt", cwd=home, anew=True)
    assert len(list((home/"data"/"aist"/"motions").glob("*.pkl")))==len(names)
    assert f"{len(names)} sequences (official), 0 issues" in command(BIN/"audio2pose", "data", "verify", "--workers", "2", cwd=home)
    for stage in STAGES:
        before,made = times(home/"data"),kill_in_its_middle(stage, home)
        command(*words_of(stage), cwd=home)
        after,kept = times(home/"data"),{path for path in made if path.suffix in (".npz", ".npy") or "records" in path.parts}-before.keys()
        assert all(after[path]==made[path] for path in kept), f"{stage} made again what it had: {[str(path) for path in kept if after.get(path)!=made[path]][:5]}"
        if stage in ("1_prepare", "5_generate"): assert len(kept)>=KILLED_AT[stage][1], stage
    return home


def table_numbers(home):
    "Numbers of the two tables, by protocol, row and column"
    evaluation = read_json(home/"data"/"paper"/"evaluate"/"evaluation.json")
    return {(protocol, row["name"], column): score["value"] for protocol,table in evaluation["tables"].items() for row in table["rows"] if row["source"]!="published" for column,score in row["scores"].items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_chain(chain):
    paper = chain/"data"/"paper"
    dances = {path.stem: Motion.load(path) for path in (paper/"dances").glob("*.npz")}
    assert sorted(dances)==sorted(split_names("test")) and {len(dance) for dance in dances.values()}=={120+180}
    for name in list(dances)[::7]: # They begin with the real dance, and are the trained model's
        np.testing.assert_allclose(dances[name][:120].positions(), Motion.load(chain/"data"/"aist"/"motions"/f"{name}.pkl")[:120].positions(), atol=2e-3)
    assert read_json(paper/"dances"/"dances.json")["made_by"]=="data/paper/train/model"
    evaluation = read_json(paper/"evaluate"/"evaluation.json")
    assert evaluation["tables"].keys()=={"mint-2021", "bailando-2022"}
    for table in evaluation["tables"].values(): assert {name: table["settings"][name] for name in ("generated", "references", "skip")}==dict(generated=20, references=50, skip=2.)
    assert sorted(evaluation["tables"]["mint-2021"]["clips"])==sorted(dances)
    report = (chain/"data"/"runs"/"8_report").glob("*/run.ipynb")
    text = next(report).read_text()
    table = (paper/"evaluate"/"evaluation.md").read_text().splitlines()
    for line in table: # Every row of the report is a row of this evaluation
        if line.startswith("| **generated**"): assert json.dumps(line)[1:-1] in text
    row = read_json(paper/"ablation"/"metrics.json")
    assert row["clips"]==4 and row["references"]==50 and row["steps"]==6 and f"{row['fid_k']:.4g}" in text
    train = read_json(paper/"train"/"metrics.json")
    assert train["step"]==8
    for title,folder in (("DanceRevolution", "DanceRevolution"), ("DanceNet", "DanceNet"), ("Li et al. (2020)", "MotionTransformer")): # Measured beside FACT, on the same pairs
        clips = {path.stem: np.load(path) for path in (paper/"baselines"/folder/"dances").glob("*.npy")}
        assert clips.keys()==dances.keys() and {clip.shape for clip in clips.values()}=={(120+75, 24, 3)}
        name = sorted(clips)[0]
        np.testing.assert_allclose(clips[name][:120], dances[name][:120].positions(), atol=2e-3) # The same two seconds
        (measured,) = (row for row in evaluation["tables"]["mint-2021"]["rows"] if row["name"]==f"{title}, ours, small")
        assert measured["kind"]=="baseline" and measured["clips"]==20 and measured["scores"]["fid_k"]["value"]>0
        assert any(line.startswith(f"| {title}, ours, small") for line in table) and f"{title}, ours, small" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_plain_papermill_gives_the_same(chain, tmp_path):
    (tmp_path/"data").mkdir()
    (tmp_path/"data"/"aist").symlink_to(chain/"data"/"aist")
    (tmp_path/"data"/"aist-prepared").symlink_to(chain/"data"/"aist-prepared") # What is prepared already is looked through, and kept
    text = {stage: papermill_stage(stage, tmp_path) for stage in STAGES}
    here,there = table_numbers(tmp_path),table_numbers(chain)
    assert here.keys()==there.keys() and here
    np.testing.assert_allclose(list(here.values()), list(there.values()), rtol=1e-5)
    generated = next(line for line in (tmp_path/"data"/"paper"/"evaluate"/"evaluation.md").read_text().splitlines() if line.startswith("| **generated**"))
    assert json.dumps(generated)[1:-1] in text["8_report"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_second_thoughts(chain):
    "More seconds train nothing again; wrong ones, and a wrong count, are found before anything is trained or scored"
    trained = chain/"data"/"paper"/"trained"
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file() and path.name!=".lock"}
    given = [(words_of("7_ablation", seconds=2.5), 0), (words_of("7_ablation", seconds=20., seed=5), 2), (words_of("6_evaluate", references=1320), 2)]
    running = [start(*words, cwd=chain) for words,_ in given] # Side by side
    _,too_long,too_few = [command(*words, cwd=chain, code=code, running=process) for (words,code),process in zip(given, running)]
    after = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file() and path.name!=".lock"}
    assert {path for path in before if path.suffix in (".pt", ".safetensors") and before[path]!=after.get(path)}==set() and after.keys()==before.keys()
    assert "20 s were asked for, but 4 of 4 songs end too early" in too_long and not list(trained.glob("*seed5*"))
    assert "must hold 1320 valid motions, here are 50 (52 files, 2 of them on the ignore list)" in too_few
