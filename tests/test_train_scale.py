"Training at scale: killed anywhere, on any number of processes, in parts, in advance; what TensorBoard gets."
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import copies
import numpy as np
import pytest
import torch

from audio2pose.core import InputError
from audio2pose.data.windows import Store, statistics, random_sequences, write_store
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.models.keras_adam import KerasAdam
from audio2pose.motion import Motion
from audio2pose.train import build_run, step_flops, train, train_step
from audio2pose.training.batches import Prefetcher, Batches
from audio2pose.training.checkpoint import read_log
from audio2pose.training.recipe import FusedKerasAdam, TrainConfig, presets
from test_train import QUICK, TINY, assert_same, checkpoint, one_thread, short_store, tiny_model  # noqa: F401

FRESH = replace(presets["released"], steps=6, batch=4, log_every=1, validate_every=6, save_every=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")/"store"
    write_store(random_sequences(6, 500), folder)
    return Store(folder)


# ---- killed

def run_it(folder, out, config): # In a process of its own
    torch.set_num_threads(1)
    train(Store(folder), config, TINY, out, progress=False)


def processes():
    "Processes that begin with everything imported, so that each costs nothing"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audio2pose.train", "torch._dynamo", __name__])
    return context


@pytest.mark.parametrize("stream", [1., 0.])
def test_killed_at_ten_random_points(store, tmp_path, stream):
    "SIGKILL at any moment, ten times over, with batches of the model's own frames and with batches made in advance"
    config = replace(QUICK, steps=30, save_every=2, log_every=1, validate_every=1000, rollout_fraction=stream, ema=.9)
    straight = processes().Process(target=run_it, args=(store.folder, tmp_path/"straight", config))
    straight.start()
    straight.join(300)
    assert straight.exitcode==0
    rng,kills,steps = random.Random(0),0,[]
    for _ in range(200):
        process = processes().Process(target=run_it, args=(store.folder, tmp_path/"killed", config))
        process.start()
        known = len(steps) and steps[-1]
        while process.is_alive() and kills<10: # Let it come a little further each time; any moment is good
            log = read_log(tmp_path/"killed"/"log.csv")
            if log and log[-1]["step"]>=min(known+2, 28): break
            time.sleep(.005)
        if kills<10:
            time.sleep(rng.uniform(0, .03))
            process.kill()
        process.join(300)
        if process.exitcode==0: break
        kills += 1
        steps.append(checkpoint(tmp_path/"killed")["step"] if (tmp_path/"killed"/"checkpoint.pt").exists() else 0)
    assert kills==10 or steps[-1]>=26, (kills, steps)
    assert process.exitcode==0 and steps==sorted(steps)
    assert_same(checkpoint(tmp_path/"straight"), checkpoint(tmp_path/"killed"))
    assert [line["loss"] for line in read_log(tmp_path/"straight"/"log.csv")]==[line["loss"] for line in read_log(tmp_path/"killed"/"log.csv")]


def test_checkpoint_of_another_config_is_refused(store, tmp_path):
    train(store, replace(FRESH, steps=1), TINY, tmp_path/"run", progress=False)
    for change in (dict(batch=2), dict(accumulate=2), dict(keras_adam=False), dict(lr=.5)):
        with pytest.raises(InputError, match=f"begun with {next(iter(change))}="): train(store, replace(FRESH, **change), TINY, tmp_path/"run", progress=False)
    with pytest.raises(InputError, match="begun with model="): train(store, FRESH, replace(TINY, future=10), tmp_path/"run", progress=False)
    train(store, replace(FRESH, steps=2, log_every=2, tensorboard=False, save_every=1), TINY, tmp_path/"run", progress=False)


# ---- several processes

def curve(folder): return [line["loss"] for line in read_log(Path(folder)/"log.csv")]


LAUNCHERS = dict(torchrun=["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"],
                 accelerate=["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--module"])


@pytest.fixture(scope="module")
def one_process(short_store, tiny_model, tmp_path_factory): return taught(short_store, tiny_model, tmp_path_factory.mktemp("one")/"run", [sys.executable, "-m"], 4)


def taught(store, start, out, launcher, batch, run=copies.run):
    "Folder of a short run with noise, augmentation and streams"
    words = ["audio2pose.train", "--store", store.folder, "--start-from", start, "--steps", "6", "--rollout-start", "0", "--log-every", "1", "--validate-every", "100",
             "--save-every", "100", "--threads", "1", "--precision", "fp32", "--lr", "1e-3", "--batch", str(batch), "--out", out]
    done = run([*launcher, *words], check=False, capture_output=True, text=True, env=os.environ|{"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode==0, done.stderr[-2000:]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_of_half_the_batch_are_one(short_store, tiny_model, one_process, tmp_path, launcher):
    "The same loss curve and the same weights, over gloo; torchrun and its processes begin anew, as a user's do"
    two = taught(short_store, tiny_model, tmp_path/"two", [sys.executable, "-m", *LAUNCHERS[launcher]], 2, subprocess.run if launcher=="torchrun" else copies.run)
    assert len(curve(one_process))==6
    np.testing.assert_allclose(curve(one_process), curve(two), rtol=2e-4)
    a,b = (torch.load(folder/"checkpoint.pt", weights_only=True)["model"] for folder in (one_process, two))
    for name in a: torch.testing.assert_close(a[name], b[name], rtol=0, atol=3e-4, msg=name) # Six steps of at most 1e-3 each


def test_processes_share_one_stream_of_batches(store):
    config = replace(QUICK, batch=6, noise=.2, augment=True)
    whole,parts = Batches(store, config, statistics(store), 20),[Batches(store, replace(config, batch=2), statistics(store), 20, rank, 3) for rank in range(3)]
    for step in range(12):
        batch,pieces = whole.next(),[part.next() for part in parts]
        for a,b in zip(batch, zip(*pieces)): np.testing.assert_array_equal(a, np.concatenate(b))
        future = batch[2]+np.float32(step)
        whole.update_rollouts(future)
        for part,piece in zip(parts, np.split(future, 3)): part.update_rollouts(piece)


# ---- in parts, in advance

@pytest.mark.parametrize("stream", [0., 1.])
def test_parts_add_up(store, tmp_path, stream):
    config = replace(QUICK, precision="fp32", batch=8, rollout_fraction=stream)
    for parts in (1, 2, 8): train(store, replace(config, accumulate=parts), TINY, tmp_path/str(parts), progress=False)
    for parts in (2, 8): np.testing.assert_allclose(curve(tmp_path/"1"), curve(tmp_path/str(parts)), rtol=1e-3)
    with pytest.raises(InputError, match="batch of 8 does not divide into 3 parts"): train(store, replace(config, accumulate=3), TINY, tmp_path/"x", progress=False)


def test_clipping_limits_a_step(store, tmp_path):
    run,objective = build_run(store, replace(FRESH, max_grad_norm=1e-3), TINY, torch.device("cpu"))
    train_step(run, objective, torch.device("cpu"))
    assert torch.stack([p.grad.norm() for p in run.model.parameters()]).norm()<=1.001e-3


def test_batches_in_advance_are_the_same_and_survive(store):
    here,ahead = Batches(store, FRESH, statistics(store), 20),Prefetcher(Batches(store, FRESH, statistics(store), 20), depth=2)
    for _ in range(10):
        for a,b in zip(here.next(), ahead.next()): np.testing.assert_array_equal(a, b.numpy())
        assert_same(here.state_dict(), ahead.state_dict())
    ahead.close()
    assert not ahead.thread.is_alive()


def test_errors_of_the_feeding_thread_are_raised(store):
    broken = Batches(store, FRESH, statistics(store), 20)
    broken.stats = {}
    broken.config = replace(FRESH, augment=True)
    ahead = Prefetcher(broken)
    with pytest.raises(KeyError): ahead.next()


# ---- the optimiser of the published recipes

def test_fused_adam_is_keras_adam():
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.zeros(500)) for _ in range(2)]
    optimisers = [KerasAdam([weights[0]], lr=1e-4), FusedKerasAdam([weights[1]], 1e-4)]
    for step in range(20):
        gradient = torch.randn(500)*torch.logspace(-9, 1, 500)
        for weight,optimiser in zip(weights, optimisers):
            weight.grad = gradient.clone()
            optimiser.step()
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-10)
    again = FusedKerasAdam([weights[1]], 1e-4)
    again.load_state_dict(optimisers[1].state_dict())
    assert again.param_groups[0]["steps"]==20


