"""Songs from every container, the 35 features against numbers from the published code, and what must be refused.

The waveform `real` in golden/audio_waves.npz is 12 s of "panic_on_meadow" by Kenta Cho, BSD-2 licence."""
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio2pose import audio
from audio2pose.core import FPS, SR, InputError

HERE = Path(__file__).parent
MUSIC = HERE.parents[1]/"shared/real/music"


@pytest.fixture(scope="module")
def golden():
    with np.load(HERE/"golden/audio_waves.npz", allow_pickle=False) as waves, np.load(HERE/"golden/audio_features.npz", allow_pickle=False) as numbers:
        return dict(waves) | dict(numbers)


def wave(golden, name): return golden[name].astype(np.float32)/32768, float(golden[{"synthetic": "synthetic_bpm", "real": "real_start_bpm"}[name]])


def tone(seconds=2., sr=SR): return (.5*np.sin(2*np.pi*440*np.arange(round(seconds*sr))/sr)).astype(np.float32)


def encode(path, y, sr=SR, codec="aac", picture=False, sound=True, late=0.):
    "A media file with sound, a picture, or both; `late` seconds of nothing before the sound"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000 if "opus" in codec else 44100, layout="mono") if sound else None
        if picture:
            video = container.add_stream("mpeg4", rate=10)
            video.width,video.height,video.pix_fmt = 64,48,"yuv420p"
            for i in range(int(len(y)/sr*10)): container.mux(video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8))))
            container.mux(video.encode(None))
        if not sound: return
        frame = av.AudioFrame.from_ndarray(y[None], format="fltp", layout="mono")
        frame.sample_rate,frame.pts = sr,round(late*sr)
        fit = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=stream.rate)
        for part in fit.resample(frame)+fit.resample(None): container.mux(stream.encode(part))
        container.mux(stream.encode(None))


# The published numbers

