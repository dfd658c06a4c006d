"Long work that is interrupted in every way it can be: nothing is lost, and nothing is done twice"
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import copies
import pytest
from worker_jobs import worker

from audio2pose.core import InputError
from audio2pose.engine import workers
from audio2pose.engine.ledger import Job, Outcome, read_ledger
from audio2pose.engine.workers import Resources, map_items, run_jobs

HERE = Path(__file__).parent


def jobs_of(items):
    "A job for each item, or for a list of them"
    return [Job(name, parts if isinstance(parts, dict) else {name: parts}) for name,parts in items.items()]


def begun(out): return Counter((out.parent/"begun.txt").read_text().split()) if (out.parent/"begun.txt").exists() else Counter()


def outcomes(out):
    "Every line about an item, in order"
    found = {}
    for line in read_ledger(out/"ledger.jsonl"):
        if "key" in line: found.setdefault(line["key"], []).append(line["outcome"])
    return found


def check_whole(out, keys):
    "Each item is there once: made, never begun again after that, its file complete, and no scratch left"
    for key,lines in outcomes(out).items():
        assert lines.count("made")==1 and lines[-1]=="made", (key, lines)
        assert (out/f"{key}.txt").read_text()==f"result of {key}"
    assert set(outcomes(out))==set(keys)
    assert not list(out.rglob(".part-*"))


@pytest.fixture
def out(tmp_path): return tmp_path/"out"


# ---- a worker dies

ENGINES = ["processes", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def cluster():
    "One for all tests of this file; that a cluster is started and left where there is none is seen in test_runs and test_landmarks"
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))) # So that its workers find the work; an empty part would be the working folder
        patch.delenv("RAY_ADDRESS", raising=False)
        workers.connect_ray(Resources(2))
    yield
    ray.shutdown()


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param=="ray": request.getfixturevalue("cluster")
    return request.param


def test_a_death_costs_only_its_item(engine, out):
    items = {f"item{i}": .02 for i in range(20)}|{"unlucky": "dies once", "deadly": "dies", "odd": "raises"}
    order = list(items)
    random.Random(3).shuffle(order)
    report = run_jobs(jobs_of({key: items[key] for key in order}), worker(out), out, {}, engine, Resources(2), progress=False)
    assert report.total==Counter(made=21, error=2)
    found = outcomes(out)
    assert all(found[key][-1]=="made" for key in items if key not in ("deadly", "odd"))
    assert found["unlucky"]==["begun", "begun", "made"]
    assert found["deadly"].count("begun")==3 and found["deadly"][-1]=="error"
    reasons = {line["key"]: line["reason"] for line in read_ledger(out/"ledger.jsonl") if line.get("outcome")=="error"}
    assert "worker died" in reasons["deadly"] and reasons["odd"]=="ValueError: this one cannot be read"
    again = run_jobs(jobs_of(items), worker(out), out, {}, engine, Resources(2), progress=False)
    assert again.kept==Counter(made=21) and again.outcomes==Counter(error=2), "a death is no attempt and an exception is one of three; both are tried again"
    run_jobs(jobs_of(items), worker(out), out, {}, engine, Resources(2), progress=False)
    again = run_jobs(jobs_of(items), worker(out), out, {}, engine, Resources(2), progress=False)
    assert again.kept==Counter(made=21, error=1) and again.outcomes==Counter(error=1), "three errors stand; a death never does"


def test_a_job_of_many_items_is_taken_up_where_it_died(engine, out):
    parts = {f"part{i}": .01 for i in range(5)}|{"unlucky": "dies once"}|{f"rest{i}": .01 for i in range(5)}
    report = run_jobs([Job("film", parts)], worker(out), out, {}, engine, Resources(2), progress=False)
    assert report.outcomes==Counter(made=11)
    check_whole(out, parts)
    assert begun(out)["unlucky"]==2 and all(begun(out)[f"{name}{i}"]==1 for name in ("part", "rest") for i in range(5))


