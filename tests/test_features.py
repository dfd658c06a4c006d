"""Features of keypoints by default: what is mended, what is refused, what survives a stop"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import copies
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from audio2pose.commands import features as command
from audio2pose.commands.base import make_app, invoke
from audio2pose.core import InputError, LockedError, lock_folder
from audio2pose.data.keypoints import Keypoints, from_json, keypoint_files, read_keypoints
from audio2pose.data.synthetic import synthesise
from audio2pose.engine.ledger import read_ledger
from audio2pose.extract.features import Handcrafted, MotionBERT, ReaderConfig, extract
from audio2pose.extract.handcrafted import handcrafted
from audio2pose.extract.preprocessing import CleaningConfig, preprocess, resample, sample_times
from audio2pose.models.motionbert import DSTformer, DSTformerConfig

TINY = DSTformerConfig(width=32, mlp=64, depth=2, heads=8, rep=16)
SEED = CleaningConfig(compat="seed")


@pytest.fixture(scope="module")
def pre(golden): return golden("motionbert/preprocess")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return DSTformer(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")/"tiny.bin"
    tiny.save(path)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    synthesise(folder, 2, seconds=8, progress=False)
    return folder


def clip(points, fps=60., **more): return Keypoints(np.asarray(points, float), fps, **more)


def ours(points): return preprocess(clip(points)).x


# ---- what is mended

@pytest.mark.parametrize("name", ["pipe_clean_T120", "pipe_clean_T3", "case_clean"])
def test_clean_clips_are_prepared_as_published(pre, name):
    points = pre[f"{name}_in"]
    assert np.abs(ours(points)-preprocess(clip(points), SEED).x).max()<1e-6


def test_short_gaps_are_the_published_lines(pre):
    "Where everything was bridged, x and y are the published ones; the confidence is lower, never higher"
    points = pre["case_clean_in"].astype(float)
    points[10:14, 9] = np.nan
    a,b = ours(points),preprocess(clip(points), SEED).x
    assert np.abs(a[..., :2]-b[..., :2]).max()<1e-6
    assert (a[10:14, 13, 2]<b[10:14, 13, 2]).all()


def test_missing_joint_is_masked(pre):
    "Left wrist unseen for 10 frames at 60 fps is bridged; unseen for 30 it is (0, 0, 0)"
    points = pre["case_clean_in"].astype(float)
    points[5:40, 9] = 0
    x = ours(points)
    assert (x[5:40, 13]==0).all() and (x[:5, 13, 2]>0).all()
    kept = [j for j in range(17) if j!=13]
    assert np.abs(x[:, kept]-ours(pre["case_clean_in"])[:, kept]).max()<.2 # The box may have been the wrist's
    assert (preprocess(clip(points), SEED).x[20, 13]==[-1, -1, 0]).all() or preprocess(clip(points), SEED).x[20, 13, :2].max()<-.8


def test_one_lost_hip_does_not_move_the_root(pre):
    clean,lost = ours(pre["case_clean_in"]),pre["case_missing_zero_in"]
    assert np.abs(ours(lost)[5, 0, :2]-clean[5, 0, :2]).max()<.05
    assert np.abs(preprocess(clip(lost), SEED).x[5, 0, :2]-clean[5, 0, :2]).max()>.3


@pytest.mark.parametrize("case", ["allnan_channel", "allnan_joint0"])
def test_nan_does_not_poison(pre, tiny, case):
    points = pre[f"case_{case}_in"]
    joint = 13 if case=="allnan_channel" else 9
    x = ours(points)
    assert np.isfinite(x).all() and (x[:, joint]==0).all()
    assert torch.isfinite(MotionBERT(tiny)([clip(points)])[0].values).all()
    with pytest.raises(InputError, match="not finite"): MotionBERT(tiny, SEED)([clip(points)])


def test_outlier_does_not_shrink_the_body(pre):
    "Height in the box, with one far point of low confidence, and with one of full confidence"
    clean = ours(pre["case_clean_in"])
    height = lambda x: np.ptp(x[30, :, 1])
    assert height(preprocess(clip(pre["case_outlier_in"]), SEED).x)<.8*height(clean)
    sure = pre["case_outlier_in"].astype(float)
    sure[20, 9] = [9000, 9000, .99]
    for points in (pre["case_outlier_in"], sure): assert abs(height(ours(points))-height(clean))<.02


def test_confidence_above_one(pre):
    assert np.abs(ours(pre["case_conf_gt1_in"])[..., 2]-ours(pre["case_clean_in"])[..., 2]).max()<.06


@pytest.mark.parametrize("case,said", [("zero_conf_all", "0 joints were seen"), ("degenerate", "one point")])
def test_nothing_to_see_is_refused(pre, case, said):
    with pytest.raises(InputError, match=said): ours(pre[f"case_{case}_in"])


def test_frames_without_confidence_are_bridged(pre):
    x = ours(pre["case_zero_conf_some_in"])
    around = np.maximum(x[11, :, 2], x[18, :, 2])
    assert (x[12:18, :, 2]>0).all() and (x[14:16, :, 2]<around).all(), "less sure than what was seen before and after"


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (12, 17, 3), elements=st.one_of(st.just(np.nan), st.floats(-1e4, 1e4), st.just(0.), st.just(np.inf))))
def test_anything_becomes_finite_or_a_sentence(points):
    try: x = ours(points)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert np.isfinite(x).all() and np.abs(x).max()<=1
    assert (x[x[..., 2]==0]==0).all(), "what was not seen is (0, 0, 0)"


def test_scale_and_place_do_not_matter(pre):
    points = pre["pipe_gaps_T120_in"].astype(float)
    assert np.abs(ours(points*[.1, .1, 1]+[300, -40, 0])-ours(points)).max()<1e-6


# ---- real input and what the published program made of it

@pytest.mark.parametrize("name,frames,limit", [("boxing2", 301, .022), ("ex1", 44, .013)])
def test_real_clips(shared, name, frames, limit):
    "The prepared x and y agree with the real output's, as far as a good lifter keeps them"
    real = np.load(shared(f"golden/motionbert/real_{name}.npz"))
    points = real["keypoints_halpe26"].astype(float)
    seed = preprocess_whole(points, real["fps"])
    assert seed.shape==(frames, 17, 3)
    assert np.abs(seed-real["h36m_norm"]).max()<1e-6
    mended = preprocess(clip(points, float(real["fps"]), layout="halpe")).x
    for x in (seed, mended): assert np.abs(x[..., :2]-real["X3D"][..., :2]).mean()<limit
    assert np.abs(real["X3D"][..., :2]-mended[:, [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13], :2]).mean()>4*limit, "left and right"


def preprocess_whole(points, fps):
    "As published for pose: no squeezing to 243 frames"
    from audio2pose.extract.preprocessing import seed_preprocess
    return seed_preprocess(clip(points, float(fps), layout="halpe"), longest=10**6)


def test_real_clip_through_alphapose_json(shared, tmp_path):
    real = np.load(shared("golden/motionbert/real_ex1.npz"))
    entries = [dict(image_id=f"{frame}.jpg", keypoints=points.ravel().tolist(), score=1., idx=1) for frame,points in zip(real["frame_id"].tolist(), real["keypoints_halpe26"])]
    (tmp_path/"alphapose.json").write_text(json.dumps(entries))
    read = from_json(tmp_path/"alphapose.json", float(real["fps"]))[0]
    assert read.layout=="halpe" and np.array_equal(read.points, real["keypoints_halpe26"].astype(float))


# ---- resampling

@pytest.mark.parametrize("fps", [23.976, 30., 59.94, 60., 120.])
@pytest.mark.parametrize("frames", [1, 2, 61, 305])
def test_times_are_exact(frames, fps):
    times = sample_times(frames, fps)
    assert len(times)>=1 and times[0]==0 and times[-1]<=(frames-1)/fps+1e-6<times[-1]+1/21.5+2e-6
    rows,_ = resample(np.arange(frames)[:, None]/fps, fps)
    assert np.abs(rows[:, 0]-times).max()<1e-6


def test_corrected_handcrafted_turns_through_the_wrap(golden):
    "In the wrapped case the published angle passes through the opposite direction; the corrected one does not"
    points = golden("motionbert/features138")["wrap_T30_in"].astype(float)
    limb = 106+6 # Elbow to wrist, left
    angle = np.unwrap(handcrafted(points)[:, limb])
    rows,times = resample(handcrafted(points, 60, "corrected"), 60)
    assert np.abs(rows[:, limb]-angle[0]-np.interp(times*60, np.arange(30), angle-angle[0])).max()<1e-6 or np.abs(np.diff(rows[:, limb])).max()<2*np.abs(np.diff(angle)).max()*60/21.5


# ---- a folder of everything

BAD = {"nan": "0 joints were seen", "noconf": "0 joints were seen", "joints": "12 points per person", "cut": "damaged", "two": "2 people", "fraction": "--size", "text": "not JSON", "scalar": "must be (T, K, 3)"}


@pytest.fixture
def mixed(tmp_path, tree):
    "Good clips (one of them of one frame, one of 600) beside bad ones"
    folder = tmp_path/"mixed"
    folder.mkdir()
    good = read_keypoints(next((tree/"keypoints2d").glob("*.pkl")))[0].points
    np.save(folder/"good.npy", good[:100])
    np.save(folder/"one.npy", good[:1])
    np.save(folder/"long.npy", np.tile(good, (2, 1, 1))[:600])
    np.save(folder/"nan.npy", np.full((50, 17, 3), np.nan))
    np.save(folder/"noconf.npy", good[:50]*[1, 1, 0])
    np.save(folder/"joints.npy", np.zeros((50, 12, 3)))
    np.save(folder/"scalar.npy", np.zeros(3))
    np.save(folder/"fraction.npy", np.full((9, 17, 3), .5))
    (folder/"cut.npy").write_bytes((folder/"good.npy").read_bytes()[:2000])
    (folder/"text.json").write_text("not json")
    people = [dict(image_id=i, keypoints=np.nan_to_num(good[i]+100*k).ravel().tolist(), idx=k) for i in range(20) for k in (0, 1)]
    (folder/"two.json").write_text(json.dumps(people))
    return folder


AT_60 = ReaderConfig(fps=60.)


def ends(out):
    "The last line of each clip"
    return {line["key"]: line for line in read_ledger(out/"ledger.jsonl") if line.get("outcome") not in (None, "begun")}


def test_one_line_for_each_clip(mixed, tiny, tmp_path):
    report,_ = extract(mixed, tmp_path/"out", MotionBERT(tiny), AT_60)
    lines = ends(tmp_path/"out")
    assert dict(report.outcomes)==dict(made=3, refused=8) and len(lines)==11
    for name,said in BAD.items(): assert said in lines[name]["reason"] and "\n" not in lines[name]["reason"], lines[name]
    assert [lines[name]["rows"] for name in ("good", "one", "long")]==[36, 1, 215]
    assert sorted(path.name for path in (tmp_path/"out").glob("*.pt"))==["good.pt", "long.pt", "one.pt"]
    again,_ = extract(mixed, tmp_path/"out", MotionBERT(tiny), AT_60)
    assert not again.outcomes and dict(again.kept)==dict(made=3, refused=8), "nothing twice"


def test_files_say_how_they_were_made(mixed, checkpoint, tmp_path):
    model = DSTformer.from_pretrained(checkpoint)
    extract(mixed/"good.npy", tmp_path/"out", MotionBERT(model), AT_60)
    values = torch.load(tmp_path/"out/good.pt", weights_only=True)
    about = json.loads((tmp_path/"out/good.json").read_text())
    assert values.shape==(36, 17*16) and values.dtype==torch.float32
    assert about["fps"]==21.5 and len(about["times"])==36 and about["shape"]==[36, 272]
    assert about["settings"]["weights"]=="tiny.bin" and len(about["settings"]["sha256"])==64
    assert about["source"].endswith("good.npy") and about["clip"]==dict(frames=100, fps=60., layout="coco")


def test_company_does_not_matter(mixed, tiny, tmp_path):
    "All in one batch, or one by one"
    for name,frames in (("together", 10**6), ("alone", 1)): extract(mixed, tmp_path/name, MotionBERT(tiny, frames=frames), AT_60)
    for name in ("good", "one", "long"):
        a,b = (torch.load(tmp_path/where/f"{name}.pt", weights_only=True) for where in ("together", "alone"))
        assert (a-b).abs().max()<1e-5


def test_failure_that_is_not_the_clips_is_tried_again(mixed, tiny, tmp_path):
    class Broken(MotionBERT):
        def __call__(self, clips): raise RuntimeError("out of memory")
    report,_ = extract(mixed, tmp_path/"out", Broken(tiny), AT_60)
    assert report.outcomes["error"]==5 and report.outcomes["refused"]==6
    report,_ = extract(mixed, tmp_path/"out", MotionBERT(tiny), AT_60)
    assert report.outcomes["made"]==3 and report.kept["refused"]==6, "the unreadable files are decided; the rest is tried again"


def test_lost_file_is_made_again(mixed, tiny, tmp_path):
    extract(mixed, tmp_path/"out", MotionBERT(tiny), AT_60)
    (tmp_path/"out/good.pt").unlink()
    (tmp_path/"out/long.pt").write_bytes(b"cut")
    assert extract(mixed, tmp_path/"out", MotionBERT(tiny), AT_60)[0].outcomes["made"]==2


def test_two_files_of_one_name(mixed, tiny, tmp_path):
    np.savez(mixed/"good.npz", keypoints=np.zeros((5, 17, 3)))
    with pytest.raises(InputError, match="two items are called 'good'"): extract(mixed, tmp_path/"out", MotionBERT(tiny), AT_60)


def test_ten_thousand_frames(tiny):
    points = np.random.default_rng(0).uniform(0, 1000, (10_000, 17, 3))
    points[..., 2] = .9
    values = MotionBERT(tiny)([clip(points)])[0].values
    assert values.shape==(3583, 272) and torch.isfinite(values).all()


# ---- stops

WORKER = """
import sys, time
from audio2pose.extract.features import MotionBERT, extract
from audio2pose.models.motionbert import DSTformer
class Slow(MotionBERT):
    def __call__(self, clips):
        time.sleep(.05)
        return super().__call__(clips)
