"MotionFlow: what is given is met, what is continued joins, what is wrong is said, and a stopped training goes on as if it had not stopped"
import numpy as np
import pytest
import torch

from audio2pose.core import InputError
from audio2pose.data.choreography import choreograph
from audio2pose.models.motion_features import FEATURES, clip_of, headings, motion_beats
from audio2pose.models.motion_flow import MotionFlow, MotionFlowConfig, condition
from audio2pose.models.motion_flow_sampling import dance_beats, dance_to_beats, limit_rotations, sample_blocks, to_motion
from audio2pose.models.motion_flow_training import Windows, fit, flow_loss, given_mask, joint_features
from audio2pose.metrics.beat import beat_align
from audio2pose.motion import Motion
from audio2pose.rotation import axis_angle_to_matrix
from audio2pose.skeleton import SMPL_24

BEATS = .5*np.arange(48)


@pytest.fixture(scope="module")
def example(): return choreograph(BEATS, np.full(48, .8), 24., "HO", seed=3).motion


@pytest.fixture(scope="module")
def clips(example): return [clip_of(motion, BEATS, style) for motion,style in ((example, "HO"), (example.mirror(), "LO"))]


def tiny(clips):
    torch.manual_seed(0)
    model = MotionFlow(MotionFlowConfig(width=64, heads=2, mlp=128, layers=2, styles=("HO", "LO")))
    model.fit_statistics(clips)
    return model


@pytest.fixture(scope="module")
def trained(clips):
    model = tiny(clips)
    fit(model, Windows(clips, model), steps=60, batch=8, every=60, lr=2e-3)
    return model


def test_features_and_back(example, clips):
    "Musical time and back to 60 fps: the joints are where they were, within a centimetre"
    clip = clips[0]
    times = np.arange(len(clip.features))/32 # 16 frames in half a second
    back = to_motion(clip.features, times, 20, example.trans[0], float(headings(axis_angle_to_matrix(example.poses[:1, 0]))[0]))
    apart = np.linalg.norm(back.positions()[:, :22]-example.positions()[:1200, :22], axis=-1)
    assert apart.mean()<.01


def test_tempo_does_not_change_features(example):
    "The same poses at half the speed: the same rotations and steps"
    slow = Motion(example.poses, example.trans, 30)
    a,b = clip_of(example, BEATS).features,clip_of(slow, 2*BEATS).features
    np.testing.assert_allclose(a[:300, :199], b[:300, :199], atol=1e-4)


def test_unknown_joints_do_not_enter_the_loss(clips):
    "Whatever stands in columns that were not captured, the loss is the same"
    model = tiny(clips)
    x,known,given,conditions,style = Windows(clips, model).batch(4, np.random.default_rng(0))
    known[..., 94:100] = False # Rotation of the head
    given &= known
    def loss(x): return flow_loss(model, x, known, given, conditions, style, torch.Generator().manual_seed(1))
    with torch.no_grad(): model.embed.weight.zero_() # Inputs aside: only the loss is asked
    other = x.clone()
    other[..., 94:100] += 1
    np.testing.assert_allclose(loss(x).item(), loss(other).item(), rtol=.02)


@pytest.mark.parametrize("seed", range(20))
def test_given_positions_have_their_chain(seed):
    "No position is given whose rotations up to the root are not"
    joints = [int(joint) for joint in np.flatnonzero(np.random.default_rng(seed).random(22)<.6)]
    given = joint_features(joints)
    for joint in range(1, 22):
        chain,parent = [],SMPL_24.parents[joint]
        while parent>=0: chain.append(parent); parent = SMPL_24.parents[parent]
        assert given[133+3*joint]==all(parent in joints for parent in chain)


@pytest.mark.parametrize("seed", range(5))
def test_given_is_met(trained, seed):
    rng = np.random.default_rng(seed)
    noise,values = (torch.from_numpy(rng.normal(size=(1, 128, FEATURES)).astype(np.float32)) for _ in range(2))
    given = torch.from_numpy(given_mask(128, rng))[None]
    told = torch.from_numpy(condition(np.arange(128)/16, .5))[None]
    x = trained.sample(noise, told, torch.tensor([1]), values, given, steps=3)
    assert torch.equal(x[given], values[given])


def test_same_seed_same_dance(trained):
    a,b,c = (dance_to_beats(trained, BEATS, 12, seed=seed, steps=3) for seed in (4, 4, 5))
    assert np.array_equal(a.poses, b.poses) and not np.array_equal(a.poses, c.poses)
    assert len(a)==720


def test_blocks_are_a_stream(trained):
    "The beginning of a long dance is the beginning of a short one"
    told = condition(np.arange(40*16)/16, .5, np.zeros(40*16))
    short = next(sample_blocks(trained, told[:128], ["HO"], seed=2, steps=3))
    np.testing.assert_array_equal(short, next(sample_blocks(trained, told, ["HO"], seed=2, steps=3)))


def test_stop_and_resume(clips, tmp_path):
    "The weights of a run that was stopped are those of one that was not, to the bit"
    whole,parts = tiny(clips),tiny(clips)
    fit(whole, Windows(clips, whole), 6, batch=2, every=3)
    with pytest.raises(KeyboardInterrupt):
        def stop(*_): raise KeyboardInterrupt
        fit(parts, Windows(clips, parts), 6, batch=2, every=3, checkpoint=tmp_path/"state.pt", report=lambda step, *_: stop() if step==6 else None)
    again = tiny(clips)
    fit(again, Windows(clips, again), 6, batch=2, every=3, checkpoint=tmp_path/"state.pt")
    assert all(torch.equal(a, b) for a,b in zip(whole.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize("period", (.21, .3, .5, .8, 1.3))
def test_dance_beats(period):
    "A beat of a dance lasts .42 to .84 s, begins before the song and ends after it"
    counts = dance_beats(.1+period*np.arange(int(30/period)), 30)
    assert .4199<=np.median(np.diff(counts))<.84 and counts[0]<=0 and counts[-1]>=30


def test_dance_beats_without_music(): assert len(dance_beats(np.zeros(0), 10))>10


def test_motion_beats_find_the_beats(example):
    assert beat_align(BEATS[4:40], motion_beats(example), .07)>.4


def test_limit_rotations():
    poses = np.zeros((90, 24, 3))
    poses[45:, 16, 2] = 2.5
    calm = limit_rotations(Motion(poses, np.zeros((90, 3))))
    assert np.degrees(np.abs(np.diff(calm.poses[:, 16, 2])).max())<25
    np.testing.assert_allclose(calm.poses[[0, -1]], poses[[0, -1]], atol=1e-6)


def test_wrong_weights_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match="no model.safetensors"): MotionFlow.from_pretrained(tmp_path)
    from audio2pose.models.fact import FACT, FACTConfig
    FACT(FACTConfig(width=32, heads=2, mlp=32, motion_layers=1, audio_layers=1, cross_layers=1)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not the weights of a MotionFlow"): MotionFlow.from_pretrained(tmp_path)
    trained.save_pretrained(tmp_path)
    assert MotionFlow.from_pretrained(tmp_path).config==trained.config


def test_what_was_not_taught_is_said(trained, example):
    with pytest.raises(InputError, match="not taught"): dance_to_beats(trained, BEATS, 5, styles=["polka"])
    for energy in (0, 100):
        with pytest.raises(InputError, match="energy must be"): dance_to_beats(trained, BEATS, 5, energy=energy)
    with pytest.raises(InputError, match="half a second"): dance_to_beats(trained, BEATS, 5, seed_motion=example[:1])
