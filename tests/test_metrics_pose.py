"Pose errors against the published losses, and what they must obey"
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.spatial.transform import Rotation

from audio2pose.core import InputError
from audio2pose.metrics.pose import mpjpe, n_mpjpe, pa_mpjpe, procrustes, root_relative, velocity_error, weighted_2d_error

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32-1)


@pytest.fixture(scope="module")
def losses():
    with np.load(Path(__file__).parent/"golden"/"motionbert"/"pose3d_losses.npz", allow_pickle=False) as file: return dict(file)


def frames(x): return x.reshape(-1, 17, 3)
def close(x, y, tolerance=1e-9): np.testing.assert_allclose(x, y, rtol=0, atol=tolerance)


# ---- published numbers

def test_per_frame(losses):
    predicted,target = frames(losses["pred"]),frames(losses["target"])
    close(mpjpe(predicted, target), losses["np_mpjpe_per_frame"])
    close(pa_mpjpe(predicted, target), losses["np_p_mpjpe_per_frame"])
    close(pa_mpjpe(predicted*[-1, 1, 1], target), losses["np_p_mpjpe_mirrored_pred_per_frame"])
    close(pa_mpjpe(predicted*[1, 1, 0], target), losses["np_p_mpjpe_flat_pred_per_frame"])


def test_similar_poses_are_the_same(losses):
    "A scaled, turned and moved prediction is as near to the target as the prediction"
    close(pa_mpjpe(losses["similar_pred"], frames(losses["pred"])), 0)
    close(pa_mpjpe(losses["similar_pred"], frames(losses["target"])), losses["np_p_mpjpe_similarity_of_pred_per_frame"])


def test_losses(losses):
    predicted,target = losses["pred"],losses["target"]
    close(mpjpe(predicted, target).mean(), losses["loss_mpjpe_64"])
    close(n_mpjpe(predicted, target).mean(), losses["n_mpjpe_64"])
    close(velocity_error(predicted, target).mean(), losses["loss_velocity_64"])
    close(weighted_2d_error(predicted, target, losses["conf"][..., 0]).mean(), losses["loss_2d_weighted_64"])
    close(n_mpjpe(predicted[:, :1], target[:, :1]).mean(), losses["T1_n_mpjpe_64"])


# ---- edges

def test_points_and_single_frames():
    target = np.random.default_rng(0).normal(size=(4, 17, 3))
    nothing = 0*target
    close(pa_mpjpe(nothing, target), np.linalg.norm(target-target.mean(1, keepdims=True), axis=-1).mean(1)) # Published: raises
    assert np.isfinite(n_mpjpe(nothing, target)).all()
    assert np.isnan(velocity_error(target[:1], target[:1]))


def test_refusals():
    x = np.zeros((3, 17, 3))
    for call in (mpjpe, n_mpjpe, pa_mpjpe, velocity_error):
        with pytest.raises(InputError, match="same shape"): call(x, x[:, :16])
        with pytest.raises(InputError, match="1 poses are not finite"): call(np.where(np.arange(3)[:, None, None]==1, np.nan, x), x)
    with pytest.raises(InputError, match=r"are \(..., J, 3\)"): mpjpe(np.zeros((3, 17, 4)), np.zeros((3, 17, 4)))


# ---- properties

@quick
@given(seeds, st.floats(.2, 5))
def test_what_is_forgiven(seed, scale):
    rng = np.random.default_rng(seed)
    p,t = rng.normal(size=(2, 6, 17, 3))
    turn = Rotation.random(rng=rng).as_matrix()
    close(pa_mpjpe(scale*p@turn.T+rng.normal(size=3), t), pa_mpjpe(p, t), 1e-8)
    close(n_mpjpe(scale*p, t), n_mpjpe(p, t), 1e-9)
    close(mpjpe(p, t), mpjpe(t, p))
    close(velocity_error(p+rng.normal(size=3), t), velocity_error(p, t))
    close(mpjpe(root_relative(p+1), root_relative(t-2)), mpjpe(root_relative(p), root_relative(t)))


@quick
@given(seeds)
def test_alignment_minimises_squares(seed):
    "No small turn, scale or move of the aligned pose is nearer"
    rng = np.random.default_rng(seed)
    p,t = rng.normal(size=(2, 17, 3))
    fitted = procrustes(p, t)
    best = np.square(fitted-t).sum()
    for _ in range(10):
        turn = Rotation.from_rotvec(rng.normal(0, .02, 3)).as_matrix()
        middle = fitted.mean(0)
        assert np.square(rng.normal(1, .02)*(fitted-middle)@turn.T+middle+rng.normal(0, .01, 3)-t).sum()>=best-1e-12
