"Hostile inputs: valid files of every kind that is read, and ways to spoil them; used by test_attack.py"
import copy
import hashlib
import io
import json
import math
import os
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

class TooLongError(BaseException):
    "Not an Exception: what reads a file may catch those, and would call a file that takes for ever a bad one"


# ---- spoiling

class Canary:
    "Runs code when it is unpickled"
    def __reduce__(self): return os.system, ("touch it-ran",)


def nested(depth, kind=list):
    "Brackets within brackets, as text"
    return "["*depth+"]"*depth if kind is list else '{"a":'*depth+"1"+"}"*depth


ODD_VALUES = [None, True, False, 0, -1, 1, 2**31, 2**63, 2**64+1, 10**400, -10**12, .5, -.5, 1e300, -1e300, 1e-300, math.nan, math.inf, -math.inf, "", "x", "1", "nan", "../../up", "/etc/passwd", "a\0b", "\ud800", "\n",
              [], [[]], [1, [2]], {}, {"": None}, [None]*3, {"a": {"b": []}}, "x"*100_000, list(range(3)), [math.nan]*4, ["a"]*17]
ODD_ARRAYS = [lambda x: x[:0], lambda x: x[:1], lambda x: x.ravel(), lambda x: x[None], lambda x: x[..., None], lambda x: np.zeros(()), lambda x: np.full_like(x, np.nan, dtype=float), lambda x: np.full(x.shape, np.inf),
              lambda x: np.full(x.shape, 1e300), lambda x: np.full(x.shape, -1e30), lambda x: x.astype(complex), lambda x: x.astype(str), lambda x: x.astype(bool), lambda x: x.astype(np.int8, casting="unsafe"),
              lambda x: x.astype(">f8"), lambda x: x.astype("f2"), lambda x: np.asfortranarray(x), lambda x: np.repeat(x[:1], 3, 0) if x.ndim else x, lambda x: x[::-1], lambda x: x.T, lambda x: np.array("text"), lambda x: np.array(b"bytes"),
              lambda x: np.array(np.datetime64("2020-01-01")), lambda x: np.zeros(3, [("a", "f4"), ("b", "i4")]), lambda x: np.zeros((0, 0, 0)), lambda x: np.zeros((2,)*20), lambda x: -x if x.dtype.kind in "fi" else x, lambda x: np.zeros_like(x)]
ODD_TOKENS = ["", "-1", "0", "1e999", "nan", "inf", "-inf", "x", "1,5", "9"*500, "\0", "\"", "[", "]", "{", "'", "\t", "\n", ":", "&a *a", "!!python/object/apply:os.system ['touch it-ran']", "2020-01-01", "é", "\ufeff", "0x10", "1_000", "-0.0", "1e308"]


def spoil_bytes(data:bytes, rng:random.Random)->bytes:
    "Cut, flip, zero, double, insert or swap parts"
    if not data: return bytes([rng.randrange(256)])
    kind,i,j = rng.randrange(8),rng.randrange(len(data)),rng.randrange(len(data))
    i,j = min(i, j),max(i, j)
    if kind==0: return data[:i]
    if kind==1:
        out = bytearray(data)
        for _ in range(rng.choice([1, 1, 4, 64])): out[rng.randrange(len(out)) if rng.random()<.5 else rng.randrange(min(len(out), 256))] ^= 1<<rng.randrange(8)
        return bytes(out)
    if kind==2: return data[:i]+bytes(min(j-i, 4096))+data[i+min(j-i, 4096):]
    if kind==3: return data[:j]+data[i:]
    if kind==4: return data[:i]+rng.randbytes(rng.randrange(1, 50))+data[i:]
    if kind==5: return data[:i]+data[j:]
    if kind==6: return data[j:]+data[:j]
    return data+rng.randbytes(100)


def paths_in(content, path=())->Iterator[tuple]:
    "All places in lists and dicts; a few of a long list"
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content[:4]) if isinstance(content, (list, tuple)) else ()
    for key,value in items: yield from paths_in(value, (*path, key))


def spoil_content(content, rng:random.Random):
    "Lists and dicts with one or two places replaced, left out, doubled or renamed; arrays made odd"
    content = copy.deepcopy(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path = rng.choice(list(paths_in(content)))
        if not path:
            if rng.random()<.1: return rng.choice(ODD_VALUES)
            continue
        parent = content
        for key in path[:-1]: parent = parent[key]
        if not isinstance(parent, (dict, list)): continue
        key,value,kind = path[-1],parent[path[-1]],rng.randrange(8)
        if isinstance(value, np.ndarray) and rng.random()<.85:
            try: parent[key] = rng.choice(ODD_ARRAYS)(value)
            except (ValueError, TypeError, IndexError): parent[key] = None
        elif kind==0: del parent[key]
        elif kind==1 and isinstance(parent, list): parent.insert(key, copy.deepcopy(value))
        elif kind==1: parent["odd"] = copy.deepcopy(value)
        elif kind==2 and isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value)<1e290: parent[key] = value*rng.choice([-1, 0, 2, 1e9, 1e-9, 1.5])
        elif kind==3 and isinstance(value, list): parent[key] = value[:-1]
        elif kind==4 and isinstance(value, list): parent[key] = value*2
        else: parent[key] = rng.choice(ODD_VALUES)
    return content


def spoil_text(text:str, rng:random.Random)->str:
    "Tokens replaced by odd ones, lines left out or doubled"
    lines = text.splitlines(keepends=True)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if not lines: return rng.choice(ODD_TOKENS)
        i,kind = rng.randrange(min(len(lines), 40)),rng.randrange(6)
        parts = lines[i].replace("\t", " \t ").replace(",", " , ").split(" ")
        if kind==0: del lines[i]
        elif kind==1: lines.insert(i, lines[i])
        elif kind==2: lines[i] = "".join(parts[:-1])
        else:
            parts[rng.randrange(len(parts))] = rng.choice(ODD_TOKENS)
            lines[i] = (" " if "\t" not in lines[i] and "," not in lines[i] else "").join(parts)
    return "".join(lines)


