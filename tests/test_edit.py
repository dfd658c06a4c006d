"""Edits as properties over random ones: what is not edited stays to the byte, what is given is met, seams are not seen, feet stand, beats are kept."""
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from audio2pose import edit
from audio2pose.beats import Beats
from audio2pose.cli import run
from audio2pose.commands.record import read_dance
from audio2pose.core import InputError
from audio2pose.infilling import EditOptions, SongAnalysis, bar_mask, joint_indices
from audio2pose.metrics.beat import beat_margin, kinematic_beats
from audio2pose.metrics.contact import sliding_contacts
from audio2pose.models.motion_flow import MotionFlow
from audio2pose.models.motion_flow_sampling import dance_to_beats, limit_rotations, rotation_steps
from audio2pose.models.time_warp import align_stops_to_beats

MUSIC = SongAnalysis(Beats.from_bpm(118, .3, 16.), 16.)

@pytest.fixture(scope="module")
def model(): return MotionFlow.from_pretrained()

@pytest.fixture(scope="module")
def dance(model): return limit_rotations(align_stops_to_beats(dance_to_beats(model, MUSIC.beats.times, MUSIC.seconds, seed=4), MUSIC.beats.times))

def steps(motion): return np.degrees(np.max([rotation_steps(Rotation.from_rotvec(motion.poses[:, joint])) for joint in range(24)], 0))

def check(old, new, known):
    "What holds after every edit"
    assert np.array_equal(new.poses[known], old.poses[known]) and np.array_equal(new.trans[known], old.trans[known])
    assert sliding_contacts(new.positions(), 60)<.03
    turned,edges = steps(new),np.flatnonzero(np.diff(known.astype(int)))
    assert turned[edges].max(initial=0)<=max(22.5, np.delete(turned, edges).max())
    assert turned.max()<27
    assert new.positions()[..., 1].min()>-.005

def drawn(seed): # Bars and options
    rng = np.random.default_rng(seed)
    first = int(rng.integers(1, 7))
    return (first, int(rng.integers(first, 8))), EditOptions(seed=seed, style=[None, "salsa", "street"][seed%3])

