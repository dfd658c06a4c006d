"What a newcomer with bad luck types, and what an attacker sends: each a case of its own, none of them made by chance. One sentence, nothing touched, nothing run"
import json
import os
import pickle
import shutil
import socket
import struct
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

import attack
import copies
from audio2pose import cli
from audio2pose.core import InputError
from audio2pose.data.manifest import InvalidRow, Segment, read_segments
from audio2pose.data.midi import parse_midi, read_midi, wad_midi
from audio2pose.motion import Motion
from audio2pose.show import export
from test_attack import here, limit, tiny, unharmed # noqa: F401 -- fixtures


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    "A dance in its folder, a character, landmarks, weights, a capture"
    folder = tmp_path_factory.mktemp("material")
    t = np.arange(3*22_050)/22_050
    (folder/"dance").mkdir()
    soundfile.write(folder/"dance"/"song.wav", .8*np.sin(2*np.pi*1000*t)*np.exp(-(t%.5)/.01), 22_050)
    poses = np.zeros((180, 24, 3))
    poses[:, 16, 2] = np.sin(np.arange(180)/20)
    motion = Motion(poses, np.tile([0, .95, 0], (180, 1)))
    motion.save(folder/"dance"/"motion.npz")
    beats = [.5*k for k in range(6)]
    (folder/"dance"/"dance.json").write_text(json.dumps(dict(format=1, version="0.0.1", song="song.wav", beats=beats, downbeats=beats[::4], commands=["audio2pose dance song.wav"], loop=False)))
    export.gltf(motion, folder/"person.glb")
    export.bvh(motion[:30], folder/"clip.bvh")
    (folder/"points").mkdir()
    np.save(folder/"points"/"clip.npy", np.random.default_rng(0).uniform(0, 500, (40, 17, 3)))
    return folder


@pytest.fixture
def place(here, material):
    "A working folder with copies of it all, and a user's diary"
    shutil.copytree(material, here, dirs_exist_ok=True)
    return here


def run(line, capfd, seconds=60):
    "Exit code, and what was said"
    with limit(seconds): code = cli.run(line if isinstance(line, list) else line.split())
    return code, capfd.readouterr()


def refused(folder, line, capfd):
    "One sentence, nothing touched, nothing new"
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    code,said = run(line, capfd)
    assert code in (1, 2) and "Traceback" not in said.err, (line, code, said)
    assert sum(text.startswith("error: ") for text in said.err.splitlines())<=1 and (said.err.strip() or said.out.strip()), (line, said)
    assert unharmed(folder) and all(path.lstat().st_mtime_ns==time for path,time in before.items()), line
    assert not list(folder.rglob(".part-*")), line
    return said.err.splitlines()[-1] if said.err.strip() else said.out


def set_json(path, **changes):
    content = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps(content|changes))


# ---- edit

EDIT_LINES = ["", "--reroll --mirror", "--mirror --at 3", "--mirror --keep legs", "--reroll --joints arms", "--mirror --bars 9-", "--mirror --bars -3", "--mirror --bars 1-2-3", "--mirror --bars 1e3", "--mirror --bars 99999999", "--mirror --seed -1", "--mirror --seed 1e3", "--mirror --gap x", "--mirror --song nothere.wav",
              "--mirror --out dance", "--mirror --out mine/diary.txt", "--mirror --out /proc/nothing", "--mirror --model mine", "--mirror --model mine/diary.txt", "--mirror --beats nothere.txt"]
def check_edit(place, words, capfd):
    refused(place, f"edit dance --no-film {words}", capfd)
    assert sorted(path.name for path in place.iterdir())==["clip.bvh", "dance", "mine", "person.glb", "points"]


@pytest.mark.parametrize("words", EDIT_LINES)
def test_edits_that_cannot_be(place, capfd, words): check_edit(place, words, capfd)


RECORDS = dict(elsewhere=dict(song="/etc/passwd"), above=dict(song="../../../../../../etc/hostname"), diary=dict(song="../mine/diary.txt"), nowhere=dict(song=""), zero=dict(song="a\0b"), device=dict(song="/dev/zero"), number=dict(song=7), later=dict(format=2), listed=dict(version=[]),
               nan=dict(beats=[0., float("nan")]), back=dict(beats=[1., .5]), far=dict(beats=[1e300, 2e300]), nested=dict(beats=[[.5], [1.]]), words=dict(beats=["one", "two"]), negative=dict(beats=[-5., -4.]), huge=dict(beats=[10**400]), commands=dict(commands=[1]), loop=dict(loop=True))

@pytest.mark.parametrize("name", RECORDS)
def test_records_by_another_hand(place, capfd, name):
    set_json("dance/dance.json", **RECORDS[name])
    refused(place, "edit dance --mirror --no-film", capfd)


def test_dances_that_are_something_else(place, capfd):
    for line in ("edit nowhere --mirror", "edit mine --mirror", "edit mine/diary.txt --mirror", "edit person.glb --mirror --song dance/song.wav"): refused(place, line, capfd)
    os.remove("dance/dance.json")
    os.mkfifo("dance/dance.json")
    refused(place, "edit dance --mirror", capfd)
    os.remove("dance/motion.npz")
    os.symlink("/dev/zero", "dance/motion.npz")
    refused(place, "edit dance --mirror --song dance/song.wav", capfd)


# ---- compare

COMPARE_LINES = ["", "dance", "dance dance --songs dance/song.wav", "dance nowhere --songs dance/song.wav", "dance mine --songs mine", "dance points", "dance mine --songs nothere.wav", "dance mine --songs mine/diary.txt", "dance points --songs dance/song.wav --start 1e9", "dance points --songs dance/song.wav --start nan",
                 "dance points --songs dance/song.wav --seconds nan", "--votes mine/diary.txt", "--votes nothere.json", "--votes mine", "--votes /dev/zero", "dance two --songs dance/song.wav --songs again/song.wav", "dance two --songs dance/song.wav --begin inf", "dance two --songs dance/song.wav --begin 1e300"]

