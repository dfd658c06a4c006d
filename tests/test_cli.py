"The command line as a stranger uses it: whatever is handed over, one sentence or a whole result"
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import copies
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings, strategies as st

from audio2pose import cli
from audio2pose.commands import base, train
from audio2pose.commands.options import commands_of, differing_options, examples, glossary_page, is_parsed, option_table
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.motion import Motion

COMMAND = [sys.executable, "-c", "from audio2pose.cli import main; main()"]
SR = 22_050
DANCE = {"dance.html", "dance.bvh", "dance.glb", "motion.npz", "dance.json"}


# ---- material

def clicks(seconds, sr=SR, bpm=120):
    "A click on every beat over a soft chord"
    t = np.arange(round(seconds*sr))/sr
    click = .8*np.sin(2*np.pi*1000*t)*np.exp(-(t%(60/bpm))/.01)
    return (click+.05*np.sin(2*np.pi*220*t)).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    "An empty working folder"
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def song(here):
    soundfile.write("song.wav", clicks(3), SR)
    return Path("song.wav")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    "A model folder that loads at once; untrained"
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    FACT(replace(FACTConfig.small(), width=16, heads=2, mlp=16, cross_layers=1)).save_pretrained(folder)
    return folder


def run(capfd, *arguments):
    "Exit code, stdout and stderr"
    code = cli.run([str(argument) for argument in arguments])
    said = capfd.readouterr()
    return code, said.out, said.err


def refused(capfd, *arguments, says=""):
    "The command leaves with 2, one sentence, and everything as it was"
    before = sorted(Path().rglob("*"))
    code,out,err = run(capfd, *arguments)
    assert code==2 and out==""
    err = re.sub(r"^ *\d+ % .*\n", "", err, flags=re.M) # How far it was
    assert err.startswith("error: ") and err.count("\n")==1 and err.endswith("\n"), err
    assert says in err, err
    assert sorted(Path().rglob("*"))==before, "something was left behind"


# ---- bad songs

def write_missing(path): pass
def write_empty(path): path.touch()
def write_words(path): path.write_text("this is not music\n"*1000)
def write_zeros(path): path.write_bytes(bytes(100_000))
def write_silent(path): soundfile.write(path, np.zeros(3*SR), SR)
def write_short(path): soundfile.write(path, clicks(.5), SR)
def write_cut(path):
    soundfile.write(path, clicks(5), SR)
    path.write_bytes(path.read_bytes()[:path.stat().st_size//2])


def write_folder(path): path.mkdir()
def write_picture(path): path.write_bytes(b"\x89PNG\r\n\x1a\n"+bytes(500))


@pytest.mark.parametrize("write,suffix,says", [
    (write_missing, "wav", "no such file"), (write_empty, "mp3", "empty"), (write_words, "mp3", ""), (write_zeros, "wav", ""), (write_silent, "wav", "silent"),
    (write_short, "wav", "too short"), (write_cut, "wav", ""), (write_cut, "flac", ""), (write_cut, "ogg", ""), (write_cut, "mp3", ""),
    (write_folder, "wav", "folder"), (write_picture, "png", "")], ids=lambda value: getattr(value, "__name__", None))
def test_bad_songs(here, capfd, tiny, write, suffix, says):
    path = Path(f"a song.{suffix}")
    write(path)
    refused(capfd, "dance", path, "--model", tiny, says=says)


@settings(max_examples=40, deadline=None)
@example("\n").via("line break")
@example("\x1b[31m").via("terminal code")
@example("\udcff").via("byte that is no text")
@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=40))
def test_any_name_makes_one_sentence(name):
    line = base.escape_line(f"{name}: no such file")
    assert line.isprintable() and line.encode()
    assert base.slug(name) and base.slug(base.slug(name))==base.slug(name)
    assert all(c.isalnum() or c=="-" for c in base.slug(name)) and len(base.slug(name))<=40


def test_hostile_name_of_a_missing_song(here, capfd):
    refused(capfd, "dance", "no\nsuch\x1b[31m <song>.mp3", says=r"no\nsuch\x1b[31m <song>.mp3: no such file")


