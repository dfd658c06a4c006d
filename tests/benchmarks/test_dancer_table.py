"""The shipped dancer and FACT small side by side, over songs with known beats and real ones: the numbers of issue and report. Hours on two cores with the defaults;

    pytest -m benchmark -s tests/benchmarks/test_dancer_table.py
    AUDIO2POSE_SONGS=3 AUDIO2POSE_SEEDS=2 pytest -m benchmark -s tests/benchmarks/test_dancer_table.py
"""
import os

import numpy as np
import pytest

from audio2pose import audio
from audio2pose.beats import beats_from, with_beats
from audio2pose.data.music import compose
from audio2pose.generate import generate_dance, generate_flow_dance, load_dancer
from audio2pose.metrics.beat import beat_margin, kinematic_beats
from audio2pose.metrics.contact import jerk, liveliness, penetration, sliding_contacts
from audio2pose.metrics.realism import to_clip, fit_space, load_reference, nearest_distances, realism, variety, windows_of
from audio2pose.models.fact import FACT

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.timeout(0)]
REAL_SONGS = ("noiz2sa_stg4", "panic_on_meadow", "parsec47_ptn0")
COMPOSED = int(os.environ.get("AUDIO2POSE_SONGS", 10))
SEEDS = int(os.environ.get("AUDIO2POSE_SEEDS", 4))
SECONDS = 45


@pytest.fixture(scope="module")
def songs(shared):
    "Name → samples, rate, true beats (s) or None"
    made = {song.style+str(k): (song.y, song.sr, song.beats) for k,song in enumerate(compose(100+k, seconds=SECONDS) for k in range(COMPOSED))}
    for name in REAL_SONGS[:max(COMPOSED//3, 1)]:
        y,sr = audio.load(shared(f"real/music/{name}.ogg"))
        made[name] = y[:SECONDS*sr],sr,None
    return made


def dance_to(model, y, sr, seed):
    "As `dance` does"
    features = audio.features(y, sr, frames=audio.motion_frame_count(y, sr))
    found = beats_from(None, y, sr)
    if isinstance(model, FACT): return generate_dance(model, with_beats(features, found.step_times()), seed)
    return generate_flow_dance(model, with_beats(features, found.step_times()), seed)


def copied_share(clips, reference):
    "Share of windows nearer to the references than the nearest twentieth of held-out real windows is to the others"
    ours,theirs = windows_of(clips),reference.windows
    held = np.isin(theirs.clips, np.unique(theirs.clips)[2::5])
    space = fit_space(theirs.features[~held], ours.known&theirs.known)
    rest = space.project(theirs.features[~held])
    limit = np.percentile(nearest_distances(space.project(theirs.features[held]), rest), 5)
    return float((nearest_distances(space.project(ours.features), rest)<limit).mean())


def table_of(model, songs):
    "Measure → mean over songs and seeds; of what must never happen the worst"
    dances,rows,reference = {},[],load_reference()
    for name,(y,sr,beats) in songs.items():
        dances[name] = [dance_to(model, y, sr, seed) for seed in range(SEEDS)]
        for motion in dances[name]:
            positions,row = motion.positions(),{}
            stops = kinematic_beats(positions)
            if beats is not None and len(stops):
                nearest = stops[np.abs(stops-beats[:,None]).argmin(1)]-beats
                row |= dict(margin=beat_margin(stops, beats, motion.seconds, sigma=.05), offset_ms=1000*float(np.median(nearest[np.abs(nearest)<.2])))
            rows.append(row|dict(song=name, skating=sliding_contacts(positions, 60), depth_cm=100*penetration(positions), jerk60=jerk(positions, 60), liveliness=liveliness(positions, 60)))
    clips = {name: [to_clip(motion) for motion in several] for name,several in dances.items()}
    every = [clip for several in clips.values() for clip in several]
    found = realism(every, reference)
    of = lambda key: np.array([row[key] for row in rows if key in row])
    margins = {name: float(np.mean([row["margin"] for row in rows if row["song"]==name])) for name,(_,_,beats) in songs.items() if beats is not None}
    return dict(precision=found.precision, recall=found.recall, **found.measures, copying=found.copying, copied_share=copied_share(every, reference),
                margin=float(of("margin").mean()), least_margin_of_a_song=min(margins.values()), offset_ms=float(np.median(of("offset_ms"))), skating=float(of("skating").mean()),
                deepest_cm=float(of("depth_cm").max()), liveliness=float(np.median(of("liveliness"))), least_lively=float(of("liveliness").min()), variety_cm=100*float(np.mean([variety(several) for several in clips.values()])))


def test_side_by_side(songs, record_property):
    reference = load_reference()
    tables = {name: table_of(load_dancer(model), songs) for name,model in (("MotionFlow", None), ("FACT small", "fact"))}
    print(f"\n{len(songs)} songs of {SECONDS} s, seeds 0 to {SEEDS-1}\n| | MotionFlow | FACT small | real dancers |\n|---|---:|---:|---:|")
    for key in tables["MotionFlow"]: print(f"| {key} | {tables['MotionFlow'][key]:.3g} | {tables['FACT small'][key]:.3g} | {reference.measures.get(key, float('nan')):.3g} |")
    record_property("table", tables)
    ours,fact = tables["MotionFlow"],tables["FACT small"]
    assert ours["precision"]>=.6 and ours["recall"]>=.3 and ours["recall"]>3*fact["recall"]
    assert .2<=ours["travel"]<=.6 and 25<=ours["turning"]<=100 and .4<=ours["ankle_speed"]<=1.2 and .8<=ours["wrist_speed"]<=2
    assert ours["largest_rotation"]<=25 and ours["skating"]<.03 and ours["deepest_cm"]<=2 and ours["copied_share"]<.1
