"Every option and argument of every command with values that cannot be, one at a time: one sentence, or a result; nothing touched, nothing run"
import inspect
import os
import random
import shutil
import types
import typing
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio2pose import cli
from audio2pose.commands.options import commands_of
from test_attack import here, limit, tiny # noqa: F401 -- fixtures
from test_hostile import material # noqa: F401 -- fixture

VALUES = {
    int: ["-1", "0", "x", "", "1e3", "nan", "9"*30, "2147483648", "-9223372036854775809", "١", "0x1", "1_0", " 1", "1.5"],
    float: ["nan", "inf", "-inf", "-1", "0", "1e9", "1e308", "1e-300", "1e999", "x", "", "1,5", "-0.0", "٣"],
    Path: ["mine/diary.txt", "mine", "pipe", "/dev/null", "/dev/zero", "/dev/full", "broken", "mine/link", "circle", "x"*300, "y/"*3000, "a\0b", "", "-", "nowhere/below", "/proc/self/mem", "mine/diary.txt/below", "\udcff", "a\nb\x1b[31m", "full"],
    str: ["", " ", "x", "a\0b", "\x1b[31m", "\udcff", "x"*100_000, ",", "1,2,3", "{}", "[", "nan", "-1", "0", "../..", "/etc/passwd", "mine/diary.txt", "mine", "pipe", "/dev/zero", "$(touch it-ran)", "9"*400, "1-", "1=2=3", "=", "arms:mine/diary.txt", "a=b", "1x1", "0.5,0.5"],
}

BASE = { # Command → the shortest line that makes something of it; the option that is tried comes behind
    "dance": "dance s.wav --model TINY --no-film --formats npz --out out",
    "edit": "edit dance --mirror --no-film --out out",
    "live": "live s.wav --no-browser --style polka", # Refused, or it would serve for ever
    "compare": "compare dance two --songs s.wav --seconds 1 --pairs 1 --out out",
    "page": "page dance --out page.html",
    "retarget": "retarget dance/motion.npz person.glb --out out.glb",
    "train": "train store --steps 1 --batch 1 --precision fp32 --out out",
    "evaluate": "evaluate dances --reference dances",
    "landmarks": "landmarks v.mp4 --backend onnx --detector-weights random --pose-weights random --out out",
    "lift": "lift points --weights none.bin --fps 30 --size 640x480 --no-film --out out",
    "motion": "motion seen.npy --formats npz --out out",
    "overlay": "overlay seen.npy . --out out.mp4",
    "video": "video v.mp4 --pose-weights nothing.onnx --out out",
    "reduce": "reduce points --points body --size 640x480 --out out",
    "features": "features points --kind handcrafted --fps 30 --out out",
    "run": "run n.ipynb --describe",
    "lab": "lab lab --copy-only",
    "doctor": "doctor",
    "data synth": "data synth synth --sequences 1 --seconds 8",
    "data download": "data download --accept-terms --what annotations --annotations-url http://127.0.0.1:9/x.zip --music-base http://127.0.0.1:9/ --base http://127.0.0.1:9/ --tries 1 --pause 0",
    "data prepare": "data prepare tree --out out --workers 1",
    "data verify": "data verify points --workers 1",
    "data inspect": "data inspect points/clip.npy",
    "data cmu": "data cmu cmu --address http://127.0.0.1:9/ --subjects 1",
    "data g1": "data g1 g1 --part nothing --address http://127.0.0.1:9/",
    "data import": "data import clips --out out",
    "weights list": "weights list", "weights show": "weights show w.safetensors", "weights convert": "weights convert w.safetensors out.safetensors",
}
LONG = {("train", "--steps"), ("train", "--batch"), ("train", "--accumulate"), ("data synth", "--sequences")} # A large number is much work, and not wrong


def value_kind(annotation):
    "int, float, Path or str of what a parameter is annotated with; None for switches"
    inner = [part for part in (typing.get_args(annotation) or (annotation,)) if part is not types.NoneType]
    kinds = {kind for part in inner for kind in ([part] if part in (*VALUES, bool) else [value_kind(part)] if typing.get_origin(part) or typing.get_args(part) else [])}-{None}
    return None if bool in kinds or not kinds else next(kind for kind in (str, Path, float, int) if kind in kinds)


def places(words, parser):
    "Options and arguments of a command: name and kind of value"
    known = inspect.signature(inspect.unwrap(parser.callback)).parameters
    for param in parser.params:
        annotation = known[param.name].annotation if param.name in known else str
        kind = value_kind(typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation)
        if kind: yield (param.opts[0] if param.opts[0].startswith("-") else ""),param.name,kind


def cases(each:int=100, salt="")->list[tuple]: # (command, option or "", name of the parameter, value)
    "So many values of each option, by chance"
    found = []
    for words,parser in commands_of(cli.app):
        for flag,name,kind in places(words, parser):
            able = [value for value in VALUES[kind] if not ((words, flag) in LONG and len(value)>3 and value.strip().isdecimal())]
            found += [(words, flag, name, value) for value in random.Random(f"{words} {name} {salt}").sample(able, min(each, len(able)))]
    return found


