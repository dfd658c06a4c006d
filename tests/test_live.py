"The command live as it is used: an address that only this machine and only who knows the token can read, and a dancer whom nothing disturbs"
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import copies
import numpy as np
import pytest
import soundfile
from scipy.spatial.transform import Rotation

from audio2pose import cli
from audio2pose.commands.live import LiveServer, fill_stalls, song_chunks, stream_chunks, throttle
from audio2pose.core import SR
from audio2pose.live import LiveDancer, LiveStream
from audio2pose.models.motion_flow import MotionFlow
from audio2pose.models.motion_flow_sampling import rotation_steps
from audio2pose.show.player import quantised_poses

COMMAND = [sys.executable, "-c", "from audio2pose.cli import main; main()", "live"]

def ask(url, body=None, **headers):
    "Code and text of the answer"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer: return answer.status, answer.read()
    except urllib.error.HTTPError as error: return error.code, error.read()

def frames(lines):
    "What comes in over a connection, event by event"
    for line in lines:
        if line.startswith(b"data: {"): yield json.loads(line[6:])

@pytest.fixture(scope="module")
def model(): return MotionFlow.from_pretrained()

@pytest.fixture
def serve(model):
    "Starts servers of a dance to some chunks"
    started = []
    def start(chunks):
        server = LiveServer(LiveStream(LiveDancer(model)), chunks, "<p>page")
        threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=.05), daemon=True).start()
        started.append(server)
        return server
    yield start
    for server in started:
        server.shutdown()
        server.server_close()

@pytest.fixture(scope="module")
def command():
    "The real command on a pipe that stays open: process and address"
    process = copies.Popen([*COMMAND, "-", "--sample-rate", "8000", "--no-browser"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    yield process, process.stdout.readline().decode().strip()
    process.kill()
    process.communicate()


# ---- who may ask

def test_nothing_without_the_token(serve):
    server = serve(iter(()))
    there = f"http://127.0.0.1:{server.server_port}"
    for path in ("/", "/frames", "/song", "/x/", f"/{server.token[:-1]}/", f"/{server.token}x/frames", "/%00/"): assert ask(there+path)==(403, b""), path
    assert ask(f"{there}/x/control", b'{"energy": 2}')==(403, b"") and server.stream.base==1
    assert ask(server.url, Host="elsewhere.example")==(403, b"") # As after DNS rebinding
    assert ask(server.url)==(200, b"<p>page") and ask(server.url+"song")[0]==404
    assert not server.begun

def test_only_the_loopback_address(serve):
    server = serve(iter(()))
    assert server.socket.getsockname()[0]=="127.0.0.1"
    with socket.socket() as other:
        other.settimeout(2)
        with pytest.raises(OSError): other.connect(("127.0.0.2", server.server_port)) # Loopback too, and not listened to

@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b'{"style": "polka"}', b'{"style": 3}', b'{"energy": NaN}', b'{"energy": 99}', b'{"energy": null}', b'{"energy": [1]}', b'{"x": "'+b"x"*5000])
def test_impossible_settings_are_refused(serve, body):
    server = serve(iter(()))
    code,said = ask(server.url+"control", body)
    assert code==400 and b"Traceback" not in said
    assert (server.stream.dancer.style, server.stream.base)==(None, 1)

def test_settings_change(serve):
    server = serve(iter(()))
    assert ask(server.url+"control", b'{"style": "salsa"}')==(200, b"") and ask(server.url+"control", b'{"energy": 1.5}')==(200, b"")
    assert (server.stream.dancer.style, server.stream.base)==("salsa", 1.5)
    assert ask(server.url+"control", b'{"style": null}')==(200, b"") and server.stream.dancer.style is None


# ---- what comes

