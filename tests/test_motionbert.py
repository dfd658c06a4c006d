"""The encoder and its heads against numbers of the published programs (tests/golden/motionbert).

Weights are not stored: every tensor is a function of its name, by the rule in `seeded`."""
import csv
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from audio2pose.core import InputError
from audio2pose.models.motionbert import (
    DSTformer, DSTformerConfig, bucket_windows, encode, overlap_weights, flip_pose, flops, lift, to_official_names, window_starts, Window,
)
from audio2pose.models.motionbert_heads import ActionNet, MeshRegressor, columns_to_matrix
from audio2pose.models.weights import load_state_dict
from audio2pose.rotation import axis_angle_to_matrix

GOLDEN = Path(__file__).parent/"golden/motionbert"
GAINS = ("norm.weight", "norm1_s.weight", "norm1_t.weight", "norm2_s.weight", "norm2_t.weight", "bn.weight", "bn1.weight", "bn2.weight")


def table(name): return list(csv.DictReader((GOLDEN/f"{name}.tsv").open(), delimiter="\t"))


@torch.no_grad()
def seeded(model):
    "Fill a model by the rule of the golden numbers"
    for name,weight in model.state_dict().items():
        key = name.removeprefix("backbone.")
        if key.startswith(("head.init", "body.")): continue
        z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(weight.shape)
        if key.endswith(GAINS): z = 1+.1*z
        elif key.endswith("running_mean"): z = .02*z
        elif key.endswith("running_var"): z = 1+.1*np.abs(z)
        elif key.endswith("num_batches_tracked"): z = 0*z
        elif key.endswith("bias"): z = .02*z+.5*key.startswith("ts_attn")
        else: z = .04*z
        weight.copy_(torch.from_numpy(np.asarray(z)))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def models(): return {"full": seeded(DSTformer.full()), "lite": seeded(DSTformer.lite())}


@pytest.fixture(scope="module")
def lite(models): return models["lite"]


# ---- the network

@pytest.mark.parametrize("size", ["full", "lite"])
def test_every_tensor(models, size):
    "260 tensors of the official names, shapes and order; the seeded ones sum to what the reference's did"
    state = models[size].state_dict()
    assert [f"{name}\t{list(tensor.shape)}" for name,tensor in state.items()]==(GOLDEN/f"keys_{size}.tsv").read_text().splitlines()
    assert len(state)==260
    assert sum(tensor.numel() for tensor in state.values())==dict(full=42_466_317, lite=16_001_549)[size]
    for row in table(f"weights_check_{size}"):
        tensor = state[row["name"]].double()
        assert abs(tensor.sum()-float(row["sum"]))<1e-4 and abs((tensor**2).sum()-float(row["sum_of_squares"]))<1e-4
        assert abs(tensor.flatten()[0]-float(row["first"]))<1e-8 and abs(tensor.flatten()[-1]-float(row["last"]))<1e-8


def row_shape(row): return [int(n) for n in row["shape"].strip("[]()").replace(",", " ").split()]


@pytest.mark.parametrize("frames", [27, 243, 1])
@pytest.mark.parametrize("size", ["full", "lite"])
def test_forward(models, golden, size, frames):
    inputs,wanted = golden("motionbert/dstformer_inputs"),golden(f"motionbert/dstformer_{size}")
    with torch.inference_mode():
        rep = models[size].get_representation(torch.from_numpy(inputs[f"x_T{frames}"]))
        pose = models[size].head(rep).numpy()
    rep = rep.numpy()
    assert np.abs(rep[:, ::3, :, ::16]-wanted[f"rep_T{frames}"]).max()<1e-4
    assert np.abs(pose-wanted[f"head_T{frames}"]).max()<1e-4
    assert np.abs(rep.mean((0, 1, 2), dtype=float)-wanted[f"rep64_chan_mean_T{frames}"]).max()<1e-5
    assert np.abs(rep.std((0, 1, 2), dtype=float)-wanted[f"rep64_chan_std_T{frames}"]).max()<1e-5
    assert np.abs(rep.mean((0, 1, 3), dtype=float)-wanted[f"rep64_joint_mean_T{frames}"]).max()<1e-5
    assert np.abs(rep).max()<1


def test_flops():
    "The published counts: 1.526 and 0.585 GFLOP per frame at 243 frames"
    assert flops(DSTformerConfig(), 243)/243==pytest.approx(1.526e9, rel=1e-3)
    assert flops(DSTformerConfig(), 1)==pytest.approx(1.442e9, rel=1e-3)
    assert flops(DSTformerConfig.lite(), 243)/243==pytest.approx(.585e9, rel=1e-3)


# ---- heads

