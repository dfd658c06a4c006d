"Skeletons that this test makes itself: any names, orders, units and axes come to the same dancer"
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from audio2pose.body.capture import read_bvh

from audio2pose.body.retarget import joint_distance, retarget
from audio2pose.core import InputError
from audio2pose.motion import Motion
from audio2pose.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from audio2pose.skeleton import SMPL_24

MIXAMO = dict(zip(SMPL_24.names, ("Hips", "LeftUpLeg", "RightUpLeg", "Spine", "LeftLeg", "RightLeg", "Spine1", "LeftFoot", "RightFoot", "Spine2", "LeftToeBase", "RightToeBase", "Neck",
                                  "LeftShoulder", "RightShoulder", "Head", "LeftArm", "RightArm", "LeftForeArm", "RightForeArm", "LeftHand", "RightHand", "LeftHandIndex1", "RightHandIndex1")))
UNREAL = dict(zip(SMPL_24.names, ("pelvis", "thigh_l", "thigh_r", "spine_01", "calf_l", "calf_r", "spine_02", "foot_l", "foot_r", "spine_03", "ball_l", "ball_r", "neck_01",
                                  "clavicle_l", "clavicle_r", "head", "upperarm_l", "upperarm_r", "lowerarm_l", "lowerarm_r", "hand_l", "hand_r", "middle_01_l", "middle_01_r")))
VRM = dict(zip(SMPL_24.names, ("hips", "leftUpperLeg", "rightUpperLeg", "spine", "leftLowerLeg", "rightLowerLeg", "chest", "leftFoot", "rightFoot", "upperChest", "leftToes", "rightToes", "neck",
                               "leftShoulder", "rightShoulder", "head", "leftUpperArm", "rightUpperArm", "leftLowerArm", "rightLowerArm", "leftHand", "rightHand", "leftMiddleProximal", "rightMiddleProximal")))
XSENS = dict(zip(SMPL_24.names, ("Hips", "LeftHip", "RightHip", "Chest", "LeftKnee", "RightKnee", "Chest2", "LeftAnkle", "RightAnkle", "Chest3", "LeftToe", "RightToe", "Neck",
                                 "LeftCollar", "RightCollar", "Head", "LeftShoulder", "RightShoulder", "LeftElbow", "RightElbow", "LeftWrist", "RightWrist", "LeftFinger", "RightFinger")))
RIGIFY = dict(zip(SMPL_24.names, ("spine", "thigh.L", "thigh.R", "spine.001", "shin.L", "shin.R", "spine.002", "foot.L", "foot.R", "spine.003", "toe.L", "toe.R", "spine.004",
                                  "shoulder.L", "shoulder.R", "spine.006", "upper_arm.L", "upper_arm.R", "forearm.L", "forearm.R", "hand.L", "hand.R", "f_middle.L", "f_middle.R")))
NUMBERS = {name: f"bone{chr(97+k)}" for k,name in enumerate(SMPL_24.names)}


def dancer(frames=180, sway=1.):
    t = np.arange(frames)/60
    poses,trans = np.zeros((frames, 24, 3)),np.tile([0, .93, 0], (frames, 1))
    poses[:,0,1],trans[:,0] = .8*sway*np.sin(2*t),.2*sway*np.sin(2*t)
    poses[:,9,2],poses[:,15,1] = .15*np.sin(3*t),.3*np.sin(4*t)
    for k,(hip,knee,ankle) in enumerate((SMPL_24.index("lhip", "lknee", "lankle"), SMPL_24.index("rhip", "rknee", "rankle"))):
        lift = np.clip(np.sin(2*np.pi*t+k*np.pi), 0, 1)
        poses[:,hip,0],poses[:,knee,0],poses[:,ankle,0] = -.15-.6*lift,.3+lift,-.15-.4*lift
    poses[:,16,2],poses[:,17,2] = -.9+.3*np.sin(5*t),.9
    poses[:,18,1],poses[:,19,1] = -.9-.5*np.sin(6*t),.9
    return Motion(poses, trans, 60)