def test_frames_arrive_and_are_the_dance(serve, model):
    "Two pages get the same; together the frames are those of `LiveStream`"
    sound = (.1*np.random.default_rng(0).normal(size=SR)).astype(np.float32)
    gate = threading.Event()
    def chunks():
        gate.wait(20)
        yield from song_chunks(sound)
    server = serve(chunks())
    with urllib.request.urlopen(server.url+"frames", timeout=30) as one, urllib.request.urlopen(server.url+"frames", timeout=30) as two:
        while len(server.viewers)<2: time.sleep(.01)
        gate.set()
        seen,also = list(frames(one)),list(frames(two))
    assert seen==also and [part["first"] for part in seen]==list(range(0, 60, 6))
    sent = np.concatenate([np.frombuffer(base64.b64decode(part["poses"]), "<i2").reshape(-1, 24, 3) for part in seen])
    stream = LiveStream(LiveDancer(model))
    assert np.array_equal(sent, np.concatenate([quantised_poses(stream.feed(chunk).poses) for chunk in song_chunks(sound)]))

@pytest.mark.parametrize("energy", [1.5, pytest.param(.25, marks=pytest.mark.explore)])
def test_no_seam_is_seen(model, energy):
    "Ten stretches one after the other, with styles between which it changes"
    dancer,roots,turns = LiveDancer(model, energy=energy),[],[]
    for k in range(1300):
        if k==600: dancer.style = "salsa"
        pose,root = dancer.frame((k+1)/60)
        roots.append(root)
        turns.append(pose)
    assert dancer.windows>8 and len(dancer.poses)<=128
    assert np.linalg.norm(np.diff(roots, axis=0), axis=1).max()<.09 # m: a leap of a lively dancer; over five seeds .08
    assert max(np.degrees(rotation_steps(Rotation.from_rotvec(np.stack(turns)[:, joint])).max()) for joint in range(24))<27

def test_the_delay_is_that_of_the_chunk(model):
    "100 ms of sound at a time: the newest frame is no older than that, a fifth of a beat at 120 bpm"
    stream,sound = LiveStream(LiveDancer(model)),np.zeros(2*SR, np.float32)
    for k,chunk in enumerate(song_chunks(sound), 1):
        stream.feed(chunk)
        assert stream.frames==6*k and stream.tracker.time==pytest.approx(k*.1)

class Metronome:
    "A tracker that hears beats nobody would play: tempi from 40 to 250 a minute, pauses, jumps"
    def __init__(self, seed):
        self.rng,self.time,self.next,self.period,self.energy = np.random.default_rng(seed),0.,.3,.5,1.

    def feed(self, chunk):
        self.time += len(chunk)/SR
        found = []
        while self.next<self.time:
            found.append(self.next)
            if self.rng.random()<.15: self.period = 60/self.rng.uniform(40, 250)
            self.next += self.period*(1 if self.rng.random()<.85 else self.rng.uniform(.3, 8))
        self.energy = self.rng.uniform(.3, 1.1)
        return found

@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.explore) for seed in range(2, 20))])
def test_no_chunk_has_much_to_do(model, seed):
    "Counted, not timed: in a tenth of a second four pieces of a stretch at most, and so four passes of the network, whatever the beats are"
    stream,passes,pieces = LiveStream(LiveDancer(model, seed=seed), Metronome(seed)),[],[]
    dancer = stream.dancer
    counting = model.register_forward_hook(lambda *_: passes.append(len(pieces)))
    made = lambda: dancer.windows*dancer.pieces+dancer.done
    try:
        for chunk in song_chunks(np.zeros(30*SR, np.float32)):
            before = made()
            assert len(stream.feed(chunk))==6
            pieces.append(made()-before)
    finally: counting.remove()
    assert dancer.windows>8 and max(pieces)<=4, max(pieces)
    assert np.bincount(passes).max()<=4
    assert sum(pieces)==pytest.approx(20*(dancer.clock.phase-4)/4, abs=40) # And no work twice: twenty pieces for each four beats

def test_a_change_is_seen_within_eight_beats(model):
    "At its worst, right after a stretch was begun: that one goes on as it was, and only the smoothing of its end knows of the next"
    def danced(when):
        dancer,poses,began = LiveDancer(model, seed=4),[],None
        for k in range(600):
            if began is None and dancer.done==1: began = k
            if k==when: dancer.energy = 3.
            poses.append(dancer.frame((k+1)/60)[0])
        return np.stack(poses),began
    usual,began = danced(None)
    changed = np.flatnonzero((danced(began)[0]!=usual).any((1, 2)))[0]-began
    assert 5.5<changed/60/.55<=8 # Beats

