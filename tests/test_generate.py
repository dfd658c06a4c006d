"What must hold for every song, seed and setting."
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio2pose.beats import BEAT_COLUMN
from audio2pose.core import FPS, InputError
from audio2pose.generate import dance, generate
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.models.fact_inference import autoregress
from audio2pose.motion import Motion
from audio2pose.phrases import beat_grid, choreographed_seed, intro, outro

TINY = FACTConfig(width=16, heads=2, mlp=32, motion_layers=1, audio_layers=1, cross_layers=1, standardise=True, residual=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FACT(TINY).eval()


def make_song(frames, bpm, first=7, seed=0):
    song = np.random.default_rng(seed).normal(size=(frames, 35)).astype(np.float32)
    song[:, BEAT_COLUMN] = 0
    if bpm: song[np.round(np.arange(first, frames-.5, 60*FPS/bpm)).astype(int), BEAT_COLUMN] = 1
    return song


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 330), bpm=st.sampled_from([0, 60, 97, 200]), commit=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_every_frame_of_every_song(frames, bpm, commit, seed):
    torch.manual_seed(0)
    dance = generate(FACT(TINY), make_song(frames, bpm), seed=seed, commit=max(commit, 3 if frames>60 else 1))
    assert len(dance)==frames and dance.fps==FPS
    assert np.isfinite(dance.poses).all() and np.isfinite(dance.trans).all()


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(200, 2000), bpm=st.floats(50, 220), first=st.integers(0, 15), many=st.integers(1, 400))
def test_beats_run_through_both_ends(frames, bpm, first, many):
    song = make_song(frames, bpm, first)
    period = 60*FPS/bpm
    whole = np.concatenate([intro(song, 120), song, outro(song, many)])
    assert len(whole)==120+frames+many
    np.testing.assert_array_equal(whole[120:120+frames], song)
    beats = np.flatnonzero(song[:, BEAT_COLUMN])
    if beats[-1]-beats[0]<120: return # too short to go back whole beats
    if abs(beats[-1]+period-frames)<1.5: return # the next beat is rounded away at the very end
    gaps = np.diff(np.flatnonzero(whole[:, BEAT_COLUMN]))
    assert abs(gaps-period).max()<2.01


def test_same_seed_same_bytes(model):
    song = make_song(200, 120)
    one,two = (generate(model, song, seed=7, commit=10) for _ in range(2))
    assert one.poses.tobytes()==two.poses.tobytes() and one.trans.tobytes()==two.trans.tobytes()


def test_seeds_differ(model):
    dances = generate(model, make_song(130, 100), seed=list(range(6)), commit=10)
    kinds = {dance.poses.round(3).tobytes() for dance in dances}
    assert len(kinds)>=3


def test_a_batch_is_what_each_would_be_alone(model):
    songs = [make_song(frames, 110, seed=frames) for frames in (61, 200, 130)]
    together = generate(model, songs, seed=[1, 2, 3], commit=10)
    for song,seed,dance in zip(songs, (1, 2, 3), together):
        alone = generate(model, song, seed=seed, commit=10)
        assert len(dance)==len(song)
        np.testing.assert_allclose(dance.positions(), alone.positions(), atol=1e-3)


def test_the_model_is_left_alone(model):
    before = {name: tensor.clone() for name,tensor in model.state_dict().items()}
    model.train()
    for precision in ("fp32", "bf16") if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ("fp32",):
        generate(model, make_song(30, 120), commit=10, precision=precision)
    assert model.training and all(parameter.requires_grad and parameter.dtype==torch.float32 for parameter in model.parameters())
    for name,tensor in model.state_dict().items(): assert torch.equal(tensor, before[name]), name
    model.loss(torch.randn(1, 120, 225), torch.randn(1, 240, 35), torch.randn(1, 20, 225)).backward()
    model.zero_grad()
    model.eval()


def test_generated_frames_can_be_trained_on(model):
    frames = autoregress(model, torch.randn(2, 120, 225), torch.randn(2, 380, 35), commit=20)
    model.loss(frames[:, :120], torch.randn(2, 240, 35), frames[:, 120:140]).backward()
    model.zero_grad()


@pytest.mark.parametrize("options", [dict(causal=True), dict(fusion="none"), dict(fusion="late"), dict(future=1), dict(future=10), dict(motion_dim=219),
                                     dict(motion_length=60, audio_length=150, future=15)])
def test_other_models_dance_too(options):
    torch.manual_seed(0)
    config = FACTConfig(**{**{field: getattr(TINY, field) for field in TINY.__dataclass_fields__}, **options})
    assert len(generate(FACT(config), make_song(12, 120)))==12


def test_seed_motion_is_continued(model):
    rest = Motion(np.zeros((150, 24, 3)), np.tile([.3, .95, -.2], (150, 1)))
    dance = generate(model, make_song(60, 120), seed_motion=rest, commit=20)
    assert np.linalg.norm(dance.trans[0]-rest.trans[-1])<.5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bpm,first", [(88, 0), (110, 20), (140, 40), (215, 3)])
def test_the_opening_ends_in_time(seed, bpm, first):
    "An opening is slowest where the song's beats would lie if it had begun earlier"
    song = make_song(900, bpm, first)
    begins,period = beat_grid(song)
    speed = np.linalg.norm(np.diff(choreographed_seed(song, seed).positions(), axis=0), axis=-1).mean(1)
    beats = 120+FPS*(begins-period*np.arange(1, 4))
    inside = beats[(beats>8)&(beats<110)].round().astype(int)
    between = (inside+FPS*period/2).round().astype(int)
    assert np.mean([speed[beat-4:beat+4].min() for beat in inside])<.6*np.mean([speed[k-4:k+4].mean() for k in between if k<115])


def test_complaints(model):
    song = make_song(60, 120)
    for bad,message in ((dict(commit=0), "commit must be"), (dict(commit=21), "commit must be"), (dict(precision="fp8"), "precision must be"),
                        (dict(seed=[]), "equally long"), (dict(seed=[1, 2], seed_motion=[None]*3), "equally long")):
        with pytest.raises(InputError, match=message): generate(model, song, **bad)
    for bad in (song[:0], song[0], song[:, :34], np.full_like(song, np.inf)):
        with pytest.raises(InputError, match="generate: "): generate(model, bad)


def test_an_exploding_model_is_named(model):
    broken = FACT(TINY)
    with torch.no_grad(): broken.head.bias.fill_(torch.inf)
    with pytest.raises(InputError, match="exploded"): generate(broken, make_song(30, 120), commit=10)


@pytest.mark.parametrize("seconds", [1., 2.51])
def test_the_door(model, seconds, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(round(seconds*22050))/22050
    soundfile.write(tmp_path/"a song.wav", .3*np.sin(2*np.pi*220*time)*(time%.5<.1), 22050)
    model.save_pretrained(tmp_path/"model")
    door = dance(tmp_path/"a song.wav", tmp_path/"model", seed=1)
    assert len(door)==round(seconds*FPS)
    assert dance(tmp_path/"a song.wav", model, seed=1).poses.tobytes()==door.poses.tobytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu(model):
    song = make_song(60, 120)
    there = generate(FACT(TINY).cuda(), song, commit=10)
    assert len(there)==60
