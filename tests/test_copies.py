"Copies of a process do what new processes do: what they print, how they end, what they find, and how they are killed"
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import copies
import pytest

pytestmark = pytest.mark.skipif(not copies.CAN_COPY, reason="processes are not copied here")
PROGRAMS = {
    "prints": "import sys; print('out', flush=True); print('err', file=sys.stderr)",
    "ends with a number": "raise SystemExit(7)",
    "ends with a sentence": "raise SystemExit('no')",
    "is wrong": "def f(): return 1/0\nf()",
    "is interrupted": "raise KeyboardInterrupt",
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "reads": "import sys; print(sys.stdin.read().upper())",
    "is asked who it is": "import os, sys, __main__; print(__name__, sys.argv, os.getcwd(), os.environ['WORD'], sys.path[0], __main__ is sys.modules['__main__'])",
    "leaves in order": "import atexit; atexit.register(print, 'first in'); atexit.register(print, 'last in')",
    "waits for its threads": "import threading, time; threading.Thread(target=lambda: (time.sleep(.1), print('later'))).start()",
    "has its threads": "import torch; print(torch.get_num_threads())",
    "draws bars": "from tqdm.auto import tqdm; import audio2pose.data.synthetic as its; print(tqdm.__name__, its.tqdm.__name__)",
    "starts others": "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'print(3)'], capture_output=True, text=True).stdout)",
    "asks workers": "from loky import get_reusable_executor as g; print(*g(2).map(abs, [-1, -2, 3]))"}


def both(words, **options):
    "The same words in a new process and in a copy: exit code, output and errors of each"
    options = dict(capture_output=True, text=True, check=False, timeout=120, env=os.environ|{"OMP_NUM_THREADS": "2", "WORD": "given"})|options
    assert copies.can_be_copied([str(word) for word in words], options["env"])
    return [(done.returncode, done.stdout, done.stderr) for done in (run(words, **options) for run in (subprocess.run, copies.run))]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_copy_is_like_a_new_process(program, tmp_path):
    new,copy = both([sys.executable, "-c", PROGRAMS[program]], cwd=tmp_path, input="some words")
    assert new==copy


def test_a_file_and_a_module(tmp_path):
    (tmp_path/"there.py").write_text("import sys\nprint(__name__, __file__, sys.argv, __package__, sys.path[0])\n")
    for words in (["there.py", "a"], ["-u", "there.py"], ["-m", "there", "b"]):
        new,copy = both([sys.executable, *words], cwd=tmp_path)
        assert new==copy and new[0]==0


def test_random_numbers_are_its_own():
    said = [copies.run([sys.executable, "-c", "import random, numpy; print(random.random(), numpy.random.rand())"], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said[0]!=said[1]


def test_it_is_killed_as_others_are():
    process = copies.Popen([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"], stdout=subprocess.PIPE)
    assert process.ended and process.stdout.readline()==b"here\n" and process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait(60)==-signal.SIGKILL and not Path(f"/proc/{process.pid}").exists()
    process.stdout.close()


def test_what_takes_too_long_is_ended():
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired): copies.run([sys.executable, "-c", "import time; time.sleep(600)"], timeout=.2)
    assert time.monotonic()-begun<60


@pytest.mark.parametrize("name,value,same", [("PYTHONHASHSEED", "1", False), ("HF_HUB_OFFLINE", "1", False), ("OMP_NUM_THREADS", "2", True), ("WORD", "x", True), ("KMP_DUPLICATE_LIB_OK", "True", True), ("PYTHONBREAKPOINT", "x", True)])
def test_what_is_read_at_the_start_begins_anew(name, value, same):
    "A variable that imports read is not read again by a copy; those that imports set change nothing"
    assert copies.can_be_copied([sys.executable, "-c", "1"], os.environ|{name: value})==same
