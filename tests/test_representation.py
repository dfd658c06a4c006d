"""The 225 numbers of a frame, their decoding and forward kinematics, against numbers from the published code."""
from pathlib import Path

import numpy as np
import pytest

from audio2pose.core import InputError
from audio2pose.motion import Motion, forward_kinematics
from audio2pose.rotation import axis_angle_to_matrix, closest_rotation
from audio2pose.skeleton import SMPL_24

HERE = Path(__file__).parent
SHARED = HERE.parents[1]/"shared"
REAL = SHARED/"golden/real_clips/representation.npz"
FILES = [pytest.param(HERE/"golden/representation.npz", id="synthetic"),
         pytest.param(REAL, id="aist", marks=pytest.mark.skipif(not REAL.exists(), reason="real clips are not here"))]


@pytest.fixture(params=FILES)
def golden(request):
    with np.load(request.param, allow_pickle=False) as file: return dict(file)


def motion_of(golden):
    scaling = float(golden["smpl_scaling"][0])
    return Motion(golden["smpl_poses"], golden["smpl_trans"].astype(float)/scaling, 60, scaling)


def test_features(golden):
    x = motion_of(golden).to_features(225)
    assert x.dtype==np.float32
    np.testing.assert_allclose(x[:5], golden["feat225_first5"], rtol=0, atol=2e-7)
    np.testing.assert_allclose(x[11], golden["feat225_frame11"], rtol=0, atol=2e-7)
    np.testing.assert_array_equal(motion_of(golden).to_features(219), x[:, 6:])


def test_window_starts_with_frame_0(golden):
    np.testing.assert_allclose(motion_of(golden).to_features(225)[0], golden["window_motion_first"], rtol=0, atol=2e-7)


def test_column_sums_of_the_whole_clip():
    clip = SHARED/"real/aist/motions/gBR_sBM_cAll_d04_mBR0_ch01.pkl"
    if not (clip.exists() and REAL.exists()): pytest.skip("real clips are not here")
    x = Motion.load(clip).to_features(225).astype(float)
    with np.load(REAL) as golden:
        assert len(x)==golden["n_frames"]
        np.testing.assert_allclose(x.sum(0), golden["feat225_colsum"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(np.abs(x).sum(0), golden["feat225_abs_colsum"], rtol=0, atol=1e-4)
        rows = x[[0, 119, 120, 139]]
        windows = [golden[f"window_{name}"] for name in ("motion_first", "motion_last", "target_first", "target_last")]
        np.testing.assert_allclose(rows, windows, rtol=0, atol=2e-7)


def test_closest_rotation(golden):
    matrices = golden["noisy225"][:, 9:].reshape(8, 24, 3, 3)
    np.testing.assert_allclose(closest_rotation(matrices), golden["closest_rotmats"], rtol=0, atol=1e-10)


def test_decode(golden):
    motion = Motion.from_features(golden["noisy225"])
    np.testing.assert_allclose(motion.poses, golden["axis_angles"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(motion.trans, golden["transl"], rtol=0, atol=1e-12)


def test_decode_of_clean_frames(golden):
    exact = Motion.from_features(golden["feat225_first5"])
    np.testing.assert_allclose(exact.poses, golden["clean_axis_angles"][:5], rtol=0, atol=1e-8)
    own = Motion.from_features(motion_of(golden)[:8].to_features(225))
    np.testing.assert_allclose(own.poses, golden["clean_axis_angles"], rtol=0, atol=1e-6) # float32 features may round the other way


def test_special_matrices(golden):
    inputs,expected = golden["special_in"],golden["special_out"]
    rotations = closest_rotation(inputs)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-10)
    np.testing.assert_allclose(rotations@rotations.transpose(0, 2, 1), np.tile(np.eye(3), (6, 1, 1)), atol=1e-10)
    for i in (3, 5): np.testing.assert_allclose(rotations[i], expected[i], rtol=0, atol=1e-10)


def test_forward_kinematics(golden):
    np.testing.assert_allclose(SMPL_24.offsets, golden["offsets"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal([parent for _,parent in SMPL_24.bones], golden["parents"][1:])
    positions,_ = forward_kinematics(axis_angle_to_matrix(golden["fk_axis_angle"]), golden["fk_root"])
    np.testing.assert_allclose(positions, golden["fk_positions"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("width", [219, 225])
def test_round_trip(width):
    rng = np.random.default_rng(width)
    motion = Motion(rng.normal(0, .8, (50, 24, 3)), rng.normal(0, 1, (50, 3)))
    back = Motion.from_features(motion.to_features(width))
    np.testing.assert_allclose(axis_angle_to_matrix(back.poses), axis_angle_to_matrix(motion.poses), atol=1e-5)
    np.testing.assert_allclose(back.trans, motion.trans, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 219), (5, 220), (219,), (2, 3, 225)])
def test_wrong_shapes_are_named(shape):
    if shape==(0, 219):
        assert len(Motion.from_features(np.zeros(shape)))==0
    else:
        with pytest.raises(InputError, match="219"): Motion.from_features(np.zeros(shape))
