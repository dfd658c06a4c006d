"""Hostile inputs for every reader and command, and kills at random moments: a value, one sentence, or nothing; never code, half a file, or a loss

`pytest -m attack tests/test_attack.py tests/test_hostile_options.py` is the long form:

| what is attacked | kills (each then as an undisturbed run, to the byte) | inputs |
|---|---|---|
| dance; data prepare; features; train; run --grid | 12 each | |
| landmarks: networks of its own; MediaPipe with two workers | 12 each | |
| 101 kinds of files | | 60 spoiled versions each, deep and circular ones |
| 44 command lines on spoiled files | | 10 each |
| every option of every command (`test_hostile_options`) | | 4 odd values each, 1,084 |

Left out of the comparison: the ledger, which tells of every attempt, locks, and the seconds of a log of training.
"""
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import copies
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

import attack
from audio2pose import cli
from audio2pose.models.fact import FACT, FACTConfig

COMMAND = [sys.executable, "-c", "from audio2pose.cli import main; main()"]
SMALL_NETWORK = [sys.executable, "-c", "from audio2pose.models import rtmw3d; rtmw3d.pose_sizes['tiny'] = rtmw3d.ModelSize(.33, .0625); from audio2pose.cli import main; main()"] # A pose network of a hundredth of the size


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    return attack.reader_targets(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    FACT(replace(FACTConfig.small(), width=16, heads=2, mlp=16, cross_layers=1)).save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    "A working folder with a user's files in it"
    monkeypatch.chdir(tmp_path)
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine"/"diary.txt").write_text("dear diary")
    (tmp_path/"mine"/"link").symlink_to("diary.txt")
    return tmp_path


def unharmed(folder:Path)->bool:
    "No code was run, and what is the user's is as it was"
    return not (folder/"it-ran").exists() and (folder/"mine"/"diary.txt").read_text()=="dear diary" and (folder/"mine"/"link").is_symlink() and len(list((folder/"mine").iterdir()))==2


@contextmanager
def limit(seconds):
    "At most so long on the processor, and thirty times that by the clock: a busy machine is no fault, waiting for ever is one"
    def stop(*_): raise attack.TooLongError(f"longer than {seconds} s")
    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(30*seconds)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number,handler in before.items(): signal.signal(number, handler)


def read_spoiled(target, seed, folder)->str:
    "What becomes of one spoiled version of a file"
    place = folder/"case"
    place.mkdir()
    try:
        with limit(20): return attack.attempt(target, place, target.spoiled(random.Random(f"{target.name} {seed}")))
    finally: shutil.rmtree(place)


def assault_readers(targets, folder, cases)->Counter:
    found = Counter()
    for target in targets:
        for seed in range(cases):
            outcome = read_spoiled(target, seed, folder)
            found[outcome if outcome in ("value", "refused") else f"{target.name}, case {seed}: {outcome}"] += 1
    assert unharmed(folder)
    wrong = [line for line in found if line not in ("value", "refused")]
    assert not wrong, "\n".join(wrong[:20])
    return found


# ---- readers

def test_valid_files_are_read(targets, here):
    outcomes = {}
    for target in targets:
        (here/"case").mkdir()
        outcomes[target.name] = attack.attempt(target, here/"case", target.valid())
        shutil.rmtree(here/"case")
    assert {name: outcome for name,outcome in outcomes.items() if outcome!="value"}=={}


def test_spoiled_files(targets, here):
    assert assault_readers(targets, here, 4).total()>=250


def read_deep(targets, folder, places)->Counter:
    found = Counter()
    for target in targets:
        for number,data in enumerate(attack.deep_versions(target, random.Random(target.name), places)):
            place = folder/"case"
            place.mkdir()
            try:
                with limit(20): outcome = attack.attempt(target, place, data)
            finally: shutil.rmtree(place)
            found[outcome if outcome in ("value", "refused") else f"{target.name}, case {number}: {outcome}"] += 1
    return found


def test_deep_and_circular_files(targets, here):
    "What lies within itself, or deeper than any parser goes"
    found = read_deep(targets, here, 0)
    assert set(found)<={"value", "refused"} and found.total()>150, "\n".join(found)


def test_every_place_can_be_spoiled():
    content = dict(a=(1, [2, 3]))
    for path in attack.paths_in(content): assert "odd" in str(attack.replaced(content, path, "odd"))
    assert content==dict(a=(1, [2, 3]))


@pytest.mark.attack
@pytest.mark.timeout(3000)
def test_all_deep_and_circular_files(targets, here):
    found = read_deep(targets, here, 12)
    assert set(found)<={"value", "refused"} and found.total()>1000, "\n".join(found)


@pytest.mark.attack
@pytest.mark.timeout(3000)
def test_many_spoiled_files(targets, here, record_property):
    found = assault_readers(targets, here, 60)
    record_property("readers", dict(found))
    assert found.total()>=3500


@pytest.mark.attack
@pytest.mark.timeout(3000)
@settings(max_examples=2000, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**60), data=st.data())
def test_any_spoiled_file(targets, tmp_path_factory, seed, data):
    target = data.draw(st.sampled_from(targets))
    outcome = read_spoiled(target, seed, tmp_path_factory.mktemp("any"))
    assert outcome in ("value", "refused"), outcome


