"""Inverse kinematics: there and back on real and synthetic motions, with noise, holes and hostile input"""
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.spatial.transform import Rotation

from audio2pose.core import InputError
from audio2pose.data.synthetic import sequence
from audio2pose.show.shading import Camera
from audio2pose.body.ik import Markers, interpolate_gaps, lowpass_points, fit_points, joint_markers, landmark_markers, marker_positions, rotation_between, typical_rotation
from audio2pose.body.landmark_fit import FitOptions, projected_landmarks, fit_landmarks, rescale_bones, to_motion
from audio2pose.landmarks import Landmarks
from audio2pose.metrics.contact import contact_summary
from audio2pose.motion import Motion, forward_kinematics
from audio2pose.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from audio2pose.skeleton import SMPL_24

USUAL = np.array([typical_rotation(name) for name in SMPL_24.names])
USUAL[0] = 1
SHOWN = [j for j in range(24) if SMPL_24.names[j] not in ("ltoes", "rtoes", "lhand", "rhand")]


def wild(frames, seed, size=.5):
    "Independent poses, each joint turned about as far as it may"
    rng = np.random.default_rng(seed)
    poses = rng.normal(size=(frames, 24, 3))*USUAL*size
    poses[:, 0] = Rotation.random(frames, random_state=seed).as_rotvec()
    return Motion(poses, rng.normal(size=(frames, 3)))


@pytest.fixture(scope="module")
def dance():
    "A dance of the package's choreographer, two seconds of it"
    return sequence("gJB_sFM_cAll_d28_mJB2_ch01", seconds=8)[1].motion[60:180]


def millimetres(a, b): return 1e3*np.linalg.norm(a-b, axis=-1)


def degrees(a, b):
    "Between global rotations"
    a,b = (forward_kinematics(axis_angle_to_matrix(motion.poses), motion.trans)[1] for motion in (a, b))
    return np.degrees(np.linalg.norm(matrix_to_axis_angle(a.swapaxes(-1, -2)@b), axis=-1))


# ---- there and back

def test_joints_of_a_real_motion(real_motion):
    "AIST++: positions of the 24 joints come back to a tenth of a millimetre, root and chest to a tenth of a degree"
    part = real_motion[::3]
    fit = fit_points(part.positions(), part.fps, noise=1e-3)
    assert millimetres(fit.motion.positions(), part.positions()).max()<.3
    off = degrees(fit.motion, part)
    assert off[:, [0, 9]].max()<.5
    assert not fit.interpolated.any() and not fit.missing.any() and not fit.unobserved.any() and fit.error.max()<2e-4


def test_landmarks_of_a_real_motion(real_motion):
    "31 points: those come back to a millimetre; the bend of the spine is not among what they show"
    part = real_motion[::3]
    seen = marker_positions(part, landmark_markers)
    fit = fit_points(seen, part.fps, landmark_markers)
    assert millimetres(marker_positions(fit.motion, landmark_markers), seen).max()<1.5
    off = millimetres(fit.motion.positions(), part.positions()).mean(0)
    assert off[SMPL_24.index("lelbow", "rwrist", "lknee", "rankle")].max()<.5
    assert off[SHOWN].mean()<20


@pytest.mark.parametrize("name", ["gBR_sBM_cAll_d04_mBR0_ch02_slice0", "gJS_sBM_cAll_d01_mJS3_ch02_slice4", "gKR_sBM_cAll_d30_mKR2_ch02_slice6"])
def test_positions_that_others_computed(shared, name):
    "Clips of AIST++ as joint positions, z up, at 30 frames per second: there are no rotations to be compared with, the places must fit"
    with np.load(shared(f"real/aist/slices/{name}.npz")) as file: positions = file["positions"][::3].astype(float)[..., [0, 2, 1]]*[1, 1, -1]
    fit = fit_points(positions, 10., noise=1e-3)
    assert millimetres(fit.motion.positions(), positions).max()<1


def test_joints_of_a_synthetic_dance(dance):
    fit = fit_points(dance.positions(), dance.fps, noise=1e-3)
    assert millimetres(fit.motion.positions(), dance.positions()).max()<.3
    off = np.median(degrees(fit.motion, dance), axis=0)
    assert off[SMPL_24.index("root", "chest")].max()<.5
    assert off[SMPL_24.index("lhip", "rhip", "lknee", "rknee")].max()<8 # By the plane of hip, knee and ankle, where the leg bends