@pytest.mark.parametrize("words", COMPARE_LINES)
def test_comparisons_that_cannot_be(place, capfd, words):
    shutil.copytree("dance", "two")
    shutil.copytree("dance", "again")
    refused(place, f"compare {words}", capfd)
    assert not Path("outputs").exists()


VOTES = dict(strangers=[dict(left="A", right="Z", choice="left")], oneself=[dict(left="A", right="A", choice="left")], choice=[dict(left="A", right="B", choice="both")], numbers=[dict(left=1, right=2, choice=3)], none=[], text="A", nothing=[None], nested=[[]])

@pytest.mark.parametrize("name", VOTES)
def test_votes_that_do_not_count(place, capfd, name):
    Path("key.json").write_text(json.dumps(dict(dancers=dict(A="one", B="two"))))
    Path("votes.json").write_text(json.dumps(dict(votes=VOTES[name])))
    refused(place, "compare --votes votes.json --out .", capfd)


def test_names_in_a_key_do_not_speak_to_the_terminal(place, capfd):
    Path("key.json").write_text(json.dumps(dict(dancers=dict(A="\x1b[31mred\x1b]0;title\x07", B="two"))))
    Path("votes.json").write_text(json.dumps(dict(votes=[dict(left="A", right="B", choice="left")]*3)))
    code,said = run("compare --votes votes.json --out .", capfd)
    assert code==0 and "\x1b" not in said.out and "\\x1b" in said.out


def test_another_key_is_not_replaced(place, capfd):
    shutil.copytree("dance", "two")
    Path("out").mkdir()
    Path("out/key.json").write_text("my house key")
    refused(place, "compare dance two --songs dance/song.wav --out out", capfd)


def test_a_song_whose_name_is_html(place, capfd):
    name = "<img src=x onerror=alert(1)>"
    shutil.copytree("dance", "two")
    shutil.copy("dance/song.wav", f"{name}.wav")
    code,said = run(["compare", "dance", "two", "--songs", f"{name}.wav", "--seconds", "1", "--out", "out"], capfd)
    assert code==0, said
    assert "<img" not in Path("out/compare.html").read_text()


# ---- retarget

def glb(path, change):
    "The character, changed"
    content = attack.parsed_glb(Path("person.glb").read_bytes())
    change(content["json"])
    Path(path).write_bytes(attack.dump_glb(content))