def test_song_cut_in_its_last_page(here):
    "An Ogg file that loses its last bytes is refused, wherever in the page it is cut"
    from audio2pose import audio
    from audio2pose.core import InputError
    soundfile.write("song.ogg", .3*np.sin(np.arange(60_000)/9), 22_050)
    whole = Path("song.ogg").read_bytes()
    last = whole.rfind(b"OggS")
    for cut in [*range(last+1, last+40), *range(last+40, len(whole), max(1, (len(whole)-last)//20))]:
        Path("cut.ogg").write_bytes(whole[:cut])
        with pytest.raises(InputError): audio.load("cut.ogg")


# ---- commands

def command_lines(targets, tiny):
    "Command lines, each with the file that is spoiled"
    by = {target.name: target for target in targets}
    return [*[(f"dance {by[name].file} --model {tiny} --no-film --out out", by[name]) for name in ("song wav", "song ogg", "song mp3", "song flac")],
            ("dance --model . --no-film --out out", by["FACT config"]), ("dance --model model.safetensors --no-film --out out", by["MotionFlow weights"]),
            ("motion a.npy --out out", by["Landmarks, sidecar"]), ("motion a.npy --out out", by["Landmarks, array"]),
            *[(f"features {by[name].file} --kind handcrafted --fps 30 --person largest --out out", by[name]) for name in ("keypoints COCO", "keypoints AlphaPose", "keypoints MMPose", "keypoints npy", "keypoints pkl")],
            ("evaluate . --reference . --protocol corrected", by["Motion npz"]), ("evaluate . --reference .", by["clip positions"]),
            ("train s --out out --steps 1 --batch 1", by["store index"]), ("train s --out out --steps 1 --batch 1", by["store motion"]),
            ("data verify p --workers 1", by["verify record"]), ("data verify p --workers 1", by["verify report"]),
            *[(f"data inspect {by[name].file} --picture picture.png", by[name]) for name in ("inspect pkl", "inspect npz", "inspect json", "inspect keypoints pkl")],
            ("weights show w.pt", by["torch weights"]), ("weights show model.safetensors", by["FACT weights"]), ("weights convert model.safetensors out", by["FACT weights"]),
            ("edit d --mirror --no-film --out out", by["dance record"]), ("compare --votes v.json --out .", by["compare votes"]), ("compare --votes v.json --out .", by["compare key"]),
            *[(f"retarget m.npz {by[name].file} --out out.glb", by[name]) for name in ("character mixamo", "character vrm", "character mixamo gltf")], ("data import . --out out", by["animation mixamo"]), ("data import . --out out", by["BVH"]),
            ("reduce . --out out --points body --size 640x480", by["keypoints npy"]), ("lift points.npy --weights l.bin --fps 30 --size 640x480 --no-film --out out", by["MotionBERT weights"]), ("live s.wav --energy 9 --no-browser", by["song wav"]),
            ("weights show ckpt-1", by["TensorFlow index"]), ("weights show ckpt-1", by["TensorFlow data"]), ("weights show b.pt", by["beat weights"]), ("weights convert l.bin out.safetensors", by["MotionBERT weights"]),
            ("data download --accept-terms --what annotations --annotations-url http://127.0.0.1:9/x.zip --tries 1 --checksums sums.txt", by["checksums"]),
            ("run n.ipynb --describe", by["notebook"]), ("run --grid g.yaml", replace(by["grid"], content=by["grid"].content.replace("4_train", "nowhere")))]


def assault_commands(lines, folder, capfd, cases)->Counter:
    found = Counter()
    for line,target in lines:
        for seed in range(cases):
            for name in os.listdir(folder):
                if name!="mine": shutil.rmtree(folder/name) if (folder/name).is_dir() else (folder/name).unlink()
            target.write(folder, target.spoiled(random.Random(f"{line} {seed}")))
            before = {path for path in folder.rglob("*")}
            with limit(60): code = cli.run(line.split())
            said = capfd.readouterr()
            assert code in (0, 1, 2) and "Traceback" not in said.err+said.out, (line, seed, said)
            assert code==0 or said.err or said.out, (line, seed, said)
            assert unharmed(folder) and before<=set(folder.rglob("*"))|{path for path in before if path.name.startswith(".lock")}, (line, seed)
            assert not list(folder.rglob(".part-*")), (line, seed)
            found[code] += 1
    return found


def test_commands_on_spoiled_files(targets, tiny, here, capfd):
    assault_commands(command_lines(targets, tiny)[1::3], here, capfd, 1)


@pytest.mark.attack
@pytest.mark.timeout(3000)
def test_commands_on_many_spoiled_files(targets, tiny, here, capfd, record_property):
    found = assault_commands(command_lines(targets, tiny), here, capfd, 10)
    record_property("commands", dict(found))


@pytest.mark.skipif(os.name!="posix", reason="pipes and devices of Unix")
@pytest.mark.parametrize("line", ["dance X", "data inspect X", "data verify X", "motion X", "features X --kind handcrafted --fps 30", "landmarks X", "weights show X", "train X", "run X", "run --grid X", "dance --beats X", "dance --seed-motion X", "evaluate X --reference X"])
@pytest.mark.parametrize("device", ["pipe", "/dev/zero"])
def test_pipes_and_devices(here, capfd, data_folder, line, device):
    suffix = {"landmarks": ".tsv", "run": ".ipynb"}.get(line.split()[0], ".npz") if device=="pipe" else ""
    path = device+suffix
    if device=="pipe": os.mkfifo(path)
    with limit(20): code = cli.run(line.replace("X", path).split())
    said = capfd.readouterr()
    assert code==2 and "Traceback" not in said.err and said.err.splitlines()[-1].startswith("error: "), said


@pytest.mark.skipif(os.name!="posix", reason="limits of Unix")
@pytest.mark.parametrize("line", ["features points --kind handcrafted --fps 30 --out out", "train store --steps 1 --batch 1 --out out"])
def test_full_disk(here, line):
    "A limit on file sizes acts like a disk that fills up: one sentence, and nothing half-written"
    from audio2pose.data.windows import random_sequences, write_store
    (here/"points").mkdir()
    np.save(here/"points"/"clip.npy", np.random.default_rng(0).uniform(0, 500, (3000, 17, 3)))
    write_store(random_sequences(4, 300), here/"store")
    small = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)))
    done = copies.run([COMMAND[0], "-B", *COMMAND[1:], *line.split()], capture_output=True, text=True, preexec_fn=small, timeout=200, check=False) # A compiled module would be cut off, too
    assert done.returncode==2 and "Traceback" not in done.stderr and "error: " in done.stderr.splitlines()[-1], done.stderr
    assert not list(here.rglob(".part-*"))


