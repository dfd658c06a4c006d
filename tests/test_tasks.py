"Readers of the sets that MotionBERT's tasks need: what is right is read, what is broken is one sentence"
import pickle

import numpy as np
import pytest
import torch

from audio2pose.core import InputError
from audio2pose.data.h36m import read_h36m, read_h36m_clip
from audio2pose.data.movements import movement_clips
from audio2pose.data.ntu import clip_name, exemplars, one_shot_actions, part_of, read_ntu, read_skeleton
from audio2pose.data.pw3d import read_3dpw, read_people


# ---- Human3.6M

def write(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


@pytest.fixture
def pose(): return np.random.default_rng(0).uniform(-1, 1, (9, 17, 3))


def test_a_folder_of_clips(tmp_path, pose):
    for k in range(4): write(tmp_path/"train"/f"{k:08d}.pkl", data_input=pose+k/100, data_label=pose)
    x,y = read_h36m(tmp_path, "train")
    assert x.shape==y.shape==(4, 9, 17, 3)
    np.testing.assert_allclose(x[3], pose+.03, atol=1e-6)
    assert len(read_h36m(tmp_path, "train", limit=2)[0])==2


@pytest.mark.parametrize("change,why", [
    (dict(data_label=lambda p: 1000*p), "data_label goes up to .* which is millimetres"), (dict(data_input=lambda p: 900*p), "data_input goes up to .* which is pixels"),
    (dict(data_label=lambda p: p[:5]), "9 frames seen and 5 frames of pose"), (dict(data_label=lambda p: p[:, :16]), "must be .T, 17, 3."),
    (dict(data_label=lambda p: np.where(p>.9, np.nan, p)), "is not finite in"), (dict(data_label=lambda p: p.astype(int)), "must be .T, 17, 3., got int"), (dict(data_label=None), "no data_input and data_label"),
])
def test_clips_that_are_wrong(tmp_path, pose, change, why):
    content = dict(data_input=pose, data_label=pose)
    for name,function in change.items():
        if function is None: content.pop(name)
        else: content[name] = function(pose)
    write(tmp_path/"a.pkl", **content)
    with pytest.raises(InputError, match=why) as caught: read_h36m_clip(tmp_path/"a.pkl")
    assert "a.pkl" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1, 2]), pickle.dumps(dict(data_input=len, data_label=1))])
def test_not_a_clip(tmp_path, content):
    (tmp_path/"a.pkl").write_bytes(content)
    with pytest.raises(InputError, match="a.pkl"): read_h36m_clip(tmp_path/"a.pkl")


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no clips there"): read_h36m(tmp_path, "train")


# ---- NTU

def skeleton(frames=4, bodies=1):
    rng = np.random.default_rng(0)
    lines = [str(frames)]
    for _ in range(frames):
        lines.append(str(bodies))
        for body in range(bodies): lines += [f"{7205+body} 0 1 1 1 1 0 0.1 0.2 2", "25", *(" ".join(map(str, [*rng.normal(size=5), 100+joint, 200+body, *rng.normal(size=4), joint%3])) for joint in range(25))]
    return "\n".join(lines)


def test_kinects_joints_become_human36m(tmp_path):
    "Right hip 16, left wrist 6, head 3; the colour picture's columns; 2 is tracked, 0 not seen"
    (tmp_path/"S001C001P001R001A001.skeleton").write_text(skeleton(bodies=2))
    points = read_skeleton(tmp_path/"S001C001P001R001A001.skeleton")
    assert points.shape==(2, 4, 17, 3)
    assert points[0, 0, [1, 13, 10], 0].tolist()==[116, 106, 103] and points[0, 0, [1, 13, 10], 2].tolist()==[.5, 0, 0]
    assert set(points[..., 1].ravel())=={200, 201}


@pytest.mark.parametrize("text", ["", "hello", "5", "3\n0\n0\n0", "-4", "1e9\n1", "2\n1\n1 2 3", "nan", skeleton()[:700], skeleton().replace("\n25\n", "\n24\n"), "1\n1\n7 0 1 1 1 1 0 0 0 2\n1e12\n1 2 3"])
def test_broken_skeletons(tmp_path, text):
    path = tmp_path/"S001C001P001R001A001.skeleton"
    path.write_text(text)
    with pytest.raises(InputError, match="S001C001P001R001A001.skeleton: ") as caught: read_skeleton(path)
    assert "\n" not in str(caught.value)


def test_a_folder_with_broken_files(tmp_path):
    for name,text in (("S001C001P001R001A050", skeleton()), ("S001C002P003R001A002", skeleton(6)), ("S001C003P003R001A002", "2\n1\n7"), ("S999", "1")): (tmp_path/f"{name}.skeleton").write_text(text)
    parts,left_out = read_ntu(tmp_path, "x-view")
    assert {part: [clip.name for clip,_ in clips] for part,clips in parts.items()}=={"test": ["S001C001P001R001A050"], "train": ["S001C002P003R001A002"]}
    assert "cut off" in left_out["S001C003P003R001A002.skeleton"] and "not a name of NTU" in left_out["S999.skeleton"]
    with pytest.raises(InputError, match="no .skeleton files"): read_ntu(tmp_path/"none")


