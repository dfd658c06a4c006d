"Rigs, held against the rules by which other programs recognise a skeleton; each rule with its source"
import json
import os
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from audio2pose.body.footing import on_floor
from audio2pose.motion import Motion
from audio2pose.show import export
from audio2pose.show.rigs import SKELETONS, load_rig, rig_body
from audio2pose.show.usd import usd

HUMAN = "hips spine chest upperChest neck head leftUpperLeg leftLowerLeg leftFoot leftToes rightUpperLeg rightLowerLeg rightFoot rightToes leftShoulder leftUpperArm leftLowerArm leftHand rightShoulder rightUpperArm rightLowerArm rightHand".split()
REQUIRED = set(HUMAN)-{"chest", "upperChest", "neck", "leftToes", "rightToes", "leftShoulder", "rightShoulder"}
SMPL_OF = dict(zip(HUMAN, "root belly spine chest neck head lhip lknee lankle ltoes rhip rknee rankle rtoes linshoulder lshoulder lelbow lwrist rinshoulder rshoulder relbow rwrist".split()))


@pytest.fixture(scope="module")
def demo():
    "Two seconds of stepping, .2 m above the floor"
    rng = np.random.default_rng(0)
    time = np.arange(120)[:,None,None]/60
    poses = .3*np.sin(2*np.pi*time+rng.uniform(0, 6, (1, 24, 3)))
    return Motion(poses, np.stack([.2*np.sin(time[:,0,0]), 1.1+0*time[:,0,0], 0*time[:,0,0]], 1), 60)


def by_joint(rig):
    "SMPL-24 joint name → index in the rig"
    from audio2pose.skeleton import SMPL_24
    return {SMPL_24.names[joint]: k for k,joint in enumerate(rig.joints)}


def angle(a, b): return np.degrees(np.arccos(np.clip(a@b/np.linalg.norm(a)/np.linalg.norm(b), -1, 1)))


# ---- Unity: Editor/Mono/Inspector/Avatar/AvatarAutoMapper.cs (keywords, sides) and AvatarSetupTool.cs (sBonePoses), Unity-Technologies/UnityCsReference

KEYWORDS = {"Shoulder": "shoulder|collar|clavicle", "UpperArm": "up", "LowerArm": "lo|fore|elbow", "Hand": "hand|wrist", "UpperLeg": "up|thigh", "LowerLeg": "lo|calf|knee|shin", "Foot": "foot|ankle", "Toes": "toe"}


def unity_side(name):
    "Side in a name: the word, or a letter that stands alone"
    return "left" if re.search(r"left|(^|[ .:_-])l($|[ .:_-])", name) else "right" if re.search(r"right|(^|[ .:_-])r($|[ .:_-])", name) else ""


@pytest.mark.parametrize("skeleton", ["mixamo", "vrm", "unity"])
def test_unity_maps_every_bone_by_its_keywords(skeleton):
    rig = load_rig(skeleton)
    places = by_joint(rig)
    for human,ours in SMPL_OF.items():
        name = rig.names[places[ours]].split(":")[-1].lower()
        side = "left" if human.startswith("left") else "right" if human.startswith("right") else ""
        assert unity_side(name)==side
        words = KEYWORDS.get(human.removeprefix("left").removeprefix("right"))
        if words and (skeleton!="mixamo" or human[-3:]!="Arm" or "Lower" in human) and not (skeleton=="mixamo" and "LowerLeg" in human): assert re.search(words, name), (human, name)
    parents = [rig.names.index(rig.names[parent]) if parent>=0 else -1 for parent in rig.parents]
    assert parents[0]==-1 and parents.count(-1)==1 # Hips at most three levels under the file's root


UNITY_POSE = {"UpperLeg": ((-.05, -1, 0), 15, "LowerLeg"), "LowerLeg": ((-.05, -1, -.15), 20, "Foot"), "Foot": ((-.05, 0, 1), 20, "Toes"), "Shoulder": ((-1, 0, 0), 20, "UpperArm"),
              "UpperArm": ((-1, 0, 0), 5, "LowerArm"), "LowerArm": ((-1, 0, 0), 5, "Hand")} # Left; Unity's x points right


