"""Edits as properties over random ones: what is not edited stays to the byte, what is given is met, seams are not seen, feet stand, beats are kept."""
import json
from dataclasses import replace

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

def margin(motion, music=MUSIC): return beat_margin(kinematic_beats(motion.positions(), 60), music.beats.times, motion.seconds)

def check(old, new, known, kept=.1):
    "What holds after every edit; `known` frames are those that were not to change"
    assert np.array_equal(new.poses[known], old.poses[known]) and np.array_equal(new.trans[known], old.trans[known])
    assert sliding_contacts(new.positions(), 60)<.03
    turned,seams,inside = steps(new),known[:-1]!=known[1:],~known[:-1]&~known[1:]
    assert turned[seams].max(initial=0)<=turned[inside].max()
    assert turned.max()<27
    assert new.positions()[..., 1].min()>-.005
    assert margin(new)>margin(old)-kept

def drawn(seed): # Bars and options
    rng = np.random.default_rng(seed)
    first = int(rng.integers(1, 7))
    return (first, int(rng.integers(first, 8))), EditOptions(seed=seed, style=[None, "salsa", "street"][seed%3])

def seeds(*quick, count): return [seed if seed in quick else pytest.param(seed, marks=pytest.mark.explore) for seed in range(count)]

@pytest.mark.parametrize("seed", seeds(0, 2, count=8))
def test_reroll(model, dance, seed):
    bars,options = drawn(seed)
    known = ~bar_mask(MUSIC, bars, len(dance))
    new = edit.reroll(model, dance, MUSIC, bars, options=options)
    check(dance, new, known)
    assert np.abs(new.poses-dance.poses)[~known].max()>.2
    if seed==2: assert np.array_equal(edit.reroll(model, dance, MUSIC, bars, options=options).poses, new.poses)

def test_calm_bars_within_a_lively_dance(model, dance):
    "Where what is danced anew is much slower than what stands, the seams are slow too"
    check(dance, edit.reroll(model, dance, MUSIC, (4, 5), options=EditOptions(seed=1, energy=.25)), ~bar_mask(MUSIC, (4, 5), len(dance)))

@pytest.mark.parametrize("kept", ["legs", pytest.param("left_arm", marks=pytest.mark.explore), pytest.param("arms", marks=pytest.mark.explore), pytest.param("upper", marks=pytest.mark.explore)])
def test_joints_are_kept(model, dance, kept):
    bars,options = (3, 5),EditOptions(seed=9)
    known,joints = ~bar_mask(MUSIC, bars, len(dance)),joint_indices([kept])
    new = edit.reroll(model, dance, MUSIC, bars, [kept], options)
    check(dance, new, known)
    assert np.array_equal(new.poses[:, joints], dance.poses[:, joints])
    if kept=="legs": assert np.array_equal(new.trans, dance.trans)
    others = [joint for joint in range(22) if joint not in joints]
    assert np.abs(new.poses-dance.poses)[~known][:, others].max()>.2

@pytest.mark.parametrize("seed", seeds(0, count=4))
def test_keyframes_are_met(model, dance, seed):
    rng = np.random.default_rng(seed)
    times,poses = [4+seed, 10.1],[dance[int(i):int(i)+1] for i in rng.integers(0, len(dance), 2)]
    new = edit.keyframe(model, dance, MUSIC, list(zip(times, poses)), options=EditOptions(seed=seed))
    for time,pose in zip(times, poses):
        frame = round(time*60)
        wanted = edit.align_root(pose, dance.trans[frame], edit.heading_at(dance, frame))
        assert np.abs(new[frame:frame+1].positions()-wanted.positions()).max()<.01
        apart = Rotation.from_rotvec(new.poses[frame]).inv()*Rotation.from_rotvec(wanted.poses[0])
        assert np.degrees(apart.magnitude()).max()<1
    clock = np.arange(len(dance))/60
    check(dance, new, np.min([np.abs(clock-time) for time in times], 0)>1.1)

@pytest.mark.parametrize("gap", [4., pytest.param(2., marks=pytest.mark.explore)])
def test_a_motion_within_a_dance(model, dance, gap):
    clip = align_stops_to_beats(dance_to_beats(model, MUSIC.beats.times[:7]-MUSIC.beats.times[0], 3., styles=("karate",), seed=5), MUSIC.beats.times[:7]-MUSIC.beats.times[0])
    first = round(MUSIC.beats.times[12]*60)
    new = edit.insert(model, dance, MUSIC, clip, first/60, gap, EditOptions(seed=2))
    clock = np.arange(len(dance))/60
    known = (clock<first/60-gap*.51-.02)|(clock>first/60+3+gap*.51+.02)
    check(dance, new, known)
    wanted = edit.align_root(clip, dance.trans[first], edit.heading_at(dance, first))
    assert np.abs(new[first:first+180].positions()-wanted.positions()).max()<.01
    turned,inserted = steps(new),np.isin(np.arange(len(dance)), np.arange(first, first+180))
    made = ~known&~inserted
    assert turned[inserted[:-1]!=inserted[1:]].max()<=turned[made[:-1]&made[1:]].max()