@pytest.mark.parametrize("seed", [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_reroll(model, dance, seed):
    bars,options = drawn(seed)
    known = ~bar_mask(MUSIC, bars, len(dance))
    new = edit.reroll(model, dance, MUSIC, bars, options=options)
    check(dance, new, known)
    assert np.abs(new.poses-dance.poses)[~known].max()>.2
    margin = lambda motion: beat_margin(kinematic_beats(motion.positions(), 60), MUSIC.beats.times, motion.seconds)
    assert margin(new)>margin(dance)-.2
    assert np.array_equal(edit.reroll(model, dance, MUSIC, bars, options=options).poses, new.poses)

@pytest.mark.parametrize("kept", ["legs", "left_arm", pytest.param("arms", marks=pytest.mark.slow), pytest.param("upper", marks=pytest.mark.slow)])
def test_joints_are_kept(model, dance, kept):
    bars,options = (3, 5),EditOptions(seed=9)
    known,joints = ~bar_mask(MUSIC, bars, len(dance)),joint_indices([kept])
    new = edit.reroll(model, dance, MUSIC, bars, [kept], options)
    check(dance, new, known)
    assert np.array_equal(new.poses[:, joints], dance.poses[:, joints])
    if kept=="legs": assert np.array_equal(new.trans, dance.trans)
    others = [joint for joint in range(22) if joint not in joints]
    assert np.abs(new.poses-dance.poses)[~known][:, others].max()>.2

@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_keyframes_are_met(model, dance, seed):
    rng = np.random.default_rng(seed)
    times,poses = [4+seed, 10.1],[dance[int(i):int(i)+1] for i in rng.integers(0, len(dance), 2)]
    new = edit.keyframe(model, dance, MUSIC, list(zip(times, poses)), options=EditOptions(seed=seed))
    for time,pose in zip(times, poses):
        frame = round(time*60)
        wanted = edit.place_at(pose, dance.trans[frame], edit.heading_at(dance, frame))
        assert np.abs(new[frame:frame+1].positions()-wanted.positions()).max()<.01
        apart = Rotation.from_rotvec(new.poses[frame]).inv()*Rotation.from_rotvec(wanted.poses[0])
        assert np.degrees(apart.magnitude()).max()<1
    clock = np.arange(len(dance))/60
    check(dance, new, np.min([np.abs(clock-time) for time in times], 0)>1.1)

def test_a_motion_within_a_dance(model, dance):
    clip = dance_to_beats(model, np.arange(0, 4, .5), 3., styles=("karate",), seed=5)
    new = edit.insert(model, dance, MUSIC, clip, 6., 4., EditOptions(seed=2))
    clock = np.arange(len(dance))/60
    check(dance, new, (clock<3.9)|(clock>11.1))
    wanted = edit.place_at(clip, dance.trans[360], edit.heading_at(dance, 360))
    assert np.abs(new[360:540].positions()-wanted.positions()).max()<.01

def test_mirror_retime_energy_path(model, dance):
    check(dance, edit.mirror(model, dance, MUSIC, (3, 5)), ~bar_mask(MUSIC, (3, 5), len(dance)))
    song = SongAnalysis(Beats.from_bpm(126, .1, 18.), 18.)
    slower = edit.retime(model, dance, MUSIC, song)
    assert len(slower)==1080 and sliding_contacts(slower.positions(), 60)<.03
    lively = edit.change_energy(model, dance, MUSIC, {1: .4, 8: 2.5})
    speed = np.linalg.norm(np.diff(lively.positions(), axis=0), axis=-1).mean(1)
    assert speed[-300:].mean()>1.5*speed[:300].mean() and sliding_contacts(lively.positions(), 60)<.03
    line = [(0, 0), (1.5, .5), (1.5, 1.5)]
    led = edit.follow_path(model, dance, MUSIC, line)
    apart = np.linalg.norm(led.trans[:, [0, 2]]-edit.walked_line(line, len(dance))-dance.trans[0, [0, 2]], axis=1)
    assert apart.max()<.1 and sliding_contacts(led.positions(), 60)<.03

@pytest.mark.parametrize("ask, said", [
    (lambda m, d: edit.reroll(m, d, MUSIC, (9, 16)), "bars 9 to 16 cannot be found; the song has bars 1 to 8"),
    (lambda m, d: edit.reroll(m, d, MUSIC, (5, 3)), "bars 5 to 3 cannot be found"),
    (lambda m, d: edit.reroll(m, d, MUSIC, (1, 2), ["wing"]), "there are no joints 'wing'"),
    (lambda m, d: edit.reroll(m, d, MUSIC, (1, 2), ["legs", "upper"]), "every joint is kept"),
    (lambda m, d: edit.reroll(m, d[:600], MUSIC, (1, 2)), "is it the dance of another song"),
    (lambda m, d: edit.reroll(m, d.resample(30), MUSIC, (1, 2)), "30 frames per second"),
    (lambda m, d: edit.keyframe(m, d, MUSIC, [(40, d[:1])]), "outside the dance"),
    (lambda m, d: edit.keyframe(m, d, MUSIC, [(4, d[:1]), (4, d[99:100])]), "contradict each other"),
    (lambda m, d: edit.keyframe(m, d, MUSIC, [(4, d[:1], (30, 0))]), "would have to cover"),
    (lambda m, d: edit.keyframe(m, d, MUSIC, [(4, d[:1]), (4+1/60, d.mirror()[400:401])]), "contradict each other"),
    (lambda m, d: edit.insert(m, d, MUSIC, d, 3.), "ends outside the dance"),
    (lambda m, d: edit.combine(d, d[:100], MUSIC, ["arms"]), "the other motion lasts"),
    (lambda m, d: edit.follow_path(m, d, MUSIC, [(0, 0), (90, 0)]), "faster than anybody dances"),
    (lambda m, d: edit.change_energy(m, d, MUSIC, {1: 9.}), "energy must be between"),
])
def test_what_cannot_be_done_is_said(model, dance, ask, said):
    with pytest.raises(InputError, match=said): ask(model, dance)

def test_command(dance, tmp_path, capsys):
    import soundfile
    source = tmp_path/"first"
    source.mkdir()
    soundfile.write(source/"song.wav", .1*np.random.default_rng(0).standard_normal(16*22050).astype(np.float32), 22050)
    dance.save(source/"motion.npz")
    record = dict(format=1, version="0.0.7", song="song.wav", beats=MUSIC.beats.times.tolist(), downbeats=MUSIC.beats.downbeats.tolist(), commands=["audio2pose dance"])
    (source/"dance.json").write_text(json.dumps(record))
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    assert run(["edit", str(source), "--reroll", "--bars", "3-4", "--seed", "5", "--no-film"])==0
    said = capsys.readouterr().out
    assert "made by audio2pose 0.0.7" in said
    out = tmp_path/"first-edit1"
    known,new = ~bar_mask(MUSIC, (3, 4), len(dance)),read_dance(out, None)
    assert np.array_equal(new.motion.poses[known], dance.poses[known])
    assert new.commands[0]=="audio2pose dance" and "--reroll --bars 3-4 --seed 5" in new.commands[1]
    import shlex
    again = shlex.split(new.commands[1])[1:-1]+[str(tmp_path/"again")]
    assert run(again)==0
    assert (tmp_path/"again"/"motion.npz").read_bytes()==(out/"motion.npz").read_bytes() or np.array_equal(read_dance(tmp_path/"again", None).motion.poses, new.motion.poses)
    for bad,said in ((["--reroll", "--bars", "9-16"], "the song has bars 1 to 8"), (["--bars", "1-2"], "say what is to be done"), (["--mirror", "--out", str(out)], "no edit overwrites one")):
        assert run(["edit", str(source), *bad, "--no-film"])==2
        assert said in capsys.readouterr().err
    assert before=={path.name: path.read_bytes() for path in source.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir())==["again", "first", "first-edit1"]