# ---- threads

@pytest.mark.slow
def test_threads_do_not_matter(here):
    "The same seed gives the same bytes with one thread and with two"
    t = np.arange(22_050*8)/22_050
    soundfile.write("song.wav", (.8*np.sin(2*np.pi*1000*t)*np.exp(-(t%.5)/.01)+.05*np.sin(2*np.pi*220*t)).astype(np.float32), 22_050)
    for threads in "12":
        number = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
        subprocess.run([*COMMAND, "dance", "song.wav", "--no-film", "--out", threads], env=os.environ|number, check=True, capture_output=True)
    for name in ("motion.npz", "dance.bvh", "dance.glb", "dance.html"): assert Path(f"1/{name}").read_bytes()==Path(f"2/{name}").read_bytes(), name


def test_fact_on_one_thread_and_two():
    "FACT's dance is the same bytes, however many threads its products are shared out to"
    from audio2pose.data.windows import random_sequences
    from audio2pose.generate import generate_dance
    model,features = FACT.from_pretrained(),next(random_sequences(1, 120))[2].astype(np.float32)
    threads,made = torch.get_num_threads(),[]
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            made.append(generate_dance(model, features))
    finally: torch.set_num_threads(threads)
    for other in made[1:]: assert other.poses.tobytes()==made[0].poses.tobytes() and other.trans.tobytes()==made[0].trans.tobytes()


