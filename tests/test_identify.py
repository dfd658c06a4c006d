"Whatever file of weights is handed over, what it is gets said, and one that fits becomes one of ours"
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from audio2pose.commands.weights import app
from audio2pose.commands.base import invoke
from audio2pose.core import InputError
from audio2pose.models.fact import FACT, FACTConfig
from audio2pose.models.identify import convert, identify, match, mismatch_summary
from audio2pose.models.motionbert import DSTformer, DSTformerConfig
from audio2pose.models.motionbert_heads import ActionNet, MeshRegressor
from audio2pose.models.rtmdet import RTMDet
from audio2pose.models.tensorflow import TensorBundle, write_bundle

CHECKPOINT = Path(__file__).parent/"golden"/"fact_checkpoint"/"ckpt-2"


def listed(path):
    "Tensors without memory from a table of names and shapes"
    rows = [line.split("\t") for line in path.read_text().splitlines() if "\t" in line and not line.startswith(("#", "name"))]
    shapes = {row[0]: [int(side) for side in row[1].strip("[]()").replace("x", ",").split(",") if side.strip()] for row in rows}
    return {name: torch.empty(shape, device="meta") for name,shape in shapes.items()}


@pytest.mark.parametrize("name,kind", [("motionbert_keys_full", "DSTformer full"), ("motionbert_keys_lite", "DSTformer lite"), ("rtmdet_m_person_keys", "RTMDet-m"),
                                       ("rtmdet_nano_person_keys", "RTMDet-nano"), ("rtmw3d_l_keys", "RTMW3D-l"), ("rtmw3d_x_keys", "RTMW3D-x")])
def test_published_names_and_shapes(shared, name, kind):
    state = listed(shared(f"reference/{name}.tsv"))
    found = match({name.removeprefix("module."): tensor for name,tensor in state.items()})
    assert found.kind.startswith(kind) and not found.remark
    own = found.module.state_dict()
    unlike = {name for name in own.keys()|found.state.keys() if name not in own or name not in found.state or own[name].shape!=found.state[name].shape}
    assert not {name for name in unlike if "num_batches_tracked" not in name}


def test_a_detector_of_eighty_classes():
    state = dict(RTMDet("nano").state_dict())
    for level in range(3):
        state[f"bbox_head.rtm_cls.{level}.weight"] = torch.zeros(80, 64, 1, 1)
        state[f"bbox_head.rtm_cls.{level}.bias"] = torch.zeros(80)
    found = match(state)
    assert found.kind=="RTMDet-nano" and found.remark=="it tells 80 classes apart"


def test_the_released_model(tmp_path):
    found = identify(CHECKPOINT)
    assert found.match.kind=="FACT, 32 wide, MLP 64, 1 + 1 + 2 blocks" and found.numbers==61_121
    assert "step 2" in found.trained and "training can go on" in found.trained and len(found.hashes)==2
    with pytest.raises(InputError, match="attention heads.*--heads"): convert(CHECKPOINT, tmp_path/"model")
    assert not (tmp_path/"model").exists()
    convert(CHECKPOINT, tmp_path/"model", heads=2)
    config = FACTConfig(width=32, heads=2, mlp=64, motion_layers=1, audio_layers=1, cross_layers=2)
    straight,there = FACT.from_pretrained(CHECKPOINT, config),FACT.from_pretrained(tmp_path/"model")
    assert there.config==config and all(torch.equal(a, b) for a,b in zip(straight.state_dict().values(), there.state_dict().values()))


def test_without_slots_nothing_is_promised(tmp_path):
    bundle = TensorBundle(CHECKPOINT)
    write_bundle(tmp_path/"ckpt-2", {name: bundle[name] for name in bundle if "SLOT" not in name and bundle.entries[name].dtype!="string"})
    assert identify(tmp_path/"ckpt-2").trained=="step 2"


SMALL = DSTformerConfig(width=32, mlp=64, rep=32, depth=1)

@pytest.mark.parametrize("make,said", [(lambda: DSTformer(SMALL), "DSTformer"), (lambda: ActionNet(DSTformer(SMALL), 7, 8), "7 action classes"),
                                       (lambda: ActionNet(DSTformer(SMALL), None, 8), "action embedding"), (lambda: MeshRegressor(DSTformer(SMALL), None, 8), "a body (mesh)")])
