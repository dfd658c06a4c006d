"The released FACT's own kind of file: read without TensorFlow, trained on, and refused in one sentence where it is not whole"
import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio2pose.commands.base import invoke
from audio2pose.commands.train import app
from audio2pose.core import InputError
from audio2pose.data.windows import Store, random_sequences, train_val_split, write_store
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.models.keras_adam import KerasAdam, released_learning_rate
from audio2pose.models.tensorflow import Entry, TensorBundle, find_bundle, masked_crc32c, parse_index, read_table, write_bundle, write_entry, write_table
from audio2pose.train import build_run, load_start, train_step
from audio2pose.training.checkpoint import read_log
from audio2pose.training.recipe import presets

HERE = Path(__file__).parent/"golden"/"fact_checkpoint"
CONFIG = FACTConfig(width=32, heads=2, mlp=64, motion_layers=1, audio_layers=1, cross_layers=2)
SHARD = "ckpt-2.data-00000-of-00001"


@pytest.fixture(scope="module", params=["here", "shared"])
def saved(request):
    "What mint's trainer wrote: the set in this folder, and whatever set lies beside the repository"
    if request.param=="here": return HERE
    return request.getfixturevalue("shared")("golden/fact_checkpoint")


@pytest.fixture(scope="module")
def numbers(saved):
    with np.load(saved/"numbers.npz", allow_pickle=False) as file: return {name: file[name] for name in file.files}


@pytest.fixture
def copy(tmp_path):
    for name in ("checkpoint", "ckpt-2.index", SHARD): (tmp_path/name).write_bytes((HERE/name).read_bytes())
    return tmp_path


def tensors(numbers, *names): return [torch.from_numpy(numbers[name]) for name in names]


# ---- what must come out

def test_every_variable_is_listed(saved):
    lines = [line.split("\t") for line in (saved/"variables.tsv").read_text().splitlines()]
    bundle = TensorBundle(saved/"ckpt-2")
    assert [[name, ",".join(map(str, entry.shape)), entry.dtype] for name,entry in bundle.entries.items()]==lines