# ---- memory

@pytest.mark.attack
@pytest.mark.timeout(3000)
def test_ten_minutes_take_little_more_than_one(here, record_property):
    "The most memory that a dance of ten minutes takes, against one of a minute"
    t,most = np.arange(22_050*600)/22_050,{}
    song = (.8*np.sin(2*np.pi*1000*t)*np.exp(-(t%.5)/.01)+.05*np.sin(2*np.pi*220*t)).astype(np.float32)
    for seconds in (60, 600):
        soundfile.write("song.flac", song[:22_050*seconds], 22_050)
        child = start("dance", "song.flac", "--no-film", "--out", f"{seconds}")
        status,used = os.wait4(child.pid, 0)[1:]
        assert status==0, child.stderr.read()
        most[seconds] = used.ru_maxrss/1e3 # MB
    record_property("memory", most)
    assert most[600]<most[60]+200, most


# ---- kills

def start(*words): return subprocess.Popen([*(SMALL_NETWORK if words[0]=="landmarks" else COMMAND), *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def digests(folder:Path, skip=())->dict[str, str]:
    "Hashes of the results; not of the ledger, which tells of every attempt, nor of times of the clock"
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".lock") and path.name not in ("ledger.jsonl", *skip)}


def trained(folder:Path):
    "A run of training without its seconds"
    content = torch.load(folder/"checkpoint.pt", weights_only=True)
    log = [[cell for name,cell in zip("step loss valid_loss lr seconds waited".split(), line.split(",")) if name not in ("seconds", "waited")] for line in (folder/"log.csv").read_text().splitlines()]
    return {name: tensor.numpy().tobytes() for name,tensor in content["model"].items()}, content["step"], log, digests(folder/"model")


def write_clips(folder:Path):
    "Six films of a yellow block, and a dictionary of signs that says where it is"
    import av
    for clip in range(6):
        with av.open(str(folder/f"v{clip}.mp4"), "w") as film:
            stream = film.add_stream("mpeg4", rate=25)
            stream.width,stream.height,stream.pix_fmt = 160,96,"yuv420p"
            for k in range(10):
                picture = np.full((96, 160, 3), 60, np.uint8)
                picture[20:84, 10+clip+k:40+clip+k] = 0,220,250
                film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
            film.mux(stream.encode(None))
    (folder/"signs.json").write_text(json.dumps([dict(gloss="a", instances=[dict(bbox=[10, 20, 60, 84], fps=25, frame_start=1, frame_end=-1, video_id=f"v{clip}") for clip in range(6)])]))


def still_running(folder:Path, seconds=20)->list[str]: # Their numbers
    "Processes that work in a folder and do not leave it in time: workers and kernels of those that were killed"
    def there(process):
        try: return process.name!=str(os.getpid()) and (process/"cwd").readlink().is_relative_to(folder)
        except OSError: return False # Gone, or somebody else's
    until = time.monotonic()+seconds
    while found := [process for process in Path("/proc").glob("[0-9]*") if there(process)]:
        if time.monotonic()>until: return [process.name for process in found]
        time.sleep(.2)
    return []


GRID_NOTEBOOK = ["from pathlib import Path\nimport time, hashlib\ntime.sleep(.5)\n", "Path(out).mkdir(parents=True, exist_ok=True)\n(Path(out)/'done.txt').write_text(hashlib.sha256(str(number).encode()).hexdigest())\n"]