def phase_errors(sound, beats):
    "How far the dancer's beat is from the true ones, s"
    stream,phases = LiveStream(LiveDancer(MotionFlow.from_pretrained(), energy=.5)),[]
    for chunk in song_chunks(sound):
        stream.feed(chunk)
        phases.append((stream.tracker.time, stream.dancer.clock.phase))
    phase = np.interp(beats, *np.transpose(phases))
    return (phase-np.round(phase))*np.median(np.diff(beats))

@pytest.mark.slow
@pytest.mark.parametrize("lost", ["dropped", "silent"])
def test_a_second_of_sound_is_lost(lost):
    "A song through the whole path of sound; two bars later the dancer is on the beat again, within the 70 ms of the usual beat measures"
    from audio2pose.audio_decoding import resample
    from audio2pose.data.music import demo_track
    song = demo_track()
    sound = resample(song.y, song.sr, SR).astype(np.float32)[:15*SR]
    begin,end = round(6.3*SR),round(7.3*SR)
    if lost=="dropped": heard,beats = np.concatenate([sound[:begin], sound[end:]]),np.where(song.beats>7.3, song.beats-1, song.beats)[(song.beats<6.3)|(song.beats>7.3)]
    else: heard,beats = np.concatenate([sound[:begin], np.zeros(SR, np.float32), sound[begin:]])[:15*SR],np.where(song.beats>6.3, song.beats+1, song.beats)
    back = (6.3 if lost=="dropped" else 7.3)+8*float(np.median(np.diff(song.beats)))
    late = beats[(beats>back)&(beats<len(heard)/SR)]
    errors = phase_errors(heard, beats[beats<len(heard)/SR])[-len(late):]
    assert len(late)>4 and np.abs(errors).max()<.07

def kept_bytes(stream): return sum(part.nbytes for part in (stream.tracker.sound, stream.dancer.poses, stream.dancer.trans))

