"""Frames per second from a video to landmarks, against the usual loop: one frame, one detector call, one pose call.

The loop is written out here with the parts of the published programs that take time: pictures resized and cropped one by one, networks
as they are trained (normalisations apart, channels first), all logits brought to numpy. Both sides have the same random weights. What
such a detector finds means nothing, so on both sides the networks run, and then a box that is known takes the place of what they found.

    pytest -m benchmark -s tests/benchmarks/test_landmarks_speed.py
"""
import time

import av
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from audio2pose.engine.ledger import Job
from audio2pose.extract import networks as networks_room
from audio2pose.extract.landmarks import Extraction, extract, video_jobs
from audio2pose.extract.networks import load_networks, random_network
from audio2pose.extract.settings import ComputeConfig, LandmarkConfig, Weights
from audio2pose.data.manifest import Segment, read_segments
from audio2pose.models import rtmdet, rtmw3d
from audio2pose.models.rtmdet import RTMDet, top_cells, detector_mean, detector_std, letterbox_size, decode_detections, strides
from audio2pose.models.rtmw3d import RTMW3D, crop_regions, pose_mean, pose_std

pytestmark = pytest.mark.benchmark
BOX = np.array([[400., 100, 700, 650]], np.float32)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film")/"film.mp4"
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (90, 160, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width,stream.height,stream.pix_fmt,stream.bit_rate = 1280,720,"yuv420p",8_000_000
        for i in range(21): container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(ground, 4*i, 1), "bgr24")))
        container.mux(stream.encode(None))
    return path


def usual_loop(path, detector, pose, count):
    "Frame by frame, as `inference_detector` and `inference_topdown` are called"
    found = []
    with av.open(str(path)) as container, torch.inference_mode():
        for frame in container.decode(video=0):
            picture = torch.from_numpy(frame.to_ndarray(format="bgr24")).permute(2, 0, 1)[None]
            height,width = letterbox_size(*picture.shape[2:], 640)
            square = F.pad(F.interpolate(picture, (height, width), mode="bilinear"), (0, 640-width, 0, 640-height), value=114).contiguous()
            x = (square.float()-torch.tensor(detector_mean)[:, None, None])/torch.tensor(detector_std)[:, None, None]
            levels = [top_cells(*maps, stride) for *maps,stride in zip(*detector(x), strides)]
            scores,boxes = (torch.cat(parts, 1)[0].numpy() for parts in zip(*levels))
            decode_detections(scores, boxes, tuple(picture.shape[2:]), 640, .05)
            centre,size = crop_regions(torch.from_numpy(BOX))
            ways = [(torch.arange(n)-n/2)/n*size[0, axis]+centre[0, axis] for axis,n in ((0, 288), (1, 384))]
            grid = torch.stack(torch.meshgrid(*ways, indexing="xy"), -1)[None]/torch.tensor([1280, 720])*2-1
            crop = F.grid_sample(picture.float(), grid, align_corners=False).flip(1)
            logits = pose((crop-torch.tensor(pose_mean)[:, None, None])/torch.tensor(pose_std)[:, None, None])
            found.append([axis.numpy().argmax(-1) for axis in logits])
            if len(found)==count: return


def our_stage(path, networks, settings, compute, out, monkeypatch):
    "The same through the stage"
    with monkeypatch.context() as patch:
        patch.setattr(networks_room, "decode_detections", lambda *args: (decode_detections(*args), (BOX, np.ones(1, np.float32)))[1])
        patch.setattr(networks_room, "load_networks", lambda *args: networks)
        weights = Weights("rtmdet_m", None, None),Weights("rtmw3d_l", None, None)
        outcome, = Extraction(settings, compute, weights, out)(iter([Job(str(path), {"film": Segment("film", path.name)})]))
    assert (outcome.outcome, outcome.info["frames"], outcome.info["nobody"])==("made", 21, 0)
    return outcome.info["spent"]


def clocked(function):
    "Wall and processor seconds"
    wall,cpu = time.perf_counter(),time.process_time()
    said = function()
    return np.array([time.perf_counter()-wall, time.process_time()-cpu]), said


@pytest.mark.timeout(600)
def test_faster_than_the_usual_loop(film, tmp_path, monkeypatch, capsys):
    plain = random_network(RTMDet, "m"),random_network(RTMW3D, "l")
    weights = Weights("rtmdet_m", None, None),Weights("rtmw3d_l", None, None)
    kinds = {"fp32, every frame": ("fp32", 1, 1.05), "fp32, every 5th": ("fp32", 5, 2.1), "bf16, every 5th": ("bf16", 5, 3.)}
    networks = {precision: load_networks(*weights, precision, torch.device("cpu")) for precision in ("fp32", "bf16")}
    best = {}
    for _ in range(2): # In turns: what disturbs one disturbs all
        spent,_ = clocked(lambda: usual_loop(film, *plain, 5))
        best["loop"] = np.minimum(best.get("loop", np.inf), spent/5)
        for name,(precision,detect_every,_) in kinds.items():
            spent,said = clocked(lambda precision=precision, detect_every=detect_every: our_stage(film, networks[precision], LandmarkConfig(precision=precision, detect_every=detect_every), ComputeConfig(), tmp_path, monkeypatch))
            best[name] = np.minimum(best.get(name, np.inf), spent/21)
    with capsys.disabled():
        print(f"\n{'s per frame':<20}{'wall':>8}{'times':>7}{'processor':>11}{'times':>7}   {torch.get_num_threads()} threads")
        for name,(wall,cpu) in best.items(): print(f"{name:<20}{wall:>8.3f}{best['loop'][0]/wall:>7.2f}{cpu:>11.3f}{best['loop'][1]/cpu:>7.2f}")
    for name,(precision,_,least) in kinds.items():
        if precision=="bf16" and not torch.backends.cpu.get_cpu_capability().startswith("AVX512"): continue # Without its instructions it is slower
        assert max(best["loop"]/best[name])>=least, name


def test_ten_thousand_segments(tmp_path, capsys):
    "Seconds to start and to resume"
    rows = [f"v{i//10:04d}\tv{i//10:04d}-{i%10:03d}\t{i%10*5}\t{i%10*5+4.5}" for i in range(10_000)]
    (tmp_path/"many.tsv").write_text("\n".join(["VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND", *rows]))
    chosen = LandmarkConfig(detector="nano")
    clock = {}
    for name in ("all done, files missing", "resume"): clock[name],_ = clocked(lambda: extract(tmp_path/"many.tsv", tmp_path/"out", chosen, weights=("random", "random"), progress=False))
    clock["start"],_ = clocked(lambda: video_jobs(*read_segments(tmp_path/"many.tsv")))
    with capsys.disabled():
        print()
        for name,(wall,cpu) in clock.items(): print(f"{name:<26}{wall:6.2f} s wall{cpu:6.2f} s processor")
    assert clock["resume"][0]<clock["all done, files missing"][0]