def write_material(folder:Path, tree:bool):
    "What the commands that are killed begin from"
    from audio2pose.data.windows import random_sequences, write_store
    t = np.arange(22_050*4)/22_050
    soundfile.write(folder/"song.wav", (.8*np.sin(2*np.pi*1000*t)*np.exp(-(t%.5)/.01)+.05*np.sin(2*np.pi*220*t)).astype(np.float32), 22_050)
    write_store(random_sequences(4, 400), folder/"store")
    write_clips(folder)
    if tree: cli.run(["data", "synth", str(folder/"tree"), "--sequences", "4", "--seconds", "8", "--seed", "1"])
    (folder/"points").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8): np.save(folder/"points"/f"clip{i}.npy", np.concatenate([500+100*rng.normal(size=(3000, 17, 2)), rng.uniform(size=(3000, 17, 1))], -1))
    cell = lambda source, tags=(): dict(cell_type="code", metadata=dict(tags=list(tags)), source=source, outputs=[], execution_count=None, id=f"c{abs(hash(source))%10**7}")
    (folder/"small.ipynb").write_text(json.dumps(dict(cells=[cell("number:int = 1 # Of the run\nout:str = '' # Folder\n", ["parameters"]), *map(cell, GRID_NOTEBOOK)], metadata=dict(kernelspec=dict(name="python3", display_name="Python 3", language="python")), nbformat=4, nbformat_minor=5)))
    (folder/"grid.yaml").write_text(f"notebook: {folder/'small.ipynb'}\ngrid: {{number: [1, 2, 3]}}\n")


KILLED = dict( # Command → words with OUT for the output folder, and what is compared
    dance=("dance song.wav --model TINY --no-film --commit 1 --out OUT", digests),
    prepare=("data prepare tree --out OUT --workers 2", lambda out: digests(out, ("options.json",))),
    landmarks=("landmarks signs.json --boxes --detector nano --detector-weights random --pose tiny --pose-weights random --rate 5 --device cpu --out OUT", digests),
    mediapipe=("landmarks people.tsv --videos VIDEOS --backend mediapipe --pose full --pose-weights TASK --engine processes --workers 2 --out OUT", digests),
    features=("features points --kind handcrafted --fps 30 --workers 2 --out OUT", digests),
    train=("train store --steps 6 --batch 2 --precision fp32 --out OUT", trained),
    grid=("run --grid grid.yaml --out OUT", lambda out: sorted((path.parent.name, path.read_text()) for path in out.rglob("done.txt"))),
)


@pytest.mark.attack
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", list(KILLED))
def test_killed_twelve_times(here, tiny, shared, name):
    "kill -9 at random moments, then to the end: what an undisturbed run makes, and nothing is left behind"
    write_material(here, tree=name=="prepare")
    line,result = KILLED[name]
    if name=="mediapipe": # Real people, and workers of its own
        pytest.importorskip("mediapipe")
        line = line.replace("VIDEOS", str(shared("real/video/one_person.mp4").parent)).replace("TASK", str(shared("real/weights/pose_landmarker_full.task")))
        (here/"people.tsv").write_text("VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND\n"+"".join(f"one_person\tclip{k}\t0.{k}\t0.{k+3}\n" for k in range(6)))
    words = lambda out: line.replace("TINY", str(tiny)).replace("OUT", out).split()
    begun = time.monotonic()
    whole = start(*words("whole"))
    assert whole.wait(600)==0, whole.stderr.read()
    seconds,rng,killed = time.monotonic()-begun,random.Random(name),0
    for _ in range(40):
        child,begun = start(*words("out")),time.monotonic()
        try: child.wait(rng.uniform(.1, 1.)*seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            killed += 1
        child.wait()
        time.sleep(1.) # Its workers notice
        if child.returncode==0: # It was quicker than the first
            seconds = min(seconds, time.monotonic()-begun-1)
            shutil.rmtree("out")
        if killed>=12: break
    assert killed>=12
    last = start(*words("out"))
    assert last.wait(600)==0, last.stderr.read()
    assert result(here/"out")==result(here/"whole")
    assert not list(here.rglob(".part-*")) and unharmed(here) and not still_running(here)
