"RTMDet against numbers of the published programs"
import csv
import functools
import gzip
import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from audio2pose.models import rtmdet
from audio2pose.models.rtmdet import RTMDet, detect, letterbox, load_rtmdet


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    "In this module alone: the other tests of the same process teach"
    with torch.no_grad(): yield


# ---- the inputs of the golden numbers

def ruled(net, folder, name):
    "Fill `net` by the rule of the golden numbers: values from names, BatchNorm statistics from a file"
    state = net.state_dict()
    with np.load(folder/f"bn_{name}.npz") as file: statistics = {kind: iter(file[kind].astype(np.float32)) for kind in ("running_mean", "running_var")}
    for key,tensor in state.items():
        kind = key.rpartition(".")[2]
        if kind in statistics: value = np.array([next(statistics[kind]) for _ in range(len(tensor))])
        elif kind=="num_batches_tracked": continue
        else: value = by_rule(key, tuple(tensor.shape), name)
        tensor.copy_(torch.from_numpy(np.asarray(value, np.float32)))
    net.load_state_dict(state)
    return net.eval()


def by_rule(key, shape, name):
    "Values of one tensor"
    source = key
    if name=="rtmdet_m" and key.endswith("conv.weight") and "_convs." in key and key.startswith("bbox_head."):
        parts = key.split(".")
        source = ".".join([*parts[:2], "0", *parts[3:]])
    z = np.random.default_rng(zlib.crc32(source.encode())).standard_normal(shape)
    if key.endswith("gau.gamma"): return .35*(1+.1*z)
    if key.endswith("gau.beta"): return .1*z
    if key.endswith(".bias"): return {"rtmdet_nano": 3, "rtmdet_m": 1.1}.get(name, 0)*("rtm_reg" in key)+.05*z
    if key.endswith((".g", "res_scale.scale")) or len(shape)==1: return 1+.1*z
    return z/np.sqrt(np.prod(shape[1:]))