def test_an_answer_before_a_death_counts(out, monkeypatch):
    "The first process may be slow to write it down, and must not have it done again meanwhile"
    record = workers.JobQueue.record
    def slowly(self, outcome):
        time.sleep(.3)
        return record(self, outcome)
    monkeypatch.setattr(workers.JobQueue, "record", slowly)
    items = {"first": "dies after", "second": .01, "third": "dies after", "fourth": .01}
    report = run_jobs([Job("film", items)], worker(out), out, {}, "processes", Resources(1), progress=False)
    assert report.outcomes==Counter(made=4)
    assert begun(out)==Counter(dict.fromkeys(items, 1))


def test_a_worker_that_cannot_start_is_no_endless_loop(out):
    with pytest.raises(RuntimeError, match="died before its first job"): run_jobs(jobs_of(dict(a=0., b=0.)), Poison(), out, {}, "processes", Resources(2), progress=False)
    assert set(outcomes(out))==set()


class Poison:
    "Kills whoever unpacks it"
    def __reduce__(self): return os._exit, (3,)


# ---- the first process dies

MAIN = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from worker_jobs import worker
from audio2pose.engine.ledger import Job
from audio2pose.engine.workers import Resources, run_jobs
items = {items!r}
if __name__=="__main__":
    report = run_jobs([Job(key, {{key: what}}) for key,what in items.items()], worker({out!r}), {out!r}, {{}}, {engine!r}, Resources(2), progress=False)
    sys.stdout.write(repr((dict(report.outcomes), dict(report.kept))))
