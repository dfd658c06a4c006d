"The retrieval model: attention over time, parity of the published beats, training from one seed"
import numpy as np
import pytest
import torch

from audio2pose.models.retrieval import Retrieval, beat_pulses, info_nce, seed_beat_tokens, similarity, keypoint_beats


@pytest.mark.parametrize("frames", [120, 305])
def test_published_beats(golden, frames):
    numbers = golden("motionbert/preprocess")
    assert np.array_equal(seed_beat_tokens(numbers[f"pipe_clean_T{frames}_in"].astype(float)), numbers[f"beat_T{frames}_128x2"])


def test_stops_are_where_the_body_stops():
    "A point that swings once a second stops twice a second; where it is sampled does not matter"
    for fps in (24, 30, 60):
        t = np.arange(int(8*fps))/fps
        swing = np.stack([np.sin(2*np.pi*t), 0*t], -1)[:, None].repeat(17, 1)
        found = keypoint_beats(swing, fps)
        assert np.abs(found-(.25+.5*np.arange(len(found)))).max()<1/fps and len(found) in (15, 16)


def test_confidence_is_no_movement():
    rng = np.random.default_rng(0)
    points = np.cumsum(rng.normal(size=(90, 17, 3)), 0)
    flickering = points.copy()
    flickering[..., 2] = rng.random((90, 17))*50
    assert np.array_equal(keypoint_beats(points, 30), keypoint_beats(flickering, 30))
    assert not np.array_equal(keypoint_beats(points, 1, "seed"), keypoint_beats(flickering, 1, "seed"))


def test_pulses_keep_their_moment():
    "The centre of a pulse is the beat, wherever it falls between rows"
    times = np.arange(64)/10.75
    for beat in (1., 1.03, 2.222):
        rows = beat_pulses(np.array([beat]), times)[:, 0]
        assert rows.sum()==pytest.approx(1, abs=1e-5) and (rows@times)==pytest.approx(beat, abs=1e-5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Retrieval(12, 9, 32).eval()


def test_attention_is_over_time(model):
    "The output of one clip does not change with the batch; it does with the clip's own other moments"
    dance,beats = torch.randn(5, 20, 12),torch.rand(5, 20, 1)
    with torch.no_grad():
        together,alone = model.dance(dance, beats),model.dance(dance[2:3], beats[2:3])
        other = dance.clone()
        other[2, 15:] += 1
        moved = model.dance(other, beats)
    for a,b in zip(together, alone): assert (a[2]-b[0]).abs().max()<1e-6
    for a,b in zip(together, moved): assert (a[2, :5]-b[2, :5]).abs().max()>1e-4
    for a,b in zip(together, moved): assert (a[[0, 1, 3, 4]]-b[[0, 1, 3, 4]]).abs().max()==0


def test_similarity_is_of_the_same_moments(model):
    with torch.no_grad(): rows = model.dance(torch.randn(4, 20, 12), torch.rand(4, 20, 1)).fused
    scores = similarity(rows, rows)
    assert torch.allclose(scores.diag(), torch.ones(4), atol=1e-5) and scores.max()<=1+1e-5
    assert similarity(rows, rows.flip(1)).diag().max()<.999


def test_loss_is_symmetric():
    logits = torch.randn(6, 6)
    assert info_nce(logits)==pytest.approx(float(info_nce(logits.T)), rel=1e-6)