def test_a_name_without_end_is_told_in_short(here, capfd):
    "Whatever is echoed, the sentence keeps its beginning and its remedy"
    for words in (("page", "y/"*3000, "--out", "p.html"), ("dance", "x"*100_000), ("dance", "--style", "x"*100_000), ("dance", "--fps", "9"*100_000+"x"), ("x"*100_000,)):
        code,_,err = run(capfd, *words)
        assert code==2 and err.startswith("error: ") and err.count("\n")==1 and len(err)<700, err[:1000]


# ---- bad models

class Hostile:
    def __reduce__(self): return os.system, ("touch it-ran",)


def model_missing(path): pass
def model_folder(path): path.mkdir()
def model_words(path): path.write_text("no weights here")
def model_hostile(path): torch.save({"model": Hostile()}, path)
def model_pickle(path): path.write_bytes(pickle.dumps(Hostile()))


@pytest.mark.parametrize("write,name", [(model_missing, "m/o/d/e/l"), (model_folder, "model"), (model_words, "model.safetensors"), (model_words, "model.pt"),
                                        (model_hostile, "model.pt"), (model_pickle, "model.pt"), (model_pickle, "model.pkl")])
def test_bad_models(song, capfd, write, name):
    write(Path(name))
    refused(capfd, "dance", song, "--model", name)
    assert not Path("it-ran").exists()


@pytest.mark.parametrize("cut", [0, 7, 100, .5, .99])
def test_cut_model(song, capfd, tiny, cut):
    content = (tiny/"model.safetensors").read_bytes()
    Path("model").mkdir()
    Path("model/config.json").write_text((tiny/"config.json").read_text())
    Path("model/model.safetensors").write_bytes(content[:int(cut*len(content)) if isinstance(cut, float) else cut])
    refused(capfd, "dance", song, "--model", "model")


def test_wrong_size_model(song, capfd, tiny):
    FACT(replace(FACTConfig.small(), width=32, heads=2, mlp=16, cross_layers=1)).save_pretrained("model")
    Path("model/config.json").write_text((tiny/"config.json").read_text())
    refused(capfd, "dance", song, "--model", "model")


@pytest.mark.parametrize("config", ["", "[]", "{", '{"width": "wide"}', '{"heads": 7}', '{"wings": 2}', '{"width": -8}'])
def test_bad_config(song, capfd, tiny, config):
    Path("model").mkdir()
    Path("model/config.json").write_text(config)
    Path("model/model.safetensors").write_bytes((tiny/"model.safetensors").read_bytes())
    refused(capfd, "dance", song, "--model", "model")


# ---- bad places

@pytest.mark.parametrize("out", ["file", "file/below", "/proc/dance", "/dev/null"])
def test_bad_folders(song, capfd, tiny, out):
    Path("file").write_text("mine")
    refused(capfd, "dance", song, "--model", tiny, "--out", out)
    assert Path("file").read_text()=="mine"


@pytest.mark.skipif(os.geteuid()==0, reason="root may write everywhere")
def test_forbidden_folder(song, capfd, tiny):
    Path("locked").mkdir(mode=0o500)
    refused(capfd, "dance", song, "--model", tiny, "--out", "locked/dance", says="cannot write")


# ---- bad options

@pytest.mark.parametrize("line", ["dnce", "dance a b", "dance --seed", "dance --seed x", "dance --seed -1", "dance --commit 0", "dance --fast", "data", "data make", "train nowhere",
                                  "train --preset huge", "train --steps 0", "train --device gpu", "data synth tree --sequences 0", "data synth tree --seconds 1", "--verbose"])
def test_bad_lines(here, capfd, data_folder, line):
    code,out,err = run(capfd, *line.split())
    assert code==2 and "Traceback" not in err
    assert not list(Path().iterdir())
    if line!="data": assert out=="" and err.startswith("error: ") and err.count("\n")==1


@pytest.mark.parametrize("option,value,says", [("--commit", 21, "commit must be 1 to 20"), ("--style", "tango", "no genre")])
def test_more_than_there_is(song, capfd, tiny, option, value, says):
    refused(capfd, "dance", song, "--model", tiny, option, value, says=says)


# ---- a dance

def dance(capfd, *arguments):
    code,out,err = run(capfd, "dance", *arguments)
    assert code==0, err
    return Path(out.splitlines()[-1]), out


