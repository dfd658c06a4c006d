"How fast data is prepared and windows are read; ratios within one run"
import subprocess
import sys
import time

import numpy as np
import pytest

from audio2pose.data.prepare import prepare
from audio2pose.data.synthetic import synthesise
from audio2pose.data.windows import Store, sample_windows, random_sequences, write_store

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]


@pytest.mark.timeout(900)
def test_both_cores_prepare(tmp_path, record_property):
    "Two workers against one on 200 sequences, and a second run that finds nothing to do"
    synthesise(tmp_path/"tree", 200, seconds=8, workers=2, progress=False)
    prepare(tmp_path/"tree", tmp_path/"warm", genre="BR", workers=1, progress=False) # Compiled, imported
    took = {}
    for workers in (1, 2):
        clock = time.perf_counter()
        assert prepare(tmp_path/"tree", tmp_path/f"out{workers}", workers=workers, progress=False).made==200
        took[workers] = time.perf_counter()-clock
    clock = time.perf_counter()
    assert prepare(tmp_path/"tree", tmp_path/"out2", workers=2, progress=False).made==0
    again = time.perf_counter()-clock
    record_property("prepare", f"1 worker {took[1]:.1f} s, 2 workers {took[2]:.1f} s: {took[1]/took[2]:.2f}x; second run {again:.2f} s")
    assert (tmp_path/"out1/windows/motion.npy").read_bytes()==(tmp_path/"out2/windows/motion.npy").read_bytes()
    assert again<.1*took[2]


def test_windows_reach_a_loop(tmp_path, record_property):
    write_store(random_sequences(50, 1500), tmp_path/"store")
    store,rng = Store(tmp_path/"store"),np.random.default_rng(0)
    sample_windows(store, 32, rng)
    clock = time.perf_counter()
    for _ in range(40): sample_windows(store, 32, rng)
    record_property("windows", f"{40*32/(time.perf_counter()-clock):.0f} windows/s")
    assert isinstance(store.motion, np.memmap) and isinstance(store.audio, np.memmap)


SAMPLE = """
import resource, sys
import numpy as np
from audio2pose.data.windows import Store, sample_windows
store, rng = Store(sys.argv[1]), np.random.default_rng(0)
for _ in range(20): sample_windows(store, 32, rng)
anonymous = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")][0]
sys.stdout.write(str(anonymous))
"""


def test_memory_does_not_grow_with_the_set(tmp_path):
    "Ten times as many sequences, the same memory (pages of the mapped file aside, which are the system's cache)"
    used = {}
    for count in (20, 200):
        write_store(random_sequences(count, 1500), tmp_path/str(count))
        used[count] = int(subprocess.run([sys.executable, "-c", SAMPLE, str(tmp_path/str(count))], capture_output=True, text=True, check=True).stdout)
    assert used[200]<used[20]+20_000, f"{used} kB, and the larger store has {200*1500*254*4//1000} kB"