def no_skin(c): c.pop("skins")
def circle(c): c["nodes"][3]["children"] = [0]
def nan_place(c): c["nodes"][2]["translation"] = [float("nan")]*3
def endless(c): c["buffers"][0]["byteLength"] = float("inf")
def flat(c): c["nodes"][0]["scale"] = [0, 0, 0]
def no_turn(c): c["nodes"][1]["rotation"] = [0, 0, 0, 0]
def singular(c): c["nodes"][0]["matrix"] = [0]*16
def elsewhere(c): c["buffers"][0]["uri"] = "/etc/passwd"
def diary(c): c["buffers"][0]["uri"] = "mine/diary.txt"
def server(c): c["buffers"][0]["uri"] = "http://127.0.0.1:9/x"
def negative(c): c["nodes"][0]["children"] = [-1]
def strings(c): c["nodes"][1]["rotation"] = ["a", "b", "c", "d"]
def no_nodes(c): c["nodes"] = []
def planet(c): [node.update(translation=[1e6*x for x in node["translation"]]) for node in c["nodes"] if "translation" in node]
def nameless(c): [node.update(name="bone") for node in c["nodes"]]
def long_names(c): [node.update(name="x"*100_000) for node in c["nodes"]]
def crowd(c): c["nodes"] += [dict(name=f"n{k}", children=[len(c["nodes"])+k+1]) for k in range(20_000)]+[dict(name="last")]
def channels(c): c["animations"] = [dict(channels=[dict(sampler=0, target=dict(node=0, path="rotation"))]*50_000, samplers=[dict(input=0, output=0)])]
def last_view(c): c["accessors"][0]["bufferView"] = -1
def last_joint(c): c["skins"][0]["joints"][-1] = -1
def before_its_numbers(c): c["bufferViews"][0]["byteOffset"] = -4
def twice(c): c["skins"] = c["skins"]*2; c["nodes"] += [dict(node, children=[k+len(c["nodes"]) for k in node.get("children", [])]) for node in c["nodes"]]; c["skins"] = [c["skins"][0], dict(c["skins"][0], joints=[k+len(c["nodes"])//2 for k in c["skins"][0]["joints"]])]
def vrm_lies(c): c["extensions"] = dict(VRMC_vrm=dict(humanoid=dict(humanBones=dict(hips=dict(node=10**9), head=dict(node="x"), leftUpperLeg=None))))
def vrm_list(c): c["extensions"] = dict(VRM=dict(humanoid=dict(humanBones=[None, 3, dict(bone=[], node=0)])))
def vrm_same(c): c["extensions"] = dict(VRMC_vrm=dict(humanoid=dict(humanBones={name: dict(node=5) for name in ("hips", "head", "leftUpperLeg", "leftLowerLeg", "leftFoot", "rightUpperLeg", "rightLowerLeg", "rightFoot", "leftHand", "rightHand")})))

CHARACTERS = (no_skin, circle, nan_place, endless, flat, singular, elsewhere, diary, server, negative, strings, no_nodes, crowd, channels, last_view, last_joint, before_its_numbers, planet, nameless, long_names, twice, vrm_lies, vrm_list, vrm_same)

@pytest.mark.parametrize("change", CHARACTERS[:17], ids=lambda change: change.__name__)
def test_characters_of_bad_make(place, capfd, change): check_character(place, capfd, change)


@pytest.mark.slow # These are danced with
@pytest.mark.parametrize("change", CHARACTERS[17:], ids=lambda change: change.__name__)
def test_characters_of_odd_make(place, capfd, change): check_character(place, capfd, change)


def check_character(place, capfd, change):
    glb("odd.glb", change)
    code,said = run("retarget dance/motion.npz odd.glb --out new.glb", capfd)
    assert "Traceback" not in said.err and unharmed(place)
    if code: assert code==2 and said.err.splitlines()[-1].startswith("error: ") and len(said.err.splitlines()[-1])<600 and not Path("new.glb").exists(), said
    else: assert np.isfinite([x for node in attack.parsed_glb(Path("new.glb").read_bytes())["json"]["nodes"] for x in node.get("translation", [])]).all()


@pytest.mark.parametrize("change", [crowd, channels, last_view, last_joint, before_its_numbers], ids=lambda change: change.__name__)
def test_animations_of_bad_make(place, change):
    "Each part would become an object, and -1 would be the last of a list"
    from audio2pose.data.mocap import read_motion
    glb("odd.glb", change)
    with limit(20), pytest.raises(InputError, match="parts|below 0"): read_motion("odd.glb")


RETARGET_LINES = ["dance/motion.npz mine/diary.txt", "mine/diary.txt person.glb", "dance/motion.npz person.glb --out person.glb", "dance/motion.npz person.glb --out dance/motion.npz", "dance/motion.npz person.glb --out link.glb", "dance/motion.npz person.glb --out hard.glb", "dance/motion.npz person.glb --fps nan",
                  "dance/motion.npz person.glb --fps 0", "dance/motion.npz person.glb --fps 1e9", "dance/motion.npz person.glb --out x.txt", "dance/motion.npz person.glb --out mine", "dance/motion.npz nothere.glb", "nothere.npz person.glb", "dance person.glb", "one.npz person.glb --out new.txt", "dance/motion.npz fbx.glb", "dance/motion.npz empty.glb", "dance/motion.npz dance"]

@pytest.mark.parametrize("words", RETARGET_LINES)
def test_retargets_that_cannot_be(place, capfd, words):
    os.symlink("person.glb", "link.glb")
    os.link("person.glb", "hard.glb")
    Path("fbx.glb").write_bytes(b"Kaydara FBX Binary  \0"+bytes(99))
    Path("empty.glb").touch()
    Motion.load("dance/motion.npz")[:1].save("one.npz")
    refused(place, f"retarget {words}", capfd)


# ---- reduce, lift, features and verify on folders of points

def points_file(name):
    "A file in `points`"
    path = Path("points")/f"{name}.npy"
    if name=="objects": np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    if name=="canary": path.write_bytes(pickle.dumps(attack.Canary()))
    if name=="promise": path.write_bytes(b"\x93NUMPY\x01\x00v\x00"+(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 17, 3), }".ljust(117)+b"\n"))
    if name=="code": path.write_bytes(b"\x93NUMPY\x01\x00v\x00"+(b"__import__('os').system('touch it-ran')".ljust(117)+b"\n"))
    if name=="flat": np.save(path, np.zeros((40, 0, 4)))
    if name=="complex": np.save(path, np.zeros((40, 17, 3), complex))
    if name=="infinite": np.save(path, np.full((40, 17, 3), np.inf))
    if name=="huge": np.save(path, np.full((40, 17, 3), 1e308))
    if name=="one": np.save(path, np.zeros((1, 17, 3)))
    if name=="dates": np.save(path, np.zeros((40, 17, 3), "M8[s]"))
    if name=="pipe": os.mkfifo(path)
    if name=="zero": os.symlink("/dev/zero", path)
    if name=="broken": os.symlink("nothing", path)
    if name=="folder": path.mkdir()
    if name=="loop": os.symlink("..", Path("points")/"loop")
    if name=="sidecar": shutil.copy("points/clip.npy", path), path.with_suffix(".json").write_text('{"sha256": "x", "times": [')

POINTS = ("objects", "canary", "promise", "code", "flat", "complex", "infinite", "huge", "one", "dates", "pipe", "zero", "broken", "folder", "loop", "sidecar")

@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_odd_files_among_points(place, capfd, name):
    "The whole clips beside an odd one are made or shown, and the odd one is named; each command in its own words"
    points_file(name)
    for line in ("reduce points --out rows --points body --size 640x480", "data verify points --workers 1", "features points --kind handcrafted --fps 30 --out feats"):
        code,said = run(line, capfd)
        assert "Traceback" not in said.err+said.out and code in (0, 1, 2) and (code==0 or said.err.strip() or said.out.strip()), (line, said)
    assert unharmed(place) and not list(place.rglob(".part-*"))
    assert Path("rows/clip.npy").is_file() and list(Path("feats").rglob("clip*"))


FOLDER_LINES = ["reduce nowhere", "reduce mine", "reduce points --points nothing", "reduce points --size 0x0", "reduce points --size wide", "reduce points --missing maybe", "reduce points --mode sideways", "reduce points --score nan", "reduce points --out mine/diary.txt", "reduce points --out points",
                "reduce points --workers 0", "reduce points --compat now", "lift points", "lift points --weights mine/diary.txt", "lift points --weights mine"]

@pytest.mark.parametrize("line", FOLDER_LINES)
def test_folders_of_points_that_cannot_be_used(place, capfd, line): refused(place, line, capfd)


LIFT_LINES = ["lift points --weights random-lite --fps nan", "lift points --weights random-lite --fps 0", "lift points --weights random-lite --size 1",
                "lift points --weights random-lite --out points", "lift points --weights random-lite --fps 30 --size 640x480 --person -x", "lift nowhere --weights random-lite", "lift mine --weights random-lite", "lift points --weights random-lite --fps 30 --size 640x480 --focal nan --no-film",
                "lift points --weights random-lite --fps 30 --size 640x480 --tilt nan --no-film", "lift points --weights random-lite --fps 30 --size 640x480 --cutoff nan --no-film"]

@pytest.mark.slow # A network is made for each
@pytest.mark.timeout(900)
def test_points_that_cannot_be_lifted(place, capfd):
    for line in LIFT_LINES: refused(place, line, capfd)


# ---- weights

def header(length, text=b"{}"): return struct.pack("<Q", length)+text

WEIGHTS = {"empty.pt": b"", "empty.safetensors": b"", "long.safetensors": header(2**63), "cut.safetensors": header(100), "wild.safetensors": header(60, b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'), "minus.safetensors": header(62, b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}        '),
           "code.pt": pickle.dumps(attack.Canary()), "code.bin": b"cos\nsystem\n(S'touch it-ran'\ntR.", "text.pth": b"weights", "zip.pt": b"PK\x03\x04"+bytes(50), "tflite.task": b"\0\0\0\0TFL3"+bytes(20), "big.safetensors": b"\xff"*1000}

@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none(place, capfd, name):
    Path(name).write_bytes(WEIGHTS[name])
    code,said = run(f"weights show {name}", capfd)
    assert "Traceback" not in said.err and unharmed(place) and (code==2)==(name!="tflite.task"), said
    refused(place, f"weights convert {name} new.safetensors", capfd)


def test_checkpoints_that_lead_elsewhere(place, capfd):
    for note in ('model_checkpoint_path: "/etc/passwd"\n', 'model_checkpoint_path: "../mine/diary.txt"\n', "model_checkpoint_path: \"\0\"\n", "x"*100_000):
        Path("tf").mkdir(exist_ok=True)
        Path("tf/checkpoint").write_text(note)
        assert "root:" not in refused(place, "weights show tf", capfd)
    bomb = zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED)
    for k in range(3): bomb.writestr(f"archive/data/{k}", bytes(30_000_000))
    bomb.writestr("archive/data.pkl", pickle.dumps({}))
    bomb.close()
    refused(place, "weights show bomb.pt", capfd)
    for line in ("weights show mine", "weights show nowhere", "weights show .", "weights convert person.glb new", "weights convert nowhere new"): refused(place, line, capfd)


def tensor_bytes(source):
    "Bytes of the tensors of a file, by name"
    from safetensors.numpy import load
    return {name: array.tobytes() for name,array in load(source if isinstance(source, bytes) else Path(source).read_bytes()).items()}


def test_weights_are_not_written_over_what_they_come_from(place, capfd, tiny):
    shutil.copytree(tiny, "model")
    refused(place, "weights convert model/model.safetensors mine/diary.txt", capfd)
    before = Path("model/model.safetensors").read_bytes()
    run("weights convert model/model.safetensors model", capfd)
    assert tensor_bytes("model/model.safetensors")==tensor_bytes(before)


# ---- one's own captures, and what is made

IMPORT_LINES = ["data import nowhere", "data import mine", "data import clips --out clips", "data import clips --out mine/diary.txt", "data import clips --cutoff nan", "data import clips --outlier nan", "data import clips --slowest nan", "data import clips --slowest 200 --quickest 100", "data import clips --quickest inf",
                "data synth mine/diary.txt", "data synth new --sequences 0", "data synth new --sequences -1", "data synth new --seconds nan", "data synth new --seconds 0", "data synth new --seconds 1e9", "data synth new --seed -1", "data inspect mine", "data inspect mine/diary.txt", "data inspect clips/clip.bvh --picture mine"]

@pytest.mark.parametrize("line", IMPORT_LINES)
def test_data_that_cannot_be(place, capfd, line):
    Path("clips").mkdir()
    shutil.move("clip.bvh", "clips/clip.bvh")
    refused(place, line, capfd)


@pytest.mark.parametrize("name", ["a\nb.bvh", "\x1b[31m.bvh", "-rf.bvh", "$(touch it-ran).bvh", "%s%n.bvh", "ü.bvh", "a;touch it-ran.bvh", "x"*240+".bvh"])
def test_captures_with_odd_names(place, capfd, name):
    Path("clips").mkdir()
    Path("clips", name).write_text("HIERARCHY\n")
    code,said = run("data import clips --out out", capfd)
    assert code in (1, 2) and "Traceback" not in said.err and "\x1b" not in said.err+said.out and unharmed(place)


# ---- live

LIVE_LINES = ["live nothere.mp3", "live mine", "live mine/diary.txt", "live dance/song.wav --port 70000", "live dance/song.wav --rate 1", "live - --channels 0", "live dance/song.wav --energy nan --no-browser", "live dance/song.wav --energy 1e9 --no-browser", "live dance/song.wav --style polka --no-browser", "live dance/song.wav --seed -1"]

@pytest.mark.parametrize("line", LIVE_LINES)
def test_live_that_cannot_be(place, capfd, line): refused(place, line, capfd)


REQUESTS = {b"GET / HTTP/1.0\r\n\r\n": b"403", b"GET /wrong/ HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\n\r\n": b"403", b"GET /TOKEN/../../etc/passwd HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\n\r\n": b"404", b"GET /TOKEN/ HTTP/1.0\r\nHost: evil.example\r\n\r\n": b"403",
            b"GET /TOKEN/ HTTP/1.0\r\n\r\n": b"403", b"GET /TOKEN/%2e%2e/x HTTP/1.0\r\nHost: localhost:PORT\r\n\r\n": b"404", b"POST /wrong/control HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 2\r\n\r\n{}": b"403", b"POST /TOKEN/control HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\nContent-Length: -1\r\n\r\n": b"400",
            b"POST /TOKEN/control HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\nContent-Length: x\r\n\r\n{}": b"400", b"POST /TOKEN/control HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 1000\r\n\r\n"+b"["*1000: b"400", b"POST /TOKEN/control HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 514\r\n\r\n"+b'{"energy": '+b"9"*502+b"}": b"400",
            b"POST /TOKEN/control HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 16\r\n\r\n"+b'{"style": [1,2]}': b"400", b"POST /TOKEN/control HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 4\r\n\r\nnull": b"400", b"PUT /TOKEN/ HTTP/1.0\r\n\r\n": b"501", b"GET /T\xc3\xbc/ HTTP/1.0\r\n\r\n": b"403", b"nonsense\r\n\r\n": b"400"}

@pytest.fixture(scope="module")
def live_server():
    from audio2pose.commands.live import LiveServer
    from audio2pose.live import LiveDancer, LiveStream
    from audio2pose.models.motion_flow import MotionFlow
    with LiveServer(LiveStream(LiveDancer(MotionFlow.from_pretrained())), iter(()), "<p>page") as server:
        threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=.05), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("request_bytes", REQUESTS, ids=range(len(REQUESTS)))
def test_requests_to_a_live_dance(live_server, capfd, request_bytes):
    filled = request_bytes.replace(b"PORT", str(live_server.server_port).encode()).replace(b"TOKEN", live_server.token.encode())
    with socket.create_connection(("127.0.0.1", live_server.server_port), timeout=20) as connection:
        connection.sendall(filled)
        answer = connection.recv(200)
    assert REQUESTS[request_bytes] in answer.split(b"\r\n")[0], answer
    assert "Traceback" not in capfd.readouterr().err


# ---- tables of videos

HEAD = "VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND\tSENTENCE\n"
ROWS = ["v\t../up\t0\t1\tx", "v\t/etc/x\t0\t1\tx", "v\ta/../../b\t0\t1\tx", "v\tC:\\x\t0\t1\tx", "v\t..\\..\\x\t0\t1\tx", "v\t\t0\t1\tx", "v\t \t0\t1\tx", "v\t.hidden\t0\t1\tx", "v\ta/.b\t0\t1\tx", f"v\t{'x'*300}\t0\t1\tx", "v\ta\u202eb\t0\t1\tx", "v\ta\x1b[31m\t0\t1\tx", "v\ta\0b\t0\t1\tx", "../../etc/passwd\ta\t0\t1\tx",
        "v\ta\tnan\t1\tx", "v\ta\t0\tnan\tx", "v\ta\t1e999\t2\tx", "v\ta\t-1\t2\tx", "v\ta\t2\t1\tx", "v\ta\t1\t1\tx", "v\ta\tone\ttwo\tx", "v\ta\t0x1\t2\tx", "v\ta\t0\t1", "v\ta\t0\t1\tx\ty", "v", "\t\t\t\t", "\ufffd\ta\t0\t1\tx", "x"*2_000_000]

@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_rows_of_a_table(here, row):
    "A row that cannot be used is told, and the rows around it are read"
    Path("t.tsv").write_text(HEAD+"v\tfirst\t0\t1\tx\n"+row+"\nv\tlast\t1\t2\ty\n", encoding="utf-8")
    found = list(read_segments("t.tsv")[1])
    assert [segment.name for segment in found if isinstance(segment, Segment)]==["first", "last"]
    assert all(isinstance(segment, InvalidRow) and segment.reason for segment in found[1:-1])


@pytest.mark.parametrize("text", ["", "\n", "\ufeff", HEAD.replace("START", "BEGIN"), "a,b\n1,2\n", "\0"*100, HEAD.lower().replace("\t", ";"), "\"unclosed\t"*1000])
def test_tables_without_their_columns(here, text):
    Path("t.tsv").write_text(text)
    with pytest.raises(InputError, match="no column (VIDEO_NAME|START)"): list(read_segments("t.tsv")[1])


ENTRIES = [None, 3, [], {}, dict(video_id=None), dict(video_id=[1]), dict(video_id="a", fps=-25, frame_start=50), dict(video_id="a", fps="x"), dict(video_id="a", frame_start="1e5"), dict(video_id="a", frame_start=10**400), dict(video_id="a", frame_end=-2), dict(video_id="../up"), dict(video_id="a", bbox=["a"]*4), dict(video_id="a", bbox=[float("nan")]*4),
           dict(video_id="a", bbox=[100, 100, 50, 50]), dict(video_id="a", bbox=[0, 0, 1e300, 1e300]), dict(video_id="a", fps=float("nan"), frame_start=5), dict(video_id="a", bbox=5)]

@pytest.mark.parametrize("entry", ENTRIES, ids=range(len(ENTRIES)))
def test_entries_of_a_dictionary(here, entry):
    Path("w.json").write_text(json.dumps([dict(gloss="g", instances=[entry, dict(video_id="whole", fps=25, frame_start=1, frame_end=-1, bbox=[0, 0, 9, 9])])]))
    found = list(read_segments("w.json")[1])
    assert isinstance(found[-1], Segment) and found[-1].name=="whole" and len(found)==2
    assert isinstance(found[0], InvalidRow) and len(found[0].reason)<300, found


# ---- parameters of runs

LARGE = "0x"+"f"*5000 # Python prints no number of so many digits
PAIRS = [f"rate={'9'*400}", f"rate={LARGE}", f"steps={LARGE}", f"steps=-{LARGE}", "bag={1: 2, 'a': 3}", "bag={(1, 2): 3}", "bag={None: 1, 'a': 2}", "bag=b'1'", "bag={1, 2}", "bag=...", "bag=1j", f"bag={{{LARGE}: 1}}", "bag={'a': '\\ud800'}", "name=\udcff", "steps", "=", "=1", "steps=1e999", "opt=nan"]
CELLS = ["x = b'1'", "x = {1, 2}", "x = ...", "x = 1j", "x = {1: 2, 'a': 3}", "x = {(1, 2): 3}", f"x = {LARGE}", f"x:float = -{LARGE}", "x = {'a': b'1'}", "x = '\\ud800'", "x = lambda: 3", "x = 2 if True else 3"]
YAML = [f"rate: {'9'*400}", f"steps: {LARGE}", f"rate: {LARGE}", f"bag: [{LARGE}]", "bag: 2020-01-01", "bag: 2020-02-30", "bag: !!timestamp x", "steps: !!bool x", "steps: !!int ''", "steps: !!float x", "bag: !!binary x", "bag: !!set {a, b}", "bag: !!python/object/apply:os.system ['touch it-ran']", "bag: {[1, 2]: 3}", "bag: {~: 1}", "~: 1", "steps: 1\n--- \nsteps: 2", "%YAML 9.9\n---\nsteps: x", "\tsteps: 1"]

def planned(cell, pairs=(), text=None):
    "What a run of a notebook with such a cell would begin from"
    from audio2pose.engine import notebooks, runs
    Path("n.ipynb").write_text(json.dumps(dict(cells=[dict(cell_type="code", metadata=dict(tags=["parameters"]), source=cell)])))
    if text is not None: Path("p.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    notebook = notebooks.find_file("n.ipynb", ".ipynb")
    parameters = (notebooks.load_parameters("p.yaml", notebook) if text is not None else {})|notebooks.parse_parameters(notebook, list(pairs))
    [plan] = runs.plan_runs(notebook, [parameters], "runs")
    return runs.data_fingerprints(plan)

CELL = "steps:int = 1\nrate:float = .1\nname:str = 'x'\nbag = {}\nopt:int|None = None\n"

@pytest.mark.parametrize("case", [*((CELL, (pair,)) for pair in PAIRS), *((cell,) for cell in CELLS), *((CELL, (), text) for text in YAML)], ids=lambda case: repr(case[-1])[:40])
def test_parameters_that_cannot_be(here, case):
    with limit(10), pytest.raises(InputError) as error: planned(*case)
    assert "\n" not in str(error.value) and unharmed(here)


def test_parameters_that_only_look_like_files(here):
    "A long text is no file name that is too long, and nobody waits for a pipe"
    os.mkfifo("pipe")
    os.symlink("circle", "circle")
    Path("data").write_text("numbers")
    with limit(10):
        for name in ("x"*300, "x/"*400, "pipe", "circle", "/dev/zero", "a\0b"): assert planned(CELL, [f"name={name}"])=={}
        assert set(planned(CELL, ["name=data"]))=={"name"}


# ---- videos

def moving_film(suffix, codec, frames=14):
    "Bytes of a film of a grey block that moves"
    import av
    path = Path(f"made.{suffix}")
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=25)
        stream.width,stream.height,stream.pix_fmt = 64,48,"yuvj420p" if codec=="mjpeg" else "yuv420p"
        for k in range(frames):
            picture = np.full((48, 64, 3), 60, np.uint8)
            picture[10:30, k:k+20] = 200
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        film.mux(stream.encode(None))
    data = path.read_bytes()
    path.unlink()
    return data


def extracted(path, **settings):
    "Outcomes of a video, as the extractor of landmarks reads it"
    from audio2pose.engine.ledger import Job, Outcome
    from audio2pose.extract.clips import FrameReader
    from audio2pose.extract.settings import LandmarkConfig
    events = list(FrameReader(LandmarkConfig(**settings))(iter([Job(str(path), {"k": Segment("k", "v")})])))
    return [event for event in events if isinstance(event, Outcome)]+[event.clip.outcome for event in events if hasattr(event, "clip")]


@pytest.mark.parametrize("settings", [dict(rate=10), dict(rate=10, sampler="counting"), dict(sampler="counting"), dict()], ids=str)
@pytest.mark.parametrize("says", [b"10000:00:00.", b"99999999:0:0.", b"9999999999:0:0.", b"0:0:1..........", b"00:00:00.0000000"])
def test_a_film_that_says_how_long_it_is(here, says, settings):
    "Moments are not laid out over hours that are only promised"
    import re
    data = moving_film("mkv", "mpeg4")
    [said] = re.findall(rb"\d\d:\d\d:\d\d\.\d+", data)
    Path("a.mkv").write_bytes(data.replace(said, says.ljust(len(said), b"0")))
    with limit(10): outcomes = extracted("a.mkv", **settings)
    if b"99" in says or b"1000" in says: assert len(outcomes)==1 and outcomes[0].outcome=="too_long" and "mend its header" in outcomes[0].reason
    else: assert outcomes and "error" not in str(outcomes)


# ---- MIDI and its containers

def midi_bytes(track, division=480, kind=0, tracks=1): return b"MThd"+struct.pack(">IHHH", 6, kind, tracks, division)+b"MTrk"+struct.pack(">I", len(track))+track

NOTE = b"\x00\x90\x3c\x40\x60\x80\x3c\x40"
END = b"\x00\xff\x2f\x00"
MIDI = dict(empty=b"", text=b"a song", head=b"MThd", cut=midi_bytes(NOTE+END)[:-9], no_clock=midi_bytes(NOTE+END, 0), film_clock=midi_bytes(NOTE+END, 0xE728), promise=b"MThd"+struct.pack(">IHHH", 2**31, 0, 1, 480), many=midi_bytes(NOTE+END, tracks=65_535), long_track=midi_bytes(b"")[:-4]+struct.pack(">I", 2**32-1)+NOTE,
            long_meta=midi_bytes(b"\x00\xff\x51\xff\xff\xff\x7f"), no_tempo=midi_bytes(b"\x00\xff\x51\x00"+END), key=midi_bytes(b"\x00\xff\x59\x02\x7f\x7f"+END), centuries=midi_bytes((b"\xff\xff\xff\x7f"+NOTE[1:])*400+END, 1), wide_sysex=midi_bytes(b"\x00\xf0\xff\xff\xff\x7f"), running=midi_bytes(b"\x00\x3c\x40"), no_events=midi_bytes(b""), riff=b"RIFF"+bytes(60))

@pytest.mark.parametrize("name", MIDI)
def test_midi_that_is_none(here, name):
    Path("a.mid").write_bytes(MIDI[name])
    with limit(20), pytest.raises(InputError): read_midi("a.mid")


def test_midi_that_says_little(here):
    "Tempo 0 and no notes are heard, as nothing"
    from audio2pose.data.midi import beats_of, excerpt
    for track in (b"\x00\xff\x51\x03\x00\x00\x00"+NOTE*60+END, NOTE+END):
        file = parse_midi(midi_bytes(track), "x")
        with np.errstate(all="ignore"): assert excerpt(file, 8) is None and len(beats_of(file)[0])>=0


WAD = dict(text=b"a wad", cut=b"PWAD\1", count=b"PWAD"+struct.pack("<ii", 2**31-1, 12), minus=b"PWAD"+struct.pack("<ii", -1, 12), outside=b"PWAD"+struct.pack("<ii", 1, 2**31-1), before=b"PWAD"+struct.pack("<ii", 1, -5)+bytes(40), nothing=b"PWAD"+struct.pack("<ii", 0, 12))

@pytest.mark.parametrize("name", WAD)
def test_wads_that_are_none(here, name):
    Path("a.wad").write_bytes(WAD[name])
    with limit(20), pytest.raises(InputError): read_midi("a.wad")


def test_lumps_with_odd_places_and_names(here):
    lump = midi_bytes(NOTE+END)
    entries = [(12, len(lump), b"../up\0\0\0"), (-4, 10, b"minus\0\0\0"), (10**6, 10, b"far\0\0\0\0\0"), (12, -1, b"short\0\0\0"), (12, 2**31-1, b"long\0\0\0\0")]
    Path("a.wad").write_bytes(b"PWAD"+struct.pack("<ii", len(entries), 12+len(lump))+lump+b"".join(struct.pack("<ii8s", *entry) for entry in entries))
    found = wad_midi("a.wad")
    assert all("/" not in name for name in found) and set(found)=={"a-.._up", "a-short", "a-long"}
    assert {name for name in read_midi("a.wad")}<=set(found)


# ---- hashes

SUMS = ["0"*63+"  a", "0"*65+"  a", "g"*64+"  a", "0"*64, "٠"*64+"  a", "\0", "0"*64+"\t", "SHA256 (a) = "+"0"*64, "<html>not found</html>"]

@pytest.mark.parametrize("line", SUMS, ids=range(len(SUMS)))
def test_lists_of_hashes_that_are_none(place, capfd, line):
    Path("sums").write_text(f"{'1'*64}  whole.zip\n{line}\n")
    said = refused(place, "data download --accept-terms --what annotations --annotations-url http://127.0.0.1:9/x.zip --checksums sums", capfd)
    assert "sha256sum" in said


def test_a_list_of_hashes_names_files_not_places(here):
    from audio2pose.data.fetch import read_checksums
    Path("sums").write_text(f"{'A'*64} *../../mine/diary.txt\r\n\r\n{'b'*64}  /etc/passwd\n")
    assert read_checksums("sums")=={"diary.txt": "A"*64, "passwd": "b"*64}


@pytest.mark.parametrize("note", [b"", b"\xff\xfe\0", b"\0"*1000, b"x"*10**6, b"0"*63+b"  w.bin\n", b"Z"*64+b"  w.bin\n"])
def test_hashes_noted_before_are_looked_at(here, note, capfd):
    "What is no line of a hash says nothing; a line that says another hash refuses the file"
    from audio2pose.core import file_sha256
    from audio2pose.models.published import check_sha256
    Path("w.bin").write_bytes(b"weights")
    Path("SHA256SUMS").write_bytes(note)
    whole = file_sha256("w.bin")
    assert check_sha256(Path("w.bin"), whole[:8])==whole
    Path("SHA256SUMS").write_text(f"{'0'*64}  w.bin\n")
    with pytest.raises(InputError, match="not the file that came first"): check_sha256(Path("w.bin"), whole[:8])


# ---- songs and pickles that say more than they hold

def wav(bits=16, size=16, order="<", samples=b""):
    "A WAV file whose header says so many bits a sample, in a `fmt ` chunk of so many bytes"
    fmt = struct.pack(f"{order}HHIIHH", 1, 1, 22_050, 44_100, 2, bits)[:size]
    number = lambda n: struct.pack(f"{order}I", n)
    return (b"RIFF" if order=="<" else b"RIFX")+number(20+size+len(samples))+b"WAVEfmt "+number(size)+fmt+b"data"+number(len(samples))+samples

TONE = (.5*np.sin(np.arange(44_100)/9)*(np.arange(44_100)%11_025<2000)).astype("f4")

@pytest.mark.parametrize("header", [dict(bits=0), dict(bits=1), dict(bits=7), dict(bits=65_535), dict(size=14), dict(size=2), dict(size=0)], ids=str)
def test_a_wav_that_does_not_say_what_its_samples_are(here, header):
    "Decoders guess, and the song would be noise"
    from audio2pose import audio
    Path("a.wav").write_bytes(wav(samples=(TONE*32_767).astype("<i2").tobytes(), **header))
    with limit(20), pytest.raises(InputError) as error: audio.load("a.wav")
    assert "\n" not in str(error.value)


def test_a_wav_of_the_other_byte_order(here):
    from audio2pose import audio
    Path("a.wav").write_bytes(wav(order=">", samples=(TONE*32_767).astype(">i2").tobytes()))
    assert np.abs(audio.load("a.wav", 22_050)[0]-TONE).max()<1e-3


def test_flac_files_put_end_to_end(here):
    "Both are heard, on one clock, as those of Ogg and MP3 are"
    from audio2pose import audio
    soundfile.write("a.flac", TONE, 22_050)
    soundfile.write("b.flac", np.stack([TONE, TONE], 1), 44_100)
    Path("both.flac").write_bytes(Path("a.flac").read_bytes()+Path("b.flac").read_bytes())
    y,rate = audio.load("both.flac", 22_050)
    assert len(y)==len(TONE)*3//2 and np.abs(y[:len(TONE)]-TONE).max()<1e-3
    Path("cut.flac").write_bytes(Path("both.flac").read_bytes()[:-3000])
    with pytest.raises(InputError): audio.load("cut.flac")


def test_pickles_whose_parts_occur_again_and_again(here):
    "A few bytes would be gigabytes of numbers, or hours of counting"
    from audio2pose.motion import load_pickle
    lists,arrays = [0.],[np.zeros((1000, 72))]*3000
    for _ in range(30): lists = [lists]*10
    for content in (lists, tuple(lists), {"smpl_trans": lists}, dict(smpl_poses=arrays, smpl_trans=np.zeros((1, 3)))):
        Path("a.pkl").write_bytes(pickle.dumps(content))
        with limit(20), pytest.raises(InputError, match="again and again"): load_pickle("a.pkl")


def test_small_numbers_count_as_large_ones(here, monkeypatch):
    "A byte a number on the disk is eight in memory"
    from audio2pose import documents
    monkeypatch.setattr(documents, "MAX_ARRAYS", 1_000_000)
    np.savez_compressed("a.npz", poses=np.zeros((2000, 24, 3), "i1"), trans=np.zeros((2000, 3), "i1"), fps=60.)
    with pytest.raises(InputError, match="eight bytes each"): Motion.load("a.npz")


@pytest.mark.skipif(sys.platform!="linux", reason="its measure of memory")
def test_pickles_that_announce_much(here):
    "No room is made for what is not there"
    import resource
    from audio2pose.motion import load_pickle
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for code in (b"\x96", b"\x8e", b"\x8d"):
        Path("a.pkl").write_bytes(b"\x80\x05"+code+struct.pack("<Q", 6<<30)+b".")
        with pytest.raises(InputError): load_pickle("a.pkl")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss<before+500_000


# ---- full disks

SAVER = '''
import json, os, resource, signal, sys, warnings
warnings.filterwarnings("ignore")
import numpy as np, torch
from pathlib import Path
from audio2pose.core import InputError
from audio2pose.motion import Motion
from audio2pose.show import export, player, film
from audio2pose.show.character import retarget_character
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.models.motion_flow import MotionFlow, MotionFlowConfig
from audio2pose.models import motion_flow_training, beat_network, tensorflow, dance_net, motionbert, baselines
from audio2pose.landmarks import Landmarks
from audio2pose.beats import Beats
from audio2pose.engine import runs
from audio2pose import pairs, train, landmarks
from audio2pose.commands import record
from audio2pose.data import prepare_clip, windows, synthetic
rng = np.random.default_rng(0)
motion = Motion(rng.normal(size=(600, 24, 3)), np.tile([0, .95, 0], (600, 1)))
export.gltf(motion[:9], "person.glb")
flow = MotionFlow(MotionFlowConfig(width=96, heads=2, mlp=256, layers=2, styles=("a",)))
adam = torch.optim.AdamW(flow.parameters())
net = dance_net.DanceNet()
seen = Landmarks(rng.normal(size=(300, 133, 4)).astype("f4"), np.arange(300)/30, 30, (640, 480), "a", "wholebody", "a.mp4")
times = np.arange(9000)*.5
fact = FACT(FACTConfig.small())
lifter = motionbert.DSTformer(motionbert.DSTformerConfig(width=64, mlp=64, rep=64, depth=1, heads=2))
savers = {
 "a.npz": motion.save, "a.pkl": motion.save, "a.bvh": lambda p: export.bvh(motion, p), "a.glb": lambda p: export.gltf(motion, p), "a.gltf": lambda p: export.gltf(motion, p), "a.vrma": lambda p: export.vrma(motion, p),
 "a.html": lambda p: player.write_html(motion[:99], p), "a.mp4": lambda p: film.render(motion[:40], p, width=320, height=240, progress=False), "c.glb": lambda p: retarget_character(motion, "person.glb", p),
 "a.npy": lambda p: prepare_clip.write_array(p, rng.normal(size=(600, 35))), "a.json": lambda p: runs.write_json(p, dict(a=list(range(50_000)))), "beats.txt": lambda p: Beats(times, times[::4], "x").save(p), "l.npy": lambda p: seen.save(p),
 "log.csv": lambda p: train.write_log(p, [dict(step=float(k), loss=1.) for k in range(9000)]), "dances.json": lambda p: pairs.write_note(p.parent, 2., "x", [f"dance{k}" for k in range(9000)], "s"),
 "dance.json": lambda p: record.write_record(p.parent, Path("s.wav"), Beats(times, times[::4], "x"), ["x"]), "fact/model.safetensors": lambda p: fact.save_pretrained(p.parent), "flow/model.safetensors": lambda p: flow.save_pretrained(p.parent), "net/model.safetensors": lambda p: net.save_pretrained(p.parent),
 "beat.safetensors": lambda p: beat_network.save(beat_network.BeatNetwork(), p), "ckpt-1.data-00000-of-00001": lambda p: tensorflow.write_bundle(p.with_name("ckpt-1"), dict(a=np.zeros(90_000))), "lift.bin": lambda p: lifter.save(p),
}
before = {name: os.urandom(300) for name in savers}
for name,data in before.items():
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(data)
there = {str(p) for p in Path(".").rglob("*")}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
out = {}
for name,save in savers.items():
    try: save(Path(name)); said = "saved"
    except (OSError, InputError) as error: said = "refused" if str(error).strip() else "silent"
    except BaseException as error: said = f"{type(error).__name__}: {error}"
    new = {str(p) for p in Path(".").rglob("*")}-there
    out[name] = [said, Path(name).read_bytes()==before[name], sorted(new)]
    there |= new
sys.stdout.write(json.dumps(out))
'''

@pytest.mark.slow
@pytest.mark.skipif(os.name!="posix", reason="limits of Unix")
def test_savers_on_a_full_disk(here):
    "Whatever is saved: an error with a sentence, the old file whole to the byte, and no half file beside it"
    Path("mine/link").unlink()
    done = copies.run([sys.executable, "-B", "-c", SAVER], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode==0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found)==22 and {name: outcome for name,outcome in found.items() if outcome!=["refused", True, []]}=={}