@pytest.mark.parametrize("seconds", [1, 1.31, 4.2])
def test_dance_is_as_long_as_the_song(here, capfd, tiny, seconds):
    soundfile.write("song.wav", clicks(seconds), SR)
    folder,_ = dance(capfd, "song.wav", "--model", tiny, "--no-film")
    assert folder==here/"outputs/song-seed0"
    assert {file.name for file in folder.iterdir()}==DANCE
    assert len(Motion.load(folder/"motion.npz"))==round(60*round(seconds*SR)/SR)


def test_same_seed_same_bytes(song, capfd, tiny):
    folders = [dance(capfd, song, "--model", tiny, "--no-film", "--seed", seed, "--out", name)[0] for name,seed in (("a", 3), ("b", 3), ("c", 4))]
    for name in DANCE-{"dance.html"}: assert (folders[0]/name).read_bytes()==(folders[1]/name).read_bytes(), name
    assert (folders[0]/"motion.npz").read_bytes()!=(folders[2]/"motion.npz").read_bytes()


def test_names_are_only_text(here, capfd, tiny):
    name = "it's \"loud\" & <script>window.hacked=1<script>.wav"
    soundfile.write(name, clicks(1.5), SR, format="WAV")
    folder,_ = dance(capfd, name, "--model", tiny, "--no-film")
    assert folder.name=="it-s-loud-script-window-hacked-1-script-seed0"
    assert "<script>window" not in (folder/"dance.html").read_text()


def test_a_folder_of_songs_with_a_bad_one_among_them(song, capfd, tiny):
    "The others are made; a table and the exit code say which failed"
    Path("songs").mkdir()
    shutil.copy(song, "songs/one.wav")
    Path("songs/two.mp3").write_bytes(b"no music"*99)
    code,out,err = run(capfd, "dance", "songs", "--model", tiny, "--formats", "npz,vrma", "--fps", "30", "--out", "many")
    assert code==1 and "Traceback" not in err
    assert [line.split()[:2] for line in out.splitlines()][:2]==[["made", "one.wav"], ["failed", "two.mp3"]] and out.endswith("1 of 2 made\n")
    assert {path.name for path in Path("many/one-seed0").iterdir()}=={"motion.npz", "dance.vrma", "dance.json"} and not Path("many/two-seed0").exists()
    assert Motion.load("many/one-seed0/motion.npz").fps==30 and " %" in err # Progress in lines, since this is no terminal
    code,out,err = run(capfd, "dance", "songs", "--model", tiny, "--formats", "npz", "--json", "-q")
    found = json.loads(out)
    assert code==1 and [bool(one["error"]) for one in found]==[False, True] and list(found[0]["files"])==["motion.npz", "dance.json"] and err==""


@pytest.mark.parametrize("option,value,says", [("--formats", "fbx", "give some of"), ("--size", "721x1", "even numbers"), ("--fps", "0", "1 to 240"), ("--skeleton", "biped", "choose one of mixamo"), ("--size", "²x64", "even numbers"), ("--formats", "mp4,", "nothing to be written"), ("--seed", "9"*23, "less than or equal")])
def test_outputs_that_cannot_be_had(song, capfd, tiny, option, value, says): refused(capfd, "dance", song, "--model", tiny, "--no-film", option, value, says=says)


def test_short_help_and_one_mark_after_a_guess(here, capfd):
    assert run(capfd, "-h")[0]==0 and "audio2pose dance SONG.mp3" in run(capfd, "dance", "-h")[1]
    code,_,err = run(capfd, "danse")
    assert code==2 and "?." not in err


def test_existing_folder_keeps_what_is_not_ours(song, capfd, tiny):
    Path("mine").mkdir()
    Path("mine/diary.txt").write_text("dear diary")
    Path("mine/dance.bvh").write_text("old")
    Path("mine/dance.mp4").write_text("film of another dance")
    dance(capfd, song, "--model", tiny, "--no-film", "--out", "mine")
    assert {file.name for file in Path("mine").iterdir()}==DANCE|{"diary.txt"}
    assert Path("mine/diary.txt").read_text()=="dear diary" and Path("mine/dance.bvh").read_text()!="old"


@pytest.mark.parametrize("text,says", [("verse\n", "is no beat"), ("0.5\n-1\n", "before the song"), ("1\n0.5\n", "beats rise"), ("0\n99999\n", "later than any song"), ("0.5\n", "holds 1 beats")])
def test_dance_refuses_bad_beats(song, capfd, tiny, text, says):
    Path("beats.txt").write_text(text)
    refused(capfd, "dance", song, "--model", tiny, "--no-film", "--beats", "beats.txt", says=says)


