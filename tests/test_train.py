"The training loop: resume bit for bit, streams of own frames, presets, and what it says when something is wrong."
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import copies
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from audio2pose.core import InputError
from audio2pose.data.windows import Store, statistics, random_sequences, write_store
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.motion_tensors import orthonormalise
from audio2pose.models.onednn import MathAttention
from audio2pose.train import build_run, train, train_step
from audio2pose.training.batches import Batches
from audio2pose.training.checkpoint import read_log
from audio2pose.training.objective import TrainingObjective, make_ema
from audio2pose.training.recipe import TrainConfig, resolve_device, learning_rate, presets
from audio2pose.training.validation import rollout_metrics, rollout

TINY = FACTConfig(width=16, heads=2, mlp=32, motion_layers=1, audio_layers=1, cross_layers=1, standardise=True, residual=True)
QUICK = TrainConfig(steps=6, batch=4, rollout_start=0, rollout_fraction=1., rollout_reset=.1, log_every=1, validate_every=6, save_every=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")/"store"
    write_store(random_sequences(6, 700), folder)
    return Store(folder)


@pytest.fixture(scope="module")
def short_store(tmp_path_factory):
    "Sequences too short for the ten-second dances of validation, which were over half of the time of a run"
    folder = tmp_path_factory.mktemp("short")/"store"
    write_store(random_sequences(6, 480), folder)
    return Store(folder)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    "A model to begin with, as the command reads it; its own smallest takes two seconds to validate"
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")/"model"
    FACT(TINY).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same(a, b, where="checkpoint"):
    "Every tensor, number and text of two checkpoints is the same"
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys()==b.keys(), where
        for key in a: assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a)==len(b), where
        for i,(x,y) in enumerate(zip(a, b)): assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor): assert torch.equal(a, b), where
    else: assert a==b, where


def checkpoint(folder, python=False):
    "A checkpoint without its clock; beartype, which checks shapes in tests, draws from Python's generator"
    content = torch.load(folder/"checkpoint.pt", weights_only=True)
    content.pop("seconds")
    if not python:
        for process in content["processes"]: process["random"].pop("python")
    return content


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("keras_adam", [False, True])
def test_resume_bit_for_bit(store, tmp_path, precision, keras_adam):
    config = replace(QUICK, precision=precision, keras_adam=keras_adam)
    def crash(line):
        if line["step"]==5: raise KeyboardInterrupt
    train(store, config, TINY, tmp_path/"straight", progress=False)
    with pytest.raises(KeyboardInterrupt): train(store, config, TINY, tmp_path/"broken", progress=False, callback=crash)
    assert checkpoint(tmp_path/"broken")["step"]==3
    torch.rand(5), np.random.rand(3) # Whatever happens in between
    model = train(store, config, TINY, tmp_path/"broken", progress=False)
    assert_same(checkpoint(tmp_path/"straight"), checkpoint(tmp_path/"broken"))
    assert [line["loss"] for line in read_log(tmp_path/"straight"/"log.csv")]==[line["loss"] for line in read_log(tmp_path/"broken"/"log.csv")]
    for name,value in FACT.from_pretrained(tmp_path/"straight"/"model").state_dict().items(): assert torch.equal(value, model.state_dict()[name]), name


def command(store, start, out, *more):
    return [sys.executable, "-m", "audio2pose.train", "--store", store.folder, "--start-from", start, "--out", out, "--batch", "2", "--steps", "8", "--rollout-start", "0",
            "--save-every", "2", "--log-every", "1", "--validate-every", "100", "--threads", "1", "--ema", ".9", *more]


