"AIST++: names, splits, reading, real clips, and a tree that is prepared, damaged, killed and resumed"
import contextlib
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import copies
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audio2pose.core import InputError
from audio2pose.data import aist
from audio2pose.data.aist import CAMERAS, GENRES, SequenceName, load_single_sample, parse_name, rate_issue, split_names
from audio2pose.data.download import unpack_archive
from audio2pose.data.dataset_files import scan_dataset
from audio2pose.data.prepare import load_windows, prepare
from audio2pose.data.synthetic import synthesise
from audio2pose.data.verify import describe_file, verify
from audio2pose.data.windows import Store
from audio2pose.motion import Motion
from audio2pose.pairs import load_pairs

COMMAND = [sys.executable, "-c", "import sys; from audio2pose.cli import main; sys.exit(main())"]


# ---- names and splits

names = st.builds(SequenceName, genre=st.sampled_from(list(GENRES)), situation=st.sampled_from(["BM", "FM"]), camera=st.sampled_from(CAMERAS), dancer=st.integers(1, 99),
                  music=st.builds("m{}{}".format, st.sampled_from(list(GENRES)), st.integers(0, 5)), choreography=st.integers(1, 99))


@given(names)
def test_names_round_trip(name):
    assert parse_name(str(name))==name
    assert {parse_name(view).sequence for view in name.views}=={name.sequence}
    assert len(set(name.views))==9
    assert 80<=name.bpm<=135


@given(st.text(max_size=40)|st.from_regex(r"g[A-Z]{2}_s[A-Z]{2}_c[0-9]{2}_d[0-9]{2}_m[A-Z]{2}[0-9]_ch[0-9]{2}", fullmatch=True))
def test_any_text_is_a_name_or_an_input_error(text):
    try: assert str(parse_name(text)) in text
    except InputError as error: assert "\n" not in str(error) or "\n" in text


@pytest.mark.parametrize(["wrong", "why"], [
    ("gBR_sXX_cAll_d04_mBR0_ch01", "no situation is called 'XX'"), ("gBR_sBM_cAll_d00_mBR0_ch01", "dancer 00"), ("gBR_sBM_call_d04_mBR0_ch01", "'call' is not a camera"),
    ("gBR_sBM_cAll_d04_mBR0", "this one has 5"), ("S9_Walking_1.54138969", "this one has 3"), ("gBR_sBM_cAll_d04_mBR6_ch01", "no song is called 'mBR6'")])
def test_a_wrong_name_says_what_is_wrong(wrong, why):
    with pytest.raises(InputError, match=re.escape(why)): parse_name(wrong)


def test_official_splits():
    assert [len(split_names(split, ignored=True)) for split in aist.SPLITS]==[980, 20, 20]
    assert [len(split_names(split)) for split in aist.SPLITS]==[952, 20, 20]
    assert len(set(aist.ignored_names()))==45 and "gHO_sFM_cAll_d20_mHO5_ch13" in aist.ignored_names()
    songs = {split: {parse_name(name).music for name in split_names(split, ignored=True)} for split in aist.SPLITS}
    assert not songs["train"]&songs["test"] and not songs["train"]&songs["val"]


def test_official_splits_are_the_published_ones(shared):
    for file in ("crossmodal_train", "crossmodal_test", "ignore_list"):
        published = [line.strip() for line in shared(f"real/aist/splits/{file}.txt").read_text().split("\n") if line.strip()]
        shipped = aist.ignored_names() if file=="ignore_list" else split_names(file.removeprefix("crossmodal_"), ignored=True)
        assert sorted(set(published))==sorted(set(shipped))


@pytest.mark.parametrize(["frames", "seconds", "own", "wrong"], [
    (720, 12., True, None), (720, 24., True, "twice as long"), (360, 12., True, "at 30 fps"), (360, 12., False, "at 30 fps"), (720, 6., False, "lasts only 6.00 s"),
    (720, 48., False, None), (1440, 12., True, "at 120 fps"), (720, 15., True, "the sound lasts 15.00 s")])
def test_lengths_of_sixteen_beats(frames, seconds, own, wrong):
    said = rate_issue(parse_name("gBR_sBM_cAll_d04_mBR0_ch01"), frames, seconds, own)
    assert (said is None) if wrong is None else wrong in said


# ---- the real thing

