"Work for the tests of long work: what worker processes can import"
import os
import signal
import time
from pathlib import Path

from audio2pose.core import atomic
from audio2pose.engine.workers import Each, Outcome, written


class Writes:
    "Writes a file for each item, and a line for each time it is begun; what else happens stands in the item"
    def __init__(self, out): self.out = Path(out)

    def __call__(self, job):
        for key,what in job.parts.items():
            with open(self.out.parent/"begun.txt", "a") as log: log.write(f"{key}\n")
            happen(what, self.out.parent/f"{key}.was-here")
            path = self.out/f"{key}.txt"
            with atomic(path) as scratch: scratch.write_text(f"result of {key}")
            yield Outcome(key, "made", files=written(self.out, path))
            if what=="dies after": os.kill(os.getpid(), signal.SIGKILL)


def happen(what, trace):
    "Something to one item"
    first = not trace.exists()
    trace.touch()
    if isinstance(what, float): time.sleep(what)
    if what=="dies" or (what=="dies once" and first): os.kill(os.getpid(), signal.SIGKILL)
    if what=="hangs": time.sleep(600)
    if what=="raises": raise ValueError("this one cannot be read")
    if what=="full disk": Path("/dev/full").write_text("x")


def worker(out): return Each(Writes(out))
