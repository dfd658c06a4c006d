"""Frames per second of the film, encoding and song included. Not part of the tests; ask for it on a quiet machine:

    pytest -m benchmark -s tests/benchmarks/test_film_speed.py
"""
import os
import subprocess
import sys
from dataclasses import replace
from time import perf_counter, process_time

import av
import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.benchmark


def dance(frames):
    "Every joint moves, no two frames are alike"
    from audio2pose.motion import Motion
    time = np.arange(frames)[:, None, None]/60
    speed,phase = np.random.default_rng(0).uniform(.5, 2, (2, 1, 24, 3))
    poses = .25*np.sin(2*np.pi*speed*time+phase)
    motion = Motion(poses, np.zeros((frames, 3)))
    return replace(motion, trans=np.stack([.3*np.sin(time[:, 0, 0]), .03-motion.positions()[:, [10, 11], 1].min(1), 0*time[:, 0, 0]], 1))


@pytest.mark.parametrize("travel", [0, 12])
def test_film(tmp_path, travel, frames=1200):
    from audio2pose.show import film
    soundfile.write(tmp_path/"song.wav", .1*np.random.default_rng(0).normal(size=frames*800), 48000)
    film.render(dance(4), tmp_path/"warm.mp4", progress=False)
    motion = dance(frames)
    motion = replace(motion, trans=motion.trans+np.linspace(0, travel, frames)[:, None]*[1, 0, 0])
    start,busy = perf_counter(),process_time()
    film.render(motion, tmp_path/"film.mp4", tmp_path/"song.wav", progress=False)
    seconds,busy = perf_counter()-start,process_time()-busy
    size = (tmp_path/"film.mp4").stat().st_size
    print(f"\ntravel {travel} m: {frames/seconds:.0f} frames/s, {1000*busy/frames:.1f} ms of processor per frame, {size*8/frames*60/1e6:.1f} Mbit/s, load {os.getloadavg()[0]:.1f}")
    assert frames/seconds>60


def test_what_a_frame_costs(tmp_path, frames=300):
    "Processor time of drawing and of encoding, each alone: what the film could be at best, were all processors free and all else nothing"
    from audio2pose.show import film
    def timed(work):
        start,busy = perf_counter(),process_time()
        found = work()
        return found,perf_counter()-start,1000*(process_time()-busy)/frames
    def encode():
        with av.open(str(tmp_path/"encoded.mp4"), "w") as container:
            stream = film.add_video_stream(container, 1280, 720, 60)
            for i,picture in enumerate(pictures):
                picture.pts = i
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    film.render(dance(4), tmp_path/"warm.mp4", progress=False)
    motion = dance(frames)
    pictures,_,drawing = timed(lambda: list(film.rendered_frames(motion, 1280, 720, None)))
    encoding = min(timed(encode)[2] for _ in range(3))
    _,seconds,both = timed(lambda: film.render(motion, tmp_path/"film.mp4", progress=False))
    most = lambda cost: 1000*(os.cpu_count() or 1)/cost
    print(f"\ndrawing {drawing:.1f} ms, encoding {encoding:.1f} ms of processor a frame, together in a film {both:.1f}; on {os.cpu_count()} free processors at most "
          f"{most(encoding):.0f} frames/s if drawing cost nothing, {most(drawing+encoding):.0f} as it is; made {frames/seconds:.0f}, load {os.getloadavg()[0]:.1f}")
    assert both<1.5*(drawing+encoding), "a film costs more than its parts"


def test_first_picture_compiles_quickly(tmp_path):
    "In a fresh process with an empty cache"
    code = "from audio2pose.show.canvas import render_frame; from audio2pose.motion import Motion; import numpy as np, time; t = time.process_time(); " \
           "render_frame(Motion(np.zeros((1, 24, 3)), np.zeros((1, 3))), 0); print(time.process_time()-t)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "1"}, capture_output=True, text=True, check=True)
    print(f"\nfirst picture: {float(done.stdout):.1f} s of processor")
    assert float(done.stdout)<15
