"""Preparation, resampling, the 138 and the whole chain against numbers of the published programs (tests/golden/motionbert)"""
import numpy as np
import pytest
import torch
from test_motionbert import seeded

from audio2pose.data.keypoints import Keypoints
from audio2pose.extract.features import Handcrafted, MotionBERT
from audio2pose.extract.handcrafted import handcrafted
from audio2pose.extract.preprocessing import SamplingConfig, CleaningConfig, interpolate_rows, preprocess, seed_crop, seed_crop_3d, seed_interpolate, seed_positions, to_h36m
from audio2pose.models.motionbert import DSTformer, flip_pose
from audio2pose.skeleton import coco_to_h36m

SEED = CleaningConfig(compat="seed")


@pytest.fixture(scope="module")
def pre(golden): return golden("motionbert/preprocess")


def clip(points, fps=60., layout="coco"): return Keypoints(np.asarray(points, float), fps, layout=layout)


def normalised(points, cleaning): return preprocess(clip(points), cleaning).x


def close(ours, theirs, limit=1e-6):
    assert ours.shape==theirs.shape
    assert (np.isnan(ours)==np.isnan(theirs)).all()
    assert np.nanmax(np.abs(ours-theirs), initial=0)<limit


# ---- the published preparation

@pytest.mark.parametrize("name", [f"clean_T{n}" for n in (1, 2, 3, 120, 305, 600)]+[f"gaps_T{n}" for n in (3, 120, 305)])
def test_pipeline(pre, name):
    close(normalised(pre[f"pipe_{name}_in"], SEED), pre[f"pipe_{name}_norm"])


@pytest.mark.parametrize("name", ["gaps_T3", "gaps_T120"])
def test_interpolation(pre, name): close(seed_interpolate(pre[f"pipe_{name}_in"]), pre[f"pipe_{name}_interp"], 1e-9)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_interpolation_of_small_clips(pre, frames):
    close(seed_interpolate(pre[f"interp_small_T{frames}_in"]), pre[f"interp_small_T{frames}_out"], 1e-9)


CASES = ["clean", "missing_zero", "zero_conf_some", "zero_conf_all", "outlier", "allnan_channel", "allnan_joint0", "conf_gt1", "few_valid", "degenerate"]

@pytest.mark.parametrize("case", CASES)
def test_cases_as_published(pre, case):
    close(normalised(pre[f"case_{case}_in"], SEED)[::2], pre[f"case_{case}_norm"])


def test_crop(pre):
    for name in ("three", "four"): close(seed_crop(pre[f"crop_{name}_valid_in"].astype(float)), pre[f"crop_{name}_valid_out"].astype(float))
    for ratio in ("0.5", "1", "2"): close(seed_crop(pre["crop_ratio_in"].astype(float), float(ratio)), pre[f"crop_ratio_{ratio}_out"].astype(float))
    close(seed_crop(pre["crop_two_persons_in"].astype(float)), pre["crop_two_persons_out"].astype(float))


def test_crop_3d(pre): close(seed_crop_3d(pre["crop3d_in"].astype(float)), pre["crop3d_out"].astype(float))


def test_maps(pre):
    close(coco_to_h36m(pre["coco2h36m_in"]), pre["coco2h36m_out"], 1e-6)
    close(to_h36m(pre["halpe2h36m_in"].astype(float), "halpe"), pre["halpe2h36m_out"].astype(float))
    close(flip_pose(torch.from_numpy(pre["flip_in"])).numpy(), pre["flip_out"])


# ---- resampling

@pytest.mark.parametrize("frames", [1, 2, 3, 5, 59, 60, 120, 243, 300, 305, 600])
def test_published_clock(pre, frames):
    rows,theirs = pre[f"feat215_T{frames}_in"],pre[f"feat215_T{frames}_out"]
    close(interpolate_rows(rows, seed_positions(frames)), theirs, 2e-6)


def test_published_squeeze(pre):
    for n in (1, 7, 48, 49, 96):
        rows = pre["resample2d_in"].astype(float)
        out = interpolate_rows(rows.reshape(len(rows), -1), np.linspace(0, len(rows)-1, n) if n>1 else np.zeros(1))
        close(out.reshape(n, *rows.shape[1:]), pre[f"resample2d_n{n}"].astype(float))


# ---- the 138

@pytest.mark.parametrize("case", ["clean_T1", "clean_T2", "clean_T3", "clean_T60", "gaps_T60", "allnan_T60", "clean_T305", "wrap_T30"])
def test_handcrafted(golden, case):
    wanted = golden("motionbert/features138")
    points = wanted[f"{case}_in"]
    rows = handcrafted(points.astype(float))
    step = dict(allnan_T60=3, clean_T305=8).get(case, 1)
    close(rows[::step], wanted[f"{case}_raw"].astype(float), 1e-4 if case=="clean_T305" else 1e-9)
    if len(wanted[f"{case}_out"])==0: return
    resampled = Handcrafted("published")([clip(np.concatenate([points[..., :2], np.ones_like(points[..., :1])], -1))])[0].values.numpy()
    close(resampled.astype(float), wanted[f"{case}_out"].astype(float), 1e-3)


# ---- the whole chain

@pytest.fixture(scope="module")
def lite(): return seeded(DSTformer.lite())


@pytest.mark.parametrize("name,clock", [("out109", SamplingConfig()), ("out128", SamplingConfig(count=128)), ("short_out35", SamplingConfig())])
def test_chain(golden, lite, name, clock):
    wanted = golden("motionbert/e2e_lite")
    points = wanted["short_in" if name.startswith("short") else "in"]
    values = MotionBERT(lite, SEED, clock)([clip(points)])[0].values.numpy()
    assert values.shape==tuple(wanted[f"{name}_shape"])
    if name.startswith("short"): return close(values[::3, ::32], wanted[name], 1e-4)
    close(values[::4, ::32], wanted[name], 1e-4)
    close(values.mean(1, dtype=float), wanted[f"{name}_row_mean"], 1e-5)
    close(values.mean(0, dtype=float)[::8].astype(np.float32), wanted[f"{name}_col_mean"], 1e-5)