@pytest.fixture(scope="module")
def stage(material, tmp_path_factory): # noqa: F811
    "What the lines of `BASE` name"
    from attack import save_torch
    from audio2pose.data.windows import random_sequences, write_store
    from audio2pose.landmarks import Landmarks
    from audio2pose.motion import Motion
    folder = tmp_path_factory.mktemp("stage")
    shutil.copytree(material, folder, dirs_exist_ok=True)
    t = np.arange(22_050*3//2)/22_050
    soundfile.write(folder/"s.wav", .8*np.sin(2*np.pi*1000*t)*np.exp(-(t%.5)/.01), 22_050)
    shutil.copytree(folder/"dance", folder/"two")
    for name in ("clips", "dances", "full"): (folder/name).mkdir()
    (folder/"full/note.txt").write_text("mine, too")
    shutil.copy(folder/"clip.bvh", folder/"clips/clip.bvh")
    motion = Motion.load(folder/"dance/motion.npz")
    for k,name in enumerate(("one.npz", "two.npz")): Motion(motion.poses*(1+k), motion.trans).save(folder/"dances"/name)
    write_store(random_sequences(4, 300), folder/"store")
    rng = np.random.default_rng(0)
    Landmarks((rng.normal(size=(20, 133, 4))*[100, 100, .1, 1]+[300, 200, 0, 4]).astype("f4"), np.arange(20)/30, 30, (640, 480), "v", "wholebody", "v.mp4").save(folder/"seen.npy")
    (folder/"n.ipynb").write_text('{"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "steps:int = 1 # Steps", "outputs": [], "execution_count": null, "id": "a"}], "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}}, "nbformat": 4, "nbformat_minor": 5}')
    import torch
    from safetensors.torch import save_file
    save_file({"a": torch.zeros(3)}, folder/"w.safetensors")
    (folder/"none.bin").write_bytes(save_torch({"model_pos": {"a": torch.zeros(3)}}))
    write_film(folder/"v.mp4")
    return folder


def write_film(path):
    "Ten grey pictures"
    import av
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=25)
        stream.width,stream.height,stream.pix_fmt = 64,48,"yuv420p"
        for _ in range(10): film.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), "bgr24")))
        film.mux(stream.encode(None))


def lay_out(folder, stage): # noqa: F811
    "The stage anew, with a pipe and links that lead nowhere"
    for path in folder.iterdir():
        if path.name!="mine": shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in (folder/"mine").iterdir(): # Results that were to go there
        if path.name not in ("diary.txt", "link"): shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(stage, folder, dirs_exist_ok=True)
    os.mkfifo(folder/"pipe")
    (folder/"broken").symlink_to("nothing")
    (folder/"circle").symlink_to("circle")


def command_line(words, flag, name, value, tiny): # noqa: F811
    line = BASE[words].replace("TINY", str(tiny)).split()
    return [*line, flag, value] if flag else replace_argument(words, line, name, value)


def replace_argument(words, line, name, value):
    "The line with another value of an argument"
    parser = dict(commands_of(cli.app))[words]
    index = [param.name for param in parser.params if not param.opts[0].startswith("-")].index(name)+len(words.split())
    return line[:index]+[value]+line[index+1:] if index<len(line) and not line[index].startswith("-") else line[:index]+["--", value]


def tried(folder, stage, line, capfd)->int: # noqa: F811
    "Exit code of a line; everything else is as it should be"
    lay_out(folder, stage)
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with limit(60): code = cli.run(line)
    said = capfd.readouterr()
    assert code in (0, 1, 2) and "Traceback" not in said.err+said.out, (line, code, said)
    assert code==0 or (said.err+said.out).strip(), line
    errors = [text for text in said.err.splitlines() if text.startswith("error: ")]
    assert len(errors)<=1 and all(len(text)<800 for text in errors), (line, [text[:1000] for text in errors])
    assert "\x1b" not in said.err+said.out, line
    changed = [path for path,when in before.items() if not path.exists() or path.lstat().st_mtime_ns!=when]
    assert not changed and (folder/"mine/link").is_symlink() and (folder/"mine/diary.txt").read_text()=="dear diary" and not list(folder.rglob("it-ran")), (changed, line)
    assert not list(folder.rglob(".part-*")), line
    return code


def assault(chosen, folder, stage, tiny, capfd)->Counter: # noqa: F811
    found,wrong = Counter(),[]
    for case in chosen:
        line = command_line(*case, tiny)
        try: found[case[0], tried(folder, stage, line, capfd)] += 1
        except (Exception, SystemExit) as error:
            wrong.append(f"{' '.join(word[:60] for word in line)!r}: {type(error).__name__} {' '.join(str(error).split())[:400]}")
            capfd.readouterr()
    assert not wrong, f"{len(wrong)} of {sum(found.values())+len(wrong)}\n"+"\n".join(wrong)
    return found


def test_every_command_is_tried():
    assert {words for words,_ in commands_of(cli.app)}==set(BASE)
    assert len(cases())>3000 and {words for words,*_ in cases()}==set(BASE)-{"doctor", "weights list"}


SLOW = ("dance", "edit", "live", "lift", "landmarks", "video", "train", "data cmu", "data g1", "data download")

def test_some_values_of_some_options(here, stage, tiny, capfd): # noqa: F811
    some = random.Random(1).sample([case for case in cases(1) if case[0] not in SLOW], 16)
    assert assault(some, here, stage, tiny, capfd).total()==16


@pytest.mark.attack
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("words", [words for words in BASE if words not in ("doctor", "weights list")])
def test_many_values_of_all_options(here, stage, tiny, capfd, words, record_property): # noqa: F811
    found = assault([case for case in cases(int(os.environ.get("AUDIO2POSE_VALUES", "4"))) if case[0]==words], here, stage, tiny, capfd)
    record_property("lines", str(dict(found)))
