"Retrieval scores against the published ones, and what they must obey"
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from audio2pose.core import InputError
from audio2pose.metrics.retrieval import active_items, beatdance_average, bidirectional_recall, query_bank_normalised, ranks, recall

GOLDEN = Path(__file__).parent/"golden"/"motionbert"
SCORES = json.loads((GOLDEN/"retrieval.json").read_text())
quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**32-1)


@pytest.fixture(scope="module")
def numbers():
    with np.load(GOLDEN/"retrieval.npz", allow_pickle=False) as file: return dict(file)


def compare(found, expected):
    for k,share in found.recall.items(): assert 100*share==pytest.approx(expected[f"R{k}"], abs=1e-9)
    assert (found.median_rank, found.mean_rank)==pytest.approx((expected["MedR"], expected["MeanR"]), abs=1e-9)
    assert beatdance_average(found)==pytest.approx(expected["AVG"], abs=1e-9)


def test_plain(numbers):
    similarity = numbers["sims_music_rows_video_cols"]
    np.testing.assert_array_equal(ranks(similarity)-1, numbers["plain_m2v_ranks0"])
    np.testing.assert_array_equal(ranks(similarity.T)-1, numbers["plain_v2m_ranks0"])
    found = bidirectional_recall(similarity)
    compare(found["m2v"], SCORES["plain"]["music_to_video"])
    compare(found["v2m"], SCORES["plain"]["video_to_music"])


@pytest.mark.parametrize("k,beta", [(1, 20), (1, 50), (3, 20), (10, 20)])
def test_query_bank(numbers, k, beta):
    similarity,name = numbers["sims_music_rows_video_cols"],f"qbnorm_k{k}_beta{beta}"
    for direction,rows,bank,key in (("m2v", similarity, "bank_music_rows_video_cols", "music_to_video"), ("v2m", similarity.T, "bank_video_rows_music_cols", "video_to_music")):
        normalised = query_bank_normalised(rows, numbers[bank], k, beta)
        expected = numbers[f"{name}_{direction}"]
        np.testing.assert_allclose(normalised, expected if direction=="m2v" else expected.T, atol=1e-9)
        np.testing.assert_array_equal(ranks(normalised)-1, numbers[f"{name}_{direction}_ranks0"])
        compare(recall(normalised), SCORES[name][key])
        assert (normalised!=rows).any(1).sum()==SCORES[name]["rows_changed"][direction=="v2m"]


def test_sharp_banks_do_not_overflow(numbers):
    similarity = 100*numbers["sims_music_rows_video_cols"]
    assert np.isfinite(query_bank_normalised(similarity, 100*numbers["bank_music_rows_video_cols"], beta=50)).all()


@quick
@given(seeds, st.integers(1, 30))
def test_ranks_are_places(seed, count):
    rng = np.random.default_rng(seed)
    similarity = rng.normal(size=(count, count))
    place = ranks(similarity)
    assert ((1<=place)&(place<=count)).all()
    np.testing.assert_array_equal(place, ranks(np.exp(3*similarity)+7)) # Only the order matters
    shuffle = rng.permutation(count)
    np.testing.assert_array_equal(place[shuffle], ranks(similarity[np.ix_(shuffle, shuffle)]))
    found = recall(similarity)
    assert list(found.recall.values())==sorted(found.recall.values())


@quick
@given(st.integers(1, 40))
def test_saying_the_same_to_all_is_chance(count):
    assert recall(np.zeros((count, count))).mean_rank==(count+1)/2


def test_refusals():
    for bad,says in ((np.zeros((2, 3)), r"\(2, 3\)"), (np.zeros((0, 0)), "no pairs"), (np.full((2, 2), np.nan), "4 similarities are not finite")):
        with pytest.raises(InputError, match=says): ranks(bad)
    with pytest.raises(InputError, match="bank"): query_bank_normalised(np.eye(3), np.eye(4))
    with pytest.raises(InputError, match="k must be 1 to the 3 items, got 0"): active_items(np.eye(3), 0)