def test_real_motion(shared, real_motion):
    path = shared("real/aist/motions/gBR_sBM_cAll_d04_mBR0_ch01.pkl")
    assert len(real_motion)==720 and real_motion.seconds==12. and abs(real_motion.scaling-93.779)<1e-3
    positions = real_motion.positions()
    from audio2pose.skeleton import SMPL_24
    bones = np.stack([np.linalg.norm(positions[:, a]-positions[:, b], axis=-1) for a,b in SMPL_24.bones])
    assert np.ptp(bones, axis=1).max()<1e-6
    lines = describe_file(path)
    assert any("(720, 72)" in line for line in lines) and "720 frames at 60 fps: 12.00 s" in lines


def test_real_motion_is_prepared_alone(shared, tmp_path):
    "One file out of the archive: the rest is missing by name"
    (tmp_path/"aist/motions").mkdir(parents=True)
    shutil.copy(shared("real/aist/motions/gBR_sBM_cAll_d04_mBR0_ch01.pkl"), tmp_path/"aist/motions")
    result = prepare(tmp_path/"aist", tmp_path/"out", workers=1, progress=False)
    assert (result.clips, result.made, len(result.missing))==(1, 1, 1019 if "gBR_sBM_cAll_d04_mBR0_ch01" in sum((split_names(s, ignored=True) for s in aist.SPLITS), []) else 1020)
    assert len(Motion.load(tmp_path/"out/motions/gBR_sBM_cAll_d04_mBR0_ch01.npz"))==720


# ---- a tree to damage

@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    "Six dances of 8 s; never written to"
    folder = tmp_path_factory.mktemp("aist")/"tree"
    synthesise(folder, 6, seconds=8, progress=False)
    return folder


@pytest.fixture(scope="module")
def ready(tree):
    "It, prepared; never written to"
    prepare(tree, tree.with_name("ready"), workers=1, progress=False)
    return tree.with_name("ready")


def dances(folder): return sorted(path.stem for path in (folder/"motions").glob("*.pkl"))


def link(tree, folder):
    "A copy whose files may be replaced (not written into)"
    shutil.copytree(tree, folder, copy_function=os.link)
    return folder


def replace_bytes(path, content):
    path.unlink()
    path.write_bytes(content)


def state(folder): return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name!=".lock"}


def times(folder): return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "report.json")}


def test_sample_by_either_name(tree, ready):
    for root in (tree, ready):
        for name in dances(tree)[:2]:
            spelled = [load_single_sample(file_id, root) for file_id in (name, name.replace("cAll", "c01"), name.replace("cAll", "c09"))]
            for pose,(wav,sr) in spelled:
                assert pose.shape==(480, 17, 3) and pose.dtype==np.float32 and wav.shape==(8*16000,) and sr==16000
                np.testing.assert_array_equal(pose, spelled[0][0])
    assert load_single_sample(dances(tree)[0], tree, 22050)[1][1]==22050


def test_sample_from_the_original_scripts_folders(ready, tmp_path):
    "3d_npy, and audio named by its camera"
    name = next((ready/"poses_npy").glob("*.npy")).stem
    for folder in ("3d_npy", "audio"): (tmp_path/folder).mkdir()
    shutil.copy(ready/"poses_npy"/f"{name}.npy", tmp_path/"3d_npy")
    shutil.copy(ready/"audio"/f"{name}.wav", tmp_path/"audio"/f"{name.replace('cAll', 'c03')}.wav")
    assert load_single_sample(name.replace("cAll", "c01"), tmp_path)[0].shape==(480, 17, 3)
    with pytest.raises(InputError, match="no keypoints of it; looked for .*poses_npy"): load_single_sample(name.replace("ch01", "ch09"), tmp_path)


def test_what_is_prepared(tree, ready):
    name = dances(tree)[0]
    beats = json.loads((ready/"beats"/f"{name}.json").read_text())
    np.testing.assert_allclose(np.array(beats["beat_frames"])/60, beats["beat_times"], atol=1e-6)
    assert isinstance(beats["tempo_bpm"], float) and abs(beats["tempo_bpm"]-beats["name_bpm"])<.06*beats["name_bpm"]
    truth = json.loads((tree/"truth"/f"{name}.json").read_text())["beats"]
    assert np.median([np.abs(np.array(truth)-beat).min() for beat in beats["beat_times"]])<.05
    info = soundfile.info(ready/"audio"/f"{name}.wav")
    assert (info.samplerate, info.channels, info.frames, info.subtype)==(16000, 1, 128000, "PCM_16")
    assert np.load(ready/"features"/f"{name}.npy").shape==(480, 35)
    np.testing.assert_allclose(Motion.load(ready/"motions"/f"{name}.npz").poses, Motion.load(tree/"motions"/f"{name}.pkl").poses)
    assert not verify(ready, workers=1, progress=False).issues and not verify(tree, workers=1, progress=False).issues