@pytest.mark.parametrize("skeleton", ["mixamo", "vrm", "unity"])
def test_unity_calls_the_rest_pose_a_t_pose(skeleton):
    rig = load_rig(skeleton)
    places = {human: rig.places[by_joint(rig)[ours]] for human,ours in SMPL_OF.items()}
    for side,mirror in (("left", 1), ("right", -1)):
        for part,(goal,limit,child) in UNITY_POSE.items():
            bone = places[side+child]-places[side+part]
            if part=="Foot": bone = bone*[1, 0, 1]
            assert angle(bone, np.array(goal)*[-mirror, 1, 1])<limit, (side, part)
    for lower,upper in (("spine", "chest"), ("chest", "upperChest"), ("neck", "head")): assert angle(places[upper]-places[lower], np.array([0, 1, 0]))<30


# ---- VRM: VRMC_vrm-1.0/humanoid.md, VRMC_vrm_animation-1.0/README.md, VRMC_vrm-1.0/tpose.md (vrm-c/vrm-specification)

def test_vrm_has_its_bones_under_their_parents():
    rig = load_rig("vrm")
    assert REQUIRED<=set(rig.names)<=set(HUMAN)
    chain = lambda *names: all(rig.names[rig.parents[rig.names.index(child)]]==parent for parent,child in zip(names, names[1:]))
    assert chain("hips", "spine", "chest", "upperChest", "neck", "head")
    for side in ("left", "right"):
        assert chain("hips", side+"UpperLeg", side+"LowerLeg", side+"Foot", side+"Toes")
        assert chain("upperChest", side+"Shoulder", side+"UpperArm", side+"LowerArm", side+"Hand")


def test_vrma_says_what_the_specification_requires(tmp_path, demo):
    export.vrma(demo, tmp_path/"a.vrma")
    raw = (tmp_path/"a.vrma").read_bytes()
    content = json.loads(raw[20:20+int.from_bytes(raw[12:16], "little")])
    said = content["extensions"]["VRMC_vrm_animation"]
    assert "VRMC_vrm_animation" in content["extensionsUsed"] and said["specVersion"]=="1.0"
    bones = {name: bone["node"] for name,bone in said["humanoid"]["humanBones"].items()}
    assert REQUIRED<=set(bones)<=set(HUMAN) and "meshes" not in content
    moved = {channel["target"]["node"] for channel in content["animations"][0]["channels"] if channel["target"]["path"]=="translation"}
    assert moved=={bones["hips"]} and not any(channel["target"]["path"]=="scale" for channel in content["animations"][0]["channels"])
    assert content["nodes"][bones["hips"]]["translation"][1]==pytest.approx(load_rig("vrm").places[0, 1], abs=1e-6) # A player divides by it


def test_vrm_rests_in_its_t_pose():
    places = dict(zip(load_rig("vrm").names, load_rig("vrm").places))
    for side,sign in (("left", 1), ("right", -1)):
        assert angle(places[side+"Hand"]-places[side+"UpperArm"], np.array([sign, 0, 0]))<1
        assert angle((places[side+"Toes"]-places[side+"Foot"])*[1, 0, 1], np.array([0, 0, 1]))<1


# ---- Rokoko Studio Live for Blender: core/auto_detect_lists/bones.py: names lower-cased, " -." become "_", cut at ":"; Mixamo's row

ROKOKO = {"hips", "spine", "spine1", "spine2", "neck", "head", *(side+part for side in ("left", "right") for part in ("shoulder", "arm", "forearm", "hand", "upleg", "leg", "foot", "toebase"))}


def test_rokoko_and_unreal_find_mixamos_names():
    "Unreal (IKRigAutoCharacterizer.cpp) strips the common prefix, then wants the exact name under the same parent"
    names = load_rig("mixamo").names
    assert {re.sub("[ .-]", "_", name.lower()).split(":")[-1] for name in names}==ROKOKO
    prefix = os.path.commonprefix(names)
    assert prefix=="mixamorig:" and [name.removeprefix(prefix) for name in names][:6]==["Hips", "Spine", "Spine1", "Spine2", "Neck", "Head"]


