"""Frames per second from a video to landmarks, against MMDetection and MMPose themselves, called as their demo calls them: a frame,
`inference_detector`, `inference_topdown`.

Same frames, same random weights on both sides. What a random detector finds means nothing, so its logits are lowered until it finds
nobody (on either side nothing goes through suppression, which in MMDetection is compiled and here is not), and a box that is known goes
to the pose network. Without a clone of MMPose on PYTHONPATH, the head of RTMW3D is `rtmpose3d_blocks.py`: MMPose's blocks in our wiring.

    ROUNDS=1 pytest -m benchmark -s tests/benchmarks/test_openmmlab_speed.py

measures each once; without ROUNDS it is twice, and the better counts.
"""
import os

import numpy as np
import pytest
import torch
from test_landmarks_speed import BOX, clocked, film, our_stage  # noqa: F401
from test_openmmlab import mmdet, mmpose, rtmpose3d  # noqa: F401

from audio2pose.extract.networks import load_networks, random_network
from audio2pose.extract.settings import ComputeConfig, LandmarkConfig, Weights
from audio2pose.models import openmmlab
from audio2pose.models.rtmdet import RTMDet
from audio2pose.models.rtmw3d import RTMW3D
from audio2pose.video import Cut, frames

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]
ROUNDS = int(os.environ.get("ROUNDS", "2"))


def official_loop(shots, detector, pose, tools):
    "As `demo/body3d_img2pose_demo.py` goes through a video"
    from mmdet.apis import inference_detector
    for picture in shots:
        with openmmlab.suppress_warnings():
            assert not (inference_detector(detector, picture).pred_instances.scores>.3).any()
            person, = tools.infer(pose, picture, BOX)
    return person


def test_faster_than_the_programs_themselves(film, rtmpose3d, tmp_path, monkeypatch, capsys):  # noqa: F811
    from mmpose.utils import adapt_mmdet_pipeline
    ours = random_network(RTMDet, "m"),random_network(RTMW3D, "l")
    with torch.no_grad():
        for predict in ours[0].bbox_head.rtm_cls: predict.bias -= 50
    theirs = openmmlab.build_detector("m"),openmmlab.build_pose("l")
    for a,b in zip(ours, theirs): b.load_state_dict(a.state_dict())
    theirs[0].cfg = adapt_mmdet_pipeline(theirs[0].cfg)
    kinds = {"fp32, every frame": ("fp32", 1), "fp32, every 5th": ("fp32", 5), "bf16, every 5th": ("bf16", 5)}
    weights = Weights("rtmdet_m", None, None),Weights("rtmw3d_l", None, None)
    networks = {precision: load_networks(*weights, precision, torch.device("cpu")) for precision in ("fp32", "bf16")}
    shots,best = [frame.picture for frame in frames(film, [Cut("some", 0, .16)])],{}
    official_loop(shots[:1], *theirs, rtmpose3d) # Once, for what is done only once
    for _ in range(ROUNDS): # In turns: what disturbs one disturbs all
        spent,_ = clocked(lambda: official_loop(shots, *theirs, rtmpose3d))
        best["official loop"] = np.minimum(best.get("official loop", np.inf), spent/len(shots))
        for name,(precision,detect_every) in kinds.items():
            spent,_ = clocked(lambda precision=precision, detect_every=detect_every: our_stage(film, networks[precision], LandmarkConfig(precision=precision, detect_every=detect_every), ComputeConfig(), tmp_path, monkeypatch))
            best[name] = np.minimum(best.get(name, np.inf), spent/21)
    with capsys.disabled():
        print(f"\n{'s per frame':<20}{'wall':>8}{'times':>7}{'processor':>11}{'times':>7}   {torch.get_num_threads()} threads, {len(shots)} frames") # noqa: T201
        for name,(wall,cpu) in best.items(): print(f"{name:<20}{wall:>8.3f}{best['official loop'][0]/wall:>7.2f}{cpu:>11.3f}{best['official loop'][1]/cpu:>7.2f}") # noqa: T201
    for name in kinds:
        if name.startswith("bf16") and not torch.backends.cpu.get_cpu_capability().startswith("AVX512"): continue # Without its instructions it is slower
        assert max(best["official loop"]/best[name])>1, name