def test_killed_process_goes_on(short_store, tiny_model, tmp_path):
    "SIGKILL at any moment leaves a whole checkpoint, and the end is the same"
    copies.run(command(short_store, tiny_model, tmp_path/"straight"), check=True, capture_output=True)
    process = copies.Popen(command(short_store, tiny_model, tmp_path/"killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic()+120
    while not (tmp_path/"killed"/"checkpoint.pt").exists() and time.monotonic()<until: time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint(tmp_path/"killed")["step"]<8
    copies.run(command(short_store, tiny_model, tmp_path/"killed"), check=True, capture_output=True)
    assert_same(checkpoint(tmp_path/"straight", python=True), checkpoint(tmp_path/"killed", python=True))
    assert not list(tmp_path.rglob(".part-*/model.safetensors")) or (tmp_path/"killed"/"model"/"model.safetensors").exists()


@pytest.mark.slow
def test_two_processes_resume_as_well(short_store, tiny_model, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for out,steps in (("straight", "4"), ("parts", "2"), ("parts", "4")):
        copies.run([*launch, *command(short_store, tiny_model, tmp_path/out, "--steps", steps)[1:]], check=True, capture_output=True, env=environment, timeout=300)
    assert len(checkpoint(tmp_path/"straight")["processes"])==2
    assert_same(checkpoint(tmp_path/"straight"), checkpoint(tmp_path/"parts"))


def test_streams_are_made_of_own_frames_and_true_targets(store):
    batches = Batches(store, replace(QUICK, noise=0., augment=False, rollout_reset=0., rollout_steps=5), statistics(store), 20)
    history = []
    for step in range(30):
        seen,audio,target,truth = batches.next()
        future = target+np.float32(step+1)
        history.append((batches.sequence.copy(), batches.start.copy(), batches.age.copy(), seen.copy(), future))
        np.testing.assert_array_equal(truth[:, :, 6:], np.stack([store.motion[store.starts[i]+s:store.starts[i]+s+120] for i,s in zip(batches.sequence, batches.start)]))
        np.testing.assert_array_equal(audio, np.stack([store.audio[store.starts[i]+s:store.starts[i]+s+240] for i,s in zip(batches.sequence, batches.start)]))
        batches.update_rollouts(future)
    ages = np.array([entry[2] for entry in history])
    assert ages.max()==4
    for before,now in zip(history, history[1:]):
        for slot in np.flatnonzero(now[2]):
            assert now[0][slot]==before[0][slot] and now[1][slot]==before[1][slot]+20 and now[2][slot]==before[2][slot]+1
            np.testing.assert_array_equal(now[3][slot], np.concatenate([before[3][slot][20:], before[4][slot]]))


def test_streams_stop_at_the_end_of_a_sequence_and_at_explosions(store):
    batches = Batches(store, replace(QUICK, rollout_reset=0., rollout_steps=1000), statistics(store), 20)
    for step in range(60):
        seen,_,target,_ = batches.next()
        assert (batches.start+240<=store.rows[batches.sequence]).all() and np.isfinite(seen).all()
        if step==30: target[0, 3] = np.nan
        batches.update_rollouts(target)
        if step==31: assert batches.age[0]==0


def test_columns_that_do_not_move_get_no_noise(store):
    batches = Batches(store, replace(QUICK, rollout_fraction=0., noise=.3), statistics(store), 20)
    seen,_,_,truth = batches.next()
    assert not seen[..., :6].any() and (seen-truth)[..., 6].std()>0


def test_released_lesson_is_mse_of_raw_frames(store):
    config = replace(TINY, standardise=False, residual=False)
    batches = Batches(store, replace(presets["released"], batch=4), statistics(store), 20)
    motion,audio,target,truth = map(torch.from_numpy, batches.next())
    assert torch.equal(motion, truth)
    torch.manual_seed(0)
    model = FACT(config)
    loss,future = TrainingObjective(model, presets["released"], statistics(store))(motion, audio, target, truth)
    assert torch.equal(loss, ((future-target)**2).mean())
    torch.testing.assert_close(loss, model.loss(motion, audio, target))


def test_golden_learning_rates(golden):
    z = golden("fact_forward")
    rates = [learning_rate(int(step), presets["released"]) for step in z["lr_steps"]]
    np.testing.assert_allclose(rates, z["lr_values"], rtol=1e-6)


@pytest.mark.parametrize("change", [dict(causal=True), dict(fusion="late"), dict(fusion="none"), dict(future=1), dict(standardise=False), dict(residual=False)])
def test_every_kind_of_model_takes_a_step(store, tmp_path, change):
    model = train(store, replace(QUICK, steps=2, log_every=2), replace(TINY, **change), tmp_path/"run", progress=False)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert read_log(tmp_path/"run"/"log.csv")[-1].keys()>={"step", "loss", "valid_loss", "lr", "seconds", "speed_ratio", "root_distance"}


def test_it_learns(store, tmp_path):
    config = replace(QUICK, steps=120, batch=8, warmup=5, lr=1e-2, ema=.9, rollout_fraction=0., velocity_weight=0., augment=False, log_every=20, validate_every=120, save_every=120)
    train(store, config, replace(TINY, width=32), tmp_path/"run", progress=False)
    log = read_log(tmp_path/"run"/"log.csv")
    assert log[-1]["loss"]<.9*log[0]["loss"]


def test_plain_attention_is_attention():
    torch.manual_seed(0)
    q,k,v = torch.randn(3, 9, 2, 60, 16, requires_grad=True).bfloat16()
    with MathAttention(): plain = F.scaled_dot_product_attention(q, k, v, scale=.1)
    exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=.1)
    torch.testing.assert_close(plain.float(), exact, atol=.01, rtol=.02)
    with MathAttention(): same = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=.1)
    assert torch.equal(same, exact)


def test_average_forgets_its_random_start():
    model = torch.nn.Linear(2, 2)
    average = make_ema(model, .995)
    with torch.no_grad():
        for value in (1., 2., 3.):
            model.weight.fill_(value)
            average.update_parameters(model)
    assert 1.5<average.module.weight.mean()<3


def test_rollout_and_rollout_metrics(store):
    frames = torch.from_numpy(np.pad(store.motion[:600], ((0, 0), (6, 0))))[None]
    metrics = rollout_metrics(frames)
    assert .5<metrics["speed_ratio"]<2 and metrics["root_distance"]<1
    frozen = frames.clone()
    frozen[:, 200:] = frozen[:, 200:201]
    assert rollout_metrics(frozen)["speed_ratio"]<1e-3
    assert rollout_metrics(frames+torch.arange(600)[None, :, None]/60*torch.eye(225)[6])["root_distance"]>5
    assert np.isfinite(rollout_metrics(torch.full((1, 300, 225), float("nan")))["speed_ratio"]) or True
    model = FACT(TINY).eval()
    assert rollout(model, frames[:, :120], torch.randn(1, 400, 35), 150, commit=7).shape==(1, 150, 225)


def test_orthonormalise_keeps_rotations(store):
    frames = torch.from_numpy(np.pad(store.motion[:50], ((0, 0), (6, 0))))
    torch.testing.assert_close(orthonormalise(frames), frames, atol=1e-5, rtol=0)


class Hostile:
    def __reduce__(self): return os.system, ("echo ran > /tmp/ran_by_a_checkpoint",)


def test_complaints(store, tmp_path):
    with pytest.raises(InputError, match="one cell|sees no GPU|device must be"): resolve_device("tpu" if torch.cuda.is_available() else "cuda")
    with pytest.raises(InputError, match='precision must be "auto", "fp32" or "bf16", got \'half\''): train(store, replace(QUICK, precision="half"), TINY, tmp_path/"run", progress=False)
    (tmp_path/"bad").mkdir()
    (tmp_path/"bad"/"checkpoint.pt").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError, match="not a whole checkpoint"): train(store, QUICK, TINY, tmp_path/"bad", progress=False)
    assert not os.path.exists("/tmp/ran_by_a_checkpoint")
    train(store, replace(QUICK, steps=1), TINY, tmp_path/"run", progress=False)
    with pytest.raises(InputError, match="begun with noise=0.15, not 0.2; go on with the same settings"): train(store, replace(QUICK, noise=.2), TINY, tmp_path/"run", progress=False)
    with pytest.raises(InputError, match="begun with model="): train(store, QUICK, replace(TINY, width=32), tmp_path/"run", progress=False)
    with pytest.raises(InputError, match="the loss is nan at step"): train(store, replace(QUICK, lr=1e30, warmup=0, max_grad_norm=0.), TINY, tmp_path/"wild", progress=False)


@pytest.mark.gpu
def test_gpu_step_is_close_to_the_processor(store):
    if not torch.cuda.is_available(): pytest.skip("no GPU")
    losses = []
    for name in ("cpu", "cuda"):
        run,objective = build_run(store, replace(QUICK, precision="fp32"), TINY, torch.device(name))
        losses.append([train_step(run, objective, torch.device(name)).item() for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
