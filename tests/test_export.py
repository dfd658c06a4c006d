"BVH, glTF and USD, read back by readers that know nothing of this package"
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from audio2pose.body.footing import on_floor
from audio2pose.core import InputError
from audio2pose.show import export
from audio2pose.show.rigs import SKELETONS, load_rig
from audio2pose.show.usd import usd
from audio2pose.motion import Motion

MILLIMETRE = 1e-3


def wild_motion(frames=40, seed=0, fps=60):
    "Unrelated rotations up to half a turn in every frame, the worst an exporter can meet"
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(frames, 24, 3))
    poses = axes/np.linalg.norm(axes, axis=-1, keepdims=True)*rng.uniform(0, np.pi, (frames, 24, 1))
    return Motion(poses, rng.normal(size=(frames, 3)), fps)


def locked_motion(frames=60):
    "Every joint goes through the middle angle's quarter turn, and rests on it exactly"
    poses = np.zeros((frames, 24, 3))
    poses[:, :, 0] = np.pi/2*np.minimum(np.arange(frames)/20, 1)[:, None]
    return Motion(poses, np.zeros((frames, 3)))


# ---- BVH

def true_positions(motion, skeleton):
    "Joints of the rig by forward kinematics, on the floor"
    return on_floor(motion).positions()[:,list(load_rig(skeleton).joints)]


def bvh_positions(path, frames, skeleton):
    "Joint positions in the file's unit, by bvhio"
    bvhio = pytest.importorskip("bvhio", reason='pip install "audio2pose[dev]"')
    root = bvhio.readAsHierarchy(str(path))
    joints = {joint.Name: joint for joint,_,_ in root.layout()}
    found = []
    for frame in frames:
        root.loadPose(frame)
        found.append([list(joints[name].PositionWorld) for name in load_rig(skeleton).names])
    return np.array(found)


@pytest.mark.parametrize("unit,scale", [("cm", 100), ("m", 1)])
@pytest.mark.parametrize("motion", [wild_motion(), locked_motion()], ids=["wild", "gimbal"])
def test_bvh_is_read_back_within_a_millimetre(tmp_path, motion, unit, scale):
    for skeleton in ("mixamo", "audio2pose"):
        export.bvh(motion, tmp_path/"dance.bvh", unit=unit, skeleton=skeleton)
        back = bvh_positions(tmp_path/"dance.bvh", range(len(motion)), skeleton)/scale
        assert np.linalg.norm(back-true_positions(motion, skeleton), axis=-1).max()<MILLIMETRE


@pytest.mark.parametrize("fps", [24, 60, 59.94])
def test_bvh_states_frames_and_frame_time(tmp_path, fps):
    export.bvh(wild_motion(fps=fps), tmp_path/"dance.bvh")
    lines = (tmp_path/"dance.bvh").read_text().splitlines()
    start = lines.index("MOTION")
    assert lines[start+1]=="Frames: 40"
    assert float(lines[start+2].removeprefix("Frame Time: "))==pytest.approx(1/fps, abs=1e-10)
    assert [len(line.split()) for line in lines[start+3:]]==[69]*40


def test_bvh_curves_do_not_jump():
    turns = np.zeros((300, 24, 3))
    turns[:, :, 1] = np.linspace(0, 6*np.pi, 300)[:, None]
    assert np.abs(np.diff(export.continuous_euler(turns), axis=0)).max()<5
    assert export.continuous_euler(turns)[-1, 0, 2]==pytest.approx(1080)


# ---- glTF

def read_glb(path):
    "JSON and bytes of a .glb, by the standard's chunk layout alone"
    raw = Path(path).read_bytes()
    magic,version,length = np.frombuffer(raw, "<u4", 3)
    assert (magic, version, length)==(0x46546C67, 2, len(raw))
    size,kind = np.frombuffer(raw, "<u4", 2, 12)
    assert kind==0x4E4F534A and size%4==0
    return json.loads(raw[20:20+size]), raw[28+size:]