def test_stages_may_be_skipped_and_made_later(tree, ready, tmp_path):
    prepare(tree, tmp_path/"out", stages=("poses",), workers=1, progress=False)
    assert not (tmp_path/"out/audio").exists() and not (tmp_path/"out/windows").exists()
    poses = {path.name: path.stat().st_mtime_ns for path in (tmp_path/"out/poses_npy").iterdir()}
    prepare(tree, tmp_path/"out", workers=1, progress=False)
    assert poses=={path.name: path.stat().st_mtime_ns for path in (tmp_path/"out/poses_npy").iterdir()}, "done twice"
    assert state(tmp_path/"out")==state(ready)
    again = prepare(tree, tmp_path/"out", stages=("beats",), workers=1, progress=False)
    assert again.made==0 and state(tmp_path/"out")==state(ready), "skipping loses nothing"


def test_overwrite_makes_all_again(tree, tmp_path):
    genre = dances(tree)[0][1:3]
    first = prepare(tree, tmp_path/"out", genre=genre, stages=("poses",), workers=1, progress=False)
    assert first.made==1
    before = times(tmp_path/"out")
    assert prepare(tree, tmp_path/"out", genre=genre, stages=("poses",), workers=1, progress=False).made==0 and times(tmp_path/"out")==before
    assert prepare(tree, tmp_path/"out", genre=genre, stages=("poses",), overwrite=True, workers=1, progress=False).made==1
    assert times(tmp_path/"out")!=before


def test_one_genre_after_another(tree, ready, tmp_path):
    "The windows hold all that was ever prepared there"
    for name in dances(tree): prepare(tree, tmp_path/"out", genre=name[1:3], workers=1, progress=False)
    assert (tmp_path/"out/windows/motion.npy").read_bytes()==(ready/"windows/motion.npy").read_bytes()


# ---- bad input

class Hostile:
    def __reduce__(self): return os.system, ("touch hostile_ran",)


def damage(folder, kind):
    "Do something to the first dance; what should be said about it"
    name = dances(folder)[0]
    motion,points,song = folder/"motions"/f"{name}.pkl",folder/"keypoints3d"/f"{name}.pkl",folder/"wav"/f"{parse_name(name).music}.wav"
    y,sr = soundfile.read(song)
    if kind=="truncated pickle": replace_bytes(motion, motion.read_bytes()[:3000])
    if kind=="malicious pickle": replace_bytes(motion, pickle.dumps(dict(smpl_poses=Hostile())))
    if kind=="truncated keypoints": replace_bytes(points, points.read_bytes()[:-10])
    if kind=="another file's keys": replace_bytes(motion, points.read_bytes())
    if kind=="truncated wav": replace_bytes(song, song.read_bytes()[:50000])
    if kind=="empty wav": replace_bytes(song, b"")
    if kind in ("short wav", "silent wav"):
        song.unlink()
        soundfile.write(song, y[:3*sr] if kind=="short wav" else 0*y, sr)
    if kind=="no keypoints": points.unlink()
    if kind=="no song": song.unlink()
    if kind=="half the frames":
        slow = Motion.load(motion)
        motion.unlink()
        slow[::2].save(motion)
    if kind=="NaN":
        holes = Motion.load(motion)
        holes.trans[10:20] = np.nan
        motion.unlink()
        holes.save(motion)
    if kind=="twice": shutil.copy(motion, motion.with_name(name.replace("cAll", "c02")+".pkl"))
    if kind=="foreign": (folder/"motions/S1_Walking.pkl").write_bytes(b"")
    return name


