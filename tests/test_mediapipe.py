"MediaPipe's pose landmarker: the stage gives its points and no others, file by file, and says what is wrong with a file"
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from audio2pose import cli
from audio2pose.core import InputError
from audio2pose.extract.landmarks import ComputeConfig, LandmarkConfig, extract
from audio2pose.landmarks import Landmarks, layouts, visibility
from audio2pose.models.mediapipe import BLAZEPOSE_33, Holistic, PoseTracker, coco_rows, face_rows, find_landmarker, hand_rows, holistic_of, mesh_rows
from audio2pose.skeleton import COCO_17, COCO_WHOLEBODY_133
from audio2pose.video import Cut, frames

SETTINGS = dict(backend="mediapipe", pose="full", threshold=.5)


@pytest.fixture(scope="module")
def task(shared):
    pytest.importorskip("mediapipe")
    return shared("real/weights/pose_landmarker_full.task")


@pytest.fixture(scope="module")
def half_a_second(shared, tmp_path_factory):
    "A manifest with the beginning of a real video, twice"
    folder = tmp_path_factory.mktemp("manifest")
    (folder/"half.tsv").write_text("VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND\none_person\tfirst\t0\t0.5\none_person\tlater\t0.25\t0.6\n")
    return folder/"half.tsv", shared("real/video/one_person.mp4")


def directly(task, video, cut, people):
    "MediaPipe's own loop"
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision
    options = vision.PoseLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(task)), running_mode=vision.RunningMode.VIDEO, num_poses=people)
    times,found = [],[]
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        for frame in frames(video, [cut]):
            times.append(frame.time)
            rgb = np.ascontiguousarray(frame.picture[..., ::-1])
            found.append(landmarker.detect_for_video(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb), round(1000*(frame.time-times[0]))))
    return np.array(times), found, rgb.shape[1::-1]


def test_points_are_those_of_the_library(task, half_a_second, tmp_path):
    manifest,video = half_a_second
    report,_ = extract(manifest, tmp_path, LandmarkConfig(**SETTINGS), weights=(None, str(task)), videos=video.parent, progress=False)
    assert report.outcomes["made"]==2
    for name,cut in (("first", Cut("a", 0, .5)), ("later", Cut("a", .25, .6))): # One pass over the video, and each clip has a memory of its own
        times,found,size = directly(task, video, cut, 2)
        with np.load(tmp_path/f"{name}.blazepose.npz") as file: own = dict(file)
        assert np.array_equal(own["times"], times) and all(len(result.pose_landmarks)==1 for result in found)
        points = np.array([[(one.x, one.y, one.z, one.visibility) for one in result.pose_landmarks[0]] for result in found])
        world = np.array([[(one.x, one.y, one.z) for one in result.pose_world_landmarks[0]] for result in found])
        assert np.abs(own["points"]/[*size, size[0], 1]-points).max()<1e-6
        assert np.abs(own["world"]-world).max()<1e-6
        stored = Landmarks.load(tmp_path/f"{name}.npy").points
        assert np.abs(stored[:, :17, :2]/size-points[:, coco_rows, :2]).max()<1e-6
        assert np.abs(stored[:, :17, 2]-world[:, coco_rows, 2]).max()<1e-6
        assert np.abs(visibility(stored[:, :17, 3])-points[:, coco_rows, 3]).max()<1e-6


def test_names_are_kept_and_what_does_not_exist_is_missing(task, half_a_second, tmp_path):
    assert [BLAZEPOSE_33[k] for k in coco_rows]==list(COCO_17.names)
    manifest,video = half_a_second
    for layout in ("wholebody", "seed"):
        extract(manifest, tmp_path/layout, LandmarkConfig(layout=layout, rate=10, **SETTINGS), weights=(None, str(task)), videos=video.parent, progress=False)
        seen = np.isfinite(Landmarks.load(tmp_path/layout/"first.npy").points).all(-1)
        names = [COCO_WHOLEBODY_133.names[k] for k in layouts[layout]]
        assert (seen==seen[0]).all()
        missing = {name for name,there in zip(names, seen[0]) if not there}
        assert {"left_small_toe", "left_hand_8", "face_30"}&set(names)<=missing and not {"left_shoulder", "left_hand_0", "face_48", "right_heel"}&missing


def test_the_onlooker_is_noticed(task, shared, tmp_path):
    "Five frames a second: he is seen in some, so the clip is refused at the first of them, unless the largest is wanted"
    video = shared("real/video/walking_with_onlooker.mp4")
    for people,outcome in (("any", "multi_person"), ("largest", "made")):
        report,_ = extract(video, tmp_path/people, LandmarkConfig(people=people, rate=5, **SETTINGS), weights=(None, str(task)), progress=False)
        assert dict(report.outcomes)=={outcome: 1}
    found = Landmarks.load(tmp_path/"largest/walking_with_onlooker.npy")
    assert found.made["models"][0]["network"]=="pose_landmarker_full" and found.made["settings"]["max_people"]==2


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    "Files that are no pose landmarker"
    folder = tmp_path_factory.mktemp("tasks")
    with zipfile.ZipFile(folder/"hand.task", "w") as archive: archive.writestr("hand_detector.tflite", bytes(99))
    with zipfile.ZipFile(folder/"pose.task", "w") as archive:
        for name in ("pose_detector.tflite", "pose_landmarks_detector.tflite"): archive.writestr(name, b"not a network"*9)
    whole = (folder/"pose.task").read_bytes()
    (folder/"cut.task").write_bytes(whole[:150])
    (folder/"changed.task").write_bytes(whole.replace(b"not a", b"now a", 1))
    return folder