def accessor(content, data, index):
    "One array"
    entry = content["accessors"][index]
    kind = {5126: "<f4", 5121: "<u1", 5123: "<u2", 5125: "<u4"}[entry["componentType"]]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[entry["type"]]
    start = content["bufferViews"][entry["bufferView"]].get("byteOffset", 0)
    assert start%4==0
    return np.frombuffer(data, kind, entry["count"]*width, start).reshape(-1, width)


def joint_matrices(content, data, frame):
    "World matrix (4, 4) of every joint node at a keyframe, walked down the node tree"
    animation = content["animations"][0]
    values = {(c["target"]["node"], c["target"]["path"]): accessor(content, data, animation["samplers"][c["sampler"]]["output"])[frame]
              for c in animation["channels"]}
    world = {}

    def walk(node, above):
        local = np.eye(4)
        local[:3, 3] = values.get((node, "translation"), content["nodes"][node]["translation"])
        local[:3, :3] = Rotation.from_quat(values.get((node, "rotation"), content["nodes"][node]["rotation"])).as_matrix()
        world[node] = above@local
        for child in content["nodes"][node].get("children", []): walk(child, world[node])

    joints = content["skins"][0]["joints"] if "skins" in content else list(range(len(content["nodes"])))
    walk(joints[0], np.eye(4))
    return np.array([world[node] for node in joints])


@pytest.mark.parametrize("motion", [wild_motion(), locked_motion()], ids=["wild", "gimbal"])
@pytest.mark.parametrize("skeleton", [*SKELETONS, "vrma"])
def test_gltf_is_decoded_within_a_millimetre(tmp_path, motion, skeleton):
    if skeleton=="vrma": export.vrma(motion, tmp_path/"dance.vrma")
    else: export.gltf(motion, tmp_path/"dance.glb", skeleton=skeleton)
    content,data = read_glb(next(tmp_path.glob("dance.*")))
    for frame in (0, 17, len(motion)-1):
        found = joint_matrices(content, data, frame)[:, :3, 3]
        true = true_positions(motion, "vrm" if skeleton=="vrma" else skeleton)[frame]
        assert np.linalg.norm(found-true, axis=-1).max()<MILLIMETRE


def test_gltf_times_are_frames_over_fps(tmp_path):
    motion = wild_motion()
    export.gltf(motion, tmp_path/"dance.glb")
    content,data = read_glb(tmp_path/"dance.glb")
    entry = content["accessors"][content["animations"][0]["samplers"][0]["input"]]
    times = accessor(content, data, content["animations"][0]["samplers"][0]["input"])[:, 0]
    np.testing.assert_array_equal(times, (np.arange(40)/60).astype(np.float32))
    assert entry["min"]==[0] and entry["max"]==[float(times[-1])]


def test_gltf_skin_leaves_the_resting_body_alone(tmp_path):
    "In the nodes' rest pose every skin matrix is the identity, and the body stands on the floor"
    export.gltf(wild_motion(2), tmp_path/"rest.glb")
    content,data = read_glb(tmp_path/"rest.glb")
    count = len(content["skins"][0]["joints"])
    del content["animations"][0]["channels"][:]
    inverse = accessor(content, data, content["skins"][0]["inverseBindMatrices"]).reshape(count, 4, 4).swapaxes(1, 2)
    np.testing.assert_allclose(joint_matrices(content, data, 0)@inverse, np.tile(np.eye(4), (count, 1, 1)), atol=1e-6)
    places = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert places["min"][1]==pytest.approx(0, abs=1e-6) and 1.6<places["max"][1]<1.8