"""


@pytest.fixture
def start(tmp_path, out):
    "Starts the work in a process of its own"
    running = []
    def begin(items, engine="serial"):
        script = tmp_path/"main.py"
        script.write_text(MAIN.format(here=str(HERE), items=items, out=str(out), engine=engine))
        process = copies.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process
    yield begin
    for process in running:
        if process.poll() is None: process.kill()
        process.communicate()


def finished(process, seconds=120):
    said,complaint = process.communicate(timeout=seconds)
    assert process.returncode==0, complaint[-1500:]
    return eval(said) # noqa: S307 Our own words


def wait_for(condition, seconds=60):
    end = time.monotonic()+seconds
    while not condition():
        assert time.monotonic()<end, "it did not come to pass"
        time.sleep(.01)


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_killed_at_any_point_and_started_again(engine, start, out):
    rng,items = random.Random(7),{f"item{i:02}": .02 for i in range(60)}
    for _ in range(3):
        process,before = start(items, engine),sum(begun(out).values())
        wait_for(lambda: sum(begun(out).values())>=before+8 or process.poll() is not None)
        time.sleep(rng.uniform(0, .05))
        process.kill()
        process.communicate()
    assert sum(lines[-1]=="made" for lines in outcomes(out).values())>=15
    done,kept = finished(start(items, engine))
    assert done.get("made", 0)+kept["made"]==60 and kept["made"]>=15
    check_whole(out, items)
    lost = sum(begun(out).values())-60
    assert lost<=3*(1 if engine=="serial" else 2), "only what was under way was begun again"


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_kill_is_no_attempt(engine, start, out):
    "However often the machine is taken away; and what was under way then comes last, so that it cannot block the others"
    items = {"slow": "slow five times", "good": .01}
    for attempt in range(1, 6):
        process = start(items, engine)
        wait_for(lambda: begun(out)["slow"]==attempt)
        process.kill()
        process.communicate()
    wait_for(lambda: len(outcomes(out)["slow"])==5)
    assert outcomes(out)["slow"]==["begun"]*5
    done,kept = finished(start(items, "serial"))
    assert done.get("made", 0)+kept.get("made", 0)==2
    lines = [line["key"] for line in read_ledger(out/"ledger.jsonl") if line.get("outcome")=="begun"]
    assert lines[:2]==["slow", "good"][:2] or engine=="serial"
    assert lines[-1]=="slow" and outcomes(out)["slow"][-1]=="made"


def test_only_errors_of_the_work_have_three_attempts(out):
    items = {"odd": "raises", "good": 0.}
    reports = [run_jobs(jobs_of(items), worker(out), out, {}, progress=False) for _ in range(4)]
    assert [report.outcomes["error"] for report in reports]==[1, 1, 1, 0] and reports[-1].kept==Counter(made=1, error=1)
    assert run_jobs(jobs_of(items), worker(out), out, {}, retry=["error"], progress=False).outcomes==Counter(error=1)


def test_workers_leave_with_the_first_process(start, out, processes_begin_anew):
    process = start({"bad": "hangs", "worse": "hangs"}, "processes")
    wait_for(lambda: len(begun(out))==2)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()] if sys.platform=="linux" else []
    children += [int(pid) for task in Path(f"/proc/{process.pid}/task").iterdir() for pid in (task/"children").read_text().split()] if sys.platform=="linux" else []
    process.kill()
    process.communicate()
    assert children or sys.platform!="linux"
    wait_for(lambda: not any(alive(pid) for pid in children), 20)


def alive(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]!="Z"
    except OSError: return False


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_an_interruption_is_no_attempt(engine, start, out):
    process = start({"good": .01, "long": "hangs"}, engine)
    wait_for(lambda: begun(out)["long"]==1 and outcomes(out).get("good", [""])[-1]=="made")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert outcomes(out)["long"]==["begun", "stopped"]


def test_a_second_process_is_told_who_holds_the_folder(start, out):
    process = start({"long": "hangs"})
    wait_for(lambda: begun(out)["long"]==1)
    lines = (out/"ledger.jsonl").read_bytes()
    with pytest.raises(InputError, match=f"process {process.pid} on .* is at work there"): run_jobs(jobs_of(dict(a=0.)), worker(out), out, {}, progress=False)
    assert (out/"ledger.jsonl").read_bytes()==lines and begun(out)==Counter(long=1)
    process.kill()
    process.communicate()
    assert run_jobs(jobs_of(dict(a=0.)), worker(out), out, {}, progress=False).outcomes==Counter(made=1), "the lock dies with its owner"


# ---- the disk

@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_result_that_finds_no_room_is_tried_again(engine, out):
    items = {"a": .01, "big": "full disk", "c": .01}
    report = run_jobs(jobs_of(items), worker(out), out, {}, engine, progress=False)
    assert report.outcomes==Counter(made=2, error=1)
    reason, = (line["reason"] for line in read_ledger(out/"ledger.jsonl") if line.get("outcome")=="error")
    assert "No space left on device" in reason
    report = run_jobs(jobs_of(items|dict(big=0.)), worker(out), out, {}, engine, progress=False)
    assert report.outcomes==Counter(made=1) and report.kept==Counter(made=2)


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_ledger_that_finds_no_room_stops_the_work(engine, tmp_path, out):
    "The system refuses to let the file grow, in the middle of a line"
    items = {f"item{i:03}": 0. for i in range(200)}
    out.mkdir()
    code = MAIN.format(here=str(HERE), items=items, out=str(out), engine=engine).replace('if __name__=="__main__":', 'if __name__=="__main__":\n    import resource\n    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))')
    (tmp_path/"small.py").write_text(code)
    done = copies.run([sys.executable, str(tmp_path/"small.py")], capture_output=True, text=True, timeout=120, check=False, env=os.environ|dict(PYTHONDONTWRITEBYTECODE="1")) # A compiled module would be cut off, too
    assert done.returncode and "InputError" in done.stderr and "ledger.jsonl: cannot be written (File too large)" in done.stderr, done.stderr[-800:]
    finished_ = {key for key,lines in outcomes(out).items() if lines[-1]=="made"}
    assert 5<len(finished_)<100
    report = run_jobs(jobs_of(items), worker(out), out, {}, progress=False)
    assert report.kept==Counter(made=len(finished_)) and report.total==Counter(made=200)
    for key in items: assert (out/f"{key}.txt").read_text()==f"result of {key}"


def test_a_damaged_ledger_costs_what_is_damaged(out):
    items = {key: 0. for key in "abcde"}
    run_jobs(jobs_of(items), worker(out), out, {}, progress=False)
    lines = (out/"ledger.jsonl").read_bytes().splitlines(keepends=True)
    last = max(i for i,line in enumerate(lines) if b'"key": "c"' in line)
    lines[last] = lines[last][:20]+b"\n" # As a stop of the machine may leave it
    lines += [b"\0"*64+b"\n", b"[1, 2]\n", b"null\n", b'{"key": "b"}\n', b"\xff\xfe\n", b'{"key": "e", "outc']
    (out/"ledger.jsonl").write_bytes(b"".join(lines))
    report = run_jobs(jobs_of(items), worker(out), out, {}, progress=False)
    assert report.outcomes==Counter(made=1) and report.kept==Counter(made=4)
    assert begun(out)["c"]==2 and sum(begun(out).values())==6
    assert run_jobs(jobs_of(items), worker(out), out, {}, progress=False).kept==Counter(made=5)


def test_results_that_were_cut_off_or_lost_are_made_again(out):
    items = {key: 0. for key in "abc"}
    run_jobs(jobs_of(items), worker(out), out, {}, progress=False)
    (out/"a.txt").write_text("res")
    (out/"b.txt").unlink()
    assert run_jobs(jobs_of(items), worker(out), out, {}, progress=False).outcomes==Counter(made=2)
    for key in items: assert (out/f"{key}.txt").read_text()==f"result of {key}"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path/"file").touch()
    with pytest.raises(InputError, match="cannot write there"): run_jobs([], worker(tmp_path), tmp_path/"file", {})


# ---- what is done again

def test_other_settings_and_other_sources_are_done_again(out):
    def run(settings, stamp): return run_jobs([Job("film", dict(a=0.), stamp)], worker(out), out, settings, progress=False).outcomes["made"]
    assert [run(dict(fps=24), "1"), run(dict(fps=24), "1"), run(dict(fps=25), "1"), run(dict(fps=25), "2"), run(dict(fps=25), "2")]==[1, 0, 1, 1, 0]


def test_one_line_of_a_manifest_is_done_again_alone(out):
    def run(**parts): return run_jobs([Job("film", parts)], worker(out), out, {}, progress=False)
    run(a=0., b=0.)
    kept = {key: (out/f"{key}.txt").stat().st_mtime_ns for key in "ab"}
    report = run(a=0., b=.001, c=0.)
    assert (report.outcomes["made"], report.kept["made"])==(2, 1)
    assert [(out/f"{key}.txt").stat().st_mtime_ns==when for key,when in kept.items()]==[True, False]


@dataclass(frozen=True)
class Judge:
    "Finds nobody, the first time"
    word:str

    def __call__(self, jobs):
        for job in jobs:
            for key in job.items: yield Outcome(key, self.word, f"so said {self.word}")


def test_decisions_stand_unless_asked(out):
    jobs = jobs_of(dict(a=None, b=None))
    assert run_jobs(jobs, Judge("no_person"), out, {}, progress=False).outcomes==Counter(no_person=2)
    assert run_jobs(jobs, Judge("made"), out, {}, progress=False).kept==Counter(no_person=2)
    assert run_jobs(jobs, Judge("made"), out, {}, retry=["no_person"], progress=False).outcomes==Counter(made=2)


# ---- a map without a ledger

class Boom(Exception): pass


def square(x):
    if x=="dies": os.kill(os.getpid(), signal.SIGKILL)
    if x=="raises": raise Boom("no number")
    time.sleep(.02)
    return os.getpid(), x*x


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_survives_its_workers(ordered):
    items = [*range(10), "dies", *range(10, 30)]
    results = list(map_items(square, items, Resources(2), ordered=ordered))
    assert [item for item,_ in results]==items if ordered else len(results)==31
    died = [result for item,result in results if item=="dies"]
    assert len(died)==1 and isinstance(died[0], workers.WorkerDiedError) and "its worker died" in str(died[0])
    assert all(result[1]==item*item for item,result in results if item!="dies")


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_function_raises_ends_the_map(count):
    with pytest.raises(Boom, match="no number"): list(map_items(square, [1, "raises", 2], Resources(count)))


def test_an_ordered_map_does_not_run_far_ahead(tmp_path):
    def touch(i): (tmp_path/str(i)).touch()
    results = map_items(touch, range(100), Resources(2))
    next(results)
    time.sleep(1.)
    assert 1<len(list(tmp_path.iterdir()))<=10
    results.close()
    assert len(list(tmp_path.iterdir()))<=10


def test_each_worker_has_its_share(processes_begin_anew):
    "Of GPUs and of threads, before anything is imported"
    def share(_):
        time.sleep(.3)
        return os.environ["CUDA_VISIBLE_DEVICES"], os.environ.get("OMP_NUM_THREADS")
    shares = {result for _,result in map_items(share, range(6), Resources(2, gpus=2))}
    assert {gpu for gpu,_ in shares}=={"0", "1"} and all(int(threads)>=1 for _,threads in shares)


def test_workers_do_not_import_from_the_working_folder(tmp_path, monkeypatch):
    "Nor do loky's own helpers"
    for name in ("multiprocessing", "loky", "pickle", "runpy", "cloudpickle", "numpy"): (tmp_path/f"{name}.py").write_text(f"open({str(tmp_path/'run')!r}, 'a').write({name!r})")
    code = f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom audio2pose.engine.workers import Resources, map_items\nsys.stdout.write(str([r for _,r in map_items(abs, [-1, -2], Resources(2))]))"
    (tmp_path/"out").mkdir()
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout=="[1, 2]", done.stderr[-800:]
    assert not (tmp_path/"run").exists(), (tmp_path/"run").read_text()


# ---- ten thousand

def test_ten_thousand_items_in_flat_memory(tmp_path):
    "What is kept of an item does not depend on what was said about it"
    code = f"""