def golden_input(kind, batch, height, width, mean, std):
    "The pictures `mosaic` and `noise`, normalised"
    rng = np.random.default_rng(3)
    if kind=="noise": x = rng.uniform(102, 153, (batch, 3, height, width))
    else:
        x = np.stack([rng.uniform(0, 255, (3, -(-height//8), -(-width//8))) for _ in range(batch)])
        x = x.repeat(8, 2).repeat(8, 3)[:, :, :height, :width]
    return torch.from_numpy(((x-np.reshape(mean, (3, 1, 1)))/np.reshape(std, (3, 1, 1))).astype(np.float32))


@functools.cache
def picture(h, w, k):
    "The synthetic picture: blue, green, red"
    y,x,c = np.ogrid[:h, :w, :3]
    t = ((2+c+k)*x+(5-c)*y+71*c+37*k)%512
    value = np.where(t<256, t, 511-t)
    for i in range(6):
        cx,cy,r = (2*i+1)*w//12,((37*i+11*k+20)%100)*h//100,h//12+i*h//60
        value = np.where((x-cx)**2+(y-cy)**2<r*r, (40*i+90*c+25*k+(x-cx)*(y-cy)//64)%256, value)
    inside = ((x//16+y//16)%2==0) & (x>w//3) & (x<w//2) & (y>h//4) & (y<3*h//4)
    return np.where(inside, 255-value, value).astype(np.uint8)


LANDMARKS = Path(__file__).parent/"golden"/"landmarks" # Made by running mmdet 3.3.0 and mmpose 1.3.2 (Apache-2.0) on seeded weights


@pytest.fixture(scope="module")
def landmarks(): return LANDMARKS


@pytest.fixture(scope="module")
def errors(landmarks): return json.loads((landmarks/"nets.json").read_text())


def published_keys(name):
    "Rows of a table: key, shape, sum, ... of each tensor of the published classes"
    with gzip.open(LANDMARKS/f"keys_{name}.tsv.gz", "rt") as file: return list(csv.DictReader(file, delimiter="\t"))


# ---- the nets

@pytest.mark.parametrize("name,count", [("nano", 994_423), ("m", 24_663_447)])
def test_parameters_are_counted_as_published(name, count): assert sum(p.numel() for p in RTMDet(name).parameters())==count


@pytest.mark.parametrize("name", ["nano", "m"])
def test_keys_are_the_published_ones_in_their_order(name):
    ours = [(key, "x".join(map(str, tensor.shape)) or "scalar") for key,tensor in RTMDet(name).state_dict().items()]
    assert ours==[(row["key"], row["shape"]) for row in published_keys(f"rtmdet_{name}")]


@pytest.mark.parametrize("name", ["nano", "m"])
def test_outputs_are_the_reference_s(name, landmarks, errors):
    full = f"rtmdet_{name}"
    net = ruled(RTMDet(name), landmarks, full)
    for row in published_keys(full): np.testing.assert_allclose(float(net.state_dict()[row["key"]].double().sum()), float(row["sum"]), rtol=1e-6, atol=1e-5, err_msg=row["key"])
    with np.load(landmarks/f"{full}.npz") as file: golden = dict(file)
    for kind in ("mosaic", "noise"):
        x = golden_input(kind, 2 if name=="nano" else 1, net.side, net.side, rtmdet.detector_mean, rtmdet.detector_std)
        np.testing.assert_allclose(x[:, :, :2, :16], golden[f"{kind}_input"], atol=1e-6)
        for what,maps,least in zip(("cls", "box"), net(x), (1e-4, 1e-2)):
            for stride,step,values in zip((8, 16, 32), (4, 2, 1), maps):
                limit = max(10*errors[full][f"{kind}_{what}_s{stride}_err"], least)
                np.testing.assert_allclose(values[..., ::step, ::step], golden[f"{kind}_{what}_s{stride}"], rtol=0, atol=limit, err_msg=f"{kind} {what} {stride}")


@pytest.mark.parametrize("name,threshold", [("nano", .712191), ("m", .704979)])
def test_the_whole_detector_finds_the_reference_s_boxes(name, threshold, landmarks):
    net = ruled(RTMDet(name), landmarks, f"rtmdet_{name}")
    with np.load(landmarks/f"rtmdet_{name}.npz") as file: golden = dict(file)
    pictures = torch.from_numpy(picture(720, 1280, 1))[None]
    assert int(pictures.sum())==353244083
    (boxes, scores), = detect(net, pictures, threshold)
    np.testing.assert_allclose(boxes, golden["pic_boxes"], atol=.1)
    np.testing.assert_allclose(scores, golden["pic_scores"], atol=1e-3)
    (boxes, scores), = detect(net, pictures)
    best = rtmdet.box_iou(golden["pic_boxes_default"].astype(float), boxes.astype(float)).max(1)
    assert (best>.98).mean()>.97, "the lists at the official threshold agree as sets, but for near ties"


# ---- before the nets

def test_letterbox_is_opencv_s_to_the_grey_level(landmarks):
    for item in json.loads((landmarks/"prepost.json").read_text())["letterbox"]:
        h,w = item["hw"] if "hw" in item else (item["h"], item["w"])
        side = item["side"]
        square = letterbox(torch.from_numpy(picture(h, w, 1))[None], side)[0].numpy()
        assert hashlib.sha256(square.tobytes()).hexdigest()==item["sha256"], (h, w, side)


# ---- real weights

@pytest.fixture(scope="module")
def real(shared):
    pytest.importorskip("onnx")
    return load_rtmdet("nano", shared("real/weights/rtmdet_nano_person_320.onnx"))


def test_real_weights_lie_where_the_published_table_says(real, shared):
    import onnx
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(shared("real/weights/rtmdet_nano_person_320.onnx"))).graph.initializer}
    state,rows = real.state_dict(),list(csv.DictReader(shared("golden/landmarks/onnx_to_keys.tsv").open(), delimiter="\t"))
    assert len(rows)==123
    for row in rows:
        np.testing.assert_array_equal(state[row["key_weight"]].numpy(), stored[row["onnx_weight"]])
        np.testing.assert_array_equal(state[row["key_bias"]].numpy(), stored[row["onnx_bias"]])


@pytest.mark.parametrize("name,items", [("walking_with_onlooker", {0: 0, 60: 1, 120: 2}), ("several_people", {0: 3, 50: 4})])
def test_real_weights_find_the_people_of_real_videos(real, name, items, shared):
    from audio2pose.video import Cut, frames
    pictures = json.loads(shared("golden/landmarks/rtmdet_nano_real.json").read_text())["items"]
    with np.load(shared("golden/landmarks/rtmdet_nano_real.npz")) as file: golden = dict(file)
    for number,frame in enumerate(frames(shared(f"real/video/{name}.mp4"), [Cut("all")])):
        if number in items:
            i = items[number]
            same = hashlib.sha256(frame.picture.tobytes()).hexdigest()==pictures[i]["picture_sha256"]
            (boxes, scores), = detect(real, torch.from_numpy(frame.picture)[None], .3)
            np.testing.assert_allclose(boxes, golden[f"boxes{i}"], atol=.05 if same else 1)
            np.testing.assert_allclose(scores, golden[f"scores{i}"], atol=1e-3 if same else .01)
        if number==max(items): return
    pytest.fail("the video ended early")
