"Keypoints lifted by a network and brought to a motion; the weights are seeded or trained here, since published ones cannot be fetched in a test"
import numpy as np
import pytest
import torch

from audio2pose.body.landmark_fit import fit_landmarks, projected_landmarks
from audio2pose.cli import app
from audio2pose.commands.base import invoke
from audio2pose.core import InputError
from audio2pose.data.keypoints import from_landmarks
from audio2pose.data.movements import movement, movement_clips
from audio2pose.extract.lift import landmarks_from_pose, lift_landmarks, lift_motion, lifted_pose, metres_per_pixel
from audio2pose.landmarks import Landmarks
from audio2pose.models.motionbert import DSTformer, DSTformerConfig
from audio2pose.models.motionbert_training import fit, pose_loss
from audio2pose.motion import Motion
from audio2pose.skeleton import COCO_17, SMPL_24, coco_to_h36m

BODY = SMPL_24.index("lknee", "rknee", "lankle", "rankle", "lshoulder", "rshoulder", "lelbow", "relbow", "lwrist", "rwrist")
FOCAL = 1400.


@pytest.fixture(scope="module")
def true(): return movement("squat", np.random.default_rng(3), 40, 20.)


@pytest.fixture(scope="module")
def seen(true): return projected_landmarks(true, focal=FOCAL)


@pytest.fixture(scope="module")
def network(): return DSTformer.from_pretrained("random-lite")


def error(motion, true):
    "Mean distance of body joints from the root, m"
    return np.linalg.norm((motion.positions()[:, BODY]-motion.positions()[:, :1])-(true.positions()[:, BODY]-true.positions()[:, :1]), axis=-1).mean()


def perfect(true, seen):
    "What a network without error would say: Human3.6M, px, depth too"
    flat = coco_to_h36m(seen.points[:, :17, :3].astype(float))
    scale = FOCAL/(4-true.positions()[:, 0, 2])
    return np.concatenate([flat[..., :2], (flat[..., 2:]-flat[:, :1, 2:])*scale[:, None, None]], -1)


def test_a_perfect_pose_becomes_the_motion(true, seen):
    made = landmarks_from_pose(perfect(true, seen), np.ones((40, 17)), from_landmarks(seen), seen.size)
    assert error(fit_landmarks(made).motion, true)<.03


def test_scale_is_that_of_the_camera(true, seen):
    scale = metres_per_pixel(perfect(true, seen), true.fps)*FOCAL/(4-true.positions()[:, 0, 2])
    assert np.abs(scale-1).max()<.1


def test_a_larger_picture_is_the_same_motion(true, seen):
    "Pixels have no size of their own"
    pose = perfect(true, seen)
    twice = landmarks_from_pose(2*pose, np.ones((40, 17)), from_landmarks(seen), (2560, 1440))
    once = landmarks_from_pose(pose, np.ones((40, 17)), from_landmarks(seen), (1280, 720))
    np.testing.assert_allclose(twice.points[..., 2], once.points[..., 2], atol=1e-5)
    np.testing.assert_allclose(fit_landmarks(twice).motion.poses, fit_landmarks(once).motion.poses, atol=1e-3)


def test_what_the_network_sees_is_where_the_pose_is(seen, network):
    "x and y of a network that repeats its input are the detector's"
    class Repeats(DSTformer):
        def forward(self, x): return torch.cat([x[..., :2], 0*x[..., 2:]], -1)
    pose,confidence = lifted_pose(Repeats(network.config).eval(), from_landmarks(seen))
    np.testing.assert_allclose(pose[..., :2], coco_to_h36m(seen.points[:, :17, :2].astype(float)), atol=.1)
    assert not pose[..., 2].any() and (confidence>.9).all()


def test_frames_without_anybody_stay_empty(seen, network):
    points = seen.points.copy()
    points[10:30] = np.nan
    gap = Landmarks(points, seen.times, seen.fps, seen.size)
    lifted = lift_landmarks(network, gap)
    assert not lifted.detected[14:26].any() and lifted.detected[:10].all()
    with pytest.raises(InputError, match="hips or shoulders are missing"): lift_motion(network, gap)


def test_feet_are_carried_along(seen, network):
    lifted = lift_landmarks(network, seen)
    foot = lifted.points[:, 17:20, :3]-lifted.points[:, 15:16, :3]
    np.testing.assert_allclose(foot, seen.points[:, 17:20, :3]-seen.points[:, 15:16, :3], atol=1e-2)
    assert lifted.made["weights"].startswith("random-lite: RANDOM")