import sys, tracemalloc
sys.path.insert(0, {str(HERE)!r})
from audio2pose.engine.ledger import Job, Outcome
from audio2pose.engine.workers import run_jobs
def work(jobs):
    for job in jobs:
        for key in job.items: yield Outcome(key, "made", info=dict(notes="x"*2000))
def jobs():
    for film in range(500): yield Job(f"film{{film}}", {{f"film{{film}}-{{i:03}}": None for i in range(20)}})
tracemalloc.start()
first = run_jobs(jobs(), work, {str(tmp_path/"out")!r}, {{}}, progress=False)
second = run_jobs(jobs(), work, {str(tmp_path/"out")!r}, {{}}, progress=False)
sys.stdout.write(repr((first.outcomes["made"], second.kept["made"], tracemalloc.get_traced_memory()[1])))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    made,kept,peak = eval(done.stdout) # noqa: S307
    assert made==kept==10_000
    assert (tmp_path/"out"/"ledger.jsonl").stat().st_size>20e6, "what was said is in the ledger"
    assert peak<15e6, "and not in memory"


def test_every_line_of_a_ledger_says_when_and_under_what(out):
    run_jobs(jobs_of(dict(a=0.)), worker(out), out, dict(fps=24), progress=False)
    head,*lines = [json.loads(line) for line in (out/"ledger.jsonl").read_text().splitlines()]
    assert head["settings"]==dict(fps=24) and {"audio2pose", "python", "numpy", "torch"}<=head["versions"].keys()
    assert [line["outcome"] for line in lines]==["begun", "made"] and all(line["when"]>1e9 and line["fingerprint"].startswith(head["session"]) for line in lines)
    assert lines[1]["files"]["a.txt"][0]==len("result of a")