def test_smpl_has_smplx_names_order_and_rest():
    "vchoutas/smplx, smplx/joint_names.py: the first 22, then the hands"
    rig = load_rig("smpl")
    assert rig.names[:9]==("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle") and rig.names[22:]==("left_hand", "right_hand")
    assert rig.joints==tuple(range(24)) and np.abs(rig.turns-np.eye(3)).max()==0 and np.abs(rig.axes-np.eye(3)).max()==0


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_rest_pose_stands_on_the_floor(skeleton):
    vertices,normals,_ = rig_body(load_rig(skeleton))
    assert vertices[:,1].min()==pytest.approx(0, abs=1e-6) and 1.6<vertices[:,1].max()<1.8
    assert np.linalg.norm(normals, axis=1)==pytest.approx(1)


@pytest.mark.parametrize("one,other", list(combinations(SKELETONS, 2)))
def test_rigs_share_no_name_by_accident(one, other): assert load_rig(one).names!=load_rig(other).names


# ---- Blender itself

BLENDER = """
import bpy, json, sys
path,bvh = sys.argv[1],sys.argv[1].endswith(".bvh")
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
if bvh: bpy.ops.import_anim.bvh(filepath=path, global_scale=.01, update_scene_fps=True, update_scene_duration=True)
else:
    scene.render.fps = 60
    (bpy.ops.import_scene.gltf if path.endswith("glb") else bpy.ops.wm.usd_import)(filepath=path)
armature = next(item for item in bpy.data.objects if item.type=="ARMATURE")
curves = [curve for layer in armature.animation_data.action.layers for strip in layer.strips for bag in strip.channelbags for curve in bag.fcurves]
keys = sorted({point.co[0] for curve in curves for point in curve.keyframe_points})
points = {bone.name: list(armature.matrix_world@bone.head_local) for bone in armature.data.bones}
frames = {}
for key in (keys[0], keys[-1]):
    scene.frame_set(round(key))
    frames[round(key-keys[0])] = {bone.name: list(armature.matrix_world@bone.head) for bone in armature.pose.bones}
meshes = [item for item in bpy.data.objects if item.type=="MESH" and item.vertex_groups]
heights = [(item.matrix_world@vertex.co).z for item in meshes for vertex in item.data.vertices]
print("FOUND"+json.dumps(dict(keys=keys, fps=scene.render.fps/scene.render.fps_base, rest=points, frames=frames, heights=[min(heights), max(heights)] if heights else None)))
"""


def blender():
    "A Python that has Blender's module, of the variable BLENDER_PYTHON (pip install bpy, in an environment of its own)"
    python = os.environ.get("BLENDER_PYTHON") or shutil.which("blender-python")
    if not python or not Path(python).exists(): pytest.skip("no Blender: make an environment, pip install bpy in it, and set BLENDER_PYTHON to its python")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dance.bvh", "dance.glb", "dance.usd"])
def test_blender_plays_it_on_the_floor_at_the_right_speed(tmp_path, demo, name):
    if name.endswith("usd"): pytest.importorskip("pxr", reason='pip install "audio2pose[usd]"')
    {"bvh": export.bvh, "glb": export.gltf, "usd": usd}[name[-3:]](demo, tmp_path/name)
    said = subprocess.run([blender(), "-c", BLENDER, str(tmp_path/name)], capture_output=True, text=True, timeout=300)
    found = json.loads(said.stdout.partition("FOUND")[2].splitlines()[0])
    assert found["fps"]==pytest.approx(60) and len(found["keys"])==len(demo)
    assert max(abs(key-round(key)) for key in found["keys"])<.01
    rig,positions = load_rig("mixamo"),on_floor(demo).positions()
    to_y_up = lambda point: [point[0], point[2], -point[1]]
    names = [joint.replace(":", "_") if name.endswith("usd") else joint for joint in rig.names]
    for frame,joints in found["frames"].items():
        there = np.array([to_y_up(joints[joint]) for joint in names])
        assert np.abs(there-positions[int(frame), list(rig.joints)]).max()<.001
    rest = np.array([to_y_up(found["rest"][joint]) for joint in names])
    assert np.abs(rest-rig.places).max()<.001
    if found["heights"]: assert found["heights"][0]==pytest.approx(0, abs=.01) and 1.6<found["heights"][1]<1.8