@torch.inference_mode()
def test_output(saved, numbers):
    model = FACT.from_pretrained(saved/"ckpt-2", CONFIG)
    motion,audio = tensors(numbers, "motion", "audio")
    np.testing.assert_allclose(model.output_tokens(motion, audio), numbers["output"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(model(motion, audio), numbers["output"][:, :20], rtol=0, atol=1e-4)


@torch.inference_mode()
def test_autoregression(saved, numbers):
    model = FACT.from_pretrained(saved/"ckpt-2", CONFIG)
    motion,audio = tensors(numbers, "ar_motion", "ar_audio")
    for i in range(numbers["ar_frames"].shape[1]): motion = torch.cat([motion, model(motion[:, i:i+120], audio[:, i:i+240])[:, :1]], 1)
    np.testing.assert_allclose(motion[:, 120:], numbers["ar_frames"], rtol=0, atol=1e-4)


def test_training_goes_on(saved, numbers):
    model = FACT.from_pretrained(saved/"ckpt-2", CONFIG).train()
    optimiser = KerasAdam(model.parameters())
    steps = optimiser.load_checkpoint(saved/"ckpt-2", model)
    assert steps==numbers["iterations"]==2
    optimiser.param_groups[0]["lr"] = released_learning_rate(steps)
    losses = []
    for _ in range(2):
        loss = model.loss(*tensors(numbers, "motion", "audio", "target"))
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        if len(losses)==1: optimiser.step()
    np.testing.assert_allclose(losses, numbers["losses"][2:], rtol=1e-6)
    np.testing.assert_allclose(model.head.bias.detach(), numbers["head_bias_step3"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.motion_pos.detach(), numbers["motion_pos_step3"], rtol=0, atol=1e-6)


def test_without_its_optimiser_the_third_step_is_another(saved, numbers):
    "What the test above catches"
    model = FACT.from_pretrained(saved/"ckpt-2", CONFIG).train()
    model.loss(*tensors(numbers, "motion", "audio", "target")).backward()
    KerasAdam(model.parameters()).step()
    assert np.abs(model.head.bias.detach().numpy()-numbers["head_bias_step3"]).max()>1e-5


# ---- training goes on, by the loop and at the command line

@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")/"store"
    write_store(random_sequences(3, 300), folder)
    return folder


def start(checkpoint, **more): return replace(presets["released"], **dict(dict(start=str(checkpoint), batch=2), **more))


def test_the_loop_takes_the_third_step(saved, numbers, store):
    "The loop's own optimiser, learning rate and loss, on the batch that was given"
    run,objective = build_run(Store(store), start(saved/"ckpt-2", steps=4), CONFIG, torch.device("cpu"))
    load_start(run)
    assert run.step==2
    motion,audio,target = (numbers[name] for name in ("motion", "audio", "target"))
    class Given:
        def next(self): return motion, audio, target, motion
    run.batches = Given()
    losses = [train_step(run, objective, torch.device("cpu")).item()]
    np.testing.assert_allclose(run.model.head.bias.detach(), numbers["head_bias_step3"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(run.model.motion_pos.detach(), numbers["motion_pos_step3"], rtol=0, atol=1e-6)
    losses.append(train_step(run, objective, torch.device("cpu")).item())
    np.testing.assert_allclose(losses, numbers["losses"][2:], rtol=1e-6)


def test_the_command_takes_the_third_step(store, tmp_path):
    "As KerasAdam takes it on the same windows; the log and the checkpoint count from 2"
    code,said = invoke(app, f"train {store} --start {HERE/'ckpt-2'} --heads 2 --preset released --steps 3 --batch 2 --out {tmp_path/'run'}")
    assert code==0, said
    model = FACT.from_pretrained(HERE/"ckpt-2", CONFIG).train()
    optimiser = KerasAdam(model.parameters())
    optimiser.load_checkpoint(HERE/"ckpt-2", model)
    run,_ = build_run(train_val_split(Store(store))[0], start(HERE/"ckpt-2"), CONFIG, torch.device("cpu"))
    motion,audio,target,_ = map(torch.from_numpy, run.batches.next())
    loss = model.loss(motion, audio, target)
    loss.backward()
    optimiser.step()
    trained = FACT.from_pretrained(tmp_path/"run"/"model")
    for name,weight in model.named_parameters(): np.testing.assert_allclose(trained.get_parameter(name).detach(), weight.detach(), rtol=0, atol=1e-6, err_msg=name)
    (line,) = read_log(tmp_path/"run"/"log.csv")
    assert line["step"]==3 and line["lr"]==1e-4 and line["loss"]==pytest.approx(loss.item(), rel=1e-5)
    begun = FACT.from_pretrained(HERE/"ckpt-2", CONFIG)
    assert 5e-5<(trained.head.bias-begun.head.bias).abs().max()<2e-4


def test_what_training_cannot_begin_with(store, tmp_path, copy):
    def said(*more): return invoke(app, " ".join(map(str, ("train", store, "--out", tmp_path/"run", *more))))
    assert said("--start", copy/"ckpt-2") [0]==2 and "say it with --heads" in said("--start", copy/"ckpt-2")[1]
    assert "this recipe is AdamW; go on with preset released" in said("--start", copy/"ckpt-2", "--heads", 2)[1]
    assert "has taken 2 steps already" in said("--start", copy/"ckpt-2", "--heads", 2, "--preset", "released", "--steps", 2)[1]
    assert "ckpt-1: no such file" in said("--start", copy/"ckpt-1")[1]
    (copy/SHARD).write_bytes((copy/SHARD).read_bytes()[:-1])
    assert "cut off" in said("--start", copy/"ckpt-2", "--heads", 2, "--preset", "released")[1]
    assert not (tmp_path/"run"/"checkpoint.pt").exists()


def test_weights_only(store, tmp_path):
    code,said = invoke(app, f"train {store} --start {HERE/'ckpt-2'} --heads 2 --weights-only --steps 1 --batch 2 --out {tmp_path/'run'}")
    assert code==0, said
    assert read_log(tmp_path/"run"/"log.csv")[-1]["step"]==1


@pytest.fixture
def newer(tmp_path):
    "What the Adam of TensorFlow 2.11 writes: slots that are numbered, not named"
    lines = [line.split("\t") for line in (HERE/"tiny_variables_new_adam.tsv").read_text().splitlines()]
    rng = np.random.default_rng(0)
    write_bundle(tmp_path/"ckpt-2", {name: rng.standard_normal([int(side) for side in shape.split(",")] if shape else ()).astype(dtype) for name,shape,dtype in lines if dtype!="string"})
    return tmp_path/"ckpt-2"


def test_adam_of_newer_tensorflow(newer, store, tmp_path):
    "Its weights are read; its optimiser is refused in one sentence, and can be left"
    assert FACT.from_pretrained(newer, CONFIG).config==CONFIG
    line = f"train {store} --start {newer} --heads 2 --preset released --steps 1 --batch 2 --out {tmp_path/'run'}"
    code,said = invoke(app, line)
    assert code==2 and "TensorFlow 2.11 or later, whose slots have no names" in said and "--weights-only" in said and "\n" not in said.strip()
    assert invoke(app, line+" --weights-only")[0]==0


@pytest.mark.parametrize("name", ["ckpt-2", "ckpt-2.index", SHARD, ""])
def test_four_ways_to_name_it(copy, name):
    assert find_bundle(copy/name)==copy/"ckpt-2"
    assert FACT.from_pretrained(copy/name, CONFIG).config==CONFIG


def test_a_folder_with_two(copy):
    (copy/"ckpt-3.index").write_bytes(b"")
    assert find_bundle(copy)==copy/"ckpt-2"
    (copy/"checkpoint").unlink()
    with pytest.raises(InputError, match="ckpt-2, ckpt-3; say which"): FACT.from_pretrained(copy)


def test_the_file_is_never_written_to(copy):
    before = (copy/SHARD).read_bytes()
    bundle = TensorBundle(copy/"ckpt-2")
    bundle["model/motion_linear_embedding/net/bias/.ATTRIBUTES/VARIABLE_VALUE"][:] = 7
    assert (copy/SHARD).read_bytes()==before


# ---- one sentence each

def refusal(path, config=CONFIG):
    with pytest.raises(InputError) as caught: FACT.from_pretrained(path, config)
    assert "\n" not in str(caught.value) and len(str(caught.value))<500
    return str(caught.value)


def test_missing_files(copy):
    (copy/SHARD).rename(copy/"elsewhere")
    assert f"{SHARD}: this file of the checkpoint is missing" in refusal(copy/"ckpt-2")
    (copy/"elsewhere").rename(copy/SHARD)
    (copy/"ckpt-2.index").unlink()
    assert "ckpt-2.index: this file of the checkpoint is missing" in refusal(copy/"ckpt-2")
    assert "ckpt-1: no such model file or folder" in refusal(copy/"ckpt-1")


@pytest.mark.parametrize("keep", [0, 1, 1000, .5, -1])
def test_cut_data(copy, keep):
    whole = (copy/SHARD).read_bytes()
    (copy/SHARD).write_bytes(whole[:keep if isinstance(keep, int) else int(keep*len(whole))])
    assert "cut off" in refusal(copy/"ckpt-2")


@pytest.mark.parametrize("keep", [0, 1, 47, 48, 1000, .5, .9, -1])
def test_cut_index(copy, keep):
    whole = (copy/"ckpt-2.index").read_bytes()
    (copy/"ckpt-2.index").write_bytes(whole[:keep if isinstance(keep, int) else int(keep*len(whole))])
    assert "damaged, or not the index" in refusal(copy/"ckpt-2")


@pytest.mark.parametrize("place", np.linspace(0, 1, 40, endpoint=False))
def test_a_flipped_bit_anywhere_in_the_data(copy, place):
    "In weights, slots and the object graph alike"
    data = bytearray((copy/SHARD).read_bytes())
    data[int(place*len(data))] ^= 1<<int(place*7919)%8
    (copy/SHARD).write_bytes(data)
    assert "is damaged (its checksum is wrong)" in refusal(copy/"ckpt-2")


def test_a_flipped_bit_anywhere_in_the_index(copy):
    "Refused, or in the padding of the last 48 bytes, which means nothing"
    right = read_table((copy/"ckpt-2.index").read_bytes())
    data = bytearray((copy/"ckpt-2.index").read_bytes())
    for place in [*range(0, len(data)-48, 97), *range(len(data)-48, len(data))]:
        data[place] ^= 4
        try: found = read_table(bytes(data))
        except (ValueError, IndexError): pass
        else: assert found==right and place>=len(data)-48
        data[place] ^= 4


def test_another_model(tmp_path):
    write_bundle(tmp_path/"ckpt-9", {"model/resnet/conv1/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.ones((3, 3), np.float32)})
    assert "no FACT in this checkpoint; it holds model/resnet/conv1" in refusal(tmp_path/"ckpt-9")
    write_bundle(tmp_path/"ckpt-9", {"weights": np.ones(3, np.float32)})
    assert "no FACT in this checkpoint; it holds no weights of a model" in refusal(tmp_path/"ckpt-9")


def test_another_size():
    assert "this FACT has width=32, not 800; mlp=64, not 3072; motion_layers=1, not 2" in refusal(HERE/"ckpt-2", FACTConfig())
    assert "the file does not say how many attention heads" in refusal(HERE/"ckpt-2", None)
    assert "these weights do not fit FACT" in refusal(HERE/"ckpt-2", FACTConfig(**vars(CONFIG)|{"standardise": True}))


def test_a_variable_is_missing(tmp_path):
    bundle = TensorBundle(HERE/"ckpt-2")
    arrays = {name: bundle[name] for name in bundle if bundle.entries[name].dtype!="string"}
    arrays.pop("model/audio_linear_embedding/net/bias/.ATTRIBUTES/VARIABLE_VALUE")
    write_bundle(tmp_path/"ckpt-2", arrays)
    assert "1 missing: audio_embed.bias" in refusal(tmp_path/"ckpt-2")


def index_of(*entries, header=b"\x08\x01"):
    return write_table({b"": header}|{f"v{k}".encode(): write_entry(entry) for k,entry in enumerate(entries)})


@pytest.mark.parametrize("index,why", [
    (index_of(Entry("float32", (4,), 0, 0, 8, 0)), "8 bytes for float32"),
    (index_of(Entry("float32", (1<<62, 1<<62), 0, 0, 0, 0)), "0 bytes for float32"),
    (index_of(Entry("string", (1<<40,), 0, 0, 1<<40, 0)), "bytes for string"),
    (index_of(Entry("float32", (2,), 7, 0, 8, 0)), "8 bytes for float32"),
    (index_of(header=b"\x08\x01\x10\x01"), "highest byte first"),
    (write_table({b"v": b""}), "no header"),
    (write_table({b"": b"\x08\x01", b"v": b"\x08\x63"}), "type 99"),
    (write_table({b"": b"\x08\x01", b"v": write_entry(Entry("float32", (), 0, 0, 4, 0))+b"\x3a\x00"}), "in slices"),
    (b"\0"*100, "does not end like"),
])
def test_an_index_that_asks_for_too_much(tmp_path, index, why):
    (tmp_path/"ckpt-1.index").write_bytes(index)
    assert why in refusal(tmp_path/"ckpt-1")


def test_one_piece_of_data_for_many_variables(tmp_path):
    (tmp_path/"ckpt-1.data-00000-of-00001").write_bytes(bytes(8))
    entry = Entry("float32", (2,), 0, 0, 8, masked_crc32c([bytes(8)]))
    (tmp_path/"ckpt-1.index").write_bytes(index_of(entry, entry))
    assert "begins inside another variable" in refusal(tmp_path/"ckpt-1")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_in_a_whole_table(key, value):
    "Blocks with right checksums and senseless content: a value, or an error that the reader turns into a sentence"
    try: parse_index(write_table({b"": b"\x08\x01", key: value}))
    except (ValueError, IndexError, TypeError, OverflowError): pass


# ---- as large as the released one

READ = """
import resource, sys, time
import torch
from audio2pose.models.tensorflow import TensorBundle
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.process_time()
bundle = TensorBundle(sys.argv[1])
opened = time.process_time()-begun
from audio2pose.models.fact import FACT
FACT.from_pretrained(sys.argv[1])
print(len(bundle), opened, time.process_time()-begun, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before)*1024)
"""


@pytest.mark.slow
def test_a_file_of_the_papers_size(tmp_path):
    "1.44 GB from the released names, opened with all checksums in at most 5 s of processor, with no second copy in memory"
    lines = [line.split("\t") for line in (HERE/"full_variables.tsv").read_text().splitlines()]
    block = np.random.default_rng(0).standard_normal(1<<20).astype(np.float32)*.03
    made = functools.cache(lambda shape,dtype: np.resize(block, [int(side) for side in shape.split(",")] if shape else ()).astype(dtype)) # Once for all that are alike
    arrays = {name: made(shape, dtype) for name,shape,dtype in lines if dtype!="string"}
    write_bundle(tmp_path/"ckpt-214501", arrays)
    del arrays,made
    size = os.path.getsize(tmp_path/"ckpt-214501.data-00000-of-00001")
    assert size>1.44e9
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path/"ckpt-214501")], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    count,opened,loaded,grown = map(float, done.stdout.split())
    assert count==len(lines)-1
    assert opened<5, f"{opened:.1f} s"
    assert grown<size, f"{grown/1e9:.2f} GB more for {size/1e9:.2f} GB, of which a third are weights"
    (tmp_path/"ckpt-214501.data-00000-of-00001").unlink()