def write_bvh(path, motion, names, order="ZXY", scale=100., axes=np.eye(3), drop=()):
    "SMPL-24 as another tool would write it: names, channel order, unit, axes"
    turn = lambda rotvec: (Rotation.from_matrix(axes@axis_angle_to_matrix(rotvec)@axes.T)).as_euler(order, degrees=True)
    lines,seen = ["HIERARCHY"],[]
    def joint(k, depth):
        seen.append(k)
        place = " ".join(f"{x:.6f}" for x in scale*axes@SMPL_24.offsets[k])
        kinds = " ".join(f"{axis}rotation" for axis in order)
        lines.extend([f"{'JOINT' if depth else 'ROOT'} {names[SMPL_24.names[k]]}", "{", f"OFFSET {place}", f"CHANNELS 3 {kinds}" if depth else f"CHANNELS 6 Xposition Yposition Zposition {kinds}"])
        children = [c for c,p in SMPL_24.bones if p==k and SMPL_24.names[c] not in drop]
        for child in children: joint(child, depth+1)
        if not children: lines.extend(["End Site", "{", "OFFSET 0 0 0", "}"])
        lines.append("}")
    joint(0, 0)
    rows = np.concatenate([scale*motion.trans@axes.T, *[turn(motion.poses[:,k]) for k in seen]], axis=1)
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1/motion.fps:.8f}"]
    path.write_text("\n".join(lines)+"\n"+"\n".join(" ".join(f"{x:.6f}" for x in row) for row in rows)+"\n")
    return path


Z_UP = np.array([[1., 0, 0], [0, 0, -1], [0, 1, 0]])


@pytest.mark.parametrize(["names", "order", "scale", "axes"], [(MIXAMO, "ZXY", 100, np.eye(3)), (UNREAL, "XYZ", 100, Z_UP), (VRM, "YXZ", 1, np.eye(3)), (XSENS, "ZYX", 39.37, np.eye(3)),
                                                              (RIGIFY, "XZY", 1000, Z_UP), (NUMBERS, "ZXY", 100, np.eye(3)), (dict(zip(SMPL_24.names, SMPL_24.names)), "ZXY", 1, Z_UP)])
def test_every_tool(tmp_path, names, order, scale, axes):
    motion = dancer()
    capture,joints = read_bvh(write_bvh(tmp_path/"a.bvh", motion, names, order, scale, axes))
    assert {name: capture.skeleton.names[index] for name,index in joints.items() if name!="trunk"}=={name: names[name] for name in joints if name!="trunk"}
    assert [capture.skeleton.names[index] for index in joints["trunk"]]==[names[name] for name in ("belly", "spine", "chest")]
    assert np.abs(capture.positions[:,joints["lwrist"]]-motion.positions()[:,SMPL_24.index("lwrist")]).max()<2e-3
    back = retarget(capture, joints)
    assert joint_distance(back, capture, joints).mean()<.02
    step = matrix_to_axis_angle(axis_angle_to_matrix(back.poses[:-1]).swapaxes(-1, -2)@axis_angle_to_matrix(back.poses[1:]))
    assert np.degrees(np.linalg.norm(step, axis=-1)).max()<25


def test_bends_and_directions_are_kept_at_any_size(tmp_path):
    "Proportions of the dancer do not matter to the knees: the same dance on a skeleton of 1.3 m"
    motion = dancer()
    capture,joints = read_bvh(write_bvh(tmp_path/"a.bvh", Motion(motion.poses, motion.trans, 60), MIXAMO, scale=74))
    back = retarget(capture, joints)
    bend = lambda positions,a,b,c: np.degrees(np.arccos(np.clip((lambda u,v: (u*v).sum(-1)/np.linalg.norm(u, axis=-1)/np.linalg.norm(v, axis=-1))(positions[:,b]-positions[:,a], positions[:,c]-positions[:,b]), -1, 1)))
    for limb in ((1, 4, 7), (2, 5, 8), (16, 18, 20), (17, 19, 21)): assert np.abs(bend(back.positions(), *limb)-bend(motion.positions(), *limb)).mean()<8


def test_feet_stand_still_on_the_floor(tmp_path):
    capture,joints = read_bvh(write_bvh(tmp_path/"a.bvh", dancer(sway=.1), MIXAMO)) # Which makes its feet slide by millimetres
    toes = retarget(capture, joints).positions()[:,SMPL_24.index("ltoes", "rtoes")]
    assert toes[...,1].min()>=.03-1e-3
    low = toes[...,1]<.031
    speed = np.linalg.norm(np.diff(toes[...,[0, 2]], axis=0), axis=-1)*60
    assert low.mean()>.2 and np.percentile(speed[low[1:]&low[:-1]], 90)<.02


def test_what_a_source_lacks_is_not_known(tmp_path):
    capture,joints = read_bvh(write_bvh(tmp_path/"a.bvh", dancer(), MIXAMO, drop=("neck", "ltoes", "rtoes")))
    motion = retarget(capture, joints)
    assert not motion.known[SMPL_24.index("neck", "head")].any() and motion.known[SMPL_24.index("lhip", "relbow", "chest")].all()
    assert np.isfinite(motion.poses).all()


def broken(tmp_path, **how):
    path = write_bvh(tmp_path/"a.bvh", dancer(30), MIXAMO)
    path.write_text(how["change"](path.read_text()))
    return path


