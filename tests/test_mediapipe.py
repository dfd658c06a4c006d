"MediaPipe's pose landmarker: the stage gives its points and no others, file by file, and says what is wrong with a file"
import zipfile

import numpy as np
import pytest

from audio2pose import cli
from audio2pose.core import InputError
from audio2pose.extract.landmarks import ComputeConfig, LandmarkConfig, extract
from audio2pose.landmarks import Landmarks, layouts, visibility
from audio2pose.models.mediapipe import BLAZEPOSE_33, PoseTracker, coco_rows, find_landmarker
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
