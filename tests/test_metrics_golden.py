"Metrics against numbers from the published scripts (mint, aistplusplus_api, Bailando, EDGE)"
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from audio2pose.core import InputError
from audio2pose.metrics.beat import beat_align, beat_score, kinematic_beats
from audio2pose.metrics.contact import pfc
from audio2pose.metrics.motion import diversity, frechet_distance, geometric_features, kinetic_features, standardise, root_at_origin

GOLDEN = Path(__file__).parent/"golden"
SCORES = json.loads((GOLDEN/"metrics.json").read_text())
CLIPS = ["synth_smooth", "synth_walk", "gBR_ch01", "gJS_s4", "gBR_ch02_s0", "gKR_s6"]
FEATURES = [("published", "geo_fixed"), ("legacy-paper", "geo_first_release"), ("legacy-mid", "geo_hotfix"), ("legacy-bailando", "geo_bailando_legacy")]


@pytest.fixture(scope="module")
def numbers(golden): return golden("metrics")


@pytest.fixture(params=CLIPS)
def clip(request, numbers, shared):
    "One motion with its published numbers; the AIST++ clips are not part of the repository"
    z = numbers if request.param.startswith("synth") else np.load(shared("golden/real_clips/metrics.npz"), allow_pickle=False)
    return {key.split("/")[2]: z[key] for key in z if key.startswith(f"motion/{request.param}/")}


def close(x, y, rel=0., absolute=0.): np.testing.assert_allclose(x, y, rtol=rel, atol=absolute)


# ---- features. The published code knows nothing of frame rates: every clip is taken as 60 fps

def test_kinetic(clip):
    close(kinetic_features(clip["positions"]), clip["kinetic"], 1e-5)
    close(kinetic_features(root_at_origin(clip["positions"])), clip["kinetic_zero_start"], 1e-5)


@pytest.mark.parametrize("variant,key", FEATURES)
def test_geometric(clip, variant, key):
    close(geometric_features(clip["positions"], variant=variant), clip[key], absolute=1e-7)


def test_geometric_zero_start(clip):
    close(geometric_features(root_at_origin(clip["positions"])), clip["geo_fixed_zero_start"], absolute=1e-7)


# ---- beats

@pytest.mark.parametrize("name,protocol", [("mint", "mint-2021"), ("bailando", "bailando-2022")])
def test_kinematic_beats(clip, name, protocol):
    np.testing.assert_array_equal(kinematic_beats(clip["positions"], 60, protocol), clip[f"{name}_motion_beats"]/60)


@pytest.mark.parametrize("name,protocol,tolerance", [("mint", "mint-2021", 1e-6), ("bailando", "bailando-2022", 1e-12)])
def test_beat_score(clip, name, protocol, tolerance):
    close(beat_score(clip["positions"], clip["music_beats"]/60, 60, protocol), float(clip[f"{name}_beat_score"]), absolute=tolerance)


# ---- contact

def test_pfc(clip): close(pfc(clip["positions"], fps=30), float(clip["pfc"]), 1e-12)


def test_pfc_of_all(numbers, shared):
    real = np.load(shared("golden/real_clips/metrics.npz"), allow_pickle=False)
    clips = [(numbers if str(name).startswith("synth") else real)[f"motion/{name}/positions"] for name in numbers["names"]]
    close(np.mean([pfc(positions, fps=30) for positions in clips]), float(numbers["pfc_set"]), 1e-12)


# ---- sets

TOLERANCE = dict(gauss32=dict(rel=1e-8), gauss72=dict(rel=1e-8), gauss72_small=dict(rel=1e-6), clip_kinetic=dict(rel=1e-6),
                 pool_kinetic=dict(absolute=1e-5), pool_geo=dict(absolute=1e-5), clip_geo=dict(rel=1e-5))


@pytest.mark.parametrize("name", TOLERANCE)
@pytest.mark.filterwarnings("ignore:frechet_distance")
def test_frechet_distance(numbers, name):
    real,generated = standardise(numbers[f"set/{name}/real"], numbers[f"set/{name}/gen"], constant="keep")
    close(frechet_distance(real, generated), SCORES["sets"][name]["mint_fid_f8"], **TOLERANCE[name])
    close(frechet_distance(real, generated), SCORES["sets"][name]["bailando_fid_f8"], **TOLERANCE[name])


@pytest.mark.parametrize("name", TOLERANCE)
def test_diversity(numbers, name):
    real,generated = standardise(numbers[f"set/{name}/real"], numbers[f"set/{name}/gen"], constant="keep")
    close(diversity(generated), SCORES["sets"][name]["mint_dist_f8"], 1e-6)
    close(diversity(real), SCORES["sets"][name]["bailando_div_real_f8"], 1e-6)


def test_trap_is_refused(numbers):
    "Columns that are constant in the real set score 1e19 as published: named and refused unless asked for"
    sets = numbers["set/clip_geo/real"],numbers["set/clip_geo/gen"]
    with pytest.raises(InputError, match="never vary in the real set"): standardise(*sets)
    real,generated = standardise(*sets, constant="drop")
    assert real.shape[1]==32-SCORES["sets"]["clip_geo"]["zero_std_real"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert frechet_distance(real, generated)<1e4


def test_harmless_constants_are_kept(numbers):
    "A column that is the same everywhere adds nothing and needs no refusal"
    real,_ = standardise(numbers["set/pool_geo/real"], numbers["set/pool_geo/gen"])
    assert real.shape[1]==32


# ---- edges

def test_motionless(numbers):
    still = np.tile(numbers["edge/rest_pose"], (60, 1, 1))
    close(kinetic_features(still), numbers["edge/static_kinetic"], 1e-5)
    close(geometric_features(still), numbers["edge/static_geo_fixed"], absolute=1e-7)
    for protocol in ("mint-2021", "bailando-2022"):
        assert not len(kinematic_beats(still, 60, protocol))
        assert beat_score(still, np.arange(3.), 60, protocol)==0
        assert np.isnan(beat_score(still, np.zeros(0), 60, protocol))
    assert pfc(still, 60)==0 # Published: nan


@pytest.mark.parametrize("length", [2, 3, 4])
def test_short_clips(numbers, length):
    clip = numbers["edge/short_source"][:length]
    expected = numbers[f"edge/short_T{length}_kinetic"]
    np.testing.assert_array_equal(np.isnan(kinetic_features(clip)), np.isnan(expected))
    close(kinetic_features(clip), expected, 1e-5)
    close(geometric_features(clip), numbers[f"edge/short_T{length}_geo_fixed"], absolute=1e-7)


@pytest.mark.parametrize("features", [kinetic_features, geometric_features])
def test_one_frame_is_refused(numbers, features):
    with pytest.raises(InputError, match="at least 2 frames"): features(numbers["edge/short_source"][:1])


def test_no_beats_are_refused():
    for a,b in ((np.zeros(0), np.ones(1)), (np.ones(1), np.zeros(0))):
        with pytest.raises(InputError, match="no beats"): beat_align(a, b)