def test_between_two_motions(model, dance):
    joined = edit.in_between(model, dance[:180], dance[420:600], 4, 118)
    known = np.ones(len(joined), bool)
    known[180:-180] = False
    turned = steps(joined)
    assert turned[known[:-1]!=known[1:]].max()<=turned[~known[:-1]&~known[1:]].max()<27
    assert np.abs(joined.poses[:180]-dance.poses[:180]).max()<1e-9 and sliding_contacts(joined.positions(), 60)<.03

@pytest.mark.parametrize("bars", [(3, 5), pytest.param((2, 3), marks=pytest.mark.explore)])
def test_mirror(model, dance, bars): check(dance, edit.mirror(model, dance, MUSIC, bars), ~bar_mask(MUSIC, bars, len(dance)))

@pytest.mark.parametrize("guidance,kept", [(2.5, .1), (2., .15)])
def test_combine(model, guidance, kept):
    "Arms of another dance stop at other moments than the legs they are put on: less so, the more both are guided"
    one,other = (align_stops_to_beats(dance_to_beats(model, MUSIC.beats.times, MUSIC.seconds, seed=seed, guidance=guidance), MUSIC.beats.times) for seed in (4, 8))
    one = limit_rotations(one)
    new = edit.combine(one, other, MUSIC, ["arms"], (3, 6))
    check(one, new, ~bar_mask(MUSIC, (3, 6), len(one)), kept)
    assert np.array_equal(new.poses[:, joint_indices(["legs", "trunk"])], one.poses[:, joint_indices(["legs", "trunk"])])

@pytest.mark.parametrize("bpm", [126, pytest.param(104, marks=pytest.mark.explore)])
def test_retime(model, dance, bpm):
    song = SongAnalysis(Beats.from_bpm(bpm, .1, 18.), 18.)
    moved = edit.retime(model, dance, MUSIC, song)
    assert len(moved)==1080 and sliding_contacts(moved.positions(), 60)<.03 and steps(moved).max()<27
    assert margin(moved, song)>margin(dance)-.1

@pytest.mark.parametrize("bars", [None, pytest.param((3, 5), marks=pytest.mark.explore)])
def test_energy(model, dance, bars):
    lively = edit.change_energy(model, dance, MUSIC, {1: .4, 8: 2.5}, bars)
    check(dance, lively, ~bar_mask(MUSIC, bars, len(dance)))
    speed = np.linalg.norm(np.diff(lively.positions(), axis=0), axis=-1).mean(1)
    if bars is None: assert speed[-300:].mean()>1.5*speed[:300].mean()

@pytest.mark.parametrize("bars", [(3, 5), pytest.param(None, marks=pytest.mark.explore)])
def test_path(model, dance, bars):
    "What comes after the path is carried along: elsewhere on the floor, in the same poses to the byte"
    line = [(0, 0), (1.5, .5), (1.5, 1.5)]
    led,free = edit.follow_path(model, dance, MUSIC, line, bars),bar_mask(MUSIC, bars, len(dance))
    wanted = edit.walked_line(line, free.sum())+dance.trans[free.argmax(), [0, 2]]
    apart = np.linalg.norm(led.trans[free][:, None, [0, 2]]-wanted, axis=2)
    assert apart.min(1).max()<.1 and apart.diagonal().max()<.25 # From the line, and from where on it an even pace would be
    last = len(dance)-1-free[::-1].argmax()
    moved = dance.trans.copy()
    moved[last+1:, [0, 2]] += wanted[-1]-dance.trans[min(last+1, len(dance)-1), [0, 2]]
    check(replace(dance, trans=moved), led, ~free)

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
    (lambda m, d: edit.change_energy(m, d, MUSIC, {}), "no points"),
    (lambda m, d: edit.change_energy(m, d, MUSIC, {99: 1.}), "names bar 99"),
    (lambda m, d: edit.reroll(m, d, MUSIC, (3, 4), ["legs"], EditOptions(path=np.zeros((len(d), 2)))), "contradict each other"),
    (lambda m, d: edit.keyframe(m, d, MUSIC, []), "no keyframes"),
    (lambda m, d: edit.keyframe(m, d, MUSIC, [(4, replace(d[:1], poses=np.full((1, 24, 3), np.nan)))]), "not finite"),
    (lambda m, d: edit.insert(m, d, MUSIC, d[:60], 6., gap=.1), "leaves no time"),
    (lambda m, d: edit.mirror(m, d, MUSIC, (8, 9)), "bars 8 to 9 cannot be found"),
    (lambda m, d: edit.in_between(m, d[:1], d), "at least two frames"),
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
