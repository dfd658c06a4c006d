"Stores of prepared sequences and the windows that are cut from them."
import json
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio2pose.core import InputError
from audio2pose.data.windows import (EQ_SPREAD, Store, Windows, augment_audio, gather_windows, sample_indices, train_val_split, sample_windows, statistics,
                                     random_sequences, transpose_chroma, write_store)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")/"store"
    write_store((entry for count,frames in ((6, 500), (3, 240), (2, 1000)) for entry in renamed(frames, random_sequences(count, frames))), folder)
    return Store(folder)


def renamed(frames, sequences):
    for name,*rest in sequences: yield f"{name}_{frames}", *rest


def test_golden_window(shared, real_motion, tmp_path):
    "Frames 0, 119, 120 and 139 of the published preprocessing"
    with np.load(shared("golden/real_clips/representation.npz")) as file: z = dict(file)
    write_store([("clip", real_motion.to_features(), np.zeros((720, 35)), {})], tmp_path/"store")
    motion,audio,target = Store(tmp_path/"store").window(0, 0)
    assert motion.shape==(120, 225) and audio.shape==(240, 35) and target.shape==(20, 225)
    for rows,name in ((motion, "window_motion"), (target, "window_target")):
        np.testing.assert_allclose(rows[0], z[f"{name}_first"], atol=2e-7)
        np.testing.assert_allclose(rows[-1], z[f"{name}_last"], atol=2e-7)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32-1))
def test_windows_are_slices(store, seed):
    sequence,start = sample_indices(store, 7, np.random.default_rng(seed))
    motion,audio,target = gather_windows(store, sequence, start)
    assert motion.dtype==audio.dtype==target.dtype==np.float32
    for i,(index,first) in enumerate(zip(sequence, start)):
        assert 0<=first<=store.rows[index]-240
        place = store.starts[index]+first
        np.testing.assert_array_equal(np.concatenate([motion[i], target[i]])[:, 6:], store.motion[place:place+140])
        np.testing.assert_array_equal(audio[i], store.audio[place:place+240])
        assert not motion[i, :, :6].any() and not target[i, :, :6].any()


def test_short_sequences_are_named_and_a_window_long_one_has_one_window(store, tmp_path):
    _,motion,audio,info = next(random_sequences(1, 400))
    short = write_store([("whole", motion[:240], audio, info), ("cut", motion[:239], audio, info), ("deaf", motion, audio[:100], info)], tmp_path/"store")
    assert short==["cut", "deaf"]
    small = Store(tmp_path/"store")
    assert small.names==["whole"] and small.short==["cut", "deaf"] and len(Windows(small))==1
    assert set(sample_indices(small, 50, np.random.default_rng(0))[1])=={0}
    sample_windows(small, 5, np.random.default_rng(0))


def test_streams_are_cut_to_the_common_length(tmp_path):
    _,motion,audio,info = next(random_sequences(1, 400))
    write_store([("a", motion, audio[:333], info), ("b", motion[:300], audio, info)], tmp_path/"store")
    assert Store(tmp_path/"store").rows.tolist()==[333, 300]
    assert np.load(tmp_path/"store"/"motion.npy").shape==(633, 219)


@pytest.mark.parametrize("break_it, message", [
    (lambda m, a: (m, np.where(np.arange(400)[:, None]==7, np.inf, a)), "audio is not finite in 1 frames, first in frame 7"),
    (lambda m, a: (m[:, :200], a), r"motion must be \(T, 219\), got \(400, 200\)"),
    (lambda m, a: (m, a[:, 0]), r"audio must be \(T, 35\), got \(400,\)"),
])
def test_bad_sequences_are_refused_by_name(tmp_path, break_it, message):
    name,motion,audio,info = next(random_sequences(1, 400))
    with pytest.raises(InputError, match=f"{name}: {message}"): write_store([(name, *break_it(motion, audio), info)], tmp_path/"store")
    assert not (tmp_path/"store").exists() and not list(tmp_path.iterdir())


