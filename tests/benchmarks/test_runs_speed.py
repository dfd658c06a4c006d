"""A grid on one worker and on two, in one run; and a grid that is finished. Not part of the tests; ask for it, on two quiet cores:

    OMP_NUM_THREADS=1 pytest -m benchmark -s tests/benchmarks/test_runs_speed.py
"""
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest

pytestmark = pytest.mark.benchmark
COMMAND = Path(sys.executable).with_name("audio2pose")


def seconds(*words, **options):
    "How long a command takes; it must succeed"
    begun = perf_counter()
    subprocess.run([COMMAND, "run", *words], check=True, capture_output=True, **options)
    return perf_counter()-begun


def test_sixteen_smoke_runs(tmp_path):
    seeds = ", ".join(map(str, range(16)))
    (tmp_path/"grid.yaml").write_text(f"notebook: 4_train\nparameters: {{steps: 4, batch: 2}}\ngrid: {{seed: [{seeds}]}}\n")
    one,two = (seconds("--grid", "grid.yaml", "--workers", workers, "--out", f"runs{workers}", cwd=tmp_path) for workers in ("1", "2"))
    again = min(seconds("--grid", "grid.yaml", "--workers", "2", "--out", "runs2", cwd=tmp_path) for _ in range(3))
    print(f"\n16 smoke runs: {one:.1f} s on one worker, {two:.1f} s on two ({two/one:.2f}); the second call {again:.2f} s")
    assert two<=.6*one
    assert again<3