extract(sys.argv[1], sys.argv[2], Slow(DSTformer.from_pretrained(sys.argv[3]), frames=1))
"""


def test_kill_and_resume(tmp_path, tree, checkpoint):
    "Killed twice in the middle; in the end every clip was made, all files are whole, and only what was under way was begun twice"
    out,source = tmp_path/"out",tree/"keypoints2d"
    arguments = [sys.executable, "-c", WORKER, str(source), str(out), str(checkpoint)]
    def made(): return [line["key"] for line in read_ledger(out/"ledger.jsonl") if line.get("outcome")=="made"]
    for count in (3, 10):
        process = copies.Popen(arguments, stderr=subprocess.DEVNULL)
        deadline = time.monotonic()+60
        while time.monotonic()<deadline and process.poll() is None and len(made())<count: time.sleep(.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = set(made())
    with open(out/"ledger.jsonl", "ab") as ledger: ledger.write(b'{"key": "cut o') # As a stop within a line would leave it
    copies.run(arguments, check=True)
    assert 10<=len(before)<18 and len(made())==len(set(made()))==18, "nothing lost, nothing twice"
    for key in made(): assert torch.load(out/f"{key}.pt", weights_only=True).shape==(172, 272)
    assert {path.suffix or path.name for path in out.rglob("*")}=={".pt", ".json", ".jsonl", ".lock"}


def test_two_processes_do_not_meet(mixed, tiny, tmp_path):
    with lock_folder(tmp_path/"out"), pytest.raises(LockedError, match="is at work there"): extract(mixed, tmp_path/"out", MotionBERT(tiny), AT_60)


# ---- the command

@pytest.fixture(scope="module")
def app():
    app = make_app("Features.")
    app.command("features")(command.features)
    return app


def test_command(app, tree, checkpoint, tmp_path):
    line = f"features {tree/'keypoints2d'} --checkpoint {checkpoint} --out {tmp_path/'out'} --formats npz --half --rows 128"
    code,said = invoke(app, line)
    assert code==0 and "18 clips made" in said
    found = np.load(next((tmp_path/"out").glob("*.npz")))
    assert found["features"].shape==(128, 272) and found["features"].dtype==np.float16 and len(found["times"])==128
    assert "0 clips made, 18 were made before" in invoke(app, line)[1]


@pytest.mark.parametrize("line,said", [
    ("", "no such checkpoint"), ("--checkpoint nowhere.bin", "no such checkpoint"), ("--checkpoint random-lite --device cuda:7", "CUDA"), ("--kind dance", "--kind"), ("--kind handcrafted --rate -3", "positive"),
    ("--kind handcrafted --formats mat", "pt"), ("--kind handcrafted --size 10", "--size"), ("--kind handcrafted --compat old", "seed")])
def test_command_complains_in_one_sentence(app, tree, tmp_path, line, said):
    code,answer = invoke(app, f"features {tree/'keypoints2d'} --out {tmp_path/'out'} {line}")
    assert code==2 and said in answer and answer.count("\n")==0
    assert not list((tmp_path/"out").glob("*.pt"))


def test_nothing_could_be_made(app, tmp_path):
    (tmp_path/"in").mkdir()
    np.save(tmp_path/"in/nan.npy", np.full((50, 17, 3), np.nan))
    code,answer = invoke(app, f"features {tmp_path/'in'} --kind handcrafted --fps 60 --out {tmp_path/'out'}")
    assert code==2 and "nothing could be made" in answer


def test_the_work_travels(tiny, mixed, tmp_path):
    "To another process it goes pickled"
    import pickle
    from audio2pose.extract.features import Extraction, keypoint_jobs
    work = pickle.loads(pickle.dumps(Extraction(MotionBERT(tiny), tmp_path, AT_60)))
    assert sum(outcome.outcome=="made" for outcome in work(iter(keypoint_jobs(mixed))))==3


@pytest.mark.slow
def test_command_in_processes(app, tree, checkpoint, tmp_path):
    "The same files from two workers"
    source = tmp_path/"one"
    source.mkdir()
    shutil.copy(next((tree/"keypoints2d").glob("*.pkl")), source)
    for workers in (1, 2): assert invoke(app, f"features {source} --checkpoint {checkpoint} --out {tmp_path/str(workers)} --workers {workers}")[0]==0
    names = sorted(path.name for path in (tmp_path/"1").glob("*.pt"))
    assert len(names)==9
    for name in names: assert (torch.load(tmp_path/"1"/name, weights_only=True)-torch.load(tmp_path/"2"/name, weights_only=True)).abs().max()<1e-5


def test_most_of_the_time_is_in_the_network(tree, tmp_path):
    "With a lite network on a processor, by the extraction's own count"
    source = tmp_path/"in"
    source.mkdir()
    for view in read_keypoints(next((tree/"keypoints2d").glob("*.pkl")))[:2]: np.save(source/f"{view.name}.npy", view.points[:243])
    report,work = extract(source, tmp_path/"out", MotionBERT(DSTformer.from_pretrained("random-lite")), AT_60)
    assert report.outcomes["made"]==2 and work.extractor_seconds>=.9*report.seconds


# ---- landmarks of this package

@pytest.fixture
def landmark_folder(tmp_path):
    "What `audio2pose landmarks` leaves: arrays and sidecars in three forms of storage, COCO twins, a ledger, and a clip without legs"
    from audio2pose.landmarks import Landmarks, Storage, seed_storage, write_coco
    folder = tmp_path/"landmarks"
    for i,storage in enumerate((Storage(), seed_storage, Storage("fraction", score=False))):
        points = np.random.default_rng(i).normal([900, 500, 0, 4], [80, 200, .3, 2], (40, 133, 4))
        points[10:12] = np.nan
        found = Landmarks(points, np.arange(40)/24, 24, (1920, 1080), f"walk-{i:03d}")
        found.save(folder/f"sub/{found.name}.npy", storage)
        write_coco(found, folder/f"sub/{found.name}.coco.json")
    found.subset("seed").save(folder/"legless.npy")
    (folder/"ledger.jsonl").write_text("{}\n")
    return folder


def test_features_of_landmarks(landmark_folder, checkpoint, tmp_path):
    "The command takes the folder that `audio2pose landmarks` wrote; the frame rate comes from the sidecars, and every file is one clip"
    app = make_app("Features.")
    app.command("features")(command.features)
    out = tmp_path/"out"
    code,said = invoke(app, f"features {landmark_folder} --checkpoint {checkpoint} --out {out} --device cpu")
    assert code==0 and said.startswith("3 clips made") and "1 refused" in said.splitlines()[0]
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.pt"))
    assert made==[f"sub/walk-{i:03d}.pt" for i in range(3)]
    features = torch.load(out/made[0], weights_only=True)
    assert features.shape==(35, 17*TINY.rep) and torch.isfinite(features).all() # The last frame is at 39/24 s, which is before row 35 at 21.5 per second
    assert json.loads((out/made[0]).with_suffix(".json").read_text())["clip"]==dict(frames=40, fps=24, layout="coco")
    reasons = [line["reason"] for line in read_ledger(out/"ledger.jsonl") if line.get("outcome")=="refused"]
    assert len(reasons)==1 and "without legs" in reasons[0]
    assert "0 clips made, 3 were made before" in invoke(app, f"features {landmark_folder} --checkpoint {checkpoint} --out {out} --device cpu")[1]


def test_features_of_landmarks_however_stored(landmark_folder, tiny, tmp_path):
    "Pixels and fractions of the same clip are the same features"
    from audio2pose.landmarks import Landmarks, Storage
    clip = Landmarks.load(landmark_folder/"sub/walk-000.npy")
    found = []
    for name,storage in (("px", Storage()), ("fraction", Storage("fraction"))):
        clip.save(tmp_path/f"{name}.npy", storage)
        found.append(preprocess(read_keypoints(tmp_path/f"{name}.npy")[0]).x)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_confidence_is_the_visibility_of_the_landmarks(landmark_folder):
    from audio2pose.landmarks import Landmarks
    from audio2pose.landmarks import visibility
    clip,keypoints = Landmarks.load(landmark_folder/"sub/walk-000.npy"),read_keypoints(landmark_folder/"sub/walk-000.npy")[0]
    np.testing.assert_allclose(keypoints.points[..., 2], visibility(clip.points[:, :17, 3]), atol=1e-6)
    assert np.isnan(keypoints.points[10:12]).all()


def test_landmarks_cut_off_are_refused(landmark_folder):
    path = landmark_folder/"sub/walk-000.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="cut off or changed"): read_keypoints(path)


@pytest.mark.parametrize("name", ["alphapose_idx_list.json", "alphapose_idx_nested.json", "mmpose_inferencer.json", "frame_id.json", "openpose"])
def test_keypoints_as_people_have_them(shared, name):
    clip = read_keypoints(shared(f"cases/keypoints/{name}"), 30)[0]
    assert clip.layout=="coco" and len(clip)==(5 if name=="openpose" else 60)
    np.testing.assert_allclose(clip.points[0, 0, :2], [310.0584, 289.4316], atol=1e-3)


@pytest.mark.parametrize("compat,rows", [(None, 43), ("seed", 43)])
def test_extractor_fd(tmp_path, compat, rows):
    "One call from a file to rows of 8704 numbers, as the first users call it"
    from audio2pose.extract.features import Extractor_fd
    points = np.concatenate([np.random.default_rng(0).normal(500, 80, (120, 17, 2)), np.ones((120, 17, 1))], -1)
    np.save(tmp_path/"walk.npy", points)
    values = Extractor_fd("random-lite", compat=compat).extract(tmp_path/"walk.npy", out=tmp_path/"walk.pt")
    assert values.shape==(rows, 8704) and torch.isfinite(values).all() and torch.equal(torch.load(tmp_path/"walk.pt", weights_only=True), values)
    with pytest.raises(InputError, match="0 clips of view c09"): Extractor_fd("random-lite").extract(tmp_path/"walk.npy", view="c09")
