"""Reduction of landmarks: vectors worked by hand, properties, hostile input, and what the older stage did"""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from audio2pose.core import InputError
from audio2pose.extract.reduction import MISSING, ReductionConfig, to_points, holistic_points, reduce_folder, reduce_landmarks, reduce_points, seed_config
from audio2pose.landmarks import Landmarks, layouts, seed_storage, to_array


def person(frames=6, count=85, seed=0):
    return np.random.default_rng(seed).uniform([.2, .1, 4, 1], [.8, .9, 6, 9], (frames, count, 4))


def by_hand():
    "Two frames of 85 points, of which three were seen: 4 wide, 2 high, 10 deep; the second frame is empty"
    clip = np.zeros((2, 85, 4))
    clip[0, [3, 40, 84]] = [1, 5, -4, 7], [5, 7, 6, 7], [3, 6, 1, .1]
    return clip


# ---- by hand

@pytest.mark.parametrize("rules, expected", [
    (ReductionConfig(), [[0, 0, 0], [1, .5, 1], [.5, .25, .5]]),
    (ReductionConfig(mode="isotropic_3d"), [[0, 0, 0], [.4, .2, 1], [.2, .1, .5]]),
    (ReductionConfig(drop_z=True), [[0, 0], [1, .5], [.5, .25]]),
    (ReductionConfig(score=1.), [[0, 0, 0], [1, .5, 1], [np.nan]*3]),
])
def test_three_points(rules, expected):
    found = reduce_landmarks(by_hand(), rules)
    np.testing.assert_allclose(found.values[0, [3, 40, 84]], expected, atol=1e-12)
    width = 2 if rules.drop_z else 3
    assert found.to_rows().shape==(2, 85*width) and found.to_rows().dtype==np.float32
    assert found.valid.sum()==(2 if rules.score else 3) and np.isnan(found.to_rows()[1]).all()
    np.testing.assert_array_equal(found.to_rows()[0, 40*width:41*width], np.float32(expected[1]))


def test_the_older_stage_by_hand():
    """It knows frames of zeros only: in the first frame the 82 zero points count, at the corner (0, 0, 0).
    So x and y are divided by 7 (0..5 and 0..7) and z goes from -4 to 6, where 0 becomes .4"""
    rows = reduce_landmarks(by_hand(), seed_config).to_rows()
    assert (rows[1]==MISSING).all()
    np.testing.assert_allclose(rows[0].reshape(85, 3)[[3, 40, 84, 0]], [[1/7, 5/7, 0], [5/7, 1, 1], [3/7, 6/7, .5], [0, 0, .4]], rtol=1e-6)


def test_the_older_stage_with_a_threshold():
    "Points below it become -999 and leave the box; zeros have score 0 and go with them"
    rows = reduce_landmarks(by_hand(), replace(seed_config, score=.3)).to_rows().reshape(2, 85, 3)
    np.testing.assert_allclose(rows[0, [3, 40]], [[0, 0, 0], [1, .5, 1]])
    assert (rows[0, [0, 84]]==MISSING).all()


@pytest.mark.parametrize("mode", ["xy_isotropic", "isotropic_3d"])
def test_nothing_extends(mode):
    "A zero range becomes 0, not a division"
    clip = np.zeros((3, 85, 4))
    clip[:, 5] = .3, .4, 5.1, 6
    found = reduce_landmarks(clip, ReductionConfig(mode=mode))
    np.testing.assert_array_equal(found.values[:, 5], 0)
    np.testing.assert_allclose(found.inverse_transform()[:, 5], [[.3, .4, 5.1]]*3)


def test_points_of_the_larger_sets():
    whole = person(count=133)
    np.testing.assert_array_equal(reduce_landmarks(whole).values, reduce_landmarks(whole[:, list(layouts["seed"])]).values)
    holistic = person(count=543)
    found = reduce_landmarks(holistic)
    assert found.values.shape==(6, 85, 3)
    assert np.flatnonzero(~found.valid[0]).tolist()==[41, 42], "the two irises are not among 468 points of a face"
    assert holistic_points[43:]==tuple(range(501, 543)) and holistic_points[:6]==(11, 12, 13, 14, 23, 24)
    np.testing.assert_allclose(found.inverse_transform()[:, 43], holistic[:, 501, :3])