def test_action(golden):
    wanted = golden("motionbert/action")
    keys = table("action_keys")
    for name,classes in (("class", 60), ("embed", None)):
        net = seeded(ActionNet(DSTformer.lite(), classes))
        ours = [(key, list(tensor.shape)) for key,tensor in net.state_dict().items() if key.startswith("head.")]
        assert ours==[(row["name"], row_shape(row)) for row in keys if row["version"]==name]
        x = torch.from_numpy(wanted["x"])
        with torch.inference_mode():
            rep = net.backbone.get_representation(x.flatten(0, 1)).unflatten(0, (2, 2))
            pooled = rep.mean(2).flatten(2).mean(1)
            said = net(x)
        assert np.abs(pooled[:, ::32].numpy()-wanted[f"{name}_pooled_sub32"]).max()<1e-4
        assert np.abs(net.head.fc1(pooled)[:, ::8].numpy()-wanted[f"{name}_fc1_sub8"]).max()<1e-4
        assert np.abs(said.numpy()-wanted[f"{name}_out"]).max()<(1e-4 if classes else 1e-5)


def test_mesh(golden):
    wanted = golden("motionbert/mesh_head")
    net = seeded(MeshRegressor(DSTformer.lite()))
    net.head.init_pose.copy_(torch.from_numpy(wanted["init_pose"]))
    net.head.init_shape.copy_(torch.from_numpy(wanted["init_shape"]))
    ours = [(key, list(tensor.shape)) for key,tensor in net.state_dict().items() if key.startswith("head.")]
    assert ours==[(row["name"], row_shape(row)) for row in table("mesh_keys")]
    with torch.inference_mode(): found = net(torch.from_numpy(wanted["x"]))
    rotations = found.rotations.flatten(0, 1).numpy()
    assert np.abs(rotations[::4]-wanted["rotmat"]).max()<1e-4
    assert np.abs(found.shape.numpy()-wanted["betas"]).max()<1e-4
    theta = wanted["theta"].reshape(32, 82)
    assert np.abs(axis_angle_to_matrix(theta[:, :72].reshape(32, 24, 3).astype(float))-rotations).max()<1e-4
    assert np.abs(columns_to_matrix(torch.from_numpy(wanted["rot6d_in"])).numpy()-wanted["rot6d_rotmat"]).max()<1e-5


# ---- any length, any company

def test_results_do_not_depend_on_company(lite):
    "Alone, in a bucket, padded, in another order: the same to 1e-5"
    rng = np.random.default_rng(0)
    clips = [rng.uniform(-1, 1, (length, 17, 3)).astype(np.float32) for length in (30, 26, 1, 29, 60)]
    alone = [encode(lite, [clip])[0] for clip in clips]
    for order,frames in (((0, 1, 2, 3, 4), 2000), ((4, 2, 0, 3, 1), 70)):
        for i,rep in zip(order, encode(lite, [clips[i] for i in order], frames)): assert (rep-alone[i]).abs().max()<1e-5


def test_padding_is_not_seen(lite):
    "The mask is what makes the difference"
    clip = np.random.default_rng(0).uniform(-1, 1, (20, 17, 3)).astype(np.float32)
    padded = torch.from_numpy(np.concatenate([clip, np.zeros((5, 17, 3), np.float32)]))[None]
    with torch.inference_mode(): blind = lite.get_representation(padded)[0, :20]
    assert (blind-encode(lite, [clip])[0]).abs().max()>1e-3


@pytest.mark.parametrize("frames", [1, 242, 243, 244, 245, 364, 365, 10_000])
def test_windows_cover_everything(frames):
    starts = window_starts(frames)
    total = torch.zeros(frames)
    for start in starts:
        assert 0<=start and start+min(243, frames)<=frames
        total[start:start+243] += overlap_weights(min(243, frames))
    assert (total>0).all() and len(set(starts))==len(starts)


def test_buckets_hold_every_window_once():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 900, 50)
    windows = [Window(i, start, min(int(length), 243)) for i,length in enumerate(lengths) for start in window_starts(int(length))]
    found = list(bucket_windows(windows, 1000))
    assert sorted(window for batch in found for window in batch)==sorted(windows)
    assert all(len(batch)*batch[0].length<=1000 for batch in found)
    assert all(batch[-1].length>=.8*batch[0].length for batch in found)


def test_long_clip_is_its_windows_faded(lite):
    "Frames that only one window sees are that window's; 244 frames are two windows"
    model = seeded(DSTformer(DSTformerConfig(width=32, mlp=64, depth=2, rep=16)))
    x = torch.rand(1, 600, 17, 3)
    rep = model.get_representation(x)
    assert (rep[:, :121]-model.get_representation(x[:, :243])[:, :121]).abs().max()<1e-6
    assert (rep[0]-encode(model, [x[0].numpy()])[0]).abs().max()<1e-5
    two = model.get_representation(x[:, :244])
    assert (two[:, 0]-model.get_representation(x[:, :243])[:, 0]).abs().max()<1e-6
    assert (two[:, -1]-model.get_representation(x[:, 1:244])[:, -1]).abs().max()<1e-6


