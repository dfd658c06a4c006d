"FACT against numbers computed by the released TensorFlow code (see tests/golden/fact_forward.npz)."
import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from audio2pose.models.fact import FACT
from audio2pose.models.fact_inference import autoregress
from audio2pose.models.keras_adam import KerasAdam, released_learning_rate

GOLDEN = Path(__file__).parent/"golden"/"fact_forward.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as z: return {key: z[key] for key in z.files}


def weight(name, shape, seed):
    "Weights are a function of their name"
    x = np.random.default_rng(zlib.crc32(name.encode())+seed).standard_normal(shape)
    if name.endswith(("norm1.weight", "norm2.weight")): x = 1+.1*x
    elif name.endswith("bias"): x = .02*x
    else: x = .03*x
    return torch.from_numpy(x.astype(np.float32))


@pytest.fixture(scope="module")
def model(golden):
    with torch.device("meta"): model = FACT()
    shapes = {name: tensor.shape for name,tensor in model.state_dict().items()}
    assert set(shapes)==set(golden["names"].tolist())
    state = {name: weight(name, shapes[name], int(golden.get("weight_seed", 0))) for name in golden["names"].tolist()}
    model.load_state_dict(state, assign=True)
    return model.eval()


@pytest.fixture(scope="module")
def inputs(golden):
    rng = np.random.default_rng(int(golden.get("input_seed", 7)))
    drawn = dict(motion=.5*rng.standard_normal((2, 120, 225)), audio=rng.standard_normal((2, 240, 35)),
                 ar_motion=.5*rng.standard_normal((1, 120, 225)), ar_audio=rng.standard_normal((1, 300, 35)),
                 target=.5*rng.standard_normal((2, 20, 225)))
    drawn = {name: array.astype(np.float32) for name,array in drawn.items()}
    np.testing.assert_allclose([array.sum(dtype=float) for array in drawn.values()], golden["input_sums"], atol=1e-2)
    return {name: torch.from_numpy(array) for name,array in drawn.items()}


def test_names_count_and_weights(model, golden):
    state = model.state_dict()
    assert sum(tensor.numel() for tensor in state.values())==golden["n_params"]==120_406_977
    digest = hashlib.sha256()
    for name,total in zip(golden["names"].tolist(), golden["weight_sums"]):
        np.testing.assert_allclose(state[name].double().sum(), total, atol=1e-6)
        digest.update(state[name].numpy().tobytes())
    assert digest.hexdigest()==str(golden["weights_sha256"])


@torch.inference_mode()
def test_forward(model, inputs, golden):
    every = model.output_tokens(inputs["motion"], inputs["audio"]).numpy()
    np.testing.assert_allclose(every[:, golden["token_index"]], golden["out_tokens"], rtol=0, atol=1e-4)
    np.testing.assert_allclose([np.abs(every).mean(), every.std()], [golden["out_abs_mean"], golden["out_std_all"]], rtol=1e-5)
    first = model(inputs["motion"], inputs["audio"]).numpy()
    np.testing.assert_allclose(first, golden["out_first20"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(first, every[:, :20], rtol=0, atol=2e-5)


def test_autoregression(model, inputs, golden):
    frames = autoregress(model, inputs["ar_motion"], inputs["ar_audio"], steps=12)
    np.testing.assert_allclose(frames, golden["ar_frames"], rtol=0, atol=1e-4)
    short = autoregress(model, inputs["ar_motion"], inputs["ar_audio"][:, :245], steps=12)
    assert short.shape==(1, 6, 225), "the published loop stops where a whole audio window no longer exists"
    np.testing.assert_allclose(short, golden["ar_short_frames"], rtol=0, atol=1e-4)


def cut(array):
    "The stored part of a tensor: vectors whole, matrices' corner"
    return array if array.ndim==1 else array[:225, :8]


def test_gradients_and_three_steps(model, inputs, golden):
    start = {key.split("/")[1]: model.state_dict()[key.split("/")[1]].clone() for key in golden if key.startswith("adam3_delta/")}
    every = {name: tensor.clone() for name,tensor in model.state_dict().items()}
    optimiser = KerasAdam(model.parameters(), lr=1e-4)
    named = dict(model.named_parameters())
    losses = []
    try:
        for step in range(4):
            optimiser.zero_grad()
            loss = model.loss(inputs["motion"], inputs["audio"], inputs["target"])
            losses.append(loss.item())
            if step==3: break
            loss.backward()
            if step==0: check_gradients(named, golden)
            optimiser.step()
        for name,before in start.items():
            delta = cut((named[name].detach()-before).numpy())
            np.testing.assert_allclose(delta, golden[f"adam3_delta/{name}"], rtol=0, atol=1e-6, err_msg=name)
    finally:
        model.load_state_dict(every)
        model.zero_grad()
    np.testing.assert_allclose(losses[0], golden["loss"], rtol=1e-5)
    np.testing.assert_allclose(losses, golden["adam_losses"], rtol=5e-5)


def check_gradients(named, golden):
    norms = [named[name].grad.double().norm().item() for name in golden["names"].tolist()]
    np.testing.assert_allclose(norms, golden["grad_norms"], rtol=1e-5)
    for key in (key for key in golden if key.startswith("grad/")):
        expected = golden[key]
        got = cut(named[key.removeprefix("grad/")].grad.numpy())
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5*np.abs(expected).max(), err_msg=key)


def test_learning_rates(golden):
    rates = [released_learning_rate(int(step)) for step in golden["lr_steps"]]
    np.testing.assert_array_equal(np.float32(rates), np.float32(golden["lr_values"]))


def test_what_the_numbers_catch(model, inputs, golden):
    "The tolerance is fine enough to tell the tanh GELU from the exact one"
    with torch.inference_mode():
        for block in model.cross_blocks: block.mlp.gelu.approximate = "none"
        try: other = model(inputs["motion"][:1], inputs["audio"][:1]).numpy()
        finally:
            for block in model.cross_blocks: block.mlp.gelu.approximate = "tanh"
    assert np.abs(other-golden["out_first20"][:1]).max()>1e-3