@pytest.mark.parametrize("options,says", [(("--bpm", 0), "between 30 and 300"), (("--bpm", 1000), "between 30 and 300"), (("--bpm", 120, "--first-beat", -1), "must lie in the song"),
                                          (("--first-beat", .4), "give --bpm too"), (("--bpm", 120, "--beats", "own"), "not both"), (("--beats", "nowhere.txt"), "nowhere.txt")])
def test_dance_refuses_absurd_tempi(song, capfd, tiny, options, says): refused(capfd, "dance", song, "--model", tiny, "--no-film", *options, says=says)


def test_dance_to_a_given_tempo(song, capfd, tiny):
    _,out = dance(capfd, song, "--model", tiny, "--no-film", "--bpm", 100, "--first-beat", .2)
    assert " 5 beats" in out


@pytest.mark.parametrize("rate,subtype", [(1000, "PCM_U8"), (8000, "PCM_16"), (96_000, "PCM_24")])
def test_poor_recordings(here, capfd, tiny, rate, subtype):
    soundfile.write("song.wav", clicks(2, rate), rate, subtype=subtype)
    dance(capfd, "song.wav", "--model", tiny, "--no-film")


@pytest.mark.slow
def test_dance_with_film(song, capfd, tiny):
    "The demo's film is seen in test_package"
    folder,out = dance(capfd, song, "--model", tiny, "--size", "320x180")
    assert {file.name for file in folder.iterdir()}==DANCE|{"dance.mp4"}
    assert "beat alignment" in out


# ---- stopped

def start(*arguments, **options):
    return copies.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_for(condition, process, seconds=60):
    until = time.monotonic()+seconds
    while not condition():
        assert process.poll() is None and time.monotonic()<until, process.communicate()
        time.sleep(.05)


@pytest.mark.slow
@pytest.mark.parametrize("sign,code,later", [(signal.SIGINT, 130, 0), (signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 2)])
def test_stopped_dance_leaves_nothing(here, tiny, sign, code, later):
    soundfile.write("song.wav", clicks(300), SR)
    process = start("dance", "song.wav", "--model", tiny, "--commit", 1, "--out", "deep/down")
    wait_for(lambda: list(Path().rglob(".part-*/*")), process)
    time.sleep(later)
    process.send_signal(sign)
    _,err = process.communicate(timeout=60)
    assert process.returncode==code and "Traceback" not in err, err
    assert [path.name for path in Path().iterdir()]==["song.wav"]


def test_killed_dance_leaves_nothing_for_ever(here, capfd, tiny):
    "The next one into its folder clears its scratch away, and nothing of the user's"
    soundfile.write("song.wav", clicks(300), SR)
    process = start("dance", "song.wav", "--model", tiny, "--commit", 1, "--out", "out")
    wait_for(lambda: list(Path().rglob(".part-*")), process)
    soundfile.write("short.wav", clicks(3), SR)
    code,_,err = run(capfd, "dance", "short.wav", "--model", tiny, "--no-film", "--out", "out")
    assert code==2 and f"process {process.pid} on" in err and "is at work there" in err and err.count("\n")==1, err
    process.kill()
    process.communicate()
    (Path("out")/".part-mine").mkdir()
    (Path("out")/".part-mine"/"notes.txt").write_text("mine")
    (Path("out")/"dance.mp4").write_text("of an earlier dance")
    assert run(capfd, "dance", "short.wav", "--model", tiny, "--no-film", "--out", "out")[0]==0
    assert {path.name for path in Path("out").iterdir() if not path.name.startswith(".lock")}==DANCE|{".part-mine"}


@pytest.mark.skipif(os.name!="posix", reason="pipes of Unix")
def test_a_pipe_is_no_song(here, capfd, tiny):
    os.mkfifo("pipe.wav")
    refused(capfd, "dance", "pipe.wav", "--model", tiny, says="a pipe or a device, not a file")


def test_a_folder_is_not_replaced_by_a_file(here, capfd, tiny, song):
    for name in ("out/dance.html", "out/motion.npz"): (Path(name)/"deep").mkdir(parents=True)
    refused(capfd, "dance", song, "--model", tiny, "--out", "out", says="a folder has this name")


