"""How much faster than the song the live dancer is, from sound to frames, and how long after the sound its frame is there. Not part of the tests; ask for it on a quiet machine:

    pytest -m benchmark -s tests/benchmarks/test_live_speed.py
"""
import os
from time import perf_counter, process_time

import numpy as np
import pytest

pytestmark = pytest.mark.benchmark
CHUNK = .1 # s of sound that arrive together


def network_floor(model, bpm):
    "Billions of operations that the network needs for a second of song, and the seconds they take on one core at the speed of a large matrix product"
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from audio2pose.models.motion_features import FEATURES
    from audio2pose.models.motion_flow import CONDITIONS
    from audio2pose.models.motion_flow_sampling import one_thread
    frames,square = model.config.frames,torch.randn(1024, 1024)
    state = torch.zeros(1, frames, FEATURES),torch.zeros(1, frames, FEATURES),torch.zeros(1),torch.zeros(1, frames, CONDITIONS),torch.zeros(1, dtype=torch.long)
    with torch.inference_mode(), one_thread():
        with FlopCounterMode(display=False) as counter: model.classifier_free_guidance(*state, paired=True)
        begun = process_time()
        for _ in range(10): square@square
        rate = 10*2*1024**3/(process_time()-begun)
    needed = 8*counter.get_total_flops()/(4*60/bpm) # Eight steps, four beats
    return needed/1e9, needed/rate

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
    stream,waits,busy = LiveStream(LiveDancer(model)),[],[]
    for chunk in song_chunks(sound):
        start,spent = perf_counter(),process_time()
        stream.feed(chunk)
        waits.append(perf_counter()-start)
        busy.append(process_time()-spent)
    beat,needed = 60_000/bpm,network_floor(model, bpm)
    print(f"\nlive: {seconds/sum(waits):.1f} times real time, {seconds/sum(busy):.1f} by the processor's clock, {stream.dancer.windows} stretches, load {os.getloadavg()[0]:.1f}")
    print(f"the network's floor: {needed[0]:.2f} GFLOP for a second of song, {1000*needed[1]:.0f} ms of {1000*sum(busy)/seconds:.0f}")
    for name,costs in (("by the clock on the wall", waits), ("by the processor's", busy)): # The same on a quiet machine
        cost = 1000*np.array(costs)
        print(f"delay at {bpm} bpm, {name} (a beat is {beat:.0f} ms): {1000*CHUNK/2+np.median(cost):.0f} ms in the middle, {1000*CHUNK+np.percentile(cost, 99):.0f} at the 99th percentile, {1000*CHUNK+cost.max():.0f} at most")
    assert stream.frames==60*seconds and seconds/sum(waits)>3
    assert 1000*(CHUNK+max(waits))<beat