@pytest.mark.parametrize("version", ["0.11.0", "1.0.0"])
@pytest.mark.parametrize("name", ["synthetic", "real"])
def test_features_today(golden, name, version):
    y,bpm = wave(golden, name)
    x,expected = audio.features(y, start_bpm=bpm),golden[f"{version}/{name}/features"]
    assert x.shape==expected.shape==(721, 35) and x.dtype==np.float32
    np.testing.assert_allclose(x[:, 0], expected[:, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(x[:, 1:21], expected[:, 1:21], rtol=0, atol=1e-3)
    np.testing.assert_allclose(x[:, 21:33], expected[:, 21:33], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(x[:, 33:], expected[:, 33:])
    np.testing.assert_array_equal(np.flatnonzero(x[:, 34]), golden[f"{version}/{name}/beat_frames"])


@pytest.mark.parametrize("name", ["synthetic", "real"])
def test_features_of_2021(golden, name):
    y,bpm = wave(golden, name)
    x,expected = audio.features(y, start_bpm=bpm, variant="2021"),golden[f"0.8.1/{name}/features"]
    np.testing.assert_allclose(x[:, 0], expected[:, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(x[:, 1:21], expected[:, 1:21], rtol=0, atol=1e-3)
    np.testing.assert_array_equal(x[:, 33], expected[:, 33])
    np.testing.assert_allclose(x[:, 21:33], expected[:, 21:33], rtol=0, atol=.025) # The constant-Q code itself has changed since
    assert np.abs(x[:, 34]-expected[:, 34]).sum()<=3


def test_same_as_plain_librosa(golden):
    librosa = audio.import_librosa()
    y,_ = wave(golden, "real")
    x = audio.features(y, start_bpm=129)
    envelope = librosa.onset.onset_strength(y=y, sr=SR)
    np.testing.assert_allclose(x[:, 0], envelope, rtol=0, atol=1e-5)
    np.testing.assert_allclose(x[:, 1:21].T, librosa.feature.mfcc(y=y, sr=SR, n_mfcc=20), rtol=0, atol=1e-4)
    np.testing.assert_allclose(x[:, 21:33].T, librosa.feature.chroma_cens(y=y, sr=SR, hop_length=512), rtol=0, atol=1e-5)


def test_blocks_change_nothing(golden, monkeypatch):
    y,bpm = wave(golden, "synthetic")
    whole = audio.features(y, start_bpm=bpm)
    monkeypatch.setattr(audio, "BLOCK", 100)
    np.testing.assert_allclose(audio.features(y, start_bpm=bpm), whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["synthetic", "real"])
def test_estimated_tempo_gives_the_same_features(golden, name):
    y,bpm = wave(golden, name)
    np.testing.assert_array_equal(audio.features(y), audio.features(y, start_bpm=bpm))
    assert abs(audio.estimate_bpm(audio.onset_envelope(audio.mel_spectrogram_db(y)))-bpm)<1.5


# Tempo and frames

@pytest.mark.parametrize("genre", ["BR", "PO", "LO", "MH", "LH", "WA", "KR", "JS", "JB", "HO"])
@pytest.mark.parametrize("digit", range(6))
def test_song_bpm(genre, digit):
    expected = 110+5*digit if genre=="HO" else 80+10*digit
    for name in (f"m{genre}{digit}", f"g{genre}_sBM_cAll_d04_m{genre}{digit}_ch01", f"/songs/m{genre}{digit}.wav"): assert audio.song_bpm(name)==expected


@given(st.text())
def test_other_names_have_no_bpm(name):
    if not any(f"m{genre}" in name for genre in ("BR", "PO", "LO", "MH", "LH", "WA", "KR", "JS", "JB", "HO")): assert audio.song_bpm(name) is None


@pytest.mark.parametrize("bpm", [70, 80, 96, 104, 118, 135, 144])
def test_estimate_bpm_of_clicks(bpm):
    envelope = np.full(20*FPS, .1)
    envelope[np.round(np.arange(.3, 19.9, 60/bpm)*FPS).astype(int)] = 5
    estimate = audio.estimate_bpm(envelope)
    assert min(abs(estimate-bpm), abs(estimate-2*bpm), abs(estimate-bpm/2))<1 and 73<estimate<148


@pytest.mark.parametrize("n", [SR, SR+1, 2*SR+255, 2*SR+256, 2*SR+257, 2*SR+511, 100000])
def test_frames(n):
    y = tone(4)[:n]
    assert audio.motion_frame_count(y)==round(60*n/SR)
    assert len(audio.features(y))==n//512+1
    assert len(audio.features(y, frames=audio.motion_frame_count(y)))==round(60*n/SR)
    with pytest.raises(InputError, match="frames asked for"): audio.features(y, frames=1000)


@pytest.mark.parametrize("song", ["noiz2sa_stg4", "panic_on_meadow", "parsec47_ptn0"])
def test_real_songs(song):
    path = MUSIC/f"{song}.ogg"
    if not path.exists(): pytest.skip("real songs are not here")
    y,_ = audio.load(path)
    beats = audio.beats(y)
    assert np.isfinite(audio.features(y)).all() and len(beats)>len(y)/SR
    assert np.median(np.abs(np.diff(beats)-np.median(np.diff(beats))))<.02, "a steady beat"


# Every container

CONTAINERS = {"wav": None, "flac": None, "ogg": None, "aiff": None, "mp3": "libmp3lame", "m4a": "aac", "mp4": "aac", "mov": "aac", "mkv": "libopus", "webm": "libopus", "opus": "libopus", "aac": "aac", "avi": "libmp3lame"}

@pytest.mark.parametrize("suffix", CONTAINERS)
def test_containers_keep_time(tmp_path, suffix):
    y = tone(3)*.1
    ticks = (.5, 1.25, 2.)
    for tick in ticks: y[round(tick*SR):round(tick*SR)+300] = .8*np.sin(2*np.pi*2000*np.arange(300)/SR)
    path = tmp_path/f"a 'song' <script> ♫.{suffix}"
    if CONTAINERS[suffix] is None: soundfile.write(path, y, SR)
    else: encode(path, y, codec=CONTAINERS[suffix], picture=suffix in ("mp4", "mov", "mkv", "avi"))
    loaded,sr = audio.load(path)
    assert sr==SR and loaded.dtype==np.float32 and loaded.ndim==1
    exact = suffix not in ("aac", "avi") # These two do not say how long their codec warms up
    assert abs(len(loaded)/SR-3)<(1/FPS if exact else .1)
    for tick in ticks:
        near = loaded[round((tick-.1)*SR):round((tick+.1)*SR)]
        assert abs(np.argmax(np.abs(near)>.4)/SR-.1)<(.003 if exact else .06)


def test_late_sound_of_a_video_is_not_early(tmp_path):
    encode(tmp_path/"late.mkv", tone(2), codec="libopus", picture=True, late=.5)
    y,_ = audio.load(tmp_path/"late.mkv")
    assert abs(np.argmax(np.abs(y)>.2)/SR-.5)<.02


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path/"stereo.wav", np.stack([tone(), -.5*tone()], 1), SR, subtype="FLOAT")
    np.testing.assert_allclose(audio.load(tmp_path/"stereo.wav")[0], .25*tone(), atol=1e-6)


@pytest.mark.parametrize("rate", [1000, 8000, 44100, 96000])
def test_sample_rates(tmp_path, rate):
    soundfile.write(tmp_path/"song.wav", tone(2.5, rate), rate, subtype="PCM_U8")
    y,_ = audio.load(tmp_path/"song.wav")
    assert len(y)==2.5*SR and np.isfinite(audio.features(y)).all()


def test_one_process_at_a_time_compiles_librosa():
    # Two that compile at once leave a cache on which every later process dies (numba issue 10128)
    lock = FileLock(Path(tempfile.gettempdir())/f"audio2pose-librosa-{Path.home().name}.lock")
    code = "import sys, time; from audio2pose.audio import import_librosa; print(time.time(), flush=True); import_librosa(); print(time.time())"
    with lock:
        run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        run.stdout.readline()
        time.sleep(1)
        released = time.time()
    assert float(run.communicate(timeout=120)[0])>released and run.returncode==0


@pytest.mark.attack
def test_two_songs_begun_at_once_in_a_fresh_environment(tmp_path):
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    code = ("import sys, numba, numpy as np; from audio2pose import audio\n"
            "for k in range(int(sys.argv[1])): numba.njit(lambda x: x+k)(1)\n" # Another history: Numba numbers what it compiles
            "audio.features(np.sin(np.arange(3*audio.SR)*.05).astype('float32'))")
    start = lambda history: subprocess.Popen([sys.executable, "-c", code, str(history)], env=env)
    assert [run.wait() for run in [start(0), start(3)]]==[0, 0]
    assert start(0).wait()==0


def test_nothing_is_said_on_the_side(tmp_path):
    soundfile.write(tmp_path/"short.wav", tone(1), SR)
    encode(tmp_path/"song.mp3", tone(2), codec="libmp3lame")
    (tmp_path/"cut.mp3").write_bytes((tmp_path/"song.mp3").read_bytes()[:9000])
    code = ("import sys, warnings; warnings.simplefilter('always'); from audio2pose import audio\n"
            "assert 'librosa' not in sys.modules and 'av' not in sys.modules and 'torch' not in sys.modules\n"
            "for name in sys.argv[1:]:\n    try: audio.features(audio.load(name)[0])\n    except audio.InputError: pass")
    files = [str(tmp_path/name) for name in ("short.wav", "song.mp3", "cut.mp3")]
    run = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr)==(0, "", "")


# What is refused

def refused(path, match, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=match) as error: audio.load(path, **options)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message[len(str(path)):] and message.endswith((".", ")"))


def test_bad_files(tmp_path):
    refused(tmp_path/"none.wav", "no such file")
    refused(tmp_path, "folder")
    (tmp_path/"empty.mp3").touch()
    refused(tmp_path/"empty.mp3", "empty")
    for name,content in (("text.wav", b"la la la "*1000), ("zeros.mp3", bytes(10000)), ("head.wav", b"RIFF"), ("picture.ogg", b"\x89PNG\r\n\x1a\n"+bytes(99))):
        (tmp_path/name).write_bytes(content)
        refused(tmp_path/name, "no song or video")


def test_bad_sound(tmp_path):
    broken = tone()
    broken[SR] = np.nan
    for name,y,match in (("half", tone(.5), "0.50 s of sound is too short"), ("silent", 0*tone(), "silent"), ("constant", 0*tone()+.3, "silent"),
                         ("nan", broken, "at 1.000 s is not a number"), ("huge", 1e5*tone(), "full scale")):
        soundfile.write(tmp_path/f"{name}.wav", y, SR, subtype="FLOAT")
        refused(tmp_path/f"{name}.wav", match)
    encode(tmp_path/"mute.mp4", tone(), picture=True, sound=False)
    refused(tmp_path/"mute.mp4", "no sound in it")
    soundfile.write(tmp_path/"slow.wav", tone(2, 500), 500)
    refused(tmp_path/"slow.wav", "500 samples a second")


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a"])
def test_too_long(tmp_path, suffix):
    if suffix=="wav": soundfile.write(tmp_path/"song.wav", tone(3), SR)
    else: encode(tmp_path/f"song.{suffix}", tone(3), codec=CONTAINERS[suffix])
    refused(tmp_path/f"song.{suffix}", "cut the song", max_seconds=2)


@pytest.mark.skipif(os.geteuid()==0, reason="root may read everything")
def test_unreadable(tmp_path):
    soundfile.write(tmp_path/"song.wav", tone(), SR)
    (tmp_path/"song.wav").chmod(0)
    refused(tmp_path/"song.wav", "cannot be read")


@pytest.mark.parametrize("share", [.3, .6, .9])
@pytest.mark.parametrize("suffix", [suffix for suffix in CONTAINERS if suffix not in ("aac",)])
def test_truncated(tmp_path, suffix, share):
    "Every container that says how long it is; a raw AAC stream does not"
    rng = np.random.default_rng(0)
    y = tone(6)+.05*rng.standard_normal(6*SR).astype(np.float32)
    path = tmp_path/f"song.{suffix}"
    if CONTAINERS[suffix] is None: soundfile.write(path, y, SR)
    else: encode(path, y, codec=CONTAINERS[suffix])
    content = path.read_bytes()
    path.write_bytes(content[:int(share*len(content))])
    refused(path, "copy")


def test_streamed_wav_has_no_promise(tmp_path):
    soundfile.write(tmp_path/"pipe.wav", tone(), SR)
    content = bytearray((tmp_path/"pipe.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff"*4
    (tmp_path/"pipe.wav").write_bytes(content)
    assert len(audio.load(tmp_path/"pipe.wav")[0])==2*SR


@pytest.mark.parametrize("y", [np.zeros((2, SR)), np.zeros(100), np.full(2*SR, np.inf), np.zeros(2*SR)])
def test_features_refuse_too(y):
    with pytest.raises(InputError, match="features"): audio.features(y)
    with pytest.raises(InputError, match="beats"): audio.beats(y)


# Fuzz

def survives(path):
    "Either a song or one sentence"
    try: y,_ = audio.load(path)
    except InputError as error: return str(error)
    assert np.isfinite(y).all() and len(y)>=SR


HEADS = [b"", b"RIFF\x24\x10\x00\x00WAVEfmt ", b"OggS\0\2", b"fLaC", b"ID3\4\0\0\0\0\0\x0a", b"\xff\xfb\x90\x00", b"FORM\0\0\x10\0AIFF", b"\0\0\0\x20ftypM4A ", b"\x1aE\xdf\xa3"]

@pytest.mark.parametrize("head", [b"OggS", b"OggS\0", b"OggS\0\2", b"RIFF", b"fLaC"])
def test_nothing_but_a_beginning(tmp_path, head):
    (tmp_path/"bare.ogg").write_bytes(head)
    assert "bare.ogg" in survives(tmp_path/"bare.ogg")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(head=st.sampled_from(HEADS), body=st.binary(max_size=3000), suffix=st.sampled_from(["wav", "mp3", "ogg", "mp4"]))
def test_random_bytes(tmp_path, head, body, suffix):
    path = tmp_path/f"noise.{suffix}"
    path.write_bytes(head+body)
    survives(path)


@cache
def sample(suffix):
    "The bytes of a song of 1.5 s"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/f"a.{suffix}"
        if CONTAINERS[suffix] is None: soundfile.write(path, tone(1.5), SR)
        else: encode(path, tone(1.5), codec=CONTAINERS[suffix], picture=suffix=="mp4")
        return path.read_bytes()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(suffix=st.sampled_from(["wav", "flac", "ogg", "mp3", "mp4", "webm"]), place=st.floats(0, 1), garbage=st.binary(min_size=1, max_size=64), near_start=st.booleans())
def test_damaged_bytes(tmp_path, suffix, place, garbage, near_start):
    content = bytearray(sample(suffix))
    at = int(place*(min(200, len(content)-64) if near_start else len(content)-64))
    content[at:at+len(garbage)] = garbage
    path = tmp_path/f"damaged.{suffix}"
    path.write_bytes(content)
    survives(path)


# ---- files as people have them

def test_channels_that_cancel_each_other(tmp_path):
    y = np.sin(np.arange(2*SR)/9).astype(np.float32)
    soundfile.write(tmp_path/"antiphase.flac", np.stack([y, -y], 1)*.5, SR)
    loaded,_ = audio.load(tmp_path/"antiphase.flac")
    np.testing.assert_allclose(np.abs(loaded), np.abs(y)*.5, atol=1e-3)


def test_length_not_in_the_header(tmp_path):
    "A streamed FLAC: the 36 bits that count its samples are zero"
    soundfile.write(tmp_path/"song.flac", np.sin(np.arange(3*SR)/9)*.5, SR)
    data = bytearray((tmp_path/"song.flac").read_bytes())
    data[21] &= 0xf0
    data[22:26] = bytes(4)
    (tmp_path/"song.flac").write_bytes(data)
    assert len(audio.load(tmp_path/"song.flac")[0])==3*SR


@pytest.mark.parametrize("rate", [44100, 16000])
def test_chained_ogg(tmp_path, rate):
    "Both streams are there, on one clock, whatever the rate of the second"
    for name,sr in (("a", 44100), ("b", rate)): soundfile.write(tmp_path/f"{name}.ogg", np.sin(2*np.pi*220*np.arange(2*sr)/sr)*.5, sr)
    (tmp_path/"chain.ogg").write_bytes((tmp_path/"a.ogg").read_bytes()+(tmp_path/"b.ogg").read_bytes())
    y,_ = audio.load(tmp_path/"chain.ogg")
    assert abs(len(y)/SR-4)<.01
    assert abs(np.square(y[:2*SR]).mean()/np.square(y[2*SR:]).mean()-1)<.05


@pytest.mark.parametrize("cut", [1, 100])
def test_ogg_cut_inside_its_last_page(tmp_path, cut):
    soundfile.write(tmp_path/"song.ogg", np.sin(np.arange(3*SR)/9)*.5, SR)
    data = (tmp_path/"song.ogg").read_bytes()
    (tmp_path/"song.ogg").write_bytes(data[:-cut])
    with pytest.raises(InputError, match="breaks off"): audio.load(tmp_path/"song.ogg")


@pytest.mark.parametrize("name,seconds", [("antiphase.flac", 12), ("unknown_length.flac", 12), ("chained.ogg", 24), ("no_end_flag.oga", 12), ("second_track_is_default.mkv", 12)])
def test_files_that_people_reported(shared, name, seconds):
    y,sr = audio.load(shared(f"cases/sound/{name}"))
    assert abs(len(y)/sr-seconds)<.1
