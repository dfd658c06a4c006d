"""Losses, corruption and training steps against numbers of the published programs (tests/golden/motionbert)"""
import numpy as np
import pytest
import torch

from audio2pose.core import InputError
from audio2pose.models.motionbert import DSTformer, DSTformerConfig
from audio2pose.models.motionbert_training import (
    angle_loss, limb_angles, simulated_confidence, contrastive_loss, corrupt_keypoints, smooth_noise, fit, mask_joints, limb_loss, limb_variance, limb_vectors, mpjpe, weighted_2d_loss, pose_loss, n_mpjpe, augment_keypoints, velocity_loss,
)


@pytest.fixture(scope="module")
def numbers(golden): return golden("motionbert/pose3d_losses")


def values(pred, target, conf, w):
    return dict(loss_mpjpe=mpjpe(pred, target), weighted_mpjpe=mpjpe(pred, target, w), loss_2d_weighted=weighted_2d_loss(pred, target, conf), n_mpjpe=n_mpjpe(pred, target),
                loss_velocity=velocity_loss(pred, target), loss_limb_var=limb_variance(pred), loss_limb_gt=limb_loss(pred, target), loss_angle=angle_loss(pred, target),
                loss_angle_velocity=angle_loss(pred, target, steps=True), loss_joint=(pred-target).abs().mean())


@pytest.mark.parametrize("kind,limit", [("64", 1e-9), ("32", 1e-5)])
def test_losses(numbers, kind, limit):
    dtype = getattr(torch, f"float{kind}")
    tensors = [torch.from_numpy(numbers[name]).to(dtype) for name in ("pred", "target", "conf", "w")]
    for name,value in values(*tensors).items(): assert float(value)==pytest.approx(float(numbers[f"{name}_{kind}"]), rel=limit, abs=limit if kind=="64" else 1e-7), name


def test_limbs_and_angles(numbers):
    pred = torch.from_numpy(numbers["pred"])
    assert np.abs(limb_vectors(pred).norm(dim=-1).numpy()-numbers["limb_lens_64"]).max()<1e-9
    assert np.abs(limb_angles(pred).numpy()-numbers["angles_64"]).max()<1e-9
    assert np.abs(limb_angles(torch.from_numpy(numbers["straight_in"])).numpy()-numbers["straight_angles"]).max()<1e-9


def test_one_frame(numbers):
    pred,target = (torch.from_numpy(numbers[name])[:, :1] for name in ("pred", "target"))
    for value in (velocity_loss(pred, target), limb_variance(pred), angle_loss(pred, target, steps=True)): assert value==0
    assert float(n_mpjpe(pred, target))==pytest.approx(float(numbers["T1_n_mpjpe_64"]), rel=1e-9)


GRADIENTS = dict(mpjpe=mpjpe, n_mpjpe=n_mpjpe, velocity=velocity_loss, h36m_total=pose_loss, limb_var=lambda pred,_: limb_variance(pred), angle=angle_loss)

@pytest.mark.parametrize("name", [*GRADIENTS, "w2d"])
def test_gradients(numbers, name):
    pred = torch.from_numpy(numbers["pred"]).requires_grad_()
    target,conf = (torch.from_numpy(numbers[key]) for key in ("target", "conf"))
    value = weighted_2d_loss(pred, target, conf) if name=="w2d" else GRADIENTS[name](pred, target)
    value.backward()
    assert np.abs(pred.grad[:, ::4].numpy()-numbers[f"grad_{name}"]).max()<1e-9


# ---- supervised contrastive loss

@pytest.mark.parametrize("temperature", [.1, .07])
@pytest.mark.parametrize("case", ["two_views_pairs", "two_views_uneven", "two_views_nolabel", "one_view_pairs", "one_view_uneven", "mode_one_pairs"])
def test_contrastive(golden, temperature, case):
    wanted = golden("motionbert/supcon")
    views = torch.from_numpy(wanted["features"])
    labels = None if case.endswith("nolabel") else torch.from_numpy(wanted["labels_"+case.split("_")[-1]])
    if case.startswith("one_view"): views = views[:, :1]
    theirs = float(wanted[f"t{temperature}_{case}"])
    if np.isnan(theirs): return
    assert float(contrastive_loss(views, labels, temperature, case.startswith("mode_one")))==pytest.approx(theirs, rel=1e-6)


def test_view_without_partner_is_left_out(golden):
    "NaN in the reference"
    wanted = golden("motionbert/supcon")
    views,labels = torch.from_numpy(wanted["features"])[:, :1],torch.from_numpy(wanted["labels_singletons"])
    assert np.isnan(wanted["t0.1_one_view_singletons"]) and torch.isfinite(contrastive_loss(views, labels))
    with pytest.raises(InputError, match="partner"): contrastive_loss(views)


def test_contrastive_gradient(golden):
    wanted = golden("motionbert/supcon")
    views = torch.from_numpy(wanted["features"])[:, :1].clone().requires_grad_()
    contrastive_loss(views, torch.from_numpy(wanted["labels_pairs"])).backward()
    assert np.abs(views.grad.numpy()-wanted["grad_t0.1_one_view_pairs"]).max()<1e-6


# ---- corruption

def test_corruption_has_the_published_statistics():
    torch.manual_seed(0)
    x = torch.rand(60, 81, 17, 3)*2-1
    noise = smooth_noise((60, 81, 17), .01)
    assert .008<float(noise.std())<.013 and float((noise[:, 1:]-noise[:, :-1]).std())<.012, "it drifts"
    sure = simulated_confidence(torch.zeros(100_000)) # 1 - 0.0046 + N(0, 0.1431), cut at 1
    assert float(sure.mean())==pytest.approx(1-.0046-.1431*.3989-.0046*0, abs=.004) and sure.max()<=1
    gone = (mask_joints(x)==0).all(-1)
    assert float(gone.all(-1).float().mean())==pytest.approx(.1, abs=.015)
    assert float(gone[~gone.all(-1)].float().mean())==pytest.approx(.05, abs=.005)
    noisy = corrupt_keypoints(x)
    assert noisy.shape==x.shape and noisy[..., 2].min()>=0 and noisy[..., 2].max()<=1


def test_variation_keeps_hidden_joints_hidden():
    torch.manual_seed(0)
    x = mask_joints(torch.rand(20, 9, 17, 3))
    there = (augment_keypoints(x)!=0).any(-1).sum()
    assert there==(x!=0).any(-1).sum()


def test_training_starts_where_it_should():
    "One seed, one result; the encoder's rate may be zero while the head learns"
    x = torch.rand(8, 5, 17, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model = DSTformer(DSTformerConfig(width=16, mlp=16, depth=1, heads=2, rep=8))
        found.append(fit(model, lambda index: mpjpe(model(x[index]), x[index]), 8, 3, batch=4))
    assert found[0]==found[1] and len(found[0])==3 and not model.training
    with pytest.raises(InputError, match="0 examples"): fit(model, None, 0, 3)
