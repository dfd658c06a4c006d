"""Ten thousand items: how long until the first is begun, and how long a run takes that finds all of them done. Not part of the tests; ask for it:

    OMP_NUM_THREADS=1 pytest -m benchmark -s tests/benchmarks/test_workers_speed.py
"""
import resource
from time import perf_counter

import pytest

from audio2pose.engine.ledger import Job, Outcome, file_records

from audio2pose.engine.workers import run_jobs

pytestmark = pytest.mark.benchmark


def test_ten_thousand_items(tmp_path):
    "500 films of 20 segments, a file each"
    out,first = tmp_path/"out",[]
    def work(jobs):
        for job in jobs:
            if not first: first.append(perf_counter())
            for key in job.items:
                path = out/f"{key}.npy"
                path.write_bytes(b"x"*128)
                yield Outcome(key, "made", files=file_records(out, path))
    def jobs(): return (Job(f"film{film}", {f"film{film}-{i:03}": None for i in range(20)}) for film in range(500))
    begun = perf_counter()
    made = run_jobs(jobs(), work, out, {}, progress=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    again = run_jobs(jobs(), work, out, {}, progress=False)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before
    assert made.outcomes["made"]==again.kept["made"]==10_000
    print(f"\nbegun after {first[0]-begun:.2f} s, all done and written down after {made.seconds:.1f} s; found done in {again.seconds:.2f} s, with {more/1024:.1f} MB more at the peak") # noqa: T201