def validator_folder():
    "Khronos' validator: $GLTF_VALIDATOR, or npm's folder of global packages"
    if not shutil.which("node"): return None
    places = [os.environ.get("GLTF_VALIDATOR", "")]
    if shutil.which("npm"):
        root = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, timeout=30)
        places.append(f"{root.stdout.strip()}/gltf-validator")
    return next((place for place in places if place and (Path(place)/"index.js").is_file()), None)


@pytest.mark.parametrize("suffix", [".glb", ".gltf", ".vrma"])
def test_gltf_passes_the_khronos_validator(tmp_path, suffix):
    validator = validator_folder()
    if validator is None:
        pytest.skip("no gltf-validator: install Node.js, then npm install -g gltf-validator (or set GLTF_VALIDATOR to node_modules/gltf-validator)")
    (export.vrma if suffix==".vrma" else export.gltf)(wild_motion(), tmp_path/f"dance{suffix}")
    script = """const [folder, file] = process.argv.slice(1);
                require(folder).validateBytes(new Uint8Array(require("fs").readFileSync(file)))
                  .then(report => console.log(JSON.stringify(report.issues)));"""
    command = ["node", "-e", script, str(Path(validator).resolve()), str(tmp_path/f"dance{suffix}")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode==0, result.stderr
    issues = json.loads(result.stdout)
    assert (issues["numErrors"], issues["numWarnings"])==(0, 0), issues["messages"]


# ---- USD

@pytest.mark.parametrize("motion", [wild_motion(fps=30), locked_motion()], ids=["wild", "gimbal"])
@pytest.mark.parametrize("skeleton", SKELETONS)
def test_usd_is_read_back_within_a_millimetre_and_at_its_speed(tmp_path, motion, skeleton):
    Usd = pytest.importorskip("pxr.Usd", reason='pip install "audio2pose[usd]"')
    from pxr import UsdGeom, UsdSkel
    usd(motion, tmp_path/"dance.usd", skeleton=skeleton)
    stage,cache = Usd.Stage.Open(str(tmp_path/"dance.usd")),UsdSkel.Cache()
    cache.Populate(UsdSkel.Root(stage.GetDefaultPrim()), Usd.PrimDefaultPredicate)
    bones = UsdSkel.Skeleton(next(prim for prim in stage.Traverse() if prim.IsA(UsdSkel.Skeleton)))
    query,true = cache.GetSkelQuery(bones),true_positions(motion, skeleton)
    for frame in (0, 17, len(motion)-1): assert np.abs(np.array(query.ComputeJointSkelTransforms(frame))[:,3,:3]-true[frame]).max()<MILLIMETRE
    assert (stage.GetTimeCodesPerSecond(), stage.GetEndTimeCode())==(motion.fps, len(motion)-1)
    assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage))==("Y", 1)
    assert list(bones.GetJointNamesAttr().Get())==list(load_rig(skeleton).names)


# ---- what is refused

@pytest.mark.parametrize("write,name", [(export.bvh, "dance.bvh"), (export.gltf, "dance.glb"), (export.vrma, "dance.vrma"), (usd, "dance.usd"), (usd, "dance.usdz")])
def test_bad_input_is_one_sentence_and_no_file(tmp_path, write, name):
    if write is usd: pytest.importorskip("pxr", reason='pip install "audio2pose[usd]"')
    good = wild_motion(3)
    hole = Motion(np.where(np.arange(3)[:, None, None]==1, np.nan, good.poses), good.trans)
    (tmp_path/"a file").write_text("")
    cases = [(good[:0], name, "no frames"), (hole, name, "frame 1"), (good, "dance.txt", "name the file"), (good, f"a file/{name}", "cannot write")]
    for motion,file,message in cases:
        with pytest.raises(InputError, match=message): write(motion, tmp_path/file)
    assert [file.name for file in tmp_path.iterdir()]==["a file"]


def test_bvh_refuses_an_unknown_unit(tmp_path):
    with pytest.raises(InputError, match="inch"): export.bvh(wild_motion(3), tmp_path/"dance.bvh", unit="inch")