DEEP_CODE = ["("*5000+")"*5000, "("*150+"1"+")"*150, "["*90+"]"*90, "-"*20_000+"1", "1"+"+1"*20_000, "not "*20_000+"x", "x"+".y"*20_000, "f"+"(1)"*5000, "lambda:"*5000+"1"] # Python that is too deep for its parser, or for those who walk through it


@lru_cache
def deep_skeletons(joints:int)->dict[str, str]: # Name of a target → text
    "Motion files whose skeleton is one long chain, or goes in a circle"
    bones = "".join(f"  begin\n    id {i}\n    name b{i}\n    direction 0 1 0\n    length 1\n    axis 0 0 0 XYZ\n  end\n" for i in range(joints))
    asf = ":version 1.10\n:units\n  length 0.45\n:root\n  order TX TY TZ RX RY RZ\n:bonedata\n"+bones+":hierarchy\n  begin\n    {}\n"+"".join(f"    b{i} b{i+1}\n" for i in range(joints-1))+"  end\n"
    bvh = "HIERARCHY\n"+"".join(f"{'JOINT' if i else 'ROOT'} j{i}\n{{\nOFFSET 0 1 0\nCHANNELS 3 Zrotation Xrotation Yrotation\n" for i in range(joints))+"}\n"*joints+"MOTION\nFrames: 1\nFrame Time: 0.01\n"+"0 "*3*joints
    return {"BVH": bvh, "ASF": asf.format("root b0"), "ASF in a circle": asf.format(f"b{joints-1} b0")}


