"What metrics must obey for any motion"
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from audio2pose.core import InputError
from audio2pose.data.choreography import choreograph
from audio2pose.metrics.beat import beat_align, beat_margin, beat_score, kinematic_beats, shifted_beats
from audio2pose.metrics.contact import contact_summary, exploded, foot_skating, foot_contact_and_skating, freezing, jerk, liveliness, penetration, pfc, sliding_contacts
from audio2pose.metrics.motion import diversity, extractors, frechet_distance, geometric_features, kinetic_features
from audio2pose.skeleton import SMPL_24, rest_positions

MUSIC = np.arange(.25, 16, .5)
seeds = st.integers(0, 2**32-1)
quick = settings(max_examples=25, deadline=None)


def walk(seed, frames=90):
    "Rest pose plus random walks"
    rng = np.random.default_rng(seed)
    return rest_positions(SMPL_24)+[0, 1, 0]+.01*rng.normal(size=(frames, 24, 3)).cumsum(0)


@pytest.fixture(scope="module")
def dance(): return choreograph(MUSIC, np.full(len(MUSIC), .6), 16., "MH", 3).motion


# ---- features, one frame at a time, straight from the definition

def kinetic_by_loop(p, fps=60., bracket=True):
    last = len(p)-1
    features = np.zeros((24, 3))
    for joint in range(24):
        for i in range(1, last+1):
            speeds,pushes = [],[]
            for j in range(-2, 3):
                k = i+j
                if k-1>=0 and k<=last: speeds.append((p[k, joint]-p[k-1, joint])*fps)
                if k-1>=0 and k+1<=last:
                    before = p[k, joint]-p[k-1, joint]*fps if bracket else (p[k, joint]-p[k-1, joint])*fps
                    pushes.append(((p[k+1, joint]-p[k, joint])*fps-before)*fps)
            v,a = np.mean(speeds, 0),np.mean(pushes, 0)
            features[joint] += [v[0]**2+v[2]**2, v[1]**2, np.linalg.norm(a)]
    return (features/last).ravel()


@pytest.mark.parametrize("frames", [3, 4, 5, 6, 7, 20])
@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_kinetic_is_its_definition(frames, variant):
    p = walk(frames, frames)
    np.testing.assert_allclose(kinetic_features(p, variant=variant), kinetic_by_loop(p, bracket=variant=="published"), rtol=1e-5)


@quick
@given(seeds, st.tuples(*[st.floats(-5, 5)]*3))
def test_kinetic_and_the_origin(seed, shift):
    "Moving the clip leaves 48 numbers alone, and all 72 once corrected"
    p = walk(seed)
    here,there = kinetic_features(p),kinetic_features(p+np.array(shift))
    velocities = np.arange(72)%3!=2
    np.testing.assert_allclose(here[velocities], there[velocities], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(kinetic_features(p, variant="corrected"), kinetic_features(p+np.array(shift), variant="corrected"), rtol=1e-3)


def test_kinetic_of_plain_motions():
    still = np.tile(walk(0, 1), (30, 1, 1))
    effort = kinetic_features(still)[2::3]
    np.testing.assert_allclose(effort, 3540*np.linalg.norm(still[0], axis=-1), rtol=1e-5)
    assert not kinetic_features(still, variant="corrected").any()
    gliding = still+np.arange(30)[:, None, None]/60*np.array([.3, .5, .4])
    features = kinetic_features(gliding, variant="corrected").reshape(24, 3)
    np.testing.assert_allclose(features, np.tile([.25, .25, 0], (24, 1)), atol=1e-6)


@quick
@given(seeds)
def test_geometric_features_are_shares(seed):
    for variant in extractors:
        features = geometric_features(walk(seed), variant=variant)
        assert ((features>=0)&(features<=1)).all()
        if variant!="corrected": assert features[4]==features[5]


def test_geometric_features_turn_with_the_dancer(dance):
    "Relational features do not depend on where the dancer stands or faces"
    turn = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0.]])
    p = dance.positions()
    np.testing.assert_allclose(geometric_features(p@turn.T+[3, 0, -2]), geometric_features(p), atol=.01)


@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_features_at_half_the_rate(dance, variant):
    full,half = dance.positions(),dance.resample(30).positions()
    np.testing.assert_allclose(geometric_features(half, 30, variant), geometric_features(full, 60, variant), atol=.05)
    if variant=="corrected": np.testing.assert_allclose(kinetic_features(half, 30, variant), kinetic_features(full, 60, variant), rtol=.15, atol=.01)


def test_degenerate_limbs_answer_no():
    "Joints in one point have no plane and no angle"
    features = geometric_features(np.zeros((5, 24, 3)))
    assert np.isfinite(features).all()


def test_corrected_right_angles_survive_rounding():
    "A straight arm along (1, 1, 1)/√3 may have a cosine above 1: no angle as published, 0 or π when corrected"
    p = np.tile(rest_positions(SMPL_24), (3, 1, 1))
    for joint,parent in SMPL_24.bones: p[:, joint] = p[:, parent]+.1
    assert np.isfinite(geometric_features(p, variant="corrected")).all()


# ---- distances

@quick
@given(seeds, st.integers(40, 80))
def test_frechet_distance_is_a_distance(seed, count):
    rng = np.random.default_rng(seed)
    a,b = rng.normal(size=(count, 6)),rng.normal(size=(count, 6))@rng.normal(size=(6, 6))+rng.normal(size=6)
    assert frechet_distance(a, a)==pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b)==pytest.approx(frechet_distance(b, a), rel=1e-8)
    assert frechet_distance(a, b)>0
    assert frechet_distance(a, a+3)==pytest.approx(6*9, rel=1e-9)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert frechet_distance(a@turn, b@turn)==pytest.approx(frechet_distance(a, b), rel=1e-8)


