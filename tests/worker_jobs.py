"Work for the tests of long work: what worker processes can import"
import os
import signal
import time
from pathlib import Path

from audio2pose.core import atomic
from audio2pose.engine.ledger import Outcome, PerJob, file_records


class Writes:
    "Writes a file for each item, and a line for each time it is begun; what else happens stands in the item"
    def __init__(self, out): self.out = Path(out)

    def __call__(self, job):
        for key,what in job.items.items():
            with open(self.out.parent/"begun.txt", "a") as log: log.write(f"{key}\n")
            happen(what, self.out.parent/f"{key}.was-here")
            path = self.out/f"{key}.txt"
            with atomic(path) as scratch: scratch.write_text(f"result of {key}")
            yield Outcome(key, "made", files=file_records(self.out, path))
            if what=="dies after": os.kill(os.getpid(), signal.SIGKILL)


def happen(what, trace):
    "Something to one item"
    first = not trace.exists()
    trace.touch()
    if isinstance(what, float): time.sleep(what)
    if what=="dies" or (what=="dies once" and first): os.kill(os.getpid(), signal.SIGKILL)
    if what=="hangs" or (what=="slow five times" and times(trace)<=5): time.sleep(600)
    if what=="raises": raise ValueError("this one cannot be read")
    if what=="full disk": Path("/dev/full").write_text("x")


def times(trace):
    "How often this was asked"
    with open(f"{trace}-times", "a") as log: log.write(".")
    return Path(f"{trace}-times").stat().st_size


def worker(out): return PerJob(Writes(out))