@pytest.mark.slow
def test_a_network_that_was_trained_lifts():
    "Trained for a minute on synthetic people, it sees the depth of others"
    torch.manual_seed(0)
    x,y,*_ = movement_clips(200, 0)
    model = DSTformer(DSTformerConfig(width=64, mlp=128, depth=1, heads=4, rep=64, maxlen=8))
    fit(model, lambda index: pose_loss(model(x[index]), y[index]), len(x), 150, 16, 3e-3)
    model.source = dict(weights="trained here", sha256=None)
    untrained = DSTformer.from_pretrained("random-lite")
    errors = []
    for k,name in enumerate(("squat", "kick", "reach forward")):
        true = movement(name, np.random.default_rng(100+k), 16, 8.)
        seen = projected_landmarks(true)
        errors.append([error(lift_motion(network, seen).motion, true) for network in (model, untrained)])
    mean = np.mean(errors, 0)
    assert mean[0]<.12 and mean[0]<.4*mean[1], errors


# ---- the command

def test_keypoints_to_film_in_one_command(seen, tmp_path):
    (tmp_path/"keypoints").mkdir()
    Landmarks(seen.points[:8], seen.times[:8], seen.fps, seen.size).save(tmp_path/"keypoints/marks.npy")
    np.savez(tmp_path/"keypoints/plain.npz", keypoints=seen.points[:8, :17, [0, 1, 3]].clip(0, None))
    (tmp_path/"keypoints/cut.npz").write_bytes(b"cut")
    code,said = invoke(app, f"lift {tmp_path/'keypoints'} --weights random-lite --fps 20 --size 1280x720 --out {tmp_path/'out'}")
    assert code==0 and "the motion means nothing" in said and "cut.npz: " in said, said
    assert sorted(path.name for path in (tmp_path/"out").iterdir())==[f"{name}.{kind}" for name in ("marks", "plain") for kind in ("json", "mp4", "npy", "npz")]
    assert len(Motion.load(tmp_path/"out/marks.npz"))==8
    lifted = Landmarks.load(tmp_path/"out/plain.npy")
    assert np.isfinite(lifted.points[:, COCO_17.index("left_wrist"), :3]).all()


@pytest.mark.parametrize("more,why", [
    ("", "--weights is missing"), ("--weights none.bin", "no such checkpoint"), ("--weights random-lite --fps 20", "nothing tells how large the picture is"),
    ("--weights random-lite --size 1280x720", "how many frames per second"), ("--weights random-lite --out .", "the keypoints lie there"), ("--weights random-lite --size wide", "--size wide"),
])
def test_what_cannot_be_lifted(seen, tmp_path, monkeypatch, more, why):
    monkeypatch.chdir(tmp_path)
    np.savez("plain.npz", keypoints=seen.points[:8, :17, [0, 1, 3]].clip(0, None))
    code,said = invoke(app, f"lift plain.npz {more}")
    assert code==2 and why in said.splitlines()[-1]
    assert not (tmp_path/"lifted").exists()


def test_a_pickle_that_wants_to_run_code(seen, tmp_path):
    import os
    import pickle
    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path/"ran"),)
    for name in ("evil.bin", "evil.pkl"): (tmp_path/name).write_bytes(pickle.dumps({"model_pos": Evil(), "keypoints2d": Evil()}))
    np.savez(tmp_path/"plain.npz", keypoints=seen.points[:8, :17, [0, 1, 3]].clip(0, None))
    for line in (f"lift {tmp_path/'plain.npz'} --weights {tmp_path/'evil.bin'} --fps 20 --size 1280x720", f"lift {tmp_path/'evil.pkl'} --weights random-lite --size 1280x720", f"weights show {tmp_path/'evil.bin'}"):
        code,said = invoke(app, f"{line} --out {tmp_path/'out'}" if "lift" in line else line)
        assert code==2 and said.splitlines()[-1].startswith("error: ") and "Traceback" not in said, said
    assert not (tmp_path/"ran").exists()


@pytest.mark.slow
def test_a_video_with_the_depth_of_motionbert(shared, tmp_path):
    "MediaPipe's points in the picture, MotionBERT's depth; untrained here, and that is said"
    pytest.importorskip("mediapipe")
    line = f"video {shared('real/video/one_person.mp4')} --pose-weights {shared('real/weights/pose_landmarker_full.task')} --rate 5 --no-film"
    code,said = invoke(app, f"{line} --lift {tmp_path/'none.bin'} --out {tmp_path/'out'}")
    assert code==2 and "no such checkpoint" in said and not (tmp_path/"out").exists()
    code,said = invoke(app, f"{line} --lift random-lite --out {tmp_path/'out'}")
    assert code==0 and "the depth means nothing" in said, said
    lifted,own = Motion.load(tmp_path/"out/one_person/motion.npz"),Landmarks.load(next((tmp_path/"out/landmarks").rglob("*.npy")))
    assert len(lifted)==len(own) and np.isfinite(lifted.positions()).all()
