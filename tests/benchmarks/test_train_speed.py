"""Training steps of the paper's model, as ratios measured in one run against a plain fp32 loop. Not part of the tests; ask for it:

    OMP_NUM_THREADS=1 pytest -m benchmark -s tests/benchmarks/test_train_speed.py

The plain loop is what one writes down first: attention as softmax(q kᵀ) v, all 360 output tokens, Keras' Adam weight by weight.
"""
import json
import subprocess
import sys
from dataclasses import replace
from time import perf_counter

import pytest
import torch

from audio2pose.data.windows import Store, random_sequences, write_store
from audio2pose.models.fact import FACT, Attention, FACTConfig
from audio2pose.models.keras_adam import KerasAdam
from audio2pose.train import build_run, step_flops, train_step
from audio2pose.training.batches import Prefetcher
from audio2pose.training.recipe import presets

pytestmark = pytest.mark.benchmark
BATCH = 4
CPU = torch.device("cpu")


def explicit(q, k, v, attn_mask=None, scale=1.):
    "Attention as it stands in the books"
    return (q@k.mT*scale).softmax(-1)@v


def plain_trainer(batches):
    "The plain loop: a function that takes a step"
    torch.manual_seed(0)
    model = FACT(FACTConfig())
    for part in model.modules():
        if isinstance(part, Attention): part.attention_op = explicit
    optimiser = KerasAdam(model.parameters(), lr=1e-4)
    def step():
        motion,audio,target,_ = map(torch.as_tensor, batches.next())
        optimiser.zero_grad()
        loss = ((model.output_tokens(motion, audio)[:, :20]-target)**2).mean()
        loss.backward()
        optimiser.step()
        return loss.item()
    return step, optimiser


def trainer(kind, store, batch=BATCH, parts=1):
    "A function that takes a step (plain, fp32 or bf16), and its optimiser"
    config = replace(presets["released"], batch=batch, precision=kind if kind!="plain" else "fp32", accumulate=parts)
    if kind=="plain":
        run,_ = build_run(store, config, FACTConfig(width=8, heads=2, mlp=8, motion_layers=1, audio_layers=1, cross_layers=1), CPU)
        return plain_trainer(run.batches)
    run,objective = build_run(store, config, FACTConfig(), CPU)
    return lambda: train_step(run, objective, CPU).item(), run.optimiser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")/"store"
    write_store(random_sequences(6, 500), folder)
    return folder


def test_speed(folder, repeats=3):
    kinds = ["plain", "fp32"]+(["bf16"] if torch.cpu._is_avx512_bf16_supported() else [])
    steps,best,first = {kind: trainer(kind, Store(folder))[0] for kind in kinds},dict.fromkeys(kinds, float("inf")),{}
    for _ in range(repeats):
        for kind,step in steps.items():
            begun = perf_counter()
            loss = step()
            best[kind] = min(best[kind], perf_counter()-begun)
            first.setdefault(kind, loss)
    flops = step_flops(replace(presets["released"], batch=BATCH), FACTConfig())
    print(f"\npaper's model, batch {BATCH}, {torch.get_num_threads()} thread(s)")
    for kind,seconds in best.items(): print(f"{kind:6} {seconds:6.2f} s a step, {best['plain']/seconds:5.2f} x plain, {flops/seconds/1e9:6.0f} GFLOP/s, loss of the first step {first[kind]:.6f}")
    assert abs(first["fp32"]-first["plain"])<1e-5*first["plain"] # They compute the same
    assert best["plain"]/best["fp32"]>=1.05
    if "bf16" in best: assert best["plain"]/best["bf16"]>=1.8


def test_memory(folder, batch=16):
    "Peak memory of a process that trains, at the paper's batch; and when that is computed in parts"
    peak = {}
    for kind,parts in (("plain", 1), ("fp32", 1), ("fp32", 4)):
        said = subprocess.run([sys.executable, __file__, kind, str(batch), str(parts), str(folder)], capture_output=True, text=True, check=True)
        peak[f"{kind} in {parts}"] = json.loads(said.stdout.splitlines()[-1])
    print(f"\npaper's model, batch {batch}: "+", ".join(f"{kind} {megabytes:.0f} MB ({1-megabytes/peak['plain in 1']:.0%} less)" for kind,megabytes in peak.items()))
    assert peak["fp32 in 1"]<=.7*peak["plain in 1"]
    assert peak["fp32 in 4"]<=.5*peak["plain in 1"]


def test_batches_keep_up(folder):
    "A batch of 32 is made in a small part of the 16 ms that a GPU at 450 TFLOP/s would take for its step"
    run,_ = build_run(Store(folder), presets["released"], FACTConfig(width=8, heads=2, mlp=8, motion_layers=1, audio_layers=1, cross_layers=1), CPU)
    ahead = Prefetcher(run.batches)
    begun = perf_counter()
    for _ in range(200): ahead.next()
    seconds = (perf_counter()-begun)/200
    ahead.close()
    print(f"\na batch of 32: {1e3*seconds:.1f} ms")


if __name__=="__main__":
    from pathlib import Path
    kind,batch,parts,place = sys.argv[1:]
    step,optimiser = trainer(kind, Store(place), int(batch), int(parts))
    for group in optimiser.param_groups: # Its moments are there from the second step on
        for weight in group["params"]: weight.grad = torch.zeros_like(weight)
    optimiser.step()
    optimiser.zero_grad()
    step()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")] # Peak of this program alone
    sys.stdout.write(json.dumps(int(line.split()[1])/1024)+"\n")
