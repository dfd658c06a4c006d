"""Frames per second of generation, as ratios measured in one run. Not part of the tests; ask for it:

    OMP_NUM_THREADS=1 pytest -m benchmark -s tests/benchmarks/test_generate_speed.py
"""
from time import perf_counter

import pytest
import torch

from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.models.fact_inference import autoregress, for_inference

pytestmark = pytest.mark.benchmark


def paper_model():
    "Paper-size FACT whose outputs are of the size of motion features and react to their input"
    torch.manual_seed(0)
    model = FACT().eval().requires_grad_(False)
    for name,weight in model.named_parameters():
        if "norm" not in name: weight.normal_(0, .03)
    return model


def plain_loop(model, predict, motion, audio, steps):
    "One whole forward pass per frame, as the published loop"
    frames = []
    for i in range(steps):
        with torch.inference_mode(): said = predict(motion, audio[:, i:i+240])[:, :1]
        frames.append(said)
        motion = torch.cat([motion[:, 1:], said], 1)
    return torch.cat(frames, 1)


def seconds_per_frame(runs, steps, repeats):
    "Best of several, the ways taking turns so that a busy machine is busy for all of them"
    best,said = dict.fromkeys(runs, float("inf")),{}
    for _ in range(repeats):
        for name,run in runs.items():
            start = perf_counter()
            said[name] = run()
            best[name] = min(best[name], (perf_counter()-start)/steps)
    return best,said


def test_paper_size_generation(steps=12, repeats=3):
    model = paper_model()
    motion,audio = .5*torch.randn(1, 120, 225),torch.randn(1, 240+steps-1, 35)
    twin = for_inference(model)
    runs = {
        "plain loop, every token": lambda: plain_loop(model, model.output_tokens, motion, audio, steps),
        "plain loop, forward": lambda: plain_loop(model, model, motion, audio, steps),
        "plain loop, oneDNN": lambda: plain_loop(twin, twin.output_tokens, motion, audio, steps),
        "exact fp32": lambda: autoregress(model, motion, audio),
        "bf16": lambda: autoregress(model, motion, audio, precision="bf16"),
        "commit 4": lambda: autoregress(model, motion, audio, commit=4),
        "commit 10": lambda: autoregress(model, motion, audio, commit=10),
    }
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported(): del runs["bf16"]
    best,said = seconds_per_frame(runs, steps, repeats)
    plain = "plain loop, every token"
    scale = said[plain].std().item()
    print(f"\npaper size, {steps} frames, {torch.get_num_threads()} thread(s), outputs have deviation {scale:.2f}")
    print(f"{'':26}{'ms/frame':>9}{'ratio':>7}{'difference, largest':>21}{'root mean square':>18}")
    for name,time in best.items():
        off = said[name]-said[plain]
        print(f"{name:26}{1e3*time:9.0f}{best[plain]/time:7.2f}{off.abs().max():21.1e}{off.square().mean().sqrt():18.1e}")
    assert (said["exact fp32"]-said[plain]).abs().max()<1e-4
    assert best[plain]/best["exact fp32"]>=1.15
    assert best[plain]/best["commit 4"]>=3.5
    if "bf16" in best: assert best[plain]/best["bf16"]>=1.8


def test_several_dances_to_one_song(steps=6, repeats=2, dances=4):
    "The song is heard once for all of them"
    model = paper_model()
    motion,audio = .5*torch.randn(dances, 120, 225),torch.randn(1, 240+steps-1, 35)
    runs = {
        "one by one": lambda: [autoregress(model, motion[i:i+1], audio) for i in range(dances)],
        "together": lambda: autoregress(model, motion, audio),
    }
    best,said = seconds_per_frame(runs, steps*dances, repeats)
    print(f"\n{dances} dances to one song: one by one {1e3*best['one by one']:.0f} ms/frame, together {1e3*best['together']:.0f} ms/frame")
    assert (torch.cat(said["one by one"])-said["together"]).abs().max()<1e-4


def test_small_model(steps=60, repeats=3):
    torch.manual_seed(0)
    model = FACT(FACTConfig.small()).eval()
    motion,audio = torch.randn(1, 120, 225),torch.randn(1, 240+steps-1, 35)
    runs = {
        "plain loop": lambda: plain_loop(model, model, motion, audio, steps),
        "exact fp32": lambda: autoregress(model, motion, audio),
        "commit 10": lambda: autoregress(model, motion, audio, commit=10),
    }
    best,_ = seconds_per_frame(runs, steps, repeats)
    print(f"\nsmall model, {torch.get_num_threads()} thread(s): "+", ".join(f"{name} {1e3*time:.2f} ms/frame" for name,time in best.items()))
    assert best["exact fp32"]<.015
