"""The composer: same seed same song, the truth it tells is heard by others, and nothing clips or clicks."""
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audio2pose import audio
from audio2pose.core import SR, InputError
from audio2pose.data.composition import STYLES, song_form
from audio2pose.data.music import compose, demo_track


def f_measure(found, truth, window=.07):
    gap = np.abs(found[:, None]-truth)
    hits = min((gap.min(1)<window).sum(), (gap.min(0)<window).sum()) if gap.size else 0
    return 2*hits/(len(found)+len(truth))


def check(song, seconds):
    assert song.y.dtype==np.float32 and len(song.y)==round(seconds*SR) and song.sr==SR
    assert np.isfinite(song.y).all() and np.abs(song.y).max()==pytest.approx(.9, abs=1e-4)
    assert np.abs(song.y[[0, -1]]).max()<1e-3, "soft ends"
    assert 0<song.beats[0]<60/song.bpm and song.beats[-1]<seconds
    np.testing.assert_array_equal(song.downbeats, song.beats[::4])
    assert song.sections[0].start==song.beats[0] and song.sections[-1].end<=seconds
    for section,then in zip(song.sections, song.sections[1:]):
        assert section.end==then.start and np.abs(song.downbeats-then.start).min()<1e-9, "sections begin on a bar"
    for section in song.sections:
        inside = song.beats[(song.beats>=section.start-1e-9)&(song.beats<section.end-1e-9)]
        np.testing.assert_allclose(np.diff(inside), 60/section.bpm, atol=1e-9)
        assert 0<=section.energy<=1
    assert len(song.chords)==len(song.downbeats) and all(chord.name for chord in song.chords)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), style=st.sampled_from(sorted(STYLES)), seconds=st.floats(1, 20), bpm=st.none() | st.floats(60, 180))
def test_any_song(seed, style, seconds, bpm):
    song = compose(seed, bpm, seconds, style)
    check(song, seconds)
    energy = song.energy_at(np.linspace(0, seconds, 50))
    assert energy.shape==(50,) and (0<=energy).all() and (energy<=1).all()


def test_same_seed_same_bytes():
    assert compose(5, seconds=8).y.tobytes()==compose(5, seconds=8).y.tobytes()
    assert compose(5, seconds=8).y.tobytes()!=compose(6, seconds=8).y.tobytes()
    assert compose(np.random.default_rng(5), seconds=8).y.tobytes()==compose(5, seconds=8).y.tobytes()


@given(bars=st.integers(1, 120), seed=st.integers(0, 99))
def test_form_covers_the_song(bars, seed):
    parts = song_form(bars, np.random.default_rng(seed))
    assert sum(length for _,length in parts)>=bars and {length for _,length in parts}<={4, 8}
    assert all(a!=b for (a, _),(b, _) in zip(parts, parts[1:]))


def test_tempi_are_those_of_aist():
    for code,style in STYLES.items():
        assert {audio.song_bpm(f"m{code}{digit}") for digit in range(6)}==set(style.tempi)
        assert compose(1, seconds=2, style=code).bpm in style.tempi


def test_drift():
    steady,loose = compose(3, 100, 60, "LO", drift=0),compose(3, 100, 60, "LO", drift=.1)
    np.testing.assert_allclose(np.diff(steady.beats), .6)
    paces = [section.bpm for section in loose.sections]
    assert np.ptp(paces)>2 and 90<=min(paces) and max(paces)<=110


def test_beats_are_heard():
    "librosa's tracker at the song's tempo, and with a tempo that it must estimate"
    known,estimated,right = [],[],[]
    for i,code in enumerate(STYLES):
        for seed in (40+i, 70+i):
            song = compose(seed, seconds=20, style=code)
            envelope = audio.onset_envelope(audio.mel_spectrogram_db(song.y))
            known.append(f_measure(audio.beat_frames(envelope, song.bpm)/60, song.beats))
            estimated.append(f_measure(audio.beat_frames(envelope)/60, song.beats))
            right.append(abs(audio.estimate_bpm(envelope)/song.bpm-1)<.04)
    assert np.mean(known)>.9 and np.mean(estimated)>.9 and np.mean(right)>.9, (np.mean(known), np.mean(estimated), np.mean(right))


def test_loudness_follows_energy():
    energy,loudness = [],[]
    for seed in range(4):
        song = compose(seed, 120, 45)
        parts = [10*np.log10(np.mean(song.y[round(s.start*SR):round(s.end*SR)]**2)) for s in song.sections if s.end-s.start>2]
        energy += [s.energy for s in song.sections if s.end-s.start>2]
        loudness += list(parts-np.max(parts))
    assert np.corrcoef(energy, loudness)[0, 1]>.8


def test_songs_differ_in_colour():
    "The average spectrum is not that of one recording"
    bands = np.stack([audio.mel_spectrogram_db(compose(seed, 110, 6, "JS").y).mean(1) for seed in range(6)])
    assert bands.std(0).mean()>2


def test_demo_track():
    song = demo_track()
    check(song, 24)
    assert song.bpm==112 and [section.name for section in song.sections]==["intro", "verse", "chorus", "outro"]
    assert f_measure(audio.beats(song.y), song.beats)>.9
    assert song.y.tobytes()==demo_track().y.tobytes()


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_save(tmp_path, suffix):
    song = compose(0, seconds=3)
    song.save(tmp_path/f"song.{suffix}")
    assert soundfile.info(tmp_path/f"song.{suffix}").subtype=="PCM_16"
    np.testing.assert_allclose(audio.load(tmp_path/f"song.{suffix}")[0], song.y, atol=1e-4)
    with pytest.raises(InputError, match="song.xyz"): song.save(tmp_path/"song.xyz")
    assert [path.name for path in tmp_path.iterdir()]==[f"song.{suffix}"]


@pytest.mark.parametrize("wrong", [dict(style="polka"), dict(bpm=0), dict(bpm=1000), dict(seconds=.5), dict(seconds=1e4), dict(drift=1), dict(drift=-.1), dict(bpm=float("nan"))])
def test_wrong_wishes(wrong):
    with pytest.raises(InputError, match="compose"): compose(0, **wrong)