def test_few_clips_are_called_few():
    with pytest.warns(UserWarning, match="5 clips cannot fill 32 dimensions"): frechet_distance(np.eye(5, 32), np.eye(40, 32))


@quick
@given(seeds)
def test_diversity_by_pairs(seed):
    a = np.random.default_rng(seed).normal(size=(7, 3))
    pairs = [np.linalg.norm(a[i]-a[j]) for i in range(7) for j in range(i)]
    assert diversity(a)==pytest.approx(np.mean(pairs))


# ---- beats

@quick
@given(seeds, st.floats(-.05, .05))
def test_alignment_falls_with_distance(seed, offset):
    beats = np.sort(np.random.default_rng(seed).choice(400, 20, replace=False))*.5
    assert beat_align(beats+offset, beats)==pytest.approx(np.exp(-offset**2/(2*.05**2)))
    assert beat_align(beats+offset, beats)>=beat_align(beats+2*offset, beats)-1e-12


@pytest.mark.parametrize("protocol", ["mint-2021", "bailando-2022"])
def test_known_minima(protocol):
    "A body that stops every half second"
    time = np.arange(240)/60+.003
    travel = time-np.sin(4*np.pi*time)/(4*np.pi) # Speed 1-cos: zero at multiples of 0.5 s
    beats = kinematic_beats(travel[:, None, None]*np.array([1., 0, 0])+np.zeros((1, 24, 1)), 60, protocol)
    np.testing.assert_allclose(beats, np.arange(.5, 4, .5)[:len(beats)], atol=1.01/60)
    assert len(beats)>=6


@pytest.mark.parametrize("protocol", ["mint-2021", "bailando-2022"])
def test_beats_at_half_the_rate(dance, protocol):
    full = beat_score(dance.positions(), MUSIC, 60, protocol)
    assert beat_score(dance.resample(30).positions(), MUSIC, 30, protocol)==pytest.approx(full, abs=.05) # A grid of 33 ms costs up to .02


def test_margin_of_deaf_dancers():
    "A dancer who does not hear the song is at chance, whatever the score"
    rng = np.random.default_rng(5)
    margins = [beat_margin(np.sort(rng.uniform(0, 60, 110)), np.arange(.1, 60, .5), 60., seed=k) for k in range(20)]
    assert abs(np.mean(margins))<.02
    assert beat_margin(np.arange(.1, 60, .5), np.arange(.1, 60, .5), 60.)>.6


@quick
@given(st.floats(0, 100), seeds)
def test_shifted_beats_stay_in_the_clip(shift, seed):
    beats = np.sort(np.random.default_rng(seed).uniform(0, 10, 12))
    moved = shifted_beats(beats, shift, 10.)
    assert len(moved)==12 and (moved>=0).all() and (moved<10).all() and (np.diff(moved)>=0).all()
    np.testing.assert_allclose(shifted_beats(moved, -shift%10, 10.), beats, atol=1e-9)


# ---- contact

def test_physics_does_not_depend_on_the_place(dance):
    p = dance.positions()
    turn = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0.]])
    moved = p@turn.T+[4, 0, 1]
    for metric in (pfc, foot_skating, freezing, liveliness, jerk): assert metric(moved, 60)==pytest.approx(metric(p, 60), rel=1e-6)
    assert penetration(moved)==pytest.approx(penetration(p))


def test_diagonal_slide_is_caught_only_when_fixed():
    still = np.tile(rest_positions(SMPL_24), (60, 1, 1))
    slide = still+np.arange(60)[:, None, None]/60*np.array([1, 0, -1.])
    assert foot_skating(slide, 60, "published")==0
    assert foot_skating(slide, 60)>.95


@quick
@given(seeds)
def test_pooled_contacts_lie_between_the_feet(seed):
    p = walk(seed)
    slides,down = foot_contact_and_skating(p, 60)
    pooled = sliding_contacts(p, 60)
    if not down.any(): assert np.isnan(pooled)
    else:
        each = [slides[:, k].sum()/down[:, k].sum() for k in range(2) if down[:, k].any()]
        assert min(each)-1e-12<=pooled<=max(each)+1e-12
        assert pooled==pytest.approx(slides.sum()/down.sum()) and contact_summary(p, 60)["sliding_contacts"]==pooled


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_hardly_any_frames(frames):
    summary = contact_summary(walk(0, 4)[:frames], 60)
    assert set(summary)=={"pfc", "foot_skating", "sliding_contacts", "freezing", "liveliness", "penetration", "jerk", "exploded"}


def test_freezing_ignores_short_stops():
    time = np.arange(600)/60
    p = np.zeros((600, 24, 3))+np.where(time%2<1.6, np.sin(6*time), np.sin(6*1.6))[:, None, None] # Stops of 0.4 s
    assert freezing(p, 60)==0


def test_real_motion_is_calm(real_motion):
    p = real_motion.positions()
    assert not exploded(p) and freezing(p, 60)<.05 and 50<jerk(p, 60)<1000
    assert np.isfinite(foot_skating(p, 60))


def test_wrong_names_are_told():
    p = walk(1)
    for call in (lambda: kinetic_features(p, variant="x"), lambda: geometric_features(p, variant="x"), lambda: kinematic_beats(p, 60, "x"), lambda: foot_skating(p, 60, "x")):
        with pytest.raises(InputError, match="'x'"): call()
