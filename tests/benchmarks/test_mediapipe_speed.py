"""Speed of the landmark stage with MediaPipe against MediaPipe's own loop over the same clips, and memory over many frames

    pytest tests/benchmarks/test_mediapipe_speed.py -m benchmark -s
"""
import resource
import time

import pytest

from audio2pose.engine.workers import Resources
from audio2pose.extract.landmarks import LandmarkConfig, extract

pytestmark = pytest.mark.benchmark
PEOPLE = 2


@pytest.fixture(scope="module")
def task(shared):
    pytest.importorskip("mediapipe")
    return shared("real/weights/pose_landmarker_full.task")


@pytest.fixture(scope="module")
def clips(shared, tmp_path_factory):
    "The real videos, under eight names each: 1,600 frames, beside which the start of a worker (2 to 3 s, most of it the import of MediaPipe) is small"
    folder = tmp_path_factory.mktemp("clips")
    for name in ("one_person", "several_people"):
        for copy in "abcdefgh": (folder/f"{name}_{copy}.mp4").symlink_to(shared(f"real/video/{name}.mp4"))
    return folder


def own_loop(task, clips):
    "As MediaPipe's examples do it: OpenCV reads, the landmarker detects"
    import cv2
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision
    start,count = time.perf_counter(),0
    for path in sorted(clips.iterdir()):
        options = vision.PoseLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(task)), running_mode=vision.RunningMode.VIDEO, num_poses=PEOPLE)
        with vision.PoseLandmarker.create_from_options(options) as landmarker:
            film = cv2.VideoCapture(str(path))
            while True:
                there,picture = film.read()
                if not there: break
                landmarker.detect_for_video(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)), round(film.get(cv2.CAP_PROP_POS_MSEC)))
                count += 1
    return count/(time.perf_counter()-start)


def stage(task, clips, out, workers):
    settings = LandmarkConfig(backend="mediapipe", pose="full", threshold=.5, people="largest", max_people=PEOPLE)
    start = time.perf_counter()
    report,_ = extract(clips, out, settings, weights=(None, str(task)), engine="processes" if workers>1 else "serial", resources=Resources(workers), progress=False)
    assert report.outcomes["made"]==16
    return 1600/(time.perf_counter()-start)


def test_speed(task, clips, tmp_path):
    rates = [(own_loop(task, clips), stage(task, clips, tmp_path/f"one{i}", 1), stage(task, clips, tmp_path/f"two{i}", 2)) for i in range(2)]
    theirs,one,two = (max(column) for column in zip(*rates))
    print(f"\nMediaPipe's own loop {theirs:.1f} frames per second; the stage {one:.1f} ({one/theirs:.2f}x), with two workers {two:.1f} ({two/theirs:.2f}x)")
    assert one>=theirs and two>=1.7*theirs


def test_memory_is_flat(task, shared, tmp_path):
    "Ten thousand frames of one clip: a film of 100 frames, a hundred times"
    import av
    source = shared("real/video/one_person.mp4")
    with av.open(str(source)) as film: pictures = [frame.reformat(272, 480, "yuv420p").to_ndarray() for frame in film.decode(video=0)]
    with av.open(str(tmp_path/"long.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=60)
        stream.width,stream.height,stream.pix_fmt,stream.options = 272,480,"yuv420p",dict(preset="ultrafast")
        for i in range(10_000): container.mux(stream.encode(av.VideoFrame.from_ndarray(pictures[i%100], "yuv420p")))
        container.mux(stream.encode(None))
    settings = LandmarkConfig(backend="mediapipe", pose="full", threshold=.5, max_people=1, people="largest")
    extract(source, tmp_path/"warm", settings, weights=(None, str(task)), progress=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report,_ = extract(tmp_path/"long.mp4", tmp_path/"out", settings, weights=(None, str(task)), progress=False)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before)/1024
    print(f"\n10,000 frames: {grown:.0f} MB more than after 100")
    assert report.outcomes["made"]==1 and grown<100