@pytest.mark.parametrize("name,parts", [("S001C001P001R001A001", ("train", "test", "test", "test")), ("S002C002P003R001A002", ("test", "train", "train", "train")), ("S001C003P008R001A001", ("train", "train", "test", "exemplar"))])
def test_splits(name, parts):
    assert tuple(part_of(clip_name(name), split) for split in ("x-sub", "x-view", "x-set", "one-shot"))==parts


def test_splits_of_120():
    "53 of 106 people teach, 16 of 32 setups; sixty-action splits have no place for action 61"
    people = [part_of(clip_name(f"S018C001P{person:03d}R001A061"), "x-sub-120") for person in range(1, 107)]
    setups = [part_of(clip_name(f"S{setup:03d}C001P001R001A061"), "x-set") for setup in range(1, 33)]
    assert people.count("train")==people.count("test")==53 and setups.count("train")==setups.count("test")==16
    assert part_of(clip_name("S018C003P008R001A061"), "one-shot")=="exemplar"
    with pytest.raises(InputError, match="action 61 is of NTU RGB.D 120"): part_of(clip_name("S018C003P008R001A061"), "x-sub")


def test_one_shot_exemplars():
    assert one_shot_actions[:3]==(1, 7, 13) and one_shot_actions[-1]==115 and len(set(exemplars))==20
    assert exemplars[9:11]==("S001C003P008R001A055", "S018C003P008R001A061")
    with pytest.raises(InputError, match="no split 'sub'"): part_of(clip_name(exemplars[0]), "sub")


# ---- movements

def test_movements_are_the_same_each_time():
    first,second = movement_clips(12, 5),movement_clips(12, 5)
    assert all((a==b).all() for a,b in zip(first, second)) and (first.x!=movement_clips(12, 6).x).any()
    assert first.action.tolist()==[*range(10), 0, 1]


# ---- 3DPW

def sequence(frames=40, people=1, **change):
    rng = np.random.default_rng(0)
    found = np.concatenate([rng.uniform(200, 900, (people, frames, 2, 18)), np.full((people, frames, 1, 18), .9)], 2)
    turn = np.diag([1., -1, -1, 1])
    return dict(dict(poses2d=list(found), poses=list(np.zeros((people, frames, 72))), betas=list(rng.normal(size=(people, 10))), cam_poses=np.tile(turn, (frames, 1, 1)), campose_valid=list(np.ones((people, frames), int))), **change)


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))


def test_3dpw_is_cut_into_windows(tmp_path):
    "A body that stands upright before a camera whose y points down is not turned; frames of an unknown camera are left out"
    save(tmp_path/"sequenceFiles/train/walk_00.pkl", sequence(people=2))
    clips = read_3dpw(tmp_path, "train")
    assert [tuple(part.shape) for part in clips]==[(4, 16, 17, 3), (4, 16, 24, 3, 3), (4, 10)]
    np.testing.assert_allclose(clips.rotations[:, :, 0], np.tile(np.eye(3), (4, 16, 1, 1)), atol=1e-6)
    assert clips.x[..., :2].abs().amax((1, 2, 3)).allclose(torch.ones(4))
    valid = np.ones(40, int)
    valid[20] = 0
    save(tmp_path/"sequenceFiles/train/walk_00.pkl", sequence(campose_valid=[valid]))
    assert len(read_3dpw(tmp_path/"sequenceFiles", "train").x)==1


def test_3dpw_points_are_where_openpose_saw_them(tmp_path):
    "COCO-18: 2 is the right shoulder, 11 the left hip"
    content = sequence()
    save(tmp_path/"a.pkl", content)
    (person,) = read_people(tmp_path/"a.pkl")
    np.testing.assert_allclose(person.keypoints[:, [14, 4], :2], content["poses2d"][0][:, :2, [2, 11]].transpose(0, 2, 1))


@pytest.mark.parametrize("content,why", [(sequence(poses=[np.zeros((40, 70))]), "do not fit one another"), (sequence(cam_poses=np.eye(3)), "do not fit one another"), ([1], "no poses2d"), (dict(poses=1), "no poses2d, betas"), (dict(sequence(), poses=len), "a.pkl")])
def test_3dpw_files_that_are_wrong(tmp_path, content, why):
    save(tmp_path/"test/a.pkl", content)
    with pytest.raises(InputError, match=why): read_3dpw(tmp_path, "test")
    with pytest.raises(InputError, match="no sequence files of 3DPW"): read_3dpw(tmp_path, "train")