@pytest.mark.parametrize("markers", [joint_markers, landmark_markers], ids=["joints", "landmarks"])
def test_wild_poses(markers):
    "Poses that nobody strikes, seen from anywhere: all but a few in a hundred within 3 mm, none lost"
    motion = wild(150, 0)
    seen = marker_positions(motion, markers)
    off = millimetres(marker_positions(fit_points(seen, 60., markers, .001).motion, markers), seen).max(1)
    assert (off<3).mean()>=.97 and np.median(off)<1 and off.max()<100


@settings(max_examples=8, deadline=None)
@given(st.floats(-np.pi, np.pi), st.tuples(*[st.floats(-50, 50)]*3), st.integers(0, 20))
def test_turned_points_give_a_turned_motion(dance, angle, shift, frame):
    "Nothing depends on where in the room the dancer stands, or which way she faces"
    turn = axis_angle_to_matrix(np.array([0, angle, 0]))
    seen = marker_positions(dance[frame:frame+2], landmark_markers)
    here = fit_points(seen, 60., landmark_markers).motion
    there = fit_points(seen@turn.T+np.array(shift), 60., landmark_markers).motion
    np.testing.assert_allclose(there.positions(), here.positions()@turn.T+np.array(shift), atol=2e-3)
    np.testing.assert_allclose(there.poses[:, 1:], here.poses[:, 1:], atol=2e-2)


def test_a_person_of_another_size(dance):
    "A child and a giant make the same poses"
    seen = marker_positions(dance[:30], landmark_markers)
    for size in (.6, 1.3): np.testing.assert_allclose(rescale_bones(size*seen), seen, atol=1e-6)


# ---- as points come

@pytest.mark.parametrize("noise, joints", [(.005, 15), (.02, 30)])
def test_noise(dance, noise, joints):
    "Errors of the joints stay about as large as those of the points; smoothing makes them smaller, not larger"
    seen = marker_positions(dance, landmark_markers)+np.random.default_rng(0).normal(0, noise, (len(dance), 31, 3))
    rough,calm = (millimetres(fit_points(seen, dance.fps, landmark_markers, noise, cutoff=cutoff).motion.positions(), dance.positions())[:, SHOWN].mean() for cutoff in (None, 8))
    assert calm<rough<joints


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 30), st.integers(1, 12)), max_size=12))
def test_holes(dance, holes):
    "Whatever is missing, the motion is whole, and what was guessed is marked and nothing else"
    seen = marker_positions(dance[:40], landmark_markers)
    truth = seen.copy()
    for frame,point,length in holes: seen[frame:frame+length, point] = np.nan
    lost = np.isnan(seen).any(-1)
    fit = fit_points(seen, 60., landmark_markers, long_gaps="interpolate")
    assert np.isfinite(fit.motion.poses).all() and np.isfinite(fit.motion.trans).all()
    assert ((fit.interpolated|fit.missing)==lost).all() and not (fit.interpolated&fit.missing).any()
    assert np.isnan(fit.error[fit.unobserved]).all() and np.isfinite(fit.error[~fit.unobserved]).all()
    if not fit.missing.any(): assert millimetres(marker_positions(fit.motion, landmark_markers), truth)[~lost].mean()<20


def test_an_arm_that_is_never_seen(dance):
    "It hangs at rest from the shoulder, and nothing else suffers"
    seen = marker_positions(dance[:60], landmark_markers)
    arm = [k for k,name in enumerate(landmark_markers.names) if name in ("left_elbow", "left_wrist") or name.startswith("left_hand")]
    seen[:, arm] = np.nan
    fit = fit_points(seen, 60., landmark_markers)
    assert fit.missing[:, arm].all() and not fit.unobserved.any()
    off = millimetres(fit.motion.positions(), dance[:60].positions())
    assert off[:, SMPL_24.index("relbow", "rwrist", "lknee", "rankle")].max()<2
    assert np.abs(fit.motion.poses[:, SMPL_24.index("lelbow", "lwrist")]).max()<.2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=3, max_size=40), st.integers(0, 8))
