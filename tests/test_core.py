"Files of the user are never touched, whatever stands where; scratch of killed processes goes, and a lock dies with its holder"
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audio2pose.commands.base import atomic_folder
from audio2pose.core import OWNER_FILE, SCRATCH_PREFIX, InputError, LockedError, atomic, check_regular_file, lock_folder, real_path, scratch_folder, sweep

needs_links = pytest.mark.skipif(os.name!="posix", reason="pipes, devices and links of Unix")


def start(code, *arguments):
    "Python code in a process of its own, as far as its first line of output"
    process = subprocess.Popen([sys.executable, "-c", f"import sys, time, pathlib\nfrom audio2pose.core import *\n{code}", *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline()=="ready\n"
    return process


def kill(process):
    process.kill()
    process.communicate()


READY = 'sys.stdout.write("ready\\n"); sys.stdout.flush(); time.sleep(600)'
HOLD = f"with lock_folder(sys.argv[1]): {READY}"
WRITE = f'with atomic(sys.argv[1]) as path:\n    path.write_text("half")\n    {READY}'


def scratches(folder): return sorted(Path(folder).rglob(".part-*"))


# ---- locks

def test_a_dead_holder_never_blocks(tmp_path):
    holder = start(HOLD, tmp_path)
    with pytest.raises(LockedError, match=f"process {holder.pid} on .* is at work there"), lock_folder(tmp_path): pass
    kill(holder)
    with lock_folder(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on"), lock_folder(tmp_path): pass
    assert [path.name for path in tmp_path.iterdir() if "holder" in path.name]==[]


def test_a_lock_is_waited_for(tmp_path):
    holder = start("with lock_folder(sys.argv[1]):\n    sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(.5)", tmp_path)
    begun = time.monotonic()
    with lock_folder(tmp_path, timeout=math.inf): waited = time.monotonic()-begun
    assert .1<waited<20
    holder.communicate()


@needs_links
@pytest.mark.parametrize("name", [".lock", ".lock-holder"])
def test_no_lock_follows_a_symbolic_link(tmp_path, name):
    precious = tmp_path/"precious.txt"
    precious.write_text("mine")
    (tmp_path/"out").mkdir()
    (tmp_path/"out"/name).symlink_to(precious)
    if name==".lock":
        with pytest.raises(InputError, match="a symbolic link stands where the lock should be"), lock_folder(tmp_path/"out"): pass
        assert (tmp_path/"out"/name).is_symlink()
    else:
        with lock_folder(tmp_path/"out"): pass
    assert precious.read_text()=="mine"


def test_a_folder_where_the_lock_should_be(tmp_path):
    (tmp_path/".lock").mkdir()
    with pytest.raises(InputError, match="not a lock of audio2pose"), lock_folder(tmp_path): pass


@pytest.mark.parametrize("name", [".lock", ".lock-holder"])
def test_a_file_of_the_users_is_no_lock(tmp_path, name):
    "It would be written over, and removed at the end"
    (tmp_path/name).write_text("mine")
    with pytest.raises(InputError, match="move it elsewhere"), lock_folder(tmp_path): pass
    with pytest.raises(InputError, match="move it elsewhere"), atomic_folder(tmp_path): pass
    assert (tmp_path/name).read_text()=="mine" and len(list(tmp_path.iterdir()))==1


# ---- scratch

def test_scratch_of_a_killed_process_goes_with_the_next_write(tmp_path):
    "In the same folder; that of a process at work stays"
    dead,alive = start(WRITE, tmp_path/"a.txt"),start(WRITE, tmp_path/"b.txt")
    kill(dead)
    assert len(scratches(tmp_path))==2
    subprocess.run([sys.executable, "-c", "import sys\nfrom audio2pose.core import *\nwith atomic(sys.argv[1]) as path: path.touch()", str(tmp_path/"c.txt")], check=True)
    assert len(scratches(tmp_path))==1 and not (tmp_path/"a.txt").exists()
    kill(alive)
    with lock_folder(tmp_path): assert not [path for path in scratches(tmp_path) if (path/"b.txt").exists()]


def test_a_lock_sweeps_below(tmp_path):
    dead = start(WRITE, tmp_path/"deep"/"er"/"a.txt")
    kill(dead)
    assert scratches(tmp_path)
    with lock_folder(tmp_path): pass
    assert not scratches(tmp_path)


def users_folders(home):
    "Folders of the user's that look like scratch, each a little more"
    token = "0123456789abcdef"
    for name,files in {".part-mine": {"notes.txt": "mine"}, f"{SCRATCH_PREFIX}{token}": {"notes.txt": "mine"}, f"{SCRATCH_PREFIX}x": {OWNER_FILE: "a list of owners"}, f"{SCRATCH_PREFIX}y": {OWNER_FILE: ""}, ".part-2": {OWNER_FILE: "2"}}.items():
        (home/name).mkdir(parents=True)
        for file,text in files.items(): (home/name/file).write_text(text)
    (home/f"{SCRATCH_PREFIX}file").write_text("mine")
    return {path.relative_to(home): path.read_text() for path in home.rglob("*") if path.is_file()}


def test_folders_of_the_user_stay(tmp_path):
    before = users_folders(tmp_path/"out")
    with lock_folder(tmp_path/"out"), atomic(tmp_path/"out"/"new.txt") as path: path.touch()
    sweep(tmp_path)
    assert {name: (tmp_path/"out"/name).read_text() for name in before}==before


@needs_links
def test_links_are_not_followed(tmp_path):
    users_folders(tmp_path/"elsewhere")
    real = tmp_path/"elsewhere"/f"{SCRATCH_PREFIX}real"
    real.mkdir()
    (real/OWNER_FILE).write_text("real")
    (tmp_path/"out").mkdir()
    (tmp_path/"out"/f"{SCRATCH_PREFIX}real").symlink_to(real)
    (tmp_path/"out"/"link").symlink_to(tmp_path/"elsewhere")
    sweep(tmp_path/"out")
    assert (real/OWNER_FILE).exists()


@pytest.mark.parametrize("begun", [False, True], ids=["without owner", "owner without a name"])
def test_a_folder_whose_maker_was_killed_before_it_was_named_goes(tmp_path, begun):
    "By its own name, a token; an empty folder of the user's stays"
    for name in ("0123456789abcdef", "mine"):
        (tmp_path/f"{SCRATCH_PREFIX}{name}").mkdir()
        if begun: (tmp_path/f"{SCRATCH_PREFIX}{name}"/OWNER_FILE).touch()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()]==[f"{SCRATCH_PREFIX}mine"]


@pytest.mark.parametrize("step", ["mkdir", "open", "lock"])
def test_a_sweeper_between_the_steps_of_a_maker(tmp_path, monkeypatch, step):
    "It takes what is not yet held; the maker begins again, and what it gets is not swept"
    import filelock
    place,name = dict(mkdir=(Path, "mkdir"), open=(os, "open"), lock=(filelock, "lock_descriptor"))[step]
    swept,real = [],getattr(place, name)
    def then_sweep(*args, **options):
        result = real(*args, **options)
        if not swept and step!="open" or not swept and OWNER_FILE in str(args[0]):
            swept.append(True)
            sweep(tmp_path)
        return result
    monkeypatch.setattr(place, name, then_sweep)
    with scratch_folder(tmp_path) as scratch:
        assert swept and scratches(tmp_path)==[scratch]
        sweep(tmp_path)
        assert (scratch/OWNER_FILE).read_text()==scratch.name.removeprefix(SCRATCH_PREFIX)
    assert not scratches(tmp_path)


def test_scratch_within_scratch(tmp_path):
    with scratch_folder(tmp_path) as scratch:
        with atomic(scratch/"a.txt") as path: path.write_text("a")
        sweep(tmp_path)
        assert (scratch/"a.txt").read_text()=="a"
    assert not scratches(tmp_path)


# ---- what stands in the place

def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path/"picture.png").mkdir()
    (tmp_path/"picture.png"/"mine.txt").write_text("mine")
    begun = []
    with pytest.raises(InputError, match="a folder has this name"), atomic(tmp_path/"picture.png") as path: begun.append(path)
    assert not begun, "refused before the work"
    with pytest.raises(InputError, match="a folder has this name"), atomic(tmp_path/"late.png") as path:
        path.touch()
        (tmp_path/"late.png").mkdir()
    assert (tmp_path/"picture.png"/"mine.txt").read_text()=="mine" and (tmp_path/"late.png").is_dir() and not scratches(tmp_path)


def test_a_folder_replaces_only_what_it_brings(tmp_path):
    def write(*names):
        with atomic(tmp_path/"store", folder=True) as path:
            path.mkdir()
            for name in names: (path/name).write_text(f"{len(names)} files")
    write("a", "b")
    write("a", "b", "c")
    assert {path.name: path.read_text() for path in (tmp_path/"store").iterdir()}==dict.fromkeys("abc", "3 files")
    with pytest.raises(InputError, match="it holds c, which would be lost"): write("a", "b")
    assert len(list((tmp_path/"store").iterdir()))==3 and not scratches(tmp_path)
    (tmp_path/"file").write_text("mine")
    with pytest.raises(InputError, match="a file has this name"), atomic(tmp_path/"file", folder=True): pass


@needs_links
def test_devices_and_pipes(tmp_path):
    os.mkfifo(tmp_path/"pipe")
    for path in (tmp_path/"pipe", Path(os.devnull)):
        with pytest.raises(InputError, match="a pipe or a device"): check_regular_file(path)
        with pytest.raises(InputError, match="a pipe or a device"), atomic(path): pass
        assert path.exists() and not path.is_file()
    (tmp_path/"link").symlink_to(tmp_path/"target")
    with atomic(tmp_path/"link") as path: path.write_text("x") # A link that leads nowhere is replaced by the file
    assert (tmp_path/"link").read_text()=="x" and not (tmp_path/"target").exists()


@pytest.mark.parametrize("name", ["a\0b", "x"*5000])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(InputError, match="no such file"): check_regular_file(tmp_path/name)


# ---- names

@needs_links
def test_links_that_go_in_a_circle(tmp_path, capfd):
    "Whoever compares two names follows links"
    from audio2pose import cli
    (tmp_path/"circle").symlink_to("circle")
    (tmp_path/"clips").mkdir()
    assert real_path(tmp_path/"circle"/"dance.npz").name=="dance.npz"
    circle,clips = tmp_path/"circle",tmp_path/"clips"
    for line in (["retarget", circle, circle], ["retarget", clips, clips, "--out", circle], ["edit", circle, "--mirror"], ["edit", clips, "--mirror", "--out", circle], ["overlay", circle, circle, "--out", circle],
                 ["reduce", clips, "--out", circle], ["lift", clips, "--out", circle], ["data", "import", clips, "--out", circle], ["data", "import", circle]):
        code = cli.run([str(word) for word in line])
        assert code==2 and capfd.readouterr().err.startswith("error: "), line
    assert circle.is_symlink()
