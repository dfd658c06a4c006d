"What must hold for every song, seed and setting."
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio2pose.core import FPS, InputError
from audio2pose.generate import BEAT, autoregress, dance, generate, lead_in, outro, seed_from_bank
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.motion import Motion

TINY = FACTConfig(width=16, heads=2, mlp=32, motion_layers=1, audio_layers=1, cross_layers=1, standardise=True, residual=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FACT(TINY).eval()


def make_bank():
    rng,time = np.random.default_rng(0),np.arange(480)/FPS
    poses = .3*rng.normal(size=(5, 1, 24, 3))+.2*np.sin(time*6)[:, None, None]
    bpm = np.array([70., 90, 110, 130, 150])
    beats = np.full((5, 25), np.nan)
    for row,tempo in zip(beats, bpm):
        times = np.arange(.2, 8, 60/tempo)
        row[:len(times)] = times
    return dict(poses=poses.astype(np.float32), trans=rng.normal(size=(5, 480, 3)).astype(np.float32), beats=beats, bpm=bpm)


@pytest.fixture(scope="module", name="bank")
def bank_fixture(): return make_bank()


def make_song(frames, bpm, first=7, seed=0):
    song = np.random.default_rng(seed).normal(size=(frames, 35)).astype(np.float32)
    song[:, BEAT] = 0
    if bpm: song[np.round(np.arange(first, frames-.5, 60*FPS/bpm)).astype(int), BEAT] = 1
    return song


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 330), bpm=st.sampled_from([0, 60, 97, 200]), commit=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_every_frame_of_every_song(frames, bpm, commit, seed):
    torch.manual_seed(0)
    dance = generate(FACT(TINY), make_song(frames, bpm), seed=seed, commit=max(commit, 3 if frames>60 else 1), bank=make_bank())
    assert len(dance)==frames and dance.fps==FPS
    assert np.isfinite(dance.poses).all() and np.isfinite(dance.trans).all()


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(200, 2000), bpm=st.floats(50, 220), first=st.integers(0, 15), many=st.integers(1, 400))
def test_beats_run_through_both_ends(frames, bpm, first, many):
    song = make_song(frames, bpm, first)
    period = 60*FPS/bpm
    whole = np.concatenate([lead_in(song, 120), song, outro(song, many)])
    assert len(whole)==120+frames+many
    np.testing.assert_array_equal(whole[120:120+frames], song)
    beats = np.flatnonzero(song[:, BEAT])
    if beats[-1]-beats[0]<120: return # too short to go back whole beats
    if abs(beats[-1]+period-frames)<1.5: return # the next beat is rounded away at the very end
    gaps = np.diff(np.flatnonzero(whole[:, BEAT]))
    assert abs(gaps-period).max()<2.01


def test_same_seed_same_bytes(model, bank):
    song = make_song(200, 120)
    one,two = (generate(model, song, seed=7, commit=10, bank=bank) for _ in range(2))
    assert one.poses.tobytes()==two.poses.tobytes() and one.trans.tobytes()==two.trans.tobytes()


def test_seeds_differ(model, bank):
    dances = generate(model, make_song(130, 100), seed=list(range(6)), commit=10, bank=bank)
    kinds = {dance.poses.round(3).tobytes() for dance in dances}
    assert len(kinds)>=3


def test_a_batch_is_what_each_would_be_alone(model, bank):
    songs = [make_song(frames, 110, seed=frames) for frames in (61, 200, 130)]
    together = generate(model, songs, seed=[1, 2, 3], commit=10, bank=bank)
    for song,seed,dance in zip(songs, (1, 2, 3), together):
        alone = generate(model, song, seed=seed, commit=10, bank=bank)
        assert len(dance)==len(song)
        np.testing.assert_allclose(dance.positions(), alone.positions(), atol=1e-3)


def test_the_model_is_left_alone(model, bank):
    before = {name: tensor.clone() for name,tensor in model.state_dict().items()}
    model.train()
    for precision in ("fp32", "bf16") if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ("fp32",):
        generate(model, make_song(30, 120), commit=10, bank=bank, precision=precision)
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
def test_other_models_dance_too(options, bank):
    torch.manual_seed(0)
    config = FACTConfig(**{**{field: getattr(TINY, field) for field in TINY.__dataclass_fields__}, **options})
    assert len(generate(FACT(config), make_song(12, 120), bank=bank))==12


def test_seed_motion_is_continued(model):
    rest = Motion(np.zeros((150, 24, 3)), np.tile([.3, .95, -.2], (150, 1)))
    dance = generate(model, make_song(60, 120), seed_motion=rest, commit=20)
    assert np.linalg.norm(dance.trans[0]-rest.trans[-1])<.5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bpm,first", [(88, 0), (110, 20), (140, 70), (215, 3)])
def test_seed_motion_ends_in_time(seed, bpm, first):
    "The next beat of the stretched entry after the cut is the song's first one, give or take whole beats"
    time = np.arange(480)/FPS
    tempi = np.array([80., 95, 110, 125, 145])
    poses = np.zeros((5, 480, 24, 3))
    for pose,tempo in zip(poses, tempi): pose[:, 0, 1] = np.cos(2*np.pi*time*tempo/60) # the root turns once per beat
    beats = np.stack([np.arange(18)*60/tempo for tempo in tempi])
    bank = dict(poses=poses, trans=np.zeros((5, 480, 3)), beats=np.where(beats<8, beats, np.nan), bpm=tempi)
    cut = seed_from_bank(make_song(900, bpm, first), seed, bank)
    period = 60*FPS/bpm
    beat = first-period*np.ceil(first/period+1e-9)
    turn = np.abs(cut.poses[:, 0, 1])
    phases = [np.interp(120+beat-k*period, np.arange(120), cut.poses[:, 0, 1]) for k in range(3)]
    assert len(cut)==120
    candidates = np.abs(phases)
    assert max(phases)>.85 or candidates.min()>.85, (phases, turn.max())


def test_complaints(model, bank):
    song = make_song(60, 120)
    for bad,message in ((dict(commit=0), "commit must be"), (dict(commit=21), "commit must be"), (dict(precision="fp8"), "precision must be"),
                        (dict(seed=[]), "equally long"), (dict(seed=[1, 2], seed_motion=[None]*3), "equally long")):
        with pytest.raises(InputError, match=message): generate(model, song, bank=bank, **bad)
    for bad in (song[:0], song[0], song[:, :34], np.full_like(song, np.inf)):
        with pytest.raises(InputError, match="generate: "): generate(model, bad, bank=bank)


def test_an_exploding_model_is_named(model, bank):
    broken = FACT(TINY)
    with torch.no_grad(): broken.head.bias.fill_(torch.inf)
    with pytest.raises(InputError, match="exploded"): generate(broken, make_song(30, 120), bank=bank, commit=10)


@pytest.mark.parametrize("seconds", [1., 2.51])
def test_the_door(model, bank, seconds, tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(round(seconds*22050))/22050
    soundfile.write(tmp_path/"a song.wav", .3*np.sin(2*np.pi*220*time)*(time%.5<.1), 22050)
    monkeypatch.setattr("audio2pose.generate.load_bank", lambda: bank)
    model.save_pretrained(tmp_path/"model")
    door = dance(tmp_path/"a song.wav", tmp_path/"model", seed=1)
    assert len(door)==round(seconds*FPS)
    assert dance(tmp_path/"a song.wav", model, seed=1).poses.tobytes()==door.poses.tobytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu(model, bank):
    song = make_song(60, 120)
    there = generate(FACT(TINY).cuda(), song, bank=bank, commit=10)
    assert len(there)==60