def test_torch_adam_is_not():
    "The difference that the fused form takes away is there"
    weights = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    for weight,kind in zip(weights, (KerasAdam, torch.optim.Adam)):
        weight.grad = torch.full((3,), 1e-7)
        kind([weight], lr=1e-4, eps=1e-7).step()
    assert weights[0].abs().max()<.5*weights[1].abs().max()


# ---- what is seen on the way

def test_early_dances_and_tensorboard(store, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    config = replace(QUICK, steps=4, validate_every=2, save_every=2, tensorboard=True)
    train(store, replace(config, steps=2), TINY, tmp_path/"run", progress=False)
    train(store, config, TINY, tmp_path/"run", progress=False) # Goes on, and TensorBoard with it
    seen = EventAccumulator(str(tmp_path/"run"/"tensorboard"), size_guidance=dict(images=0)).Reload()
    assert {"training/loss", "training/lr", "validation/valid_loss", "validation/beat_align", "validation/freezing", "validation/speed_ratio"}<=set(seen.Tags()["scalars"])
    assert [event.step for event in seen.Scalars("training/loss")]==[1, 2, 3, 4]
    log = read_log(tmp_path/"run"/"log.csv")
    np.testing.assert_allclose([event.value for event in seen.Scalars("training/loss")], [line["loss"] for line in log], rtol=1e-6)
    assert [event.step for event in seen.Images("dance")]==[2, 4]
    dances = sorted((tmp_path/"run"/"dances").iterdir())
    assert [path.stem for path in dances]==["000002", "000004"] and len(Motion.load(dances[0]))==260
    assert {"beat_align", "freezing", "speed_ratio"}<=log[-1].keys() and 0<=log[-1]["freezing"]<=1


def test_watching_changes_nothing(store, tmp_path):
    for every in (1, 6): train(store, replace(FRESH, validate_every=every), TINY, tmp_path/str(every), progress=False)
    assert_same(checkpoint(tmp_path/"1")["model"], checkpoint(tmp_path/"6")["model"])


def test_arithmetic_of_the_papers_model():
    "Against the sheet: 40.49 GMAC a window; the last block is spared for 340 of 360 tokens"
    whole = 3*2*40.49e9*32
    assert .9*whole<step_flops(presets["released"], FACTConfig())<whole


COMPILED = """
import sys, torch
from dataclasses import replace
from audio2pose.data.windows import Store
from audio2pose.models.fact import FACTConfig
from audio2pose.train import build_run, train_step
from audio2pose.training.recipe import TrainConfig
config,small = TrainConfig(batch=4, precision="fp32"),FACTConfig(width=16, heads=2, mlp=32, motion_layers=1, audio_layers=1, cross_layers=1, standardise=True, residual=True)
for compiled in (False, True):
    run,objective = build_run(Store(sys.argv[1]), config, small, torch.device("cpu"))
    stepped = torch.compile(objective, backend="aot_eager", fullgraph=True) if compiled else objective
    print(*[train_step(run, stepped, torch.device("cpu")).item() for _ in range(3)])
"""


@pytest.mark.slow
def test_step_can_be_compiled(store):
    "Traced forwards and backwards in one graph, without the shape checks of the tests, it computes the same"
    said = subprocess.run([sys.executable, "-c", COMPILED, store.folder], capture_output=True, text=True, check=False, env=os.environ|{"OMP_NUM_THREADS": "1"}, timeout=300)
    assert said.returncode==0, said.stderr[-2000:]
    np.testing.assert_allclose(*[[float(x) for x in line.split()] for line in said.stdout.splitlines()], rtol=1e-4)


# ---- where there is a GPU

@pytest.mark.gpu
@pytest.mark.slow
def test_gpu_reaches_its_share_of_the_matrix_rate(tmp_path, store):
    "bf16, batch 32, the paper's model: at least 40 % of what the device does on large matrices"
    if not torch.cuda.is_available(): pytest.skip("no GPU")
    def seconds(work, count):
        for _ in range(5): work()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(count): work()
        torch.cuda.synchronize()
        return (time.perf_counter()-begun)/count
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    rate = 2*8192**3/seconds(lambda: a@a, 20)
    config = replace(presets["released"], precision="bf16")
    run,objective = build_run(store, config, FACTConfig(), torch.device("cuda"))
    run.batches = Prefetcher(run.batches, pin_memory=True)
    loss_module = torch.compile(objective)
    time_of_step = seconds(lambda: train_step(run, loss_module, torch.device("cuda")), 50)
    run.batches.close()
    (Path(os.environ.get("OUT", tmp_path))/"gpu.json").write_text(json.dumps(dict(matrix_rate=rate, step=time_of_step, hours=time_of_step*214_501/3600)))
    assert step_flops(config, FACTConfig())/time_of_step>=.4*rate
    assert time_of_step*214_501<=1.5*3600


@pytest.mark.gpu
def test_gpu_resumes_bit_for_bit(store, tmp_path):
    if not torch.cuda.is_available(): pytest.skip("no GPU")
    for out,steps in (("straight", 6), ("parts", 3), ("parts", 6)): train(store, replace(FRESH, steps=steps), TINY, tmp_path/out, device="cuda", progress=False)
    assert_same(checkpoint(tmp_path/"straight")["model"], checkpoint(tmp_path/"parts")["model"])