@pytest.mark.parametrize("seconds", [24, pytest.param(3600, marks=[pytest.mark.attack, pytest.mark.timeout(7200)])])
def test_memory_is_flat(model, seconds):
    "What is kept after a quarter of the time is all that is ever kept, and the process does not grow: bursts of sound for the tracker, beats of every kind for the clock, another style and energy every few seconds"
    import resource
    stream,rng,kept,beats = LiveStream(LiveDancer(model)),np.random.default_rng(0),[],Metronome(0)
    for k in range(10*seconds):
        chunk = (.05*rng.standard_normal(SR//10)).astype(np.float32) if k%600<20 else np.zeros(SR//10, np.float32)
        for beat in beats.feed(chunk): stream.dancer.clock.beat(beat)
        if k%70==0: stream.dancer.style,stream.base = rng.choice([None, *model.config.styles]),rng.uniform(.25, 2)
        assert len(stream.feed(chunk))==6
        if k%20==19: kept.append((kept_bytes(stream), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024))
    arrays,peak = np.array(kept).T
    quarter = len(kept)//4
    print(f"\n{seconds} s of dancing, {stream.dancer.windows} stretches: {arrays.max()/1e6:.2f} MB of arrays, the process {peak[quarter]:.0f} MB after a quarter and {peak[-1]:.0f} MB at the end")
    assert arrays[quarter:].max()<=arrays[:quarter+1].max()+64*(72+3)*8 # Four beats more or less wait
    assert peak[-1]-peak[quarter]<40 # MB
    assert stream.frames==60*seconds and len(stream.dancer.clock.recent)<=8

def test_silence_is_danced_to_calmly(serve):
    server = serve(song_chunks(np.zeros(4*SR, np.float32)))
    with urllib.request.urlopen(server.url+"frames", timeout=30) as answer: seen = list(frames(answer))
    roots = np.concatenate([np.frombuffer(base64.b64decode(part["trans"]), "<f4").reshape(-1, 3) for part in seen])
    assert len(roots)==240 and np.isfinite(roots).all() and server.error is None
    assert np.linalg.norm(np.diff(roots, axis=0), axis=1).max()<.02 # 1.2 m/s

def test_a_page_that_leaves_and_one_that_sleeps_disturb_nobody(serve):
    server = serve(song_chunks(np.zeros(2*SR, np.float32)))
    with urllib.request.urlopen(server.url+"frames", timeout=30) as answer:
        gone = urllib.request.urlopen(server.url+"frames", timeout=30)
        gone.close()
        assert sum(len(part["poses"])>0 for part in frames(answer))>=19
    assert server.error is None


# ---- raw sound

@pytest.mark.parametrize("rate", [8000, 30720, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_raw_sound_is_read_whole(rate, channels):
    class Dribble: # A pipe gives what is there
        data = (8000*np.sin(2*np.pi*300*np.arange(rate)/rate)).astype("<i2").repeat(channels).tobytes()+b"x"
        def read(self, most):
            size = min(most, 1+len(self.data)%997)
            head,self.data = self.data[:size],self.data[size:]
            return head
    heard = np.concatenate(list(stream_chunks(Dribble(), rate, channels)))
    assert abs(len(heard)-SR)<.001*SR
    true = 8000/32768*np.sin(2*np.pi*300*np.arange(len(heard))/SR)
    assert np.abs(heard-true)[1000:-1000].max()<.005

def test_a_flood_waits():
    "The sender is read no further than a few chunks ahead, however much there is"
    read = []
    def flood():
        while True:
            read.append(1)
            yield np.zeros(SR//10, np.float32)
    source = throttle(fill_stalls(flood()))
    begun = time.monotonic()
    heard = sum(len(next(source)) for _ in range(6))/SR
    assert heard-.1<=time.monotonic()-begun+1e-3
    assert len(read)<=6+6

def test_a_stalled_pipe_dances_on_and_ctrl_c_ends_it(command):
    process,url = command
    assert url.startswith("http://127.0.0.1:")
    answer = urllib.request.urlopen(url+"frames", timeout=30)
    process.stdin.write(np.random.default_rng(0).integers(-9000, 9000, 4000).astype("<i2").tobytes())
    process.stdin.flush() # Half a second, and then nothing
    seen = 0
    for part in frames(answer):
        seen = part["first"]
        if seen>120: break
    assert seen>120 and process.poll() is None
    process.stdin.write(b"\0"*1601)
    process.stdin.flush()
    assert next(frames(answer))["first"]>seen
    assert ask(url+"control", b'{"style": "salsa", "energy": 0.5}')==(200, b"")
    process.send_signal(signal.SIGINT)
    out,err = process.communicate(timeout=20)
    assert process.returncode==130
    assert b"Traceback" not in err and b"error" not in err.lower() and b"s were danced" in out


# ---- bad input

def test_what_cannot_be_played_is_said_in_a_sentence(tmp_path, capfd, monkeypatch):
    silent,text = tmp_path/"silent.wav",tmp_path/"text.mp3"
    soundfile.write(silent, np.zeros(44100), 22050)
    text.write_text("no song")
    reader,writer = os.openpty()
    with os.fdopen(writer) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        for line,says in ((["-"], "no sound comes in"), (["nowhere.wav"], "no such file"), ([tmp_path], "folder"), ([silent], "silent"), ([text], "cannot be read|no song"),
                          (["-", "--sample-rate", "3"], "rate"), (["-", "--channels", "0"], "channels")):
            assert cli.run(["live", *map(str, line), "--no-browser"])==2, line
            out,err = capfd.readouterr()
            assert out=="" and err.startswith("error: ") and err.count("\n")==1 and any(word in err for word in says.split("|")), err
    os.close(reader)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(sys, "stdin", open(os.devnull))
        for line,says in ((["--style", "polka"], "polka"), (["--energy", "9"], "energy"), (["--port", str(taken.getsockname()[1])], "port")):
            assert cli.run(["live", "-", *line, "--no-browser"])==2, line
            out,err = capfd.readouterr()
            assert out=="" and err.count("\n")==1 and says in err, err