# ---- properties

@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.floats(.01, 100), st.tuples(st.floats(-5, 5), st.floats(-5, 5)), st.sampled_from(["xy_isotropic", "isotropic_3d"]), st.floats(0, .9))
def test_place_and_size_do_not_matter_and_all_comes_back(seed, scale, shift, mode, lost):
    clip = person(4, seed=seed)
    clip[np.random.default_rng(seed).random((4, 85))<lost] = np.nan
    here = reduce_points(clip, ReductionConfig(mode=mode))
    moved = clip*[scale, scale, scale if mode=="isotropic_3d" else 1, 1]+[*shift, 0, 0]
    np.testing.assert_allclose(reduce_points(moved, ReductionConfig(mode=mode)).values, here.values, atol=1e-9/min(scale, 1))
    np.testing.assert_array_equal(here.valid, np.isfinite(clip).all(-1))
    np.testing.assert_allclose(here.inverse_transform(), clip[..., :3], atol=1e-9)
    if here.valid.sum()>1: assert np.nanmin(here.values)==0 and abs(np.nanmax(here.values)-1)<1e-12


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0, .5))
def test_rows_say_missing_in_either_way(seed, lost):
    clip = person(5, seed=seed)
    clip[np.random.default_rng(seed).random((5, 85))<lost] = 0
    nan,number = (reduce_landmarks(clip, ReductionConfig(missing=missing)).to_rows() for missing in ("nan", "-999"))
    np.testing.assert_array_equal(np.isnan(nan), number==MISSING)
    np.testing.assert_array_equal(nan[~np.isnan(nan)], number[number!=MISSING])


def test_flat_and_shaped_are_the_same():
    clip = person()
    np.testing.assert_array_equal(reduce_landmarks(clip.reshape(6, 340)).to_rows(), reduce_landmarks(clip).to_rows())


def test_landmarks_of_this_package_and_their_older_form():
    "Through the old storage and back: the same rows as from the landmarks, but for the picture's shape"
    points = np.random.default_rng(0).normal([900, 500, 0, 4], [80, 200, .3, 1], (10, 133, 4))
    points[4] = np.nan
    clip = Landmarks(points, np.arange(10)/24, 24, (1920, 1080))
    stored = to_array(clip.subset("seed"), seed_storage)
    np.testing.assert_allclose(reduce_landmarks(stored, seed_config).to_rows(), reduce_landmarks(clip, seed_config).to_rows(), atol=1e-5)
    np.testing.assert_allclose(reduce_landmarks(stored, size=(1920, 1080)).to_rows(), reduce_landmarks(clip).to_rows(), atol=1e-5)
    wide = reduce_landmarks(clip, ReductionConfig(points="body"))
    assert wide.values.shape==(10, 17, 3) and reduce_landmarks(clip.subset("body"), ReductionConfig(points="body")).to_rows().shape==(10, 51)


def test_one_wild_point():
    clip = person(30)
    clip[3, 7] = 100, -100, 9, -2
    plain,guarded = (reduce_landmarks(clip, ReductionConfig(box_score=score)).values for score in (None, 0.))
    assert np.ptp(plain[5, :, 0])<.01 and np.ptp(guarded[5, :, 0])>.5
    assert guarded[3, 7, 0]>10


# ---- hostile

@pytest.mark.parametrize("array, said", [
    (np.ones((2, 255)), "reduced already"), (np.ones((2, 170)), "reduced already"), (np.ones((2, 84, 4)), "cannot be chosen from 84 points"), (np.ones((2, 85, 5)), r"got \(2, 85, 5\)"),
    (np.ones(340), r"got \(340,\)"), (np.array([["x"]*340]), "must be numbers"), (np.ones((2, 341)), r"got \(2, 341\)")])
@pytest.mark.parametrize("rules", [ReductionConfig(), seed_config])
def test_what_is_no_landmarks(array, said, rules):
    with pytest.raises(InputError, match=said): reduce_landmarks(array, rules)


@pytest.mark.parametrize("wrong, said", [(dict(mode="minmax"), "one of xy_isotropic, isotropic_3d"), (dict(missing="0"), "one of nan, -999"), (dict(compat="v2"), "one of None, seed")])
def test_rules_that_cannot_be(wrong, said):
    with pytest.raises(InputError, match=said): ReductionConfig(**wrong)