def deep_versions(target, rng:random.Random, places:int)->Iterator[bytes]:
    "Versions of a file with something deep, circular, or of another kind in some of its places"
    if target.kind=="json":
        for path in [(), *rng.sample(found := list(paths_in(target.content)), min(places, len(found)))]:
            text = dump_json(replaced(target.content, path, "@@")).decode()
            for depth,kind in ((90, list), (180, dict), (3000, list), (3000, dict)): yield text.replace('"@@"', nested(depth, kind)).encode()
    if target.kind in ("pickle", "torch"):
        circle,ring,deep = [],{},[]
        circle.append(circle)
        ring["a"] = (ring, [ring])
        for _ in range(150): deep = [deep]
        for path in [(), *rng.sample(found := list(paths_in(target.content)), min(places, len(found)))]:
            for odd in (circle, ring, deep, "x", ["x"]): yield dump_pickle(replaced(target.content, path, odd)) if target.kind=="pickle" else save_torch(replaced(as_tensors(target.content), path, odd))
        if target.kind=="pickle": yield from (b"\x80\x04"+b"]"*(depth := 100_000 if places else 20_000)+b"a"*(depth-1)+b".", b"\x80\x04"+b"]q\x00h\x00a.", b"\x80\x04"+b"N"+b"\x85"*50_000+b".")
    if target.name in ("YAML", "grid"):
        for depth in (40, 400, 4000 if places else 2000): yield from (f"steps: {'['*depth}{']'*depth}\n".encode(), f"steps: {'{a: '*depth}1{'}'*depth}\n".encode(), "\n".join("  "*i+"a:" for i in range(depth//4)).encode())
        yield from (b"a: &a [*a]\n", b"a: &a {b: *a}\n", b"&a ? *a : 1\n", ("a0: &a0 [1, 1]\n"+"".join(f"a{i}: &a{i} [*a{i-1}, *a{i-1}]\n" for i in range(1, 40))).encode())
    if target.name=="notebook":
        for code in DEEP_CODE:
            for cell in (0, 1): yield dump_json(replaced(target.content, ("cells", cell, "source"), [f"steps:int = {code}\n"]))
            yield dump_json(replaced(target.content, ("cells", 0, "source"), [f"steps:{code} = 1\n"]))
    for joints in (900, 20_000):
        if (text := deep_skeletons(joints).get(target.name)) is not None: yield text.encode()
    if target.name=="ASF": yield deep_skeletons(900)["ASF in a circle"].encode()
    if target.name=="glTF" or target.kind=="glb": yield from circular_gltf(target.valid())


def replaced(content, path:tuple, odd):
    "Content with another value in one place"
    if not path: return odd
    if isinstance(content, tuple): return tuple(replaced(list(content), path, odd))
    content = copy.copy(content)
    content[path[0]] = replaced(content[path[0]], path[1:], odd)
    return content


def circular_gltf(data:bytes)->Iterator[bytes]:
    "glTF files whose nodes hang on themselves, or in a long chain, or whose numbers are elsewhere"
    length = int.from_bytes(data[12:16], "little")
    rest = data[20+length:]
    def packed(document):
        text = json.dumps(document).encode()
        text += b" "*(-len(text)%4)
        return b"glTF"+(2).to_bytes(4, "little")+(20+len(text)+len(rest)).to_bytes(4, "little")+len(text).to_bytes(4, "little")+b"JSON"+text+rest
    document = json.loads(data[20:20+length])
    yield packed(replaced(document, ("nodes", 3, "children"), [0]))
    yield packed(replaced(document, ("nodes", 3, "children"), [3]))
    chain = [dict(node, children=[i+1]) for i,node in enumerate([dict(name=f"n{i}") for i in range(3000)])]
    yield packed(replaced(document, ("nodes",), document["nodes"]+[dict(node, children=[child+len(document["nodes"]) for child in node["children"]]) for node in chain[:-1]]+[dict(name="last")]))
    for uri in ("/etc/passwd", "../mine/diary.txt", "mine/diary.txt", "file:///etc/passwd", "http://localhost/x", "data:,x", ".", ""): yield packed(replaced(document, ("buffers", 0, "uri"), uri) if "uri" in document["buffers"][0] else dict(document, buffers=[dict(document["buffers"][0], uri=uri)]))


# ---- kinds of files: how they are written from content, and how content is spoiled

def dump_json(content)->bytes:
    try: return json.dumps(content).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError): return b"{"


def dump_npz(content)->bytes:
    file = io.BytesIO()
    arrays = {str(key): value for key,value in content.items()} if isinstance(content, dict) else dict(a=content)
    try: np.savez(file, **{key.replace("\0", "") or "empty": np.asarray(value) for key,value in arrays.items() if "/" not in key and key!="file"})
    except (ValueError, TypeError, UnicodeError, OverflowError): pass
    return file.getvalue()


def dump_npy(content)->bytes:
    file = io.BytesIO()
    try: np.save(file, np.asarray(content["array"] if isinstance(content, dict) and "array" in content else content))
    except (ValueError, TypeError, UnicodeError): pass
    return file.getvalue()


def dump_pickle(content)->bytes: return pickle.dumps(content, protocol=4)


def as_tensors(x):
    "The same content with tensors in place of arrays"
    if isinstance(x, np.ndarray) and x.dtype.kind in "fib" and x.dtype.isnative and min(x.strides, default=0)>=0: return torch.as_tensor(x)
    if isinstance(x, dict): return {k: as_tensors(v) for k,v in x.items()}
    return [as_tensors(v) for v in x] if isinstance(x, list) else x


def save_torch(content)->bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def dump_torch(content)->bytes: return save_torch(as_tensors(content))


@dataclass(frozen=True)
class Kind:
    "A file format"
    dump:Callable|None # Content → bytes; None: bytes are all there is

def dump_glb(content)->bytes:
    "A .glb of its description and its numbers"
    content = content if isinstance(content, dict) else {}
    text,data = dump_json(content.get("json")),content.get("bin")
    data = data if isinstance(data, bytes) else str(data).encode("utf-8", "replace")[:1000]
    text,data = text+b" "*(-len(text)%4),data+bytes(-len(data)%4)
    return b"glTF"+b"".join(n.to_bytes(4, "little") for n in (2, 28+len(text)+len(data), len(text)))+b"JSON"+text+len(data).to_bytes(4, "little")+b"BIN\0"+data


def parsed_glb(data:bytes)->dict:
    "What `dump_glb` takes"
    length = int.from_bytes(data[12:16], "little")
    return dict(json=json.loads(data[20:20+length]), bin=data[28+length:])


KINDS = dict(json=Kind(dump_json), glb=Kind(dump_glb), npz=Kind(dump_npz), npy=Kind(dump_npy), pickle=Kind(dump_pickle), torch=Kind(dump_torch), text=Kind(None), bytes=Kind(None))


@dataclass
class Target:
    "A file that is read"
    name:str
    kind:str # Of `KINDS`
    file:str # Its name in the folder
    content:object # As it should be; bytes or text for kinds without structure
    read:Callable # Folder → anything
    beside:dict|None = None # Other files: name → bytes

    def write(self, folder:Path, data:bytes|None):
        for name,other in (self.beside or {}).items():
            (folder/name).parent.mkdir(parents=True, exist_ok=True)
            (folder/name).write_bytes(other)
        (folder/self.file).parent.mkdir(parents=True, exist_ok=True)
        if data is not None: (folder/self.file).write_bytes(data)

    def valid(self)->bytes:
        if isinstance(self.content, bytes): return self.content
        if isinstance(self.content, str): return self.content.encode()
        return KINDS[self.kind].dump(self.content)

    def spoiled(self, rng:random.Random)->bytes:
        "A hostile version"
        if self.kind=="json" and rng.random()<.05: return rng.choice([nested(100_000), nested(100_000, dict), "1"*5000, "[1e999]", "NaN", '"\\ud800"', "\ufeff{}", ""]).encode()
        if self.kind in ("pickle", "torch", "npy", "npz") and rng.random()<.03: return pickle.dumps(rng.choice([Canary(), {"smpl_poses": Canary()}, [Canary()]]))
        if isinstance(self.content, str) and rng.random()<.7: return spoil_text(self.content, rng).encode("utf-8", "surrogatepass")
        if KINDS[self.kind].dump and rng.random()<.75: return KINDS[self.kind].dump(spoil_content(self.content, rng))
        return spoil_bytes(self.valid(), rng)


# ---- what is read

def reader_targets(folder:Path)->list[Target]:
    "Every reader of the package, with a valid file; `folder` is scratch"
    from audio2pose import audio, beats, landmarks, motion, train
    from audio2pose.training import checkpoint as training_checkpoints, recipe
    from audio2pose.data import aist, cmu, fetch, g1, h36m, keypoints, manifest, mocap, ntu, prepare, prepare_clip, verify, windows
    from audio2pose.engine import ledger, runs
    from audio2pose.evaluate import load_clip
    from audio2pose.extract import reduction
    from audio2pose.metrics import realism
    from audio2pose.models import fact, motion_flow, weights
    import soundfile
    rng = np.random.default_rng(0)
    poses,trans = .1*rng.normal(size=(40, 24, 3)),.1*rng.normal(size=(40, 3))
    points = np.concatenate([500+100*rng.normal(size=(30, 17, 2)), rng.uniform(size=(30, 17, 1))], -1)
    out = []
    add = lambda name, kind, file, content, read, beside=None: out.append(Target(name, kind, file, content, read, beside))

    add("Motion npz", "npz", "m.npz", dict(poses=poses, trans=trans, fps=np.float64(60), scaling=np.float64(1)), lambda f: motion.Motion.load(f/"m.npz"))
    pkl = dict(smpl_poses=poses.reshape(40, 72).astype("f4"), smpl_trans=trans.astype("f4"), smpl_scaling=np.array([90.], "f4"))
    add("Motion pkl", "pickle", "m.pkl", pkl, lambda f: motion.Motion.load(f/"m.pkl"))
    add("Motion EDGE pkl", "pickle", "m.pkl", dict(pkl, full_pose=rng.normal(size=(40, 24, 3))), lambda f: motion.Motion.load(f/"m.pkl"))
    for name,kind,file,content in (("pkl", "pickle", "gBR_sBM_cAll_d04_mBR0_ch01.pkl", pkl), ("npz", "npz", "x.npz", dict(poses=poses, trans=trans, fps=np.float64(60))), ("npy", "npy", "x.npy", dict(array=points)),
                                   ("json", "json", "x.json", dict(fps=30, keypoints=points[:3].tolist(), name="x")),
                                   ("keypoints pkl", "pickle", "y.pkl", dict(keypoints2d=rng.normal(size=(9, 20, 17, 3)), timestamps=(np.arange(20)*16667).astype(np.int64)))):
        add(f"inspect {name}", kind, file, content, lambda f, file=file: (verify.describe_file(f/file), draw(verify, f/file)))
    array = (rng.normal(size=(20, 133, 4))*[100, 100, .1, 1]+[300, 200, 0, 4]).astype("f4")
    npy = dump_npy(array)
    side = landmarks.sidecar_metadata(landmarks.Landmarks(array, np.arange(20)/30, 30, (640, 480), "a", "wholebody", "a.mp4"), array, landmarks.Storage())|dict(sha256=hashlib.sha256(npy).hexdigest())
    for name,read in (("Landmarks", lambda f: landmarks.Landmarks.load(f/"a.npy")), ("keypoints of landmarks", lambda f: keypoints.read_keypoints(f/"a.npy")), ("reduction", lambda f: reduction.reduce_file(f/"a.npy", f/"out.npy", reduction.ReductionConfig(), (640, 480)))):
        add(f"{name}, sidecar", "json", "a.json", side, read, {"a.npy": npy})
        add(f"{name}, array", "npy", "a.npy", dict(array=array), read, {"a.json": dump_json(side)})
    add("reduction, foreign", "npy", "a.npy", dict(array=np.abs(rng.normal(size=(20, 85, 4)).astype("f4"))), lambda f: reduction.reduce_file(f/"a.npy", f/"out.npy", reduction.ReductionConfig(), (640, 480)))
    add("keypoints npy", "npy", "k.npy", dict(array=points), lambda f: keypoints.read_keypoints(f/"k.npy", 30))
    add("keypoints npy sidecar", "json", "k.json", dict(fps=30, size=[640, 480], coordinates="normalised"), lambda f: keypoints.read_keypoints(f/"k.npy"), {"k.npy": dump_npy(points)})
    add("keypoints npz", "npz", "k.npz", dict(keypoints=points), lambda f: keypoints.read_keypoints(f/"k.npz", 30))
    add("keypoints pkl", "pickle", "k.pkl", dict(keypoints2d=rng.normal(size=(9, 20, 17, 3)), timestamps=(np.arange(20)*16667).astype(np.int64)), lambda f: keypoints.read_keypoints(f/"k.pkl"))
    coco = dict(info=dict(fps=30), images=[dict(id=i, file_name=f"{i:05d}.jpg") for i in range(3)], annotations=[dict(image_id=i, category_id=1, keypoints=points[i].ravel().tolist()) for i in range(3)])
    alpha = [dict(image_id=f"{i}.jpg", keypoints=points[i].ravel().tolist(), score=1., idx=[1.]) for i in range(3)]
    mmpose = dict(meta_info={}, instance_info=[dict(frame_id=i, instances=[dict(keypoints=points[i,:,:2].tolist(), keypoint_scores=points[i,:,2].tolist())]) for i in range(3)])
    for name,content in (("COCO", coco), ("AlphaPose", alpha), ("MMPose", mmpose)): add(f"keypoints {name}", "json", "k.json", content, lambda f: keypoints.read_keypoints(f/"k.json", 30, person_id="largest"))
    add("keypoints OpenPose", "json", "o/v_000000000000_keypoints.json", dict(version=1.3, people=[dict(pose_keypoints_2d=rng.uniform(size=75).tolist())]), lambda f: keypoints.read_keypoints(f/"o", 30, person_id="largest"))
    add("manifest", "text", "t.tsv", "VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND\tSENTENCE\nv1\ts1\t0.5\t2.5\thello there\nv1\ts2\t3\t4\tbye\nv2\ts3\t0\t1\t\"odd\n", lambda f: list(manifest.read_segments(f/"t.tsv")[1]))
    add("manifest quoted", "text", "t.csv", "\"VIDEO_NAME\"\t\"SENTENCE_NAME\"\t\"START_REALIGNED\"\t\"END_REALIGNED\"\n\"v1\"\t\"s1\"\t0.5\t2.5\n", lambda f: list(manifest.read_segments(f/"t.csv")[1]))
    add("WLASL", "json", "w.json", [dict(gloss="book", instances=[dict(bbox=[1, 2, 3, 4], fps=25, frame_start=1, frame_end=-1, video_id="69241"), dict(fps=25, frame_start=26, frame_end=75, video_id="07069")])], lambda f: list(manifest.read_segments(f/"w.json")[1]))

    store = folder/"store"
    windows.write_store(windows.random_sequences(3, 300), store)
    files = {f"s/{path.name}": path.read_bytes() for path in store.iterdir()}
    opened = lambda f: (lambda s: (windows.check_numbers(s), windows.train_val_split(s), windows.sample_windows(s, 2, np.random.default_rng(0))))(windows.Store(f/"s"))
    add("store index", "json", "s/index.json", json.loads(files["s/index.json"]), opened, {k: v for k,v in files.items() if not k.endswith("index.json")})
    for stream in ("motion", "audio"): add(f"store {stream}", "npy", f"s/{stream}.npy", dict(array=np.load(store/f"{stream}.npy")), opened, {k: v for k,v in files.items() if stream not in k})
    record = dict(name="gBR_sBM_cAll_d04_mBR0_ch01", genre="BR", music="mBR0", bpm=80., dancer="d04", split="train", keypoints="keypoints3d_optim", sources=["motions/a.pkl"], stages=["poses", "audio", "beats"], frames=300, sound_seconds=5., issues=[],
                  files={"motions/gBR_sBM_cAll_d04_mBR0_ch01.npz": "0"*64, "features/gBR_sBM_cAll_d04_mBR0_ch01.npy": "1"*64})
    report = dict(clips=1, issues={"gBR_sBM_cAll_d05_mBR0_ch01": ["no sound"]}, missing=[], windows=None)
    index = dict(sequences=[dict(prepare.index_entry(record), name=record["name"], start=0, length=300)], short=[])
    prepared = {"p/records/a.json": dump_json(record), "p/report.json": dump_json(report), "p/windows/index.json": dump_json(index), "p/options.json": dump_json(dict(keypoints="keypoints3d_optim"))}
    checked = lambda f: (verify.verify(f/"p", workers=1, progress=False), prepare.check_options(f/"p", prepare_clip.PrepareOptions()) if False else None)
    for name,file,content in (("record", "p/records/a.json", record), ("report", "p/report.json", report), ("windows index", "p/windows/index.json", index)): add(f"verify {name}", "json", file, content, checked, {k: v for k,v in prepared.items() if k!=file})
    add("cameras", "json", "cameras/setting1.json", [dict(name="c01", size=[1920, 1080], matrix=np.eye(3).tolist(), rotation=[0, 0, 0], translation=[0, 0, 0], distortions=[0]*5)], lambda f: aist.read_cameras(f, "gBR_sBM_cAll_d04_mBR0_ch01"), {"cameras/mapping.txt": b"gBR_sBM_cAll_d04_mBR0_ch01 setting1\n"})
    add("cameras mapping", "text", "cameras/mapping.txt", "gBR_sBM_cAll_d04_mBR0_ch01 setting1\n", lambda f: aist.read_cameras(f, "gBR_sBM_cAll_d04_mBR0_ch01"), {"cameras/setting1.json": b'[{"name": "c01", "size": [1, 1]}]'})
    add("keypoints3d", "pickle", "k.pkl", dict(keypoints3d=rng.normal(size=(9, 17, 3)), keypoints3d_optim=rng.normal(size=(9, 17, 3))), lambda f: aist.read_keypoints3d(f/"k.pkl"))
    add("keypoints2d", "pickle", "k.pkl", dict(keypoints2d=rng.normal(size=(9, 20, 17, 3)), timestamps=(np.arange(20)*16667).astype(np.int64)), lambda f: [aist.timestamp_fps(x) for x in aist.read_keypoints2d(f/"k.pkl")[1:]])
    ledger_lines = b"".join(json.dumps(line).encode()+b"\n" for line in (dict(session="ab", settings={}, versions={}), dict(key="a", outcome="begun", fingerprint="ab"), dict(key="a", outcome="made", fingerprint="ab", files={"a.npy": dict(size=3)}), dict(key="b", outcome="error", reason="x", fingerprint="ab")))
    def resume(f):
        led = ledger.Ledger(f/"ledger.jsonl")
        try: return ledger.pending_jobs([ledger.Job("j", {"a": 1, "b": 2})], led.states, "ab", f, 3, frozenset())
        finally: led.close()
    add("ledger", "text", "ledger.jsonl", ledger_lines.decode(), resume)
    add("ledger line", "json", "ledger.jsonl", dict(key="a", outcome="made", reason="", fingerprint="ab", files={"a.npy": dict(size=3, sha256="x")}, killed=False), resume)
    add("training log", "text", "log.csv", "step,loss,valid_loss,lr\n10,1.5,,1e-4\n20,1.2,1.3,1e-4\n", lambda f: training_checkpoints.write_log(f/"log.csv", [dict(step=30., loss=1.)], last=20))
    add("beats lines", "text", "b.txt", "0.5\t1\n1.0\t2\n1.5\t3\n2.0\t4\n2.5\t1\n", lambda f: beats.load(f/"b.txt"))
    add("beats JSON", "json", "b.json", dict(beats=[.5, 1., 1.5, 2.], downbeats=[.5]), lambda f: beats.load(f/"b.json"))
    for name,kind,file,content in (("clip positions", "npz", "c.npz", dict(positions=rng.normal(size=(30, 24, 3)), fps=np.float64(60))), ("clip array", "npy", "c.npy", dict(array=rng.normal(size=(30, 72))))): add(name, kind, file, content, lambda f, file=file: load_clip(f/file))
    add("realism reference", "npz", "r.npz", {k: v for k,v in np.load(realism.asset("realism/free_dancers.npz")).items() if v.size<10_000}|dict(features=rng.normal(size=(20, 10)).astype("f2")), lambda f: realism.load_reference(f/"r.npz"))
    add("YAML", "text", "p.yaml", "steps: 7\nrate: 1e-4\nlist: [1, 2, 3]\nnested: {a: 1, b: x}\n", lambda f: runs.documents.read_yaml(f/"p.yaml"))
    add("grid", "text", "g.yaml", "notebook: 4_train\nparameters: {seed: 1}\ngrid:\n  steps: [1, 2]\n  batch: [2, 4]\nvariants:\n- {lr: 1e-3}\n", lambda f: runs.read_grid(f/"g.yaml"))
    notebook = dict(cells=[dict(cell_type="code", metadata=dict(tags=["parameters"]), source=["steps:int = 20 # Steps\n", "rate:float = 1e-3\n", "name:str = 'x'\n"], outputs=[], execution_count=None), dict(cell_type="code", metadata={}, source="1+1", outputs=[], execution_count=None)], metadata={}, nbformat=4, nbformat_minor=5)
    add("notebook", "json", "n.ipynb", notebook, lambda f: runs.plan_runs(f/"n.ipynb", [dict(steps=3)], f/"runs"))
    add("checksums", "text", "sums.txt", f"{'0'*64}  a.zip\n{'1'*64} *b.zip\n", lambda f: fetch.read_checksums(f/"sums.txt"))
    add("downloads log", "json", "downloads.json", [dict(url="http://a/b", state="fetched", sha256="0"*64)], lambda f: (cmu.recorded_hashes(f), fetch.update_log(f, [])))
    motion.Motion(poses, trans)
    from audio2pose.show import export
    export.bvh(motion.Motion(poses, trans), folder/"m.bvh")
    export.gltf(motion.Motion(poses, trans), folder/"m.glb")
    add("BVH", "text", "m.bvh", (folder/"m.bvh").read_text(), lambda f: mocap.read_motion(f/"m.bvh"))
    add("glTF", "bytes", "m.glb", (folder/"m.glb").read_bytes(), lambda f: mocap.read_motion(f/"m.glb"))
    add("G1", "text", "g.csv", "\n".join(",".join(map("{:.4f}".format, [0, 0, .8, 0, 0, 0, 1, *(.1*rng.normal(size=29))])) for _ in range(20)), lambda f: g1.read_g1(f/"g.csv"))
    asf = (":version 1.10\n:name x\n:units\n  mass 1.0\n  length 0.45\n  angle deg\n:documentation\n  none\n:root\n  order TX TY TZ RX RY RZ\n  axis XYZ\n  position 0 0 0\n  orientation 0 0 0\n:bonedata\n  begin\n    id 1\n    name lhip\n    direction 0.6 -0.7 0.2\n    length 2.4\n    axis 0 0 0 XYZ\n  end\n"
           "  begin\n    id 2\n    name lfemur\n    direction 0.3 -0.9 0\n    length 7\n    axis 0 0 20 XYZ\n    dof rx ry rz\n    limits (-160 20)\n  end\n:hierarchy\n  begin\n    root lhip\n    lhip lfemur\n  end\n")
    amc = "#!OML\n:FULLY-SPECIFIED\n:DEGREES\n"+"".join(f"{i}\nroot 1 {i} 2 0 0 0\nlfemur 1 2 3\n" for i in range(1, 6))
    add("ASF", "text", "x.asf", asf, lambda f: cmu.read_asf(f/"x.asf"))
    add("AMC", "text", "01_01.amc", amc, lambda f: cmu.amc_numbers(f/"01_01.amc"))
    add("H36M", "pickle", "h.pkl", dict(data_input=.1*rng.normal(size=(9, 17, 3)).astype("f4"), data_label=.1*rng.normal(size=(9, 17, 3)).astype("f4")), lambda f: h36m.read_h36m_clip(f/"h.pkl"))
    body = "72057594037936259 0 1 1 1 1 0 0.1 0.2 2\n25\n"+"".join(" ".join(f"{x:.3f}" for x in rng.normal(size=11))+" 2\n" for _ in range(25))
    add("NTU", "text", "S001C001P001R001A001.skeleton", "2\n1\n"+body+"1\n"+body, lambda f: ntu.read_skeleton(f/"S001C001P001R001A001.skeleton"))
    from safetensors.torch import save
    small = fact.FACTConfig(width=16, heads=2, mlp=16, motion_layers=1, audio_layers=1, cross_layers=1)
    state = {name: tensor.contiguous() for name,tensor in fact.FACT(small).state_dict().items()}
    add("FACT config", "json", "config.json", asdict(small), lambda f: fact.FACT.from_pretrained(f), {"model.safetensors": save(state, {"config": json.dumps(asdict(small))})})
    add("FACT weights", "bytes", "model.safetensors", save(state, {"config": json.dumps(asdict(small))}), lambda f: fact.FACT.from_pretrained(f))
    flow = motion_flow.MotionFlowConfig(width=24, heads=2, mlp=16, layers=1, styles=("a",))
    flow_state = {name: tensor.contiguous() for name,tensor in motion_flow.MotionFlow(flow).state_dict().items()}
    add("MotionFlow weights", "bytes", "model.safetensors", save(flow_state, {"config": json.dumps(asdict(flow)), "model": "MotionFlow"}), lambda f: motion_flow.MotionFlow.from_pretrained(f))
    def flow_with(f): # Its configuration stands in the header of the weights
        (f/"model.safetensors").write_bytes(save(flow_state, {"config": (f/"flow.json").read_text(errors="replace"), "model": "MotionFlow"}))
        return motion_flow.MotionFlow.from_pretrained(f/"model.safetensors")
    add("MotionFlow config", "json", "flow.json", asdict(flow), flow_with)
    add("torch weights", "torch", "w.pt", dict(state_dict={name: tensor.numpy() for name,tensor in list(state.items())[:6]}, epoch=3, optimizer=dict(lr=1e-3)), lambda f: weights.load_state_dict(f/"w.pt"))
    checkpoint = training_checkpoint(folder/"run", windows.Store(store))
    make_run = lru_cache(lambda: train.build_run(windows.Store(store), replace(recipe.presets["small"], batch=2, precision="fp32"), fact.FACTConfig.small(), torch.device("cpu"))[0]) # One for all, whatever was loaded before
    add("checkpoint", "torch", "checkpoint.pt", checkpoint, lambda f: make_run().load(f/"checkpoint.pt"))
    wave = .3*np.sin(2*np.pi*330*np.arange(22_050*2)/22_050)*(np.arange(22_050*2)%11_025<3000)
    for suffix,options in (("wav", dict(subtype="PCM_16")), ("flac", {}), ("ogg", {}), ("mp3", {}), ("aiff", {})):
        file = io.BytesIO()
        soundfile.write(file, wave, 22_050, format=suffix.upper(), **options)
        add(f"song {suffix}", "bytes", f"s.{suffix}", file.getvalue(), lambda f, suffix=suffix: audio.load(f/f"s.{suffix}", 8000))
    return out+room_targets(folder)


def safetensors_with(state, file, title=None)->Callable:
    "A reader's file whose configuration stands in the header of its weights"
    from safetensors.torch import save
    return lambda f: (f/"model.safetensors").write_bytes(save(state, {"config": (f/file).read_text(errors="replace"), **({"model": title} if title else {})}))


def room_targets(folder:Path)->list[Target]:
    "Readers of the later rooms: records, votes, characters, data sets of other people, baselines, checkpoints, MIDI, checksums"
    from types import SimpleNamespace
    import soundfile
    from audio2pose import pairs
    from audio2pose.commands import compare, record
    from audio2pose.commands.live import control, parse_live_request, stream_chunks
    from audio2pose.data import aist, download, h36m, midi, mocap, pw3d
    from audio2pose.live import LiveDancer, LiveStream
    from audio2pose.models import baselines, beat_network, identify, motion_flow, motion_flow_training, motionbert, published, tensorflow
    from audio2pose.models.dance_net import DanceNet, DanceNetConfig
    from audio2pose.models.dance_revolution import DanceRevolution, DanceRevolutionConfig
    from audio2pose.models.motion_transformer import MotionTransformer, MotionTransformerConfig
    from audio2pose.motion import Motion
    from audio2pose.show import character, export
    rng,out = np.random.default_rng(1),[]
    add = lambda name, kind, file, content, read, beside=None: out.append(Target(name, kind, file, content, read, beside))
    motion = Motion(.1*rng.normal(size=(40, 24, 3)), np.tile([0, .95, 0], (40, 1)))

    # Dances and votes
    motion.save(folder/"motion.npz")
    whole,clicks = (folder/"motion.npz").read_bytes(),io.BytesIO()
    soundfile.write(clicks, .3*np.sin(2*np.pi*330*np.arange(16_000)/8000)*(np.arange(16_000)%4000<1000), 8000, format="WAV")
    told = dict(format=1, version="0.0.1", song="s.wav", beats=[.1, .6, 1.1, 1.6], downbeats=[.1], commands=["audio2pose dance s.wav"], loop=False)
    add("dance record", "json", "d/dance.json", told, lambda f: record.read_dance(f/"d", None), {"d/motion.npz": whole, "d/s.wav": clicks.getvalue()})
    key,votes = dict(dancers=dict(A="one", B="two")),dict(study="x", votes=[dict(left="A", right="B", choice=choice) for choice in ("left", "right", "tie", "left")])
    add("compare key", "json", "key.json", key, lambda f: compare.read_key(f/"key.json"), {"v.json": dump_json(votes)})
    add("compare votes", "json", "v.json", votes, lambda f: compare.ranking_lines([f/"v.json"], key["dancers"]), {"key.json": dump_json(key)})
    add("pairs note", "json", "dances.json", dict(seed_seconds=2., made_by="x", dances=["a"], settings="0"), lambda f: pairs.read_note(f))
    add("song features", "npy", "x.npy", dict(array=rng.normal(size=(300, 35)).astype("f4")), lambda f: pairs.read_song(f/"x.npy"))
    add("song beats", "json", "beats/gBR_sBM_cAll_d04_mBR0_ch01.json", dict(tempo_bpm=80., beat_times=[.1, .6]), lambda f: aist.load_beats("gBR_sBM_cAll_d04_mBR0_ch01", f))
    stream = LiveStream(LiveDancer(motion_flow.MotionFlow.from_pretrained()))
    def wish(f):
        stream.dancer.style,stream.base = None,1.
        control(SimpleNamespace(stream=stream), parse_live_request((f/"wish.json").read_bytes()))
    add("live wish", "json", "wish.json", dict(style="salsa", energy=1.5), wish)
    add("live sound", "bytes", "raw.s16", (3000*np.sin(np.arange(8000))).astype("<i2").tobytes(), lambda f: [list(stream_chunks(io.BytesIO((f/"raw.s16").read_bytes()), 8000, channels)) for channels in (1, 3)])

    # Characters and animations
    for name,skeleton,suffix in (("mixamo", "mixamo", "glb"), ("vrm", "vrm", "vrm")):
        export.gltf(motion, folder/f"{name}.glb", skeleton=skeleton)
        content = parsed_glb((folder/f"{name}.glb").read_bytes())
        if name=="vrm": content["json"] |= dict(extensionsUsed=["VRMC_vrm"], extensions=dict(VRMC_vrm=dict(specVersion="1.0", humanoid=dict(humanBones={node["name"]: dict(node=k) for k,node in enumerate(content["json"]["nodes"]) if node["name"]!="dancer"}))))
        short = motion[:6]
        add(f"character {name}", "glb", f"c.{suffix}", content, lambda f, suffix=suffix: character.retarget_character(short, f/f"c.{suffix}", f/f"out.{suffix}"), {"m.npz": whole})
        add(f"animation {name}", "glb", "m.glb", content, lambda f: mocap.read_motion(f/"m.glb"))
        plain = copy.deepcopy(content["json"])
        plain["buffers"] = [dict(byteLength=len(content["bin"]), uri="numbers.bin")]
        add(f"character {name} gltf", "json", "c.gltf", plain, lambda f: character.retarget_character(short, f/"c.gltf", f/"out.glb"), {"numbers.bin": content["bin"], "m.npz": whole})

    # Other people's data sets
    frames = 20
    person = dict(poses2d=[rng.uniform(1, 500, size=(frames, 3, 18))], poses=[.1*rng.normal(size=(frames, 72))], betas=[np.zeros(10)], cam_poses=np.tile(np.eye(4), (frames, 1, 1)), campose_valid=[np.ones(frames, int)], trans=[np.zeros((frames, 3))])
    add("3DPW", "pickle", "sequenceFiles/test/x.pkl", person, lambda f: pw3d.read_3dpw(f, "test"))
    clip = dict(data_input=.1*rng.normal(size=(9, 17, 3)).astype("f4"), data_label=.1*rng.normal(size=(9, 17, 3)).astype("f4"))
    add("H36M folder", "pickle", "train/h.pkl", clip, lambda f: h36m.read_h36m(f, "train"), {"train/g.pkl": dump_pickle(clip)})
    add("sources", "json", "sources.json", json.loads(Path(download.asset("aist/sources.json")).read_text()), lambda f: download.load_sources(f/"sources.json"))
    digest = hashlib.sha256(b"weights").hexdigest()
    def noted(f):
        (f/"w.bin").write_bytes(b"weights")
        return published.check_sha256(f/"w.bin", digest[:8])
    add("SHA256SUMS", "text", "SHA256SUMS", f"{digest}  w.bin\n{'0'*64}  other.bin\n", noted)

    # MIDI
    import mido
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000), mido.MetaMessage("time_signature", numerator=4, denominator=4)])
    for k in range(60): track += [mido.Message("note_on", note=60+k%12, velocity=80, time=0 if k==0 else 20), mido.Message("note_off", note=60+k%12, time=220)]
    file = io.BytesIO()
    mido.MidiFile(tracks=[track]).save(file=file)
    heard = lambda files: [(midi.beats_of(file), midi.excerpt(file, 8., np.random.default_rng(0))) for file in files.values()]
    add("MIDI", "bytes", "a.mid", file.getvalue(), lambda f: heard(midi.read_midi(f/"a.mid")))
    lump,name = file.getvalue(),b"D_E1M1\0\0"
    add("WAD", "bytes", "a.wad", b"PWAD"+(1).to_bytes(4, "little")+(12+len(lump)).to_bytes(4, "little")+lump+(12).to_bytes(4, "little")+len(lump).to_bytes(4, "little")+name, lambda f: heard(midi.read_midi(f/"a.wad")))

    # Weights and checkpoints
    small = {DanceNet: DanceNetConfig(channels=8, skip=8, dilations=(1, 2), code=4, style=4), DanceRevolution: DanceRevolutionConfig(width=8, heads=2, mlp=8, layers=1, pose=8, hidden=8, cells=2), MotionTransformer: MotionTransformerConfig(bins=8, embed=4, width=8, heads=2, mlp=8, layers=1, audio=8, audio_layers=1, tone=4)}
    for kind,config in small.items():
        model = kind(config)
        optimiser = baselines.make_optimiser(model, model.recipe)
        model.save_pretrained(folder/kind.__name__)
        add(f"{kind.__name__} weights", "bytes", "model.safetensors", (folder/kind.__name__/"model.safetensors").read_bytes(), lambda f, kind=kind: kind.from_pretrained(f))
        put = safetensors_with({name: tensor.contiguous() for name,tensor in model.state_dict().items()}, "config.json", kind.title)
        add(f"{kind.__name__} config", "json", "config.json", json.loads(json.dumps(asdict(config))), lambda f, kind=kind, put=put: (put(f), kind.from_pretrained(f)))
        state = dict(key="k", step=3, log=[(3, 1.)], model={name: tensor.numpy() for name,tensor in model.state_dict().items()}, optimiser=optimiser.state_dict())
        add(f"{kind.__name__} checkpoint", "torch", "checkpoint.pt", state, lambda f, kind=kind, config=config: baselines.load_checkpoint(f/"checkpoint.pt", new := kind(config), baselines.make_optimiser(new, new.recipe), "k"))
    flow = motion_flow.MotionFlow(motion_flow.MotionFlowConfig(width=24, heads=2, mlp=16, layers=1, styles=("a",)))
    adam = torch.optim.AdamW(flow.parameters())
    state = motion_flow_training.training_state(flow, dict(flow.state_dict()), adam, 5, [(1, 2.)])
    state |= {part: {name: tensor.numpy() for name,tensor in state[part].items()} for part in ("model", "average")}
    add("MotionFlow checkpoint", "torch", "checkpoint.pt", state, lambda f: motion_flow_training.resumed(f/"checkpoint.pt", new := motion_flow.MotionFlow(flow.config), torch.optim.AdamW(new.parameters())))
    beat = beat_network.BeatNetwork()
    add("beat weights", "torch", "b.pt", {name: tensor.numpy() for name,tensor in beat.state_dict().items()}, lambda f: identify.identify(f/"b.pt"))
    tensorflow.write_bundle(folder/"ckpt-1", {"a": np.arange(6.).reshape(2, 3).astype("f4"), "b/c": np.zeros(4, "f4")})
    index,data = ((folder/f"ckpt-1.{end}").read_bytes() for end in ("index", "data-00000-of-00001"))
    add("TensorFlow index", "bytes", "ckpt-1.index", index, lambda f: [np.array(value) for value in tensorflow.TensorBundle(f/"ckpt-1").values()], {"ckpt-1.data-00000-of-00001": data})
    add("TensorFlow data", "bytes", "ckpt-1.data-00000-of-00001", data, lambda f: [np.array(value) for value in tensorflow.TensorBundle(f/"ckpt-1").values()], {"ckpt-1.index": index})
    lifter = motionbert.DSTformer(motionbert.DSTformerConfig(width=8, mlp=8, rep=8, depth=1, heads=2, maxlen=9))
    add("MotionBERT weights", "torch", "l.bin", dict(model_pos={name: tensor.numpy() for name,tensor in lifter.state_dict().items()}), lambda f: motionbert.DSTformer.from_pretrained(f/"l.bin"), {"points.npy": dump_npy(np.concatenate([rng.uniform(100, 400, (12, 17, 2)), np.ones((12, 17, 1))], -1))})
    return out


def draw(verify, path):
    import matplotlib.pyplot as plt
    plt.close(verify.plot_file(path))


def training_checkpoint(folder:Path, store)->dict:
    "The content of a checkpoint of a small model"
    from audio2pose import train
    from audio2pose.training import recipe
    from audio2pose.models.fact import FACTConfig
    run,_ = train.build_run(store, replace(recipe.presets["small"], batch=2, precision="fp32"), FACTConfig.small(), torch.device("cpu"))
    run.save(folder)
    return torch.load(folder/"checkpoint.pt", weights_only=True)


def attempt(target:Target, folder:Path, data:bytes|None)->str:
    "What becomes of a file: \"value\", \"refused\", or what went wrong"
    import traceback
    import warnings
    from audio2pose.core import InputError
    target.write(folder, data)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            target.read(folder)
        return "value"
    except InputError as error: return "refused" if "\n" not in str(error) else f"no sentence: {str(error)[:200]!r}" # However long: `print_error` leaves out its middle
    except TooLongError as error: return str(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in place if "/audio2pose/" in frame.filename]
        return f"{type(error).__name__}: {str(error)[:100]} @ {Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}" if ours else f"{type(error).__name__}: {error}"