@pytest.mark.parametrize(["change", "said"], [
    (lambda text: text[:len(text)//2], "cut off"), (lambda text: text[:200], "cut off"), (lambda text: text.replace("JOINT Spine\n", "ROOT Spine\n"), "two roots"),
    (lambda text: text.replace("LeftForeArm", "Tentacle").replace("RightForeArm", "Fin").replace("LeftLeg", "Wheel"), "Tentacle"),
    (lambda text: text.replace("Frames: 30", "Frames: 0").split("Frame Time")[0]+"Frame Time: 0.02\n", "no frames"), (lambda text: "", "HIERARCHY"),
    (lambda text: text[:-30]+"nan"+text[-27:], ""), (lambda text: text.replace("Frame Time: 0", "Frame Time: -0"), "frame time"), (lambda text: text.replace("OFFSET", "OFFSET x"), "")])
def test_broken_files_are_refused_in_one_sentence(tmp_path, change, said):
    with pytest.raises(InputError, match=said) as error: read_bvh(broken(tmp_path, change=change))
    assert "a.bvh" in str(error.value) and "\n" not in str(error.value)


def test_a_horse_is_no_person(tmp_path):
    "Four legs by name, or not: the trunk lies across them"
    horse = dancer(30)
    poses = horse.poses.copy()
    poses[:,0,0],poses[:,1,0],poses[:,2,0] = np.pi/2,-np.pi/2,-np.pi/2
    poses[:,16],poses[:,17] = [0, 0, -1.4],[0, 0, 1.4]
    for names in (MIXAMO, NUMBERS):
        with pytest.raises(InputError): read_bvh(write_bvh(tmp_path/"horse.bvh", Motion(poses, horse.trans, 60), names))


def floor_of(motion): return np.percentile(motion.positions()[:,SMPL_24.index("ltoes", "rtoes"),1].min(1), 10)


@pytest.mark.parametrize("height", [-.93, 7.])
def test_a_clip_without_a_floor_gets_one(tmp_path, height):
    "Captures whose pelvis is the origin, or that float: the feet say where the floor is"
    motion = dancer()
    capture,joints = read_bvh(write_bvh(tmp_path/"a.bvh", Motion(motion.poses, motion.trans+[0, height, 0], 60), MIXAMO))
    assert abs(floor_of(retarget(capture, joints))-.03)<.01


@pytest.mark.parametrize("fps", [500, 24])
def test_any_frame_rate_is_brought_to_sixty(tmp_path, fps):
    from audio2pose.data.captures import clean_clip
    motion = dancer(240).resample(fps)
    clip = clean_clip(write_bvh(tmp_path/"a.bvh", Motion(motion.poses, motion.trans, fps), MIXAMO))
    assert clip.motion.fps==60 and abs(clip.done["fps"]-fps)<.5 and abs(clip.done["start"]+clip.motion.seconds+clip.done["cut_after"]-4)<.1
    assert abs(floor_of(clip.motion)-.03)<.01


@pytest.mark.parametrize(["drop", "named"], [(("lhand", "rhand", "ltoes", "rtoes", "neck"), None), (("lelbow",), "elbow"), (("lknee", "rknee"), "knee")])
def test_missing_joints_are_marked_or_named(tmp_path, drop, named):
    def read():
        hidden = {*drop, *(name for name in SMPL_24.names if any(SMPL_24.parents[SMPL_24.index(name)]==SMPL_24.index(other) for other in drop))}
        return read_bvh(write_bvh(tmp_path/"a.bvh", dancer(60), MIXAMO, drop=hidden))
    if named is None: return np.testing.assert_array_equal(retarget(*read()).known[SMPL_24.index("lhip", "relbow", "head")], [True, True, False])
    with pytest.raises(InputError, match="a.bvh") as error: read()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("told", ["one frame", "finite"])
def test_one_frame_or_holes_leave_nothing_behind(tmp_path, told):
    from audio2pose.data.captures import import_folder
    (tmp_path/"in").mkdir()
    path = write_bvh(tmp_path/"in"/"a.bvh", dancer(), MIXAMO)
    if told=="one frame": path.write_text("\n".join(path.read_text().replace("Frames: 180", "Frames: 1").splitlines()[:-179])+"\n")
    else: path.write_text(path.read_text()[:-9]+"nan\n")
    report = import_folder(tmp_path/"in", tmp_path/"out", progress=False)
    assert not report["clips"] and len(report["left_out"])==1 and [file.name for file in (tmp_path/"out").iterdir()]==["report.json"]
    assert told in report["left_out"]["a.bvh"] and "\n" not in report["left_out"]["a.bvh"]