@pytest.mark.parametrize("name,said", [("hand.task", "of another kind, which holds hand_detector.tflite"), ("cut.task", "cut off, or not a MediaPipe task"), ("changed.task", "is damaged"), ("none.task", "no such file")])
def test_a_file_of_something_else_is_one_sentence(broken, name, said):
    with pytest.raises(InputError, match=said): find_landmarker("full", broken/name)


def test_what_only_mediapipe_can_judge(broken):
    pytest.importorskip("mediapipe")
    with pytest.raises(InputError, match="MediaPipe cannot use it"): PoseTracker(broken/"pose.task")


def test_a_published_file_with_another_hash_is_refused(data_folder, broken):
    (data_folder/"weights").mkdir(parents=True)
    (data_folder/"weights/pose_landmarker_full.task").write_bytes((broken/"pose.task").read_bytes())
    with pytest.raises(InputError, match="SHA-256 is not 5134a3aad27a"): find_landmarker("full")


@pytest.mark.parametrize("options,said", [("--detect-every 5", "leave out detect_every"), ("--refine", "leave out refine"), ("--precision bf16", "leave out bf16"), ("--pose l", "pose must be lite or full or heavy"),
                                          ("--device cuda", "computes on the processor"), ("--detector-weights a.pth", "has its own detector"), ("--pose-weights random", "come with their weights")])
def test_what_mediapipe_cannot_do_is_one_sentence(tmp_path, capsys, options, said):
    (tmp_path/"a.mp4").write_bytes(b"no video")
    if "-weights" in options: pytest.importorskip("mediapipe") # Else that is said first
    code = cli.run(["landmarks", str(tmp_path/"a.mp4"), "--out", str(tmp_path/"out"), "--backend", "mediapipe", *options.split()])
    shown = capsys.readouterr().err
    assert code==2 and said in shown and shown.count("\n")==1 and not (tmp_path/"out").exists()


# ---- holistic: hands and a face

def landmarks_of(places, **more): return [SimpleNamespace(x=x, y=y, z=z, **more) for x,y,z in places]


def test_hands_and_face_are_where_coco_wholebody_has_them():
    "The result as MediaPipe gives it, the right hand not found: every row of the 133 is its own point, in pixels, or missing"
    rng = np.random.default_rng(3)
    pose,world,mesh,hand,hand_world = (rng.uniform(0, 1, (count, 3)) for count in (33, 33, 478, 21, 21))
    result = SimpleNamespace(pose_landmarks=landmarks_of(pose, visibility=.75), pose_world_landmarks=landmarks_of(world), face_landmarks=landmarks_of(mesh), left_hand_landmarks=landmarks_of(hand), left_hand_world_landmarks=landmarks_of(hand_world), right_hand_landmarks=[], right_hand_world_landmarks=[])
    points = holistic_of(result, 640, 480).wholebody()[0]
    row = {name: k for k,name in enumerate(COCO_WHOLEBODY_133.names)}
    for name,place in {"left_hand_0": hand[0], "left_hand_4": hand[4], "left_hand_20": hand[20], "face_8": mesh[152], "face_30": mesh[4], "face_36": mesh[33], "face_45": mesh[263], "face_48": mesh[61], "face_54": mesh[291], "face_62": mesh[13], "right_wrist": pose[16], "left_big_toe": pose[31]}.items():
        assert np.allclose(points[row[name], :2], place[:2]*[640, 480], atol=1e-3), name
    assert np.allclose(points[hand_rows[0], 2], hand_world[:, 2]-hand_world[0, 2]+world[15, 2], atol=1e-5)
    assert np.isnan(points[hand_rows[1]]).all() and np.isnan(points[row["left_small_toe"]]).all()
    assert np.allclose(visibility(points[hand_rows[0]+face_rows, 3]), .75, atol=1e-6)
    nobody = holistic_of(SimpleNamespace(**vars(result)|dict(pose_landmarks=[], pose_world_landmarks=[])), 640, 480)
    assert nobody.wholebody().shape==(0, 133, 4) and nobody.boxes().shape==(0, 4)


def test_the_68_lie_on_the_contours_of_the_mesh():
    "MediaPipe's own list of what is jaw, brow, nose, eye and lip"
    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    contours = vision.FaceLandmarksConnections
    def on(name): return {end for line in getattr(contours, f"FACE_LANDMARKS_{name}") for end in (line.start, line.end)}
    for name,rows in {"FACE_OVAL": range(17), "RIGHT_EYEBROW": range(17, 22), "LEFT_EYEBROW": range(22, 27), "NOSE": range(27, 36), "RIGHT_EYE": range(36, 42), "LEFT_EYE": range(42, 48), "LIPS": range(48, 68)}.items():
        assert {mesh_rows[k] for k in rows}<=on(name), name


