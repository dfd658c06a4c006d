"""The encoder against a straightforward one with explicit softmax attention, as ratios measured in one run. Ask for it:

    OMP_NUM_THREADS=1 pytest -m benchmark -s tests/benchmarks/test_motionbert_speed.py
"""
import subprocess
import sys
from time import perf_counter

import pytest
import torch
from torch import nn

from audio2pose.models.motionbert import MLP, Attention, DSTformer, flops

pytestmark = pytest.mark.benchmark


# ---- what a textbook would write, with the same weights

def explicit(q, k, v):
    scores = (q@k.transpose(-2, -1))*q.shape[-1]**-.5
    return scores.softmax(-1)@v


def plain_linear(layer):
    "PyTorch's own linear layer with the same weights"
    with torch.device("meta"): twin = nn.Linear(layer.in_features, layer.out_features)
    twin.weight,twin.bias = layer.weight,layer.bias
    return twin


class PlainMLP(nn.Module):
    def __init__(self, mlp):
        super().__init__()
        self.fc1,self.fc2 = plain_linear(mlp.fc1),plain_linear(mlp.fc2)

    def forward(self, x): return self.fc2(nn.functional.gelu(self.fc1(x)))


class MathAttention(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.qkv,self.proj,self.heads = plain_linear(attention.qkv),plain_linear(attention.proj),attention.heads

    def split(self, x): return self.qkv(x).reshape(*x.shape[:3], 3, self.heads, -1).permute(3, 0, 4, 1, 2, 5) # (3, B, H, T, J, d)

    def space(self, x): return self.proj(explicit(*self.split(x)).permute(0, 2, 3, 1, 4).reshape(x.shape))

    def time(self, x, seen=None): return self.proj(explicit(*self.split(x).transpose(3, 4)).permute(0, 3, 2, 1, 4).reshape(x.shape))


def plain_fuse(self, space, time, layer):
    weights = self.ts_attn[layer](torch.cat([space, time], -1)).softmax(-1)
    return space*weights[..., 0:1]+time*weights[..., 1:2]


def plain(model):
    "The same model, attention written out"
    for name,part in list(model.named_modules()):
        above = model.get_submodule(name.rpartition(".")[0])
        if isinstance(part, Attention): setattr(above, name.rpartition(".")[2], MathAttention(part))
        if isinstance(part, MLP): setattr(above, name.rpartition(".")[2], PlainMLP(part))
    model.pre_logits.fc,model.joints_embed = plain_linear(model.pre_logits.fc),plain_linear(model.joints_embed)
    model.ts_attn = nn.ModuleList(map(plain_linear, model.ts_attn))
    model.fuse = plain_fuse.__get__(model)
    return model


def seeded(size):
    torch.manual_seed(0)
    model = getattr(DSTformer, size)().eval().requires_grad_(False)
    for name,weight in model.named_parameters():
        if "norm" not in name and "ts_attn" not in name: weight.normal_(0, .04)
    return model


def best_of(runs, repeats):
    "Best of several, the ways taking turns so that a busy machine is busy for all of them"
    best,said = dict.fromkeys(runs, float("inf")),{}
    for _ in range(repeats):
        for name,run in runs.items():
            start = perf_counter()
            with torch.inference_mode(): said[name] = run()
            best[name] = min(best[name], perf_counter()-start)
    return best,said


@pytest.mark.parametrize("size", ["lite", "full"])
def test_speed(size, repeats=5):
    x = torch.rand(1, 243, 17, 3)*2-1
    models = {"explicit softmax": plain(seeded(size)), "fp32": seeded(size)}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported(): models["bf16"] = seeded(size).to_bf16()
    runs = {name: lambda model=model: model.pre_logits(model.last_hidden_state(x)) for name,model in models.items()}
    best,said = best_of(runs, repeats)
    plain_time,plain_said = best["explicit softmax"],said["explicit softmax"]
    print(f"\n{size}, 243 frames, {torch.get_num_threads()} thread(s)")
    for name,time in best.items():
        cosine = torch.cosine_similarity(said[name], plain_said, dim=-1).min()
        print(f"{name:18}{243/time:8.1f} frames/s{plain_time/time:7.2f}x{flops(models[name].config, 243)/time/1e9:8.0f} GFLOP/s   largest difference {(said[name]-plain_said).abs().max():.1e}, least cosine {cosine:.5f}")
        assert cosine>=.999
    assert (said["fp32"]-plain_said).abs().max()<1e-5
    assert plain_time/best["fp32"]>=1.1
    if "bf16" in best: assert plain_time/best["bf16"]>=1.9


# ---- memory, each way in a process of its own

MEASURE = """
import re, sys, torch
from pathlib import Path
def status(field): return int(re.search(field+r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
sys.path.insert(0, sys.argv[1])
from test_motionbert_speed import plain, seeded
model = seeded(sys.argv[3])
model = plain(model) if sys.argv[2]=="plain" else model
x = torch.rand(int(sys.argv[4]), 243, 17, 3)
with torch.inference_mode():
    model.tokens(x[:, :2])
    Path("/proc/self/clear_refs").write_text("5") # Forget the peak so far
    before = status("VmRSS")
    model.pre_logits(model.tokens(x))
print(status("VmHWM")-before)
"""


def peak(way, size, batch):
    "Memory that one pass needs beside the weights, MB"
    from pathlib import Path
    done = subprocess.run([sys.executable, "-c", MEASURE, str(Path(__file__).parent), way, size, str(batch)], capture_output=True, text=True, check=True)
    return int(done.stdout)/1024


@pytest.mark.parametrize("size", ["lite", "full"])
def test_memory(size, batch=2):
    explicit_peak,ours = peak("plain", size, batch),peak("ours", size, batch)
    print(f"\n{size}, {batch} x 243 frames: peak {explicit_peak:.0f} MB with explicit softmax, {ours:.0f} MB without ({1-ours/explicit_peak:.0%} less)")
    assert ours<=.7*explicit_peak


# ---- on a GPU

@pytest.mark.gpu
@pytest.mark.parametrize("size", ["lite", "full"])
def test_gpu_throughput(size, batch=32, repeats=10):
    if not torch.cuda.is_available(): pytest.skip("no CUDA device")
    x = (torch.rand(batch, 243, 17, 3)*2-1).cuda()
    models = {"fp32": seeded(size).cuda(), "bf16": seeded(size).cuda().to_bf16()}
    ways = {name: (lambda model=model: model.pre_logits(model.last_hidden_state(x))) for name,model in models.items()}
    ways["bf16, compiled"] = torch.compile(ways["bf16"])
    def timed(run):
        said = run()
        torch.cuda.synchronize()
        return said
    for way in ways.values():
        with torch.inference_mode(): timed(way)
    best,said = best_of({name: lambda way=way: timed(way) for name,way in ways.items()}, repeats)
    print(f"\n{size}, {batch} x 243 frames on {torch.cuda.get_device_name()}")
    for name,time in best.items():
        cosine = torch.cosine_similarity(said[name], said["fp32"], dim=-1).min()
        print(f"{name:18}{batch*243/time:10.0f} frames/s   {batch*flops(models['fp32'].config, 243)/time/1e12:6.1f} TFLOP/s   least cosine {cosine:.5f}")
        assert cosine>=.999
