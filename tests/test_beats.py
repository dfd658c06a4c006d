"Beats, bars and tempo: songs with known beats, songs without any, and files that people bring"
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings, strategies as st

from audio2pose import audio, beats
from audio2pose.beat_decoding import bar_positions
from audio2pose.beats import Beats
from audio2pose.core import SR, InputError

mir = pytest.importorskip("mir_eval").beat

CASES = ("change90_130", "accel80_160", "gap120", "offbeat120", "drum174", "waltz174", "swing120", "drum60")


def best_level(found, true):
    "F-measure (70 ms) at the metrical level that suits best"
    half,third = true[:-1]+np.diff(true)/2,true[:-1]+np.diff(true)/3
    levels = [true, np.sort(np.r_[true, half]), np.sort(np.r_[true, third, 2*third-true[:-1]]), true[::2], true[1::2], true[::3], true[1::3], true[2::3]]
    return max(mir.f_measure(level, found) for level in levels)


@pytest.fixture(scope="module")
def cases(shared):
    "Beats heard in each case, and the truth: time and position in the bar"
    return {name: (beats.track(*audio.load(shared(f"cases/beats/{name}.flac"))), np.loadtxt(shared(f"cases/beats/{name}.txt"))) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_cases(cases, name):
    found,true = cases[name]
    assert best_level(found.times, true[:,0])>=(.8 if name=="accel80_160" else .9)


@pytest.mark.parametrize("name", CASES)
def test_downbeats_of_cases(cases, name):
    found,true = cases[name]
    assert mir.f_measure(true[true[:,1]==1, 0], found.downbeats)>=.8


def test_silence_has_no_beats(cases):
    found,true = cases["gap120"]
    gap = np.diff(true[:,0]).argmax()
    start,end = true[gap, 0],true[gap+1, 0]
    assert not ((found.times>start+.6)&(found.times<end-.4)).any()


def test_fast_waltz_is_never_danced_across_its_bars(cases):
    found,true = cases["waltz174"]
    steps = found.step_times()
    share = np.median(np.diff(steps))/np.median(np.diff(true[:,0]))
    assert found.beats_per_bar==3 and min(abs(share-1), abs(share-3))<.1


def test_beats_are_on_time(cases):
    for name in ("drum174", "waltz174", "swing120"):
        found,true = cases[name]
        near = np.abs(found.times[:,None]-true[:,0])
        assert np.median(near.min(1))<.01, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swing120", "offbeat120"])
def test_the_dance_stops_on_true_beats(cases, shared, tmp_path, name):
    "Kinematic beats of ten seconds are within 15 ms of the true beats in the median"
    from audio2pose.generate import dance
    from audio2pose.metrics.beat import kinematic_beats
    y,sr = audio.load(shared(f"cases/beats/{name}.flac"))
    true = cases[name][1][:,0]
    soundfile.write(tmp_path/"song.wav", y[:10*sr], sr)
    motion = dance(tmp_path/"song.wav")
    stops = kinematic_beats(motion.positions(), motion.fps)
    assert np.median(np.abs(stops[:,None]-true).min(1))<=.015 and len(stops)>=15


def drums(times, seconds):
    "Kicks"
    t = np.arange(SR//5)/SR
    y = np.zeros(round(seconds*SR), np.float32)
    for beat in times:
        part = y[round(beat*SR):][:len(t)]
        part += (np.sin(2*np.pi*(50*t-4*np.exp(-t/.02)))*np.exp(-t/.06))[:len(part)]
    return y


@pytest.mark.parametrize("bpm", [66, 100, 140, 200])
def test_steady_tempi(bpm):
    true = np.arange(.4, 19.5, 60/bpm)
    assert best_level(beats.track(drums(true, 20)).times, true)>.9


def test_loudness_does_not_matter():
    y = drums(np.arange(.4, 15, .5), 15)
    np.testing.assert_allclose(beats.track(y).times, beats.track(y/300).times, atol=.002)


def speech(rng, seconds=12):
    "Syllables of unequal length and pause, as irregular as speech"
    y,at = np.zeros(seconds*SR, np.float32),0.
    while at<seconds-1:
        length = rng.uniform(.08, .4)
        t = np.arange(round(length*SR))/SR
        part = y[round(at*SR):][:len(t)]
        part += (np.sin(2*np.pi*np.cumsum(rng.uniform(90, 180)*(1+.1*np.sin(3*t)))/SR)*np.hanning(len(t)))[:len(part)]
        at += length+rng.exponential(.15)
    return y


@pytest.mark.parametrize("kind", ["noise", "drone", "speech", "second"])
def test_what_has_no_beat(kind):
    rng = np.random.default_rng(0)
    y = dict(noise=.3*rng.standard_normal(10*SR), drone=np.sin(2*np.pi*110*np.arange(10*SR)/SR), speech=speech(rng), second=drums([.5], 1))[kind].astype(np.float32)
    found = beats.track(y)
    assert len(found.times)<=(4 if kind=="speech" else 0)
    assert found.step_times().shape==found.times.shape or len(found.times)


def test_too_short_or_silent_is_refused():
    with pytest.raises(InputError, match="too short"): beats.track(np.ones(SR//2, np.float32))
    with pytest.raises(InputError, match="silent"): beats.track(np.zeros(2*SR, np.float32))


def test_fast_enough():
    "A minute of song in four seconds, in a new process, without torch or librosa"
    code = "import time; t = time.process_time(); import numpy as np, sys; from audio2pose import beats; " \
           "y = np.random.default_rng(0).standard_normal(60*30720).astype('f'); beats.track(y); assert not {'torch', 'librosa'}&set(sys.modules); print(time.process_time()-t)"
    seconds = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert seconds<4*2


# ---- bars and steps

@given(metre=st.sampled_from([2, 3, 4, 6]), pickup=st.integers(0, 5), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_bars_are_counted(metre, pickup, seed):
    rng = np.random.default_rng(seed)
    true = (np.arange(48)-pickup)%metre+1
    heard = np.clip(np.where(true==1, .8, .1)+.05*rng.standard_normal(48), 0, 1)
    assert (bar_positions(heard)==true).mean()>.9 or metre in (2, 6) # Six may be heard as three and two as four only where nothing says so


@given(bpm=st.floats(40, 240), metre=st.sampled_from([0, 2, 3, 4, 5, 6, 7]))
@settings(deadline=None)
def test_steps_are_beats_and_keep_to_the_bar(bpm, metre):
    times = np.arange(60)*60/bpm
    steps = Beats(times, times[::metre] if metre else times[:0]).step_times()
    every = round((steps[1]-steps[0])*bpm/60)
    assert np.isin(steps, times).all() and steps[0]==times[0]
    assert every in {1, metre, 2 if metre in (2, 4, 6) else 1}


# ---- files

def test_files_come_back(tmp_path):
    true = Beats(np.array([.25, .75, 1.25, 1.75, 2.25]), np.array([.75, 2.25]))
    for name in ("b.txt", "b.json", "b.beats"):
        true.save(tmp_path/name)
        found = Beats.load(tmp_path/name)
        np.testing.assert_allclose(found.times, true.times)
        np.testing.assert_allclose(found.downbeats, true.downbeats)
    assert [line.split("\t")[1] for line in (tmp_path/"b.txt").read_text().splitlines()]==["3", "1", "2", "3", "1"]


@pytest.mark.parametrize("text, said", [
    ("verse\n", "line 1, 'verse', is no beat"), ("0.5\n-1\n", "before the song"), ("1\n0.5\n", "beats rise"), ("1\n1\n", "beats rise"), ("0\n99999\n", "later than any song"),
    ("nan\n1\n", "not a number"), ("", "holds 0 beats"), ("0.5", "holds 1 beats"), ("{}", "no list of times"), ('{"beats": [0, 1], "downbeats": [0.5]}', "none of the beats"),
    ('{"beats": "0 1"}', "no list of times"), ("[1, 2", "no list of times"), ("["*100000, "no list of times"), ("[[1, 2], [3]]", "no list of times"),
    ("1e400\n2\n", "not a number")])
def test_bad_files_are_refused_in_a_sentence(tmp_path, text, said):
    (tmp_path/"b.txt").write_text(text)
    with pytest.raises(InputError, match=said): Beats.load(tmp_path/"b.txt")


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_beats_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("beats")/"b.txt"
    path.write_bytes(content)
    try: found = Beats.load(path)
    except InputError: return
    assert len(found.times)>1 and (np.diff(found.times)>0).all()


@pytest.mark.parametrize("bpm, first", [(0, 0), (1000, 0), (-3, 0), (float("nan"), 0), (120, -1), (120, 9999), (120, float("nan"))])
def test_absurd_tempi_are_refused(bpm, first):
    with pytest.raises(InputError, match="beats: "): Beats.from_bpm(bpm, first)


def test_json_of_other_tools(tmp_path):
    (tmp_path/"b.json").write_text(json.dumps([.5, 1, 1.5]))
    assert Beats.load(tmp_path/"b.json").beats_per_bar==0


# ---- the network

def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    from audio2pose.models.beat_network import BeatNetwork
    twin = BeatNetwork().eval()
    twin.load_state_dict({name: torch.from_numpy(weight) for name,weight in beats.weights().items()})
    x = beats.log_mel(beats.mel_amplitudes(drums(np.arange(.4, 9, .5), 10)))
    with torch.no_grad(): wanted = twin(torch.from_numpy(x)[None])[0].sigmoid().T.numpy()
    np.testing.assert_allclose(beats.network(x, beats.weights()), wanted, atol=1e-5)


def test_network_is_small(): assert beats.asset("beats/tcn.safetensors").stat().st_size<2e6


def test_training_is_reproducible_and_goes_on(tmp_path):
    from audio2pose.models.beat_network import train
    rng = np.random.default_rng(0)
    songs = [dict(x=rng.random((500, beats.BANDS), np.float32), beats=np.arange(16)*.5, positions=np.arange(16)%4+1) for _ in range(2)]
    first,second = (train(songs, np.ones(2), 3, 2, 200)[0].state_dict() for _ in range(2))
    assert all((first[name]==second[name]).all() for name in first)
    train(songs, np.ones(2), 2, 2, 200, state=tmp_path/"state.pt", every=1)
    resumed,losses = train(songs, np.ones(2), 3, 2, 200, state=tmp_path/"state.pt")
    assert len(losses)==3
    with pytest.raises(InputError, match="no songs"): train([], np.ones(0), 1)


# ---- beat-this

def test_beat_this_is_called_as_it_wants(tmp_path, monkeypatch):
    "An untrained checkpoint of its form, where torch would keep the trained one"
    torch = pytest.importorskip("torch")
    tracker = pytest.importorskip("beat_this.model.beat_tracker", exc_type=(ImportError, OSError))
    folder = tmp_path/"hub"/"checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    parameters = dict(spect_dim=128, transformer_dim=32, ff_mult=4, n_layers=1, stem_dim=32, dropout={"frontend": .1, "transformer": .2}, sum_head=True, partial_transformers=True)
    network = tracker.BeatThis(**parameters)
    torch.save(dict(hyper_parameters=parameters, state_dict={f"model.{name}": weight for name,weight in network.state_dict().items()}), folder/"beat_this-final0.ckpt")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = beats.track_with(None, drums(np.arange(.5, 5, .5), 5))
    assert found.source.startswith("beat-this, sha256 ")


def test_beat_this_without_weights(tmp_path, monkeypatch):
    "One's own tracker goes first; who asks for beat-this is told how to fetch its weights, or how to install it"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    y = drums(np.arange(.5, 5, .5), 5)
    assert beats.track_with(None, y).source=="own"
    with pytest.raises(InputError, match="fetch them with|pip install|torchaudio"): beats.track_with("beat-this", y)