def test_two_trainings_of_one_folder(here, capfd):
    from audio2pose.core import LockedError, lock_folder
    from audio2pose.data.windows import Store, random_sequences, write_store
    from audio2pose.training.recipe import presets
    from audio2pose.train import train as fit
    write_store(random_sequences(4, 300), "store")
    with lock_folder("run"):
        code,_,err = run(capfd, "train", "store", "--out", "run")
        assert code==2 and "is at work there" in err and err.count("\n")==1
        with pytest.raises(LockedError, match="is at work there"): fit(Store("store"), presets["small"], FACTConfig.small(), "run")
    assert not Path("run/log.csv").exists()


@pytest.mark.slow
def test_stopped_synth_leaves_no_half_file(here):
    process = start("data", "synth", "tree", "--sequences", 300, "--seconds", 8, "--workers", 2, start_new_session=True)
    wait_for(lambda: len(list(Path().glob("tree/motions/*.pkl")))>2, process)
    os.killpg(process.pid, signal.SIGINT)
    _,err = process.communicate(timeout=60)
    assert process.returncode==130 and "Traceback" not in err, err
    assert not list(Path().rglob(".part-*"))
    for path in Path().glob("tree/motions/*.pkl"): Motion.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("song", [True, False])
def test_full_disk(here, tiny, song):
    "A limit on file sizes acts like a disk that fills up"
    soundfile.write("song.wav", clicks(5), SR)
    process = start("dance", *["song.wav"]*song, "--model", tiny, "--no-film", "--out", "deep/down", env=os.environ|dict(PYTHONDONTWRITEBYTECODE="1"), # A compiled module would be cut off, too
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)))
    out,err = process.communicate(timeout=120)
    assert process.returncode==2 and "Traceback" not in err and out=="", err
    assert "error: " in err.splitlines()[-1]
    assert [path.name for path in Path().iterdir()]==["song.wav"]


# ---- the rest

def test_a_module_that_was_cut_off_is_no_ctrl_c(capfd):
    "Python says that with the error of an input that has ended, and Typer takes it for a wish to stop"
    from audio2pose.commands.base import make_app, run_cli
    app = make_app("Cut off.")
    @app.command()
    def load(): raise EOFError("marshal data too short")
    assert run_cli(app, ["load"])==2
    said = capfd.readouterr().err.strip()
    assert said.startswith("error: a file ends before its end (marshal data too short)") and "stopped" not in said


def test_version(capfd):
    import audio2pose
    assert run(capfd, "--version")==(0, f"audio2pose {audio2pose.__version__}\n", "")


@pytest.mark.parametrize("line", ["--help", "dance --help", "data synth --help", "train --help", "doctor --help"])
def test_help(capfd, line):
    code,out,err = run(capfd, *line.split())
    assert code==0 and out.startswith("Usage: audio2pose") and err==""


def test_doctor(capfd, data_folder, monkeypatch):
    code,out,_ = run(capfd, "doctor")
    assert code==0 and "torch" in out and "processors" in out and str(data_folder) in out
    monkeypatch.setattr(cli, "installed_version", lambda name: None if name=="matplotlib" else "1")
    assert 'pip install "audio2pose[plot]"' in run(capfd, "doctor")[1]


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory):
    "Four sequences, made once by the command"
    folder = tmp_path_factory.mktemp("synth")/"tree"
    assert cli.run(["data", "synth", str(folder), "--sequences", "4", "--seconds", "8", "--seed", "1"])==0
    return folder


def test_synth_twice(here, capfd, synthesized):
    "A second call keeps what is there, and the tree becomes a store"
    shutil.copytree(synthesized, "tree")
    kept = {path: path.stat().st_mtime_ns for path in Path("tree").rglob("*.pkl")}
    assert run(capfd, "data", "synth", "tree", "--sequences", 4, "--seconds", 8, "--seed", 1)[0]==0
    assert {path: path.stat().st_mtime_ns for path in Path("tree").rglob("*.pkl")}==kept
    store = train.open_store(Path("tree"))
    assert len(store)==4 and not any("split" in entry for entry in store.info), "four songs are all held back, so the splits are of no use"
    made = {path: path.stat().st_mtime_ns for path in Path("tree-prepared/windows").iterdir()}
    assert repr(train.open_store(Path("tree")))==repr(train.open_store(Path("tree-prepared")))==repr(store)
    assert repr(train.open_store(Path("tree-prepared/windows")))==repr(store)
    assert {path: path.stat().st_mtime_ns for path in Path("tree-prepared/windows").iterdir()}==made
    capfd.readouterr()


