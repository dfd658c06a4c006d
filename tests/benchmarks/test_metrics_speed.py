"""Features of whole clips against a loop over frames that does the same sums, and how long an evaluation takes.

`pytest tests/benchmarks/test_metrics_speed.py -s` prints the figures. Only ratios of one run are asserted."""
from time import perf_counter

import numpy as np
import pytest

from audio2pose.data.choreography import choreograph
from audio2pose.evaluate import evaluate
from audio2pose.metrics.motion import extractors, geometric_features, kinetic_features, relations
from audio2pose.skeleton import SMPL_24

pytestmark = pytest.mark.benchmark
FPS = 60.


@pytest.fixture(scope="module")
def dances():
    counts = np.arange(.3, 20, .5)
    return [choreograph(counts, np.full(len(counts), .6), 20., genre, seed).motion for genre in ("HO", "KR", "JB", "LO") for seed in range(10)]


# ---- one frame at a time, straight from the definitions

def kinetic_by_loop(p):
    last,features = len(p)-1,np.zeros((24, 3))
    for joint in range(24):
        for i in range(1, last+1):
            speed,push,steps,pushes = np.zeros(3),np.zeros(3),0,0
            for k in range(i-2, i+3):
                if k-1<0 or k>last: continue
                speed += (p[k, joint]-p[k-1, joint])*FPS
                steps += 1
                if k+1>last: continue
                push += ((p[k+1, joint]-p[k, joint])*FPS-(p[k, joint]-p[k-1, joint]*FPS))*FPS
                pushes += 1
            v,a = speed/steps,push/pushes if pushes else np.full(3, np.nan)
            features[joint] += v[0]**2+v[2]**2, v[1]**2, np.sqrt(a@a)
    return (features/last).ravel()


def length(x): return np.sqrt(x@x)


def one_answer(q, before, now, body):
    "The answer to a question in one frame"
    p,old = [[pose[SMPL_24.names.index(joint)] for joint in q.joints] for pose in (now, before)]
    limit,rate = q.threshold if q.unit=="degrees" else q.threshold*getattr(body, q.unit),FPS/body.step
    up,floor = np.array([0, 1., 0]),np.array([0, now[:, 1].min(), 0])
    def angle(a, b): return np.degrees(np.arccos(a@b/(length(a)*length(b))))
    if q.kind=="normal": return (p[3]-p[2])@(p[1]-p[0])/length(p[1]-p[0])>limit
    if q.kind in ("plane", "sweep"):
        normal = np.cross(p[2]-p[0], p[1]-p[0])
        far = p[3]-p[0] if q.kind=="plane" else (p[3]-p[0]-old[3]+old[0])*rate
        return far@normal/length(normal)>limit
    if q.kind=="above": return (p[0]-floor)@up>limit
    if q.kind=="below": return (p[0]-floor)@-up>-limit
    if q.kind=="angle": return limit[0]<angle(p[1]-p[0], p[3]-p[2])<limit[1]
    if q.kind=="upright": return limit[0]<angle(p[1]-p[0], up)<limit[1]
    if q.kind=="fast": return length(p[0]-old[0])*rate>limit
    return (p[2]-p[0]-old[2]+old[0])*rate@(p[1]-p[0])/length(p[1]-p[0])>limit


def geometric_by_loop(p):
    return np.mean([[one_answer(q, p[t-1], p[t], extractors["published"]) for q in relations] for t in range(1, len(p))], 0)


def seconds(work, x, times=1):
    start = perf_counter()
    for _ in range(times): work(x)
    return (perf_counter()-start)/times


def test_thirty_times_a_loop(dances):
    "Each extractor, measured in turns so that a busy machine slows both"
    p = dances[0].positions()
    np.testing.assert_allclose(kinetic_by_loop(p), kinetic_features(p), rtol=1e-5)
    np.testing.assert_allclose(geometric_by_loop(p), geometric_features(p), atol=2/len(p))
    for name,fast,slow in (("kinetic", kinetic_features, kinetic_by_loop), ("geometric", geometric_features, geometric_by_loop)):
        ratios,rates = [],[]
        for _ in range(3):
            quick = seconds(fast, p, 10)
            ratios.append(seconds(slow, p)/quick)
            rates.append(len(p)/quick)
        print(f"\n{name}: {max(rates):,.0f} frames/s, {sorted(ratios)[1]:.0f} times a loop")
        assert sorted(ratios)[1]>=30


def test_forty_dances_of_twenty_seconds(dances):
    "Printed, not asserted: a busy machine is slow. An evaluation, baselines and 200 draws included, must cost less than the loop over a tenth of its features"
    music = {f"motion {i}": np.arange(.3, 20, .5+.01*(i%4)) for i in range(40)}
    whole = seconds(lambda x: evaluate({f"motion {i}": m for i,m in enumerate(x)}, x[::-1], "bailando-2022", music), dances)
    loop = seconds(lambda x: (kinetic_by_loop(x), geometric_by_loop(x)), dances[0].positions())
    print(f"\n40 dances of 20 s against 40: {whole:.1f} s; a loop over frames takes {loop:.1f} s for the features of one")
    assert whole<10*loop
