"""How much faster than the song the live dancer is, from sound to frames, and how long after the sound its frame is there. Not part of the tests; ask for it on a quiet machine:

    pytest -m benchmark -s tests/benchmarks/test_live_speed.py
"""
import os
from time import perf_counter, process_time

import numpy as np
import pytest

pytestmark = pytest.mark.benchmark
CHUNK = .1 # s of sound that arrive together


def test_live(bpm=120, seconds=60):
    "A song of clicks, chunk by chunk: seconds of song per second, and the delay of a frame, which waits for the end of its chunk and then for what the chunk costs"
    from audio2pose.commands.live import song_chunks
    from audio2pose.core import SR
    from audio2pose.live import LiveDancer, LiveStream
    from audio2pose.models.motion_flow import MotionFlow
    t = np.arange(seconds*SR)/SR
    sound = (.8*np.sin(2*np.pi*1000*t)*np.exp(-(t%(60/bpm))/.01)+.05*np.sin(2*np.pi*220*t)).astype(np.float32)
    model = MotionFlow.from_pretrained()
    warm = LiveStream(LiveDancer(model))
    for chunk in song_chunks(sound[:3*SR]): warm.feed(chunk) # Compiled and loaded
    stream,waits,begun,busy = LiveStream(LiveDancer(model)),[],perf_counter(),process_time()
    for chunk in song_chunks(sound):
        start = perf_counter()
        stream.feed(chunk)
        waits.append(perf_counter()-start)
    wall,busy = perf_counter()-begun,process_time()-busy
    cost,beat = 1000*np.array(waits),60_000/bpm
    print(f"\nlive: {seconds/wall:.1f} times real time, {seconds/busy:.1f} per second of processor, {stream.dancer.windows} stretches, load {os.getloadavg()[0]:.1f}")
    print(f"delay at {bpm} bpm (a beat is {beat:.0f} ms): {1000*CHUNK/2+np.median(cost):.0f} ms in the middle, {1000*CHUNK+np.percentile(cost, 99):.0f} at the 99th percentile, {1000*CHUNK+cost.max():.0f} at most")
    assert stream.frames==60*seconds and seconds/wall>3
    assert 1000*CHUNK+np.percentile(cost, 99)<beat