def test_bridged_only_within_short_gaps(seen, longest):
    points = np.where(np.array(seen)[:, None, None], np.arange(len(seen))[:, None, None]*np.ones(3), np.nan)
    filled,interpolated = interpolate_gaps(points, longest)
    assert (np.isfinite(filled[:, 0, 0])==(np.array(seen)|interpolated[:, 0])).all()
    np.testing.assert_array_equal(filled[seen], points[seen])
    gaps = "".join("x" if one else "." for one in seen).split("x")
    assert interpolated.sum()==sum(len(gap) for gap in gaps if len(gap)<=longest)*any(seen)


def test_calm_does_not_delay():
    time = np.arange(200)/60
    wave = np.sin(2*np.pi*time)[:, None, None]*np.ones((1, 2, 3))
    calm = lowpass_points(wave, 60., 6.)
    lags = [np.corrcoef(wave[20+lag:180+lag, 0, 0], calm[20:180, 0, 0])[0, 1] for lag in range(-5, 6)]
    assert int(np.argmax(lags))==5


def test_shortest_turn_of_parallel_and_opposite_directions():
    a = np.eye(3)[[0, 0, 1, 2]]
    b = a*np.array([1, -1, -1, -1])[:, None]
    turned = rotation_between(a, b)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", turned, a), b, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turned), 1)


# ---- from the picture

def test_through_a_camera(dance):
    "With the camera's focal length the pose comes back to a centimetre or two and the path to ten; with another the pose still does"
    clip = projected_landmarks(dance, (.5, 1.3, 4.5))
    for focal,path in ((1400., .12), (1000., .3)):
        found = to_motion(clip, FitOptions(focal=focal))
        a,b = (motion.positions()-motion.trans[:, None] for motion in (found, dance))
        assert millimetres(a, b)[:, SHOWN].mean()<25
        assert np.abs((found.trans-found.trans[0])-(dance.trans-dance.trans[0]))[:, [0, 2]].max()<path
        assert abs(np.median(found.trans[:, 1]-dance.trans[:, 1]))<.03, "feet on the floor"


def test_a_camera_that_looks_down(dance):
    camera = Camera((0., 3., 4.5), (0., .9, 0.))
    clip = projected_landmarks(dance[:60], camera.eye, camera.axes())
    tilt = float(np.arctan2(2.1, 4.5))
    level,tilted = (to_motion(clip, FitOptions(focal=1400., tilt=angle)) for angle in (0., tilt))
    up = dance[:60].positions()[:, 15]-dance[:60].positions()[:, 0]
    lean = [np.degrees(np.arccos(np.clip(((motion.positions()[:, 15]-motion.positions()[:, 0])*up).sum(-1)/np.linalg.norm(up, axis=-1)/np.linalg.norm(motion.positions()[:, 15]-motion.positions()[:, 0], axis=-1), -1, 1))).mean() for motion in (level, tilted)]
    assert lean[1]<4<15<lean[0]


def test_uneven_times(dance):
    "Frames that a phone took when it liked are brought to the clock"
    clip = projected_landmarks(dance[:120], (.5, 1.3, 4.5))
    rng = np.random.default_rng(0)
    kept = np.sort(np.r_[0, 119, rng.choice(np.arange(1, 119), 78, replace=False)])
    uneven = Landmarks(clip.points[kept], clip.times[kept], 40., clip.size)
    found = to_motion(uneven, FitOptions(focal=1400.))
    assert abs(len(found)-80)<=1 and found.fps==40
    assert millimetres(found.resample(60).positions()[:118, 20]-found.resample(60).trans[:118], (dance[:118].positions()[:, 20]-dance[:118].trans)).mean()<30


def test_settled_feet(dance):
    clip = projected_landmarks(dance, (.5, 1.3, 4.5))
    noisy = replace(clip, points=clip.points+np.random.default_rng(1).normal(0, [2, 2, .02, 0], clip.points.shape).astype(np.float32))
    rough,remove_skating = (to_motion(noisy, FitOptions(focal=1400., cutoff=6, remove_skating=flag)) for flag in (False, True))
    slide = [contact_summary(motion.positions(), motion.fps)["foot_skating"] for motion in (rough, remove_skating)]
    assert slide[1]<=slide[0]


def test_seed_motion_for_the_dance_model(dance):
    "What comes out is what FACT takes: 120 frames at 60 per second of 219 numbers"
    clip = projected_landmarks(dance.resample(30), (.5, 1.3, 4.5))
    motion = to_motion(clip).resample(60)
    assert motion[:120].to_features().shape==(120, 219) and np.isfinite(motion.to_features()).all()