@pytest.mark.parametrize(["kind", "said", "failed"], [
    ("truncated pickle", "not a whole pickle", True), ("malicious pickle", "posix.system.*not loaded", True), ("truncated keypoints", "not a whole pickle", True),
    ("another file's keys", "no .*smpl_poses.* in it", True), ("truncated wav", "breaks off", True), ("empty wav", "empty", True), ("silent wav", "silent", True),
    ("short wav", "the sound lasts only 3.00 s", False), ("no keypoints", "no keypoints3d file", False), ("no song", "no sound file", False),
    ("half the frames", "twice as long: is the motion at 30 fps", False), ("NaN", "motion: 10 of 480 frames are not numbers, first frame 10", False),
    ("twice", "2 files of it in motions; .*cAll.* is used, not .*c02", False), ("foreign", "not an AIST.. name", False)])
def test_each_fault_is_one_clear_line_and_the_rest_goes_on(tree, ready, tmp_path, kind, said, failed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = damage(link(tree, tmp_path/"tree"), kind)
    shutil.copytree(ready, tmp_path/"out", copy_function=shutil.copy2)
    for stale in [*(tmp_path/"out").glob(f"*/{name}.*"), *(tmp_path/"out/songs").glob(f"{parse_name(name).music}.*")]: stale.unlink() # The damaged one is not ready
    others = {file: when for file,when in times(tmp_path/"out").items() if not file.startswith(("windows", ".lock"))}
    result = prepare(tmp_path/"tree", tmp_path/"out", workers=1, progress=False)
    lines = [line for key,some in result.issues.items() for line in some if key==name or kind=="foreign"]
    assert any(re.search(said, line) for line in lines), result.issues
    assert all("\n" not in line for line in lines)
    assert set(result.failed)==({name} if failed else set())
    assert others.items()<=times(tmp_path/"out").items(), "what was complete is left alone"
    assert not (tmp_path/"hostile_ran").exists()
    index = {entry["name"] for entry in json.loads((tmp_path/"out/windows/index.json").read_text())["sequences"]}
    assert set(dances(tree))-{name}<=index
    if kind in ("NaN", "no song") or failed: assert name not in index
    verdict = verify(tmp_path/"tree", workers=1, progress=False)
    assert verdict.issues, "verify sees it too"
    if failed and kind!="silent wav": assert verdict.fetch


@pytest.mark.parametrize("kind", ["truncated pickle", "short wav", "no song"])
def test_mended_input_is_finished_and_nothing_else(tree, ready, tmp_path, kind):
    name = damage(link(tree, tmp_path/"tree"), kind)
    prepare(tmp_path/"tree", tmp_path/"out", workers=1, progress=False)
    shutil.rmtree(tmp_path/"tree")
    link(tree, tmp_path/"tree")
    for file in (tmp_path/"tree"/"motions"/f"{name}.pkl", tmp_path/"tree"/"wav"/f"{parse_name(name).music}.wav"): # Fetched again, so younger
        content = file.read_bytes()
        replace_bytes(file, content)
    result = prepare(tmp_path/"tree", tmp_path/"out", workers=1, progress=False)
    assert (result.made, result.failed, result.issues)==(1, {}, {})
    assert state(tmp_path/"out")==state(ready)


def test_video_as_sound_and_video_without_sound(tree, tmp_path):
    import av
    folder = link(tree, tmp_path/"tree")
    shutil.rmtree(folder/"wav")
    (folder/"videos").mkdir()
    for name,sound in zip(dances(tree), (True, False)):
        with av.open(str(folder/"videos"/f"{name.replace('cAll', 'c03')}.mp4"), "w") as film:
            video = film.add_stream("mpeg4", rate=10)
            video.width,video.height,video.pix_fmt = 64,48,"yuv420p"
            stream = film.add_stream("aac", rate=44100, layout="mono") if sound else None
            for i in range(80): film.mux(video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 3*i%255, np.uint8))))
            film.mux(video.encode(None))
            if not sound: continue
            y = np.sin(2*np.pi*440*np.arange(8*44100)/44100)*(np.arange(8*44100)%22050<3000)
            frame = av.AudioFrame.from_ndarray(y.astype(np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate,frame.pts = 44100,0
            film.mux(stream.encode(frame))
            film.mux(stream.encode(None))
    result = prepare(folder, tmp_path/"out", workers=1, progress=False)
    one,two,*rest = dances(tree)
    assert soundfile.info(tmp_path/"out/audio"/f"{one}.wav").frames==128000
    assert any("no sound in it" in line for line in result.failed[two])
    assert all(result.issues[name]==["no sound file"] for name in rest)


def test_partial_archive_and_missing_names(tree, tmp_path):
    folder = link(tree, tmp_path/"tree")
    lost = dances(tree)[1::2]
    for name in lost: (folder/"motions"/f"{name}.pkl").unlink()
    result = prepare(folder, tmp_path/"out", stages=("poses",), workers=1, progress=False)
    assert result.missing==lost and json.loads((tmp_path/"out/report.json").read_text())["missing"]==lost
    assert set(verify(folder, workers=1, progress=False).fetch)=={f"motions/{name}.pkl" for name in lost}


def test_names_twice_in_a_split(tree, tmp_path):
    folder = link(tree, tmp_path/"tree")
    split = folder/"splits/crossmodal_test.txt"
    replace_bytes(split, 2*split.read_bytes())
    assert "stands 2 times in the splits" in str(scan_dataset(folder).issues)


# ---- killed, stopped, full

def run(*arguments, **options): return copies.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, **options)


def count_files(folder):
    "What lies in its folders now; one that goes away meanwhile holds nothing"
    names = []
    for path in folder.glob("*"):
        with contextlib.suppress(OSError): names += os.listdir(path)
    return len(names)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_random_and_resumed_is_the_same(tree, ready, tmp_path):
    "kill -9 again and again, then to the end: byte for byte what an undisturbed run makes, and nothing is left lying about"
    rng = np.random.default_rng(0)
    out,made = tmp_path/"out",{}
    for _ in range(4):
        child = copies.Popen([*COMMAND, "data", "prepare", str(tree), "--out", str(out), "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        target,end = count_files(out)+int(rng.integers(1, 12)),time.monotonic()+60
        while child.poll() is None and count_files(out)<target and time.monotonic()<end: time.sleep(.005)
        child.kill()
        child.wait()
        now = times(out) if out.exists() else {}
        whole = {file: when for file,when in now.items() if ".part-" not in file and not file.startswith(("windows", ".lock"))}
        assert made.items()<=whole.items(), "what was complete is neither lost nor done twice"
        made = whole
    end = time.monotonic()+30
    while (done := run("data", "prepare", tree, "--out", out, "--workers", 2)).returncode==2 and time.monotonic()<end: time.sleep(.5) # Its workers leave within a second
    assert done.returncode==0, done.stderr
    assert state(out)==state(ready)
    assert made.items()<=times(out).items()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(tree, tmp_path):
    child = copies.Popen([*COMMAND, "data", "prepare", str(tree), "--out", str(tmp_path/"out"), "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic()+60
    while not list((tmp_path/"out").glob("songs/*.npy")) and time.monotonic()<end and child.poll() is None: time.sleep(.01)
    os.killpg(child.pid, signal.SIGINT)
    _,said = child.communicate(timeout=60)
    if child.returncode==0: pytest.skip("it was quicker than Ctrl-C")
    assert child.returncode==130 and "Traceback" not in said
    assert not list((tmp_path/"out").rglob(".part-*"))


def test_full_disk(tree, tmp_path):
    "Files over 100 kB cannot be written: a line for each clip, no traceback, and later a run finishes the rest"
    small = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)))
    done = run("data", "prepare", tree, "--out", tmp_path/"out", "--workers", 1, preexec_fn=small, env=os.environ|dict(PYTHONDONTWRITEBYTECODE="1")) # A compiled module would be cut off, too
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("File too large")+done.stderr.lower().count("error")>=1
    assert not list((tmp_path/"out").rglob(".part-*"))
    assert prepare(tree, tmp_path/"out", workers=1, progress=False).failed=={}
    assert not verify(tmp_path/"out", workers=1, progress=False).issues


def test_a_short_disk_is_said_before_work_begins(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("audio2pose.core.shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"clips become would take .* GB, and .* has 1e-06 GB left; free some space"): prepare(tree, tmp_path/"out", progress=False)
    assert not (tmp_path/"out"/"records").exists() and not (tmp_path/"out"/"audio").exists()
    with zipfile.ZipFile(tmp_path/"set.zip", "w") as archive: archive.writestr("motions/gBR_sBM_cAll_d04_mBR0_ch01.pkl", bytes(2000))
    with pytest.raises(InputError, match="what is in set.zip would take 2e-06 GB"): unpack_archive(tmp_path/"set.zip", tmp_path/"set", progress=False)
    assert not (tmp_path/"set").exists()


def test_a_worker_that_dies_costs_its_clip(tree, tmp_path, monkeypatch):
    from audio2pose.data import prepare as module
    doomed = dances(tree)[2]
    def deadly(pair, out, options): return os._exit(9) if pair[0].name==doomed else module.prepare_clip(pair[0], out, options, pair[1])
    monkeypatch.setattr(module, "prepare_with", deadly)
    result = prepare(tree, tmp_path/"out", stages=("poses",), workers=2, progress=False)
    assert list(result.failed)==[doomed] and "its worker died" in result.failed[doomed][0] and result.made==5


# ---- commands

def test_bad_options_are_one_sentence(tree, tmp_path):
    for line in (["prepare", tmp_path/"nothing"], ["prepare", tree, "--genre", "tango"], ["prepare", tree, "--skip-poses", "--skip-audio", "--skip-beats"], ["verify", tmp_path], ["inspect", tmp_path/"no.pkl"],
                 ["download", tmp_path/"aist"], ["download", tmp_path/"aist", "--accept-terms", "--views", "12"]):
        done = run("data", *line)
        assert done.returncode==2 and done.stderr.startswith("error: ") and done.stderr.count("\n")==1, (line, done.stderr)
    assert not (tmp_path/"aist").exists()


def test_verify_command(tree, ready, tmp_path):
    assert run("data", "verify", ready).returncode==0
    damage(link(tree, tmp_path/"tree"), "truncated pickle")
    done = run("data", "verify", tmp_path/"tree", "--json")
    said = json.loads(done.stdout)
    assert done.returncode==1 and said["fetch"]==[f"motions/{dances(tree)[0]}.pkl"] and not said["ok"]


def test_windows_of_the_prepared(ready):
    windows = load_windows(ready, "val")
    motion,audio,target = windows[len(windows)-1]
    assert motion.shape==(120, 225) and audio.shape==(240, 35) and target.shape==(20, 225)
    assert isinstance(windows.store.motion, np.memmap)
    with pytest.raises(InputError, match="none of its"): load_windows(ready, "train")


def test_inspect_reads_cameras_and_lists(tree, tmp_path):
    assert [line.split()[0] for line in describe_file(tree/"cameras"/"ring.json")]==["size", "matrix", "rotation", "translation", "distortions"]
    for file,said in {"cameras/mapping.txt": "6 names, 6 of them sequences of AIST++", "ignore_list.txt": "0 names, 0 of them sequences of AIST++"}.items(): assert describe_file(tree/file)==[said]
    (tmp_path/"own.txt").write_text(f"{dances(tree)[0]}\n\ntake_1 studio\n")
    assert describe_file(tmp_path/"own.txt")==["2 names, 1 of them sequences of AIST++; take_1 is none"]


# ---- sets that are not whole

def one_genre(folder):
    for path in [path for kind in ("motions", "keypoints3d") for path in (folder/kind).glob("*.pkl") if not path.name.startswith("gBR_")]: path.unlink()


def half_the_songs(folder):
    for path in sorted((folder/"wav").iterdir())[::2]: path.unlink()


def half_the_videos(folder):
    shutil.rmtree(folder/"wav")
    (folder/"videos").mkdir()
    for name in dances(folder)[::2]: (folder/"videos"/f"{name.replace('cAll', 'c01')}.mp4").touch()


@pytest.mark.parametrize("break_set,complaint,lines", [
    (one_genre, "1 of 6 sequences are whole; 5 lack their motion, 0 their sound", 5), (lambda folder: shutil.rmtree(folder/"wav"), "0 of 6 sequences are whole; 0 lack their motion, 6 their sound", 6),
    (half_the_songs, "3 of 6 sequences are whole; 0 lack their motion, 3 their sound", 3), (half_the_videos, "3 of 6 sequences are whole; 0 lack their motion, 3 their sound", 3)],
    ids=["one genre", "no sound", "half the songs", "half the videos"])
def test_a_part_is_not_taken_for_all(tree, tmp_path, break_set, complaint, lines):
    break_set(link(tree, tmp_path/"tree"))
    done = run("data", "prepare", tmp_path/"tree", "--out", tmp_path/"out", "--workers", 1)
    assert done.returncode==2 and complaint in done.stderr and done.stderr.count("\n")==1
    assert len((tmp_path/"out"/"missing.txt").read_text().splitlines())==lines and not (tmp_path/"out"/"records").exists()
    if lines==5:
        assert "--genre BR" in done.stderr
        for option in (("--genre", "BR"), ("--partial",)): assert run("data", "prepare", tmp_path/"tree", "--out", tmp_path/"out", "--workers", 1, *option).returncode==0
        assert len(list((tmp_path/"out"/"records").glob("*.json")))==1


def rename(folder, *patterns):
    "Give files names of somebody's own: the first few of each pattern, or all"
    for pattern,count in patterns:
        for number,path in enumerate(sorted(folder.glob(pattern))[:count]): path.rename(path.with_stem(f"take_{number}"))


def test_other_names(tree, tmp_path):
    "Before anything is made, prepare, verify and generate say what is there and what a name should be"
    rename(link(tree, tmp_path/"tree"), ("motions/*", None), ("keypoints3d/*", None), ("wav/*", None))
    done = run("data", "prepare", tmp_path/"tree", "--out", tmp_path/"out")
    said = "no sequence in its folders motions and keypoints3d; 12 files bear other names, motions/take_0.pkl the first; expected are such as gBR_sBM_cAll_d04_mBR0_ch01.pkl"
    assert done.returncode==2 and said in done.stderr and done.stderr.count("\n")==1 and not (tmp_path/"out").exists()
    with pytest.raises(InputError, match="12 files bear other names, motions/take_0.pkl the first"): verify(tmp_path/"tree", workers=1, progress=False)
    with pytest.raises(InputError, match=r"lack their motion .*; there: 6 files in \S+ .take_0.pkl the first. and 6 files in \S+ .take_0.wav the first."):
        load_pairs(tmp_path/"tree"/"motions", tmp_path/"tree"/"wav", split_names("test", tmp_path/"tree"))
    with pytest.raises(InputError, match="not a store of windows .*; make one of a data set with audio2pose data prepare"): Store(tmp_path/"tree")


def test_some_other_names(tree, tmp_path):
    "What bears a name is not passed off as all; what bears none is named, songs too, and so are cameras of other sequences"
    folder = link(tree, tmp_path/"tree")
    rename(folder, ("motions/*", 3), ("keypoints3d/*", 3), ("wav/*", 4))
    replace_bytes(folder/"cameras"/"mapping.txt", b"take_0 studio\n"+f"{dances(tree)[-1]} studio\n".encode())
    with pytest.raises(InputError, match="2 of 6 sequences are whole; 3 lack their motion, 1 their sound .*; 10 files bear other names, motions/take_0.pkl the first; expected are .* mBR0.wav for its song"):
        prepare(folder, tmp_path/"out", partial_set=False, progress=False)
    assert not (tmp_path/"out"/"records").exists()
    said = [f"{issue.name}: {issue.message}" for issue in verify(folder, workers=1, progress=False).issues]
    for line in ("motions/take_2.pkl: not an AIST++ name", "keypoints3d/take_0.pkl: not an AIST++ name", "wav/take_3.wav: not the name of a song of AIST++", "is not in it, of 2 sequences take_0 is the first", "there are ring.json; fetch them again, or mend mapping.txt"):
        assert any(line in one for one in said), (line, said)


def test_bare_folder_of_pickles(tree, tmp_path):
    "Keypoint pickles and sounds are enough for poses, audio and beats, found under either spelling"
    shutil.copytree(tree/"keypoints3d", tmp_path/"pkl")
    done = run("data", "prepare", "--pkl_dir", tmp_path/"pkl", "--music", tree/"wav", "--output_dir", tmp_path/"out", "--workers", 1)
    assert done.returncode==0, done.stderr
    name = dances(tree)[0]
    for spelling in (name, name.replace("cAll", "c01")):
        pose,(wav,sr) = load_single_sample(spelling, tmp_path/"out")
        assert pose.shape==(480, 17, 3) and len(wav)==8*sr and aist.load_beats(spelling, tmp_path/"out")["fps"]==60
    with pytest.raises(InputError, match="no beats of it"): aist.load_beats("gBR_sBM_cAll_d09_mBR5_ch09", tmp_path/"out")
    done = run("data", "verify", tmp_path/"pkl", "--workers", 1)
    assert done.returncode==0 and "6 sequences (official), 0 issues" in done.stdout