def test_damaged_stores_say_so(tmp_path):
    write_store(random_sequences(2, 300), tmp_path/"store")
    with pytest.raises(InputError, match="not a store"): Store(tmp_path)
    whole = (tmp_path/"store"/"motion.npy").read_bytes()
    (tmp_path/"store"/"motion.npy").write_bytes(whole[:5000])
    with pytest.raises(InputError, match="damaged, cut off|no such file"): Store(tmp_path/"store")
    (tmp_path/"store"/"motion.npy").write_bytes(whole)
    index = json.loads((tmp_path/"store"/"index.json").read_text())
    index["sequences"].pop()
    (tmp_path/"store"/"index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="counts 300 frames, motion.npy has 600"): Store(tmp_path/"store")


def test_hold_out_follows_the_split(tmp_path):
    write_store(((name, motion, audio, dict(split="val" if name.endswith("2") else "train")) for name,motion,audio,_ in random_sequences(5, 300)), tmp_path/"store")
    train,valid = train_val_split(Store(tmp_path/"store"))
    assert valid.names==["toy002"] and len(train)==4
    motion,_,_ = valid.window(0, 0)
    np.testing.assert_array_equal(motion, Store(tmp_path/"store").window(2, 0)[0])
    with pytest.raises(InputError, match="none of its 1 sequences is for train"): train_val_split(valid)


def test_statistics_are_floored_and_leave_one_hots(store):
    stats = statistics(store.select(store.names[:4]))
    rows = np.concatenate([store.motion[start:start+length] for start,length in zip(store.starts[:4], store.rows[:4])])
    np.testing.assert_allclose(stats["motion_mean"][6:], rows.mean(0, dtype=float), atol=1e-5)
    np.testing.assert_allclose(stats["motion_std"][6:], np.maximum(rows.std(0, dtype=float), .05), atol=1e-5)
    assert stats["audio_mean"][33:].tolist()==[0, 0] and stats["audio_std"][33:].tolist()==[1, 1]
    assert all(value.dtype==np.float32 and np.isfinite(value).all() for value in stats.values())


def test_augmentation_keeps_the_rhythm_and_does_not_touch_its_input(store):
    audio = sample_windows(store, 200, np.random.default_rng(0))[1]
    before = audio.copy()
    stats = statistics(store)
    heard = augment_audio(audio, np.random.default_rng(1), stats["audio_mean"])
    np.testing.assert_array_equal(audio, before)
    np.testing.assert_array_equal(heard[..., 33:], audio[..., 33:])
    gain = heard[..., 0]/audio[..., 0]
    np.testing.assert_allclose(gain, gain[:, :1].repeat(240, 1), rtol=1e-4)
    deaf = (heard[..., 1:33]==stats["audio_mean"][1:33]).all((1, 2))
    assert .05<deaf.mean()<.3
    offset = (heard[~deaf, :, 1:21]-audio[~deaf, :, 1:21]).mean(1)
    np.testing.assert_allclose(offset.std(0), EQ_SPREAD, rtol=.3)
    rolled = np.sort(heard[~deaf, :, 21:33], axis=-1)
    np.testing.assert_array_equal(rolled, np.sort(audio[~deaf, :, 21:33], axis=-1))


def test_transpose_goes_upwards():
    chroma = np.zeros((2, 3, 12))
    chroma[..., 9] = 1
    assert transpose_chroma(chroma, np.array([2, 5])).argmax(-1).tolist()==[[11]*3, [2]*3]


def test_sampling_never_starves_a_step(store):
    rng,best = np.random.default_rng(0),0.
    for _ in range(5):
        clock = time.process_time()
        for _ in range(5): sample_windows(store, 32, rng)
        best = max(best, 160/(time.process_time()-clock))
    assert best>2000, f"{best:.0f} windows per second"


def test_dataset_holds_every_window_once(store):
    windows = Windows(store)
    counts = store.rows-239
    assert len(windows)==counts.sum()
    last = counts[0]-1
    np.testing.assert_array_equal(windows[int(last)][1], store.window(0, int(last))[1])
    np.testing.assert_array_equal(windows[int(last)+1][0], store.window(1, 0)[0])
    with pytest.raises(IndexError): windows[len(windows)]