@pytest.mark.parametrize("size", ["full", "lite"])
def test_bf16_keeps_direction(models, size):
    "Cosine of each token with its fp32 self"
    x = torch.rand(1, 27, 17, 3, generator=torch.Generator().manual_seed(0))*2-1
    half = type(models[size])(models[size].config)
    half.load_state_dict(models[size].state_dict())
    half = half.eval().to_bf16()
    with torch.inference_mode(): cosine = torch.cosine_similarity(half.get_representation(x).float(), models[size].get_representation(x), dim=-1)
    assert cosine.min()>=.999


# ---- loading

class Hostile:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (self.path, "w")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return seeded(DSTformer(DSTformerConfig(width=32, mlp=64, depth=2, rep=16)))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("key", ["model_pos", "model", "state_dict", None])
def test_layouts(tiny, tmp_path, prefix, key):
    inner = {prefix+name: tensor for name,tensor in tiny.state_dict().items()}
    extra = dict(epoch=3, lr=5e-4, optimizer={"state": {}, "param_groups": [dict(lr=1e-3)]}, min_loss=np.float64(37.2), best=np.float32(1), steps=np.arange(3))
    torch.save({key: inner}|extra if key else inner, tmp_path/"a.bin")
    loaded = DSTformer.from_pretrained(tmp_path/"a.bin")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name,tensor in tiny.state_dict().items())
    assert len(loaded.source["sha256"])==64


def test_full_taken_for_lite(models, tmp_path):
    torch.save({"model_pos": models["full"].state_dict()}, tmp_path/"full.bin")
    with pytest.raises(InputError, match="DSTformer full .*DSTformer lite .*wanted"): DSTformer.from_pretrained(tmp_path/"full.bin", expect=DSTformerConfig.lite())
    assert DSTformer.from_pretrained(tmp_path/"full.bin").config==DSTformerConfig()


def test_bad_checkpoints(tiny, tmp_path):
    state = tiny.state_dict()
    torch.save({"model_pos": state}, tmp_path/"good.bin")
    (tmp_path/"cut.bin").write_bytes((tmp_path/"good.bin").read_bytes()[:5000])
    torch.save({"model_pos": state, "spy": Hostile(str(tmp_path/"it_ran"))}, tmp_path/"hostile.bin")
    torch.save({"model_pos": {name: tensor for name,tensor in state.items() if "norm.weight"!=name}}, tmp_path/"part.bin")
    torch.save({"model_pos": state|{"norm.weight": torch.full((32,), torch.nan)}}, tmp_path/"nan.bin")
    torch.save({"state_dict": {"backbone.conv1.weight": torch.ones(3)}}, tmp_path/"resnet.pth")
    for name,said in (("cut", "damaged, cut off"), ("hostile", "may run code"), ("part", "1 missing: norm.weight"), ("nan", "not finite: norm.weight"), ("none", "no such checkpoint")):
        with pytest.raises(InputError, match=said): DSTformer.from_pretrained(tmp_path/f"{name}.bin")
    with pytest.raises(InputError, match="not the weights of a DSTformer"): DSTformer.from_pretrained(tmp_path/"resnet.pth")
    with pytest.raises(InputError, match="SHA-256 is not 0000"): DSTformer.from_pretrained(tmp_path/"good.bin", sha256="0"*64)
    assert not (tmp_path/"it_ran").exists()


def test_official_files_of_mmpose(models):
    "Names as in MMPose's state dicts, head and hidden layers included"
    state = models["lite"].state_dict()
    def foreign(name):
        name = name.replace(".fc1.", ".0.").replace(".fc2.", ".2.") if ".mlp_" in name else name
        if name.startswith("pre_logits."): return "head."+name
        if name.startswith("head."): return name.replace("head.", "head.fc.")
        return "backbone."+name.replace("pos_embed", "spat_embed").replace("ts_attn", "attn_regress")
    assert sorted(to_official_names({foreign(name): tensor for name,tensor in state.items()}))==sorted(state)


# ---- what the model gives

def test_flip_is_an_involution():
    x = torch.rand(2, 5, 17, 3)
    assert torch.equal(flip_pose(flip_pose(x)), x)
    assert torch.equal(flip_pose(x)[..., 4, 1:], x[..., 1, 1:]) and torch.equal(flip_pose(x)[..., 8, 0], -x[..., 8, 0])


def test_root_has_no_spike(lite):
    "The published program zeroes the root's depth in one frame of each chunk; here it is 0 in all, and nothing else jumps"
    t = torch.arange(120)/60
    x = torch.stack([.4*torch.sin(t[:, None]+torch.arange(17)), .4*torch.cos(t[:, None]+torch.arange(17)), torch.ones(120, 17)], -1)
    assert lift(lite, x, flip=False)[:, 0, 2].abs().max()==0


@pytest.mark.gpu
def test_on_a_gpu(lite):
    if not torch.cuda.is_available(): pytest.skip("no CUDA device")
    clips = [np.random.default_rng(0).uniform(-1, 1, (length, 17, 3)).astype(np.float32) for length in (300, 60, 55)]
    there = seeded(DSTformer.lite()).cuda()
    for a,b in zip(encode(lite, clips), encode(there, clips)): assert (a-b).abs().max()<2e-3