def test_points_that_are_not_there():
    with pytest.raises(InputError, match="no set of points is called 'legs'"): reduce_landmarks(person(), ReductionConfig(points="legs"))
    with pytest.raises(InputError, match="body cannot be chosen from 85"): reduce_landmarks(person(), ReductionConfig(points="body"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0., np.nan, np.inf, -np.inf, MISSING, 1e300, 5.]), min_size=8, max_size=8))
def test_any_numbers_give_rows_in_the_box_or_missing(values):
    clip = person(2)
    clip[0, 0],clip[1, 5] = values[:4],values[4:]
    rows = reduce_landmarks(clip).to_rows()
    assert rows.shape==(2, 255) and not np.isinf(rows).any()
    assert np.nanmin(rows)>=0 and np.nanmax(rows)<=1


def test_nothing_seen_and_no_frames():
    assert np.isnan(reduce_landmarks(np.zeros((3, 85, 4))).to_rows()).all()
    assert reduce_landmarks(np.zeros((0, 85, 4))).to_rows().shape==(0, 255)
    assert (reduce_landmarks(np.zeros((3, 85, 4)), seed_config).to_rows()==MISSING).all()


# ---- folders

def test_folder(tmp_path):
    "Subfolders are kept, bad files are refused in a sentence, a second call does nothing, another rule does all again"
    source = tmp_path/"in"
    (source/"sub").mkdir(parents=True)
    for name in ("a", "sub/b"): np.save(source/f"{name}.npy", person(seed=len(name)))
    (source/"cut.npy").write_bytes((source/"a.npy").read_bytes()[:300])
    np.save(source/"empty.npy", np.zeros((4, 85, 4)))
    np.save(source/"code.npy", np.array([dict(a=1)], object), allow_pickle=True)
    first = reduce_folder(source, tmp_path/"out", progress=False)
    assert first.outcomes=={"made": 2, "refused": 3}
    assert np.load(tmp_path/"out/sub/b.npy").shape==(6, 255)
    assert not list((tmp_path/"out").rglob("cut*")) and not list((tmp_path/"out").rglob(".part*"))
    assert reduce_folder(source, tmp_path/"out", progress=False).outcomes["made"]==0
    assert reduce_folder(source, tmp_path/"out", ReductionConfig(drop_z=True), progress=False).outcomes["made"]==2
    assert np.load(tmp_path/"out/a.npy").shape==(6, 170)


def test_folder_in_two_processes(tmp_path):
    for i in range(4): np.save(tmp_path/f"{i}.npy", person(seed=i))
    assert reduce_folder(tmp_path, tmp_path/"out", workers=2, progress=False).outcomes["made"]==4


def test_folders_that_cannot_be(tmp_path):
    with pytest.raises(InputError, match="no .npy files"): reduce_folder(tmp_path, tmp_path/"out")
    np.save(tmp_path/"a.npy", person())
    with pytest.raises(InputError, match="would replace the landmarks"): reduce_folder(tmp_path, tmp_path)


def test_any_missing_reading():
    assert np.isnan(to_points(np.full((1, 85, 4), MISSING))).all()


@pytest.mark.parametrize("rules", [ReductionConfig(), seed_config])
def test_arrays_without_scores_are_rows_like_those_with(rules):
    scored = person()
    np.testing.assert_array_equal(reduce_landmarks(scored[..., :3], rules).to_rows(), reduce_landmarks(scored, rules).to_rows())


def test_stage_four_as_a_command(tmp_path):
    "With and without depth and score, in the older stage's numbers, and checked by the command that checks"
    from audio2pose import cli
    (tmp_path/"clips").mkdir()
    np.save(tmp_path/"clips/a.npy", person())
    for options,numbers in (("", 255), ("--no-z", 170), ("--visibility", 340), ("--no-z --visibility", 255), ("--compat seed", 255)):
        out = tmp_path/f"rows{options.replace(' ', '')}"
        assert cli.run(["reduce", str(tmp_path/"clips"), "--out", str(out), *options.split()])==0
        assert np.load(out/"a.npy").shape==(len(person()), numbers)
        assert cli.run(["data", "verify", str(out)])==0
    (out/"a.npy").unlink()
    assert cli.run(["data", "verify", str(out)])==1