# ---- hostile

def test_gaps_are_refused_with_a_way_out(dance):
    clip = projected_landmarks(dance[:120])
    points = clip.points.copy()
    points[30:70] = np.nan
    holed = replace(clip, points=points)
    with pytest.raises(InputError, match=r"missing in 40 frames, first from 0.50 to 1.17 s; give time_range=\(1.158, 1.992\)"): to_motion(holed)
    assert len(to_motion(holed, FitOptions(time_range=(1.158, 1.992))))==50
    fit = fit_landmarks(holed, FitOptions(long_gaps="interpolate"))
    assert fit.unobserved.sum()==40 and len(fit.motion)==120
    with pytest.raises(InputError, match="never seen together"): to_motion(replace(clip, points=points*np.nan))


def test_a_late_part_is_timed_on_the_clock_of_the_video(dance):
    "The way out is given in the times that `part` takes"
    clip = projected_landmarks(dance[:120])
    points = clip.points.copy()
    points[:40] = np.nan
    late = replace(clip, points=points, times=clip.times+100)
    with pytest.raises(InputError) as refused: to_motion(late)
    part = tuple(map(float, re.search(r"time_range=\((.*?), (.*?)\)", str(refused.value)).groups()))
    assert len(to_motion(late, FitOptions(time_range=part)))==80


def test_low_scores_are_missing(dance):
    clip = projected_landmarks(dance[:60])
    points = clip.points.copy()
    points[20:24, :, 3] = -2
    assert fit_landmarks(replace(clip, points=points)).interpolated[20:24].all()
    assert not fit_landmarks(replace(clip, points=points), FitOptions(score=-5)).interpolated.any()


@pytest.mark.parametrize("wrong, said", [
    (dict(points=np.zeros((5, 23, 3))), "must be"), (dict(points=np.zeros((5, 24))), "must be"),
    (dict(markers=Markers(("nose",), np.array([15]), np.zeros((1, 3))), points=np.zeros((5, 1, 3))), "both hips and both shoulders"),
    (dict(points=np.full((5, 24, 3), np.nan)), "never seen together"), (dict(points=np.full((5, 24, 3), np.inf)), "never seen together"),
    (dict(long_gaps="guess"), "must be \"raise\" or \"interpolate\""), (dict(points=np.zeros((0, 24, 3))), "never seen together")])
def test_what_is_no_points(dance, wrong, said):
    with pytest.raises(InputError, match=said): fit_points(**dict(points=dance[:5].positions(), fps=60.)|wrong)


def test_one_frame_and_points_all_in_one_place(dance):
    assert len(fit_points(dance[:1].positions(), 60.).motion)==1
    fit = fit_points(np.zeros((3, 24, 3)), 60.)
    assert np.isfinite(fit.motion.poses).all() and fit.error.min()>.1, "no body, and it says so"


@pytest.mark.parametrize("change, said", [
    (dict(times=np.zeros(60)), "do not rise"), (dict(size=(0, 5)), "must be positive"), (dict(layout="body"), "must be")])
def test_what_is_no_clip(dance, change, said):
    clip = projected_landmarks(dance[:60])
    with pytest.raises(InputError, match=said): to_motion(replace(clip, **change))


@pytest.mark.parametrize("fitting, said", [
    (FitOptions(focal=-1), "focal must be"), (FitOptions(focal=float("nan")), "focal must be"), (FitOptions(time_range=(50, 60)), "holds 0 frames"), (FitOptions(time_range=(.5, .2)), "holds 0 frames")])
def test_settings_that_cannot_be(dance, fitting, said):
    with pytest.raises(InputError, match=said): to_motion(projected_landmarks(dance[:60]), fitting)


def test_random_points_are_fitted_but_not_believed():
    "Numbers without meaning give a motion without NaN, whose error says what it is worth"
    rng = np.random.default_rng(0)
    clip = Landmarks(rng.uniform([300, 100, -2, 1], [700, 700, 2, 9], (40, 133, 4)), np.arange(40)/30, 30, (1280, 720))
    fit = fit_landmarks(clip)
    assert np.isfinite(fit.motion.poses).all() and np.nanmedian(fit.error)>.1


def test_behind_the_camera(dance):
    with pytest.raises(InputError, match="behind the camera"): projected_landmarks(dance[:10], (0, 1, 0))
