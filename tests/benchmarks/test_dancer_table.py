"""The shipped dancer and FACT small side by side, over composed songs with known beats: run `17_dancers`, and what its table must say. Hours on two cores with the defaults;

    pytest -m benchmark -s tests/benchmarks/test_dancer_table.py
    AUDIO2POSE_SONGS=3 AUDIO2POSE_SEEDS=2 pytest -m benchmark -s tests/benchmarks/test_dancer_table.py
"""
import os
import sys

import pytest

from audio2pose.engine.runs import collect_runs, run_many

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.timeout(0)]
SONGS = int(os.environ.get("AUDIO2POSE_SONGS", 10))
SEEDS = int(os.environ.get("AUDIO2POSE_SEEDS", 4))


def test_side_by_side(shared, tmp_path, record_property):
    run_many("17_dancers", [dict(songs=SONGS, seeds=SEEDS, seconds=45., variety_seeds=10, longest=600., music=str(shared("real/music")))], tmp_path)
    metrics = next(record["metrics"] for record in collect_runs(tmp_path) if record["status"]=="done")
    sys.stdout.write(f"\n{metrics['songs']} songs of {metrics['seconds']:g} s, seeds 0 to {SEEDS-1}\n{metrics['text']}\n")
    record_property("table", metrics["table"])
    ours,fact = metrics["table"]["MotionFlow"],metrics["table"]["FACT small"]
    assert ours["precision"]>=.6 and ours["recall"]>=.3 and ours["recall"]>3*fact["recall"]
    assert .2<=ours["travel"]<=.6 and 25<=ours["turning"]<=100 and .4<=ours["ankle_speed"]<=1.2 and .8<=ours["wrist_speed"]<=2
    assert ours["largest_rotation"]<=25 and ours["sliding"]<.03 and ours["deepest_cm"]<=2 and ours["copied_share"]<.1