def test_motionbert_and_its_heads(tmp_path, make, said):
    torch.manual_seed(0)
    model = make()
    torch.save({"epoch": 4, "lr": 1e-4, "model_pos" if isinstance(model, DSTformer) else "model": {f"module.{name}": tensor for name,tensor in model.state_dict().items()}}, tmp_path/"best.bin")
    found,written = convert(tmp_path/"best.bin", tmp_path/"best.safetensors")
    assert said in found.match.kind and found.trained=="epoch 4" and "module." in found.container
    again = type(model).from_pretrained(written)
    x = torch.randn(1, 2, 5, 17, 3) if isinstance(model, ActionNet) else torch.randn(1, 5, 17, 3)
    if isinstance(model, MeshRegressor): assert torch.equal(model.eval()(x).rotations, again(x).rotations)
    else: assert torch.equal(model.eval()(x), again(x))


def test_a_checkpoint_of_our_training(tmp_path):
    "The configuration is in its settings, the averaged weights beside the others"
    import json
    from dataclasses import asdict
    config = FACTConfig(width=32, heads=2, mlp=64, motion_layers=1, audio_layers=1, cross_layers=1)
    model = FACT(config)
    average = {"n_averaged": torch.tensor(5)}|{f"module.{name}": tensor+1 for name,tensor in model.state_dict().items()}
    torch.save(dict(settings=json.dumps(dict(model=asdict(config))), step=9, model=model.state_dict(), average=average), tmp_path/"checkpoint.pt")
    found = identify(tmp_path/"checkpoint.pt")
    assert not found.match.remark and found.trained=="step 9" and "averaged copy (average)" in found.container
    convert(tmp_path/"checkpoint.pt", tmp_path/"mean", averaged=True)
    assert torch.equal(FACT.from_pretrained(tmp_path/"mean").head.bias, model.head.bias+1)


def test_what_does_not_fit_is_said_and_not_written(tmp_path):
    state = dict(DSTformer(SMALL).state_dict())
    state.pop("norm.bias")
    state["head.bias"] = torch.full((3,), torch.nan)
    torch.save(state, tmp_path/"cut.pth")
    assert mismatch_summary(identify(tmp_path/"cut.pth").match)=="1 missing: norm.bias; 1 not finite: head.bias"
    code,said = invoke(app, f"convert {tmp_path/'cut.pth'} {tmp_path/'out.safetensors'}")
    assert code==2 and "1 missing: norm.bias" in said and not (tmp_path/"out.safetensors").exists()


def test_mediapipe(shared):
    found = identify(shared("real/weights/pose_landmarker_full.task"))
    assert found.match.kind=="MediaPipe pose landmarker" and "pose_detector.tflite" in found.container


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path/"notes.task", "w") as archive: archive.writestr("notes.txt", "hello")
    with pytest.raises(InputError, match="notes.task"): identify(tmp_path/"notes.task")


class Hostile:
    def __reduce__(self): return Path.touch, (Path("it_ran"),)


def test_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Hostile()}, "hostile.pt")
    code,said = invoke(app, "show hostile.pt")
    assert code==2 and "may run code" in said and not Path("it_ran").exists()


@pytest.mark.parametrize("content", [b"", b"\0"*100, b"ID3"+bytes(50), b"PK\3\4"+bytes(60), b"\x80\x04.", b"TFL", bytes(range(256))*20])
@pytest.mark.parametrize("name", ["a.bin", "a.safetensors", "a.task", "a.index", "a.onnx"])
def test_any_bytes(tmp_path, content, name):
    (tmp_path/name).write_bytes(content)
    code,said = invoke(app, f"show {tmp_path/name}")
    assert code==2 and said.startswith("error: ") and "\n" not in said


@pytest.mark.parametrize("state", [{"motion_embed.weight": torch.ones(3), "head.bias": torch.ones(2)}, {"blocks_st.0.mlp_s.fc1.weight": torch.ones(2)},
                                   {"backbone.stem.0.conv.weight": torch.ones(8), "bbox_head.a": torch.ones(1)}, {"log_scale": torch.ones(()), "dance.data.embed.weight": torch.ones(3)},
                                   {"blocks_st.x.mlp_s": torch.ones(1), "temp_embed": torch.ones(1), "joints_embed.weight": torch.ones(1), "blocks_st.0.mlp_s.fc1.weight": torch.ones(1), "pre_logits.fc.weight": torch.ones(1), "head.weight": torch.ones(1)}])
def test_almost_one_of_ours(state):
    found = match(state)
    assert found.module is None or found.mismatches


def test_the_list(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIO2POSE_DATA", str(tmp_path))
    (tmp_path/"weights").mkdir()
    (tmp_path/"weights"/"SHA256SUMS").write_text("794dbc78"+"a"*56+"  rtmw3d-l_8xb64_cocktail14-384x288-794dbc78_20240626.pth\n")
    code,said = invoke(app, "list")
    assert code==0 and "794dbc78"+"a"*56 in said and "* shipped" in said