@pytest.mark.slow
def test_official_splits_are_kept(here, capfd, synthesized):
    shutil.copytree(synthesized, "tree")
    names = sorted(path.stem for path in Path("tree/motions").glob("*.pkl"))
    for part,names_of in (("train", names[:2]), ("val", names[2:3]), ("test", names[3:])): Path(f"tree/splits/crossmodal_{part}.txt").write_text("\n".join(names_of))
    assert [entry["split"] for entry in train.open_store(Path("tree")).info]==["train", "train", "val", "test"]
    assert "every tenth" not in capfd.readouterr().err


@pytest.mark.slow
def test_train_and_go_on(here, capfd):
    from audio2pose.data.windows import random_sequences, write_store
    write_store(random_sequences(6, 400), "store")
    for steps in (1, 2):
        code,out,err = run(capfd, "train", "store", "--out", "model", "--steps", steps, "--batch", 1)
        assert code==0, err
    assert FACT.from_pretrained(Path(out.splitlines()[-1]))


# ---- help and options

PARSERS = dict(commands_of(cli.app))


@pytest.mark.parametrize("words", PARSERS)
def test_every_help_has_an_example_that_its_parser_takes(words):
    lines = examples(PARSERS[words])
    assert lines, "no line of the help text begins with audio2pose"
    assert all(is_parsed(words, PARSERS[words], line) for line in lines)


@pytest.mark.parametrize("words", ["", "data", "weights"])
def test_help_of_a_group_has_an_example_too(capfd, words):
    code,out,_ = run(capfd, *words.split(), "-h")
    line = re.search(r"^ +(audio2pose .*)$", out.partition("\n")[2], flags=re.M)[1]
    command = max((name for name in PARSERS if f"{line} ".startswith(f"audio2pose {name} ")), key=len)
    assert code==0 and command.startswith(words) and is_parsed(command, PARSERS[command], line)


def test_one_option_name_means_one_thing_and_is_in_the_glossary(capfd):
    table = option_table(cli.app)
    assert differing_options(table)==[]
    assert {flag for flag,commands in table.items() if len(commands)>3}>={"--out", "--seed", "--workers", "--json", "--device"}
    page = glossary_page(cli.app)
    for words,parser in PARSERS.items():
        code,out,_ = run(capfd, *words.split(), "-h")
        assert code==0
        for flag in re.findall(r"^  (--[\w-]+)", out, flags=re.M):
            if flag!="--help": assert f"| `{flag}` |" in page and words in table[flag]


@pytest.mark.parametrize("line,ends", [("danse", "Did you mean dance?"), ("dance --sead 1", "Did you mean --seed?"), ("data prepar", "Did you mean prepare?"), ("dance --formts npz", "Did you mean --formats?")])
def test_did_you_mean_ends_with_one_question_mark(here, capfd, line, ends):
    code,out,err = run(capfd, *line.split())
    assert code==2 and out=="" and err.count("?")==1 and err.rstrip().endswith(ends), err


def test_doctor_and_evaluate_say_as_much_as_is_asked(here, capfd):
    report = json.loads(run(capfd, "doctor", "--json")[1])
    assert report["installed"]["needed"]["torch"] and {"version", "hardware", "missing", "data"}<=set(report)
    short,usual,long = (len(run(capfd, "doctor", *how)[1].splitlines()) for how in (["-q"], [], ["-v"]))
    assert short<usual<long


def test_device_is_the_one_asked_for(song, capfd):
    assert run(capfd, "dance", song, "--formats", "npz", "--out", "auto", "-q")[0]==0
    assert run(capfd, "dance", song, "--formats", "npz", "--out", "cpu", "-q", "--device", "cpu")[0]==0
    assert Path("auto/motion.npz").read_bytes()==Path("cpu/motion.npz").read_bytes()
    assert "--device cpu" in Path("cpu/dance.json").read_text() and "--device" not in Path("auto/dance.json").read_text()
    for device in ("cuda:9", "tpu"): refused(capfd, "dance", song, "--device", device, says=f"--device {device}")