@pytest.fixture(scope="module")
def holistic_task(shared):
    pytest.importorskip("mediapipe")
    given = os.environ.get("AUDIO2POSE_HOLISTIC")
    return Path(given) if given else shared("real/weights/holistic_landmarker.task")


def test_hands_in_a_real_video(holistic_task, half_a_second, tmp_path):
    "The library's own result, and hands that hang at their own wrists; the sidecar says which model it was and that it followed one person"
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision
    manifest,video = half_a_second
    report,_ = extract(manifest, tmp_path, LandmarkConfig(people="largest", rate=10, **SETTINGS), weights=(None, str(holistic_task)), videos=video.parent, progress=False)
    assert report.outcomes["made"]==2
    found = Landmarks.load(tmp_path/"first.npy")
    assert found.made["models"][0]["network"]=="holistic_landmarker" and (found.made["settings"]["pose"], found.made["settings"]["max_people"])==("holistic", 1)
    options,results = vision.HolisticLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(holistic_task)), running_mode=vision.RunningMode.VIDEO),[]
    with vision.HolisticLandmarker.create_from_options(options) as landmarker:
        for frame in frames(video, [Cut("a", 0, .5)], [found.times]):
            rgb = np.ascontiguousarray(frame.picture[..., ::-1])
            results.append(landmarker.detect_for_video(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb), round(1000*(frame.time-found.times[0]))))
    seen = np.isfinite(found.points).all(-1)
    for rows,name in (*zip(hand_rows, ("left_hand", "right_hand")), (face_rows, "face")):
        assert [bool(getattr(result, f"{name}_landmarks")) for result in results]==seen[:, rows].all(1).tolist()==seen[:, rows].any(1).tolist()
    left = np.array([[(one.x, one.y) for one in result.left_hand_landmarks] for result in results if result.left_hand_landmarks])
    there = seen[:, hand_rows[0]].all(1)
    assert len(left) and np.abs(found.points[there][:, hand_rows[0], :2]/found.size-left).max()<1e-6
    assert np.median(np.linalg.norm(found.points[there, hand_rows[0][0], :2]-found.points[there, 9, :2], axis=-1))<40 # px; his hand is 90 wide
    with np.load(tmp_path/"first.blazepose.npz") as file: shapes = {name: file[name].shape[1:] for name in Holistic._fields}
    assert shapes==dict(points=(33, 4), world=(33, 3), hands=(2, 21, 3), hands_world=(2, 21, 3), face=(478, 3))


def test_holistic_follows_one_person(holistic_task, half_a_second, tmp_path):
    manifest,video = half_a_second
    with pytest.raises(InputError, match="follows one person; max_people 3"): extract(manifest, tmp_path, LandmarkConfig(max_people=3, **SETTINGS), weights=(None, str(holistic_task)), videos=video.parent, progress=False)


def test_a_pose_landmarker_is_not_holistic(task):
    with pytest.raises(InputError, match="a pose landmarker, which knows no hands and no face"): find_landmarker("holistic", task)


@pytest.mark.slow
def test_the_man_in_the_video_dances(task, shared, real_motion, tmp_path):
    "One command: his bones keep their length, his feet stand, nothing trembles, no knee bends backwards; and the motion can be danced on from"
    from audio2pose.generate import check_seed_motion
    from audio2pose.metrics.contact import jerk, sliding_contacts
    from audio2pose.motion import Motion
    from audio2pose.skeleton import SMPL_24
    assert cli.run(["video", str(shared("real/video/one_person.mp4")), "--out", str(tmp_path), "--pose-weights", str(task), "--height", "240"])==0
    motion = Motion.load(tmp_path/"one_person/motion.npz")
    positions = motion.positions()
    lengths = np.linalg.norm(positions[:, [k for k,_ in SMPL_24.bones]]-positions[:, [parent for _,parent in SMPL_24.bones]], axis=-1)
    assert np.ptp(lengths, axis=0).max()<1e-6
    assert sliding_contacts(positions, motion.fps)<.05
    assert jerk(positions, motion.fps)<3*jerk(real_motion.positions(), real_motion.fps)
    assert (np.degrees(motion.poses[:, SMPL_24.index("lknee", "rknee"), 0])>-6.3).all() # At -6.2 the legs of the skeleton are straight
    assert np.degrees(motion.poses[:, SMPL_24.index("rhip"), 2]).max()-np.degrees(motion.poses[:, SMPL_24.index("rhip"), 2]).min()>25 # He swings his right leg out to the side
    assert check_seed_motion(tmp_path/"one_person/motion.npz") is not None
    assert {path.name for path in (tmp_path/"one_person").iterdir()}=={"motion.npz", "page.html", "film.mp4", "side_by_side.mp4"}
