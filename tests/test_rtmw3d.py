"RTMW3D, its crops and its decoding against numbers of the published programs"
import copy
import hashlib
import json

import numpy as np
import pytest
import torch
from test_rtmdet import errors, golden_input, landmarks, picture, published_keys, ruled  # noqa: F401

from audio2pose.models import rtmw3d
from audio2pose.models.rtmw3d import RTMW3D, crop_pictures, crop_regions, normalise, simcc_maximum, bins_to_points


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    "In this module alone: the other tests of the same process teach"
    with torch.no_grad(): yield


@pytest.fixture(scope="module")
def net(landmarks): return ruled(RTMW3D("l"), landmarks, "rtmw3d_l")  # noqa: F811


@pytest.mark.parametrize("name", ["l", "x"])
def test_keys_are_the_published_ones_in_their_order(name):
    with torch.device("meta"): state = RTMW3D(name).state_dict()
    ours = [(key, "x".join(map(str, tensor.shape)) or "scalar") for key,tensor in state.items()]
    assert ours==[(row["key"], row["shape"]) for row in published_keys(f"rtmw3d_{name}")]


def check_net(net, name, landmarks, errors):  # noqa: F811
    for row in published_keys(name): np.testing.assert_allclose(float(net.state_dict()[row["key"]].double().sum()), float(row["sum"]), rtol=1e-6, atol=1e-5, err_msg=row["key"])
    with np.load(landmarks/f"{name}.npz") as file: golden = dict(file)
    for kind in ("mosaic", "noise"):
        x = golden_input(kind, 1, 384, 288, rtmw3d.pose_mean, rtmw3d.pose_std)
        np.testing.assert_allclose(x[:, :, :2, :16], golden[f"{kind}_input"], atol=1e-6)
        logits = net(x)
        for axis,values in zip("xyz", logits):
            limit = max(10*errors[name][f"{kind}_logit_{axis}_err"], 1e-4)
            np.testing.assert_allclose(values[:, ::7, ::16], golden[f"{kind}_logit_{axis}"], rtol=0, atol=limit, err_msg=f"{kind} {axis}")
            clear = golden[f"{kind}_gap_{axis}"]>.02
            assert clear.mean()>.7
            np.testing.assert_array_equal(values.argmax(-1).numpy()[clear], golden[f"{kind}_bin_{axis}"][clear])
        np.testing.assert_allclose(simcc_maximum(logits)[1], golden[f"{kind}_scores"], atol=2e-2)


def test_l_is_the_reference(net, landmarks, errors): check_net(net, "rtmw3d_l", landmarks, errors)  # noqa: F811


def test_x_is_the_reference(landmarks, errors): check_net(ruled(RTMW3D("x"), landmarks, "rtmw3d_x"), "rtmw3d_x", landmarks, errors)  # noqa: F811


def test_the_reference_s_crops_give_its_bins(net, landmarks):  # noqa: F811
    with np.load(landmarks/"rtmw3d_l.npz") as file: golden = dict(file)
    with np.load(landmarks/"pic_crops.npz") as file: off = torch.from_numpy(file["off"]) # OpenCV's crops, as what they differ from exact ones by: a grey level in 1 % of the places
    where = crop_regions(torch.from_numpy(golden["pic_boxes_in"]))
    crops = (crop_pictures(torch.from_numpy(picture(720, 1280, 1))[None], torch.zeros(3, dtype=torch.int), *where)+off).to(torch.uint8)
    assert hashlib.sha256(crops.numpy().tobytes()).hexdigest().startswith("cb75428915ba523d")
    logits = net(normalise(crops.flip(-1), rtmw3d.pose_mean, rtmw3d.pose_std))
    bins,score = simcc_maximum(logits)
    for i,axis in enumerate("xyz"):
        clear = golden[f"pic_gap_{axis}"]>.05
        np.testing.assert_array_equal(bins[..., i].numpy()[clear], golden[f"pic_bin_{axis}"][clear])
    np.testing.assert_allclose(score, golden["pic_scores"], atol=.1)
    points = bins_to_points(bins.float(), *crop_regions(torch.from_numpy(golden["pic_boxes_in"])))
    same = (bins[..., :2].numpy()==np.stack([golden["pic_bin_x"], golden["pic_bin_y"]], -1)).all(-1)
    np.testing.assert_allclose(points[..., :2].numpy()[same], golden["pic_transformed"][same], atol=1e-3)


def test_crops_are_exact_bilinear_samples(landmarks):  # noqa: F811
    with np.load(landmarks/"prepost.npz") as file: golden = dict(file)
    centre,size = crop_regions(torch.from_numpy(golden["crop_boxes"]))
    np.testing.assert_allclose(centre, golden["crop_center"], atol=1e-4)
    np.testing.assert_allclose(size, golden["crop_scale"], atol=1e-4)
    crops = crop_pictures(torch.from_numpy(picture(720, 1280, 1))[None], torch.zeros(4, dtype=torch.int), centre, size).numpy()
    for crop,xy,values,thumb in zip(crops, golden["crop_xy"], golden["crop_values"], golden["crop_thumb"]):
        off = np.abs(crop[xy[:, 1], xy[:, 0]].astype(int)-values)
        assert off.max()<=1 and off.mean()<.01
        assert np.abs(crop[::8, ::8].astype(int)-thumb).max()<=1
    exact = [hashlib.sha256(crop.tobytes()).hexdigest() for crop in crops]
    assert len(exact)==len(json.loads((landmarks/"prepost.json").read_text())["crop_sha256"])


def test_decoding_is_the_reference_s(landmarks):  # noqa: F811
    with np.load(landmarks/"prepost.npz") as file: golden = dict(file)
    logits = [torch.full((4, 133, n), -.5) for n in (576, 768, 576)]
    for i,axis in enumerate(logits):
        axis.scatter_(2, torch.from_numpy(golden["dec_bins"][..., i].astype(np.int64))[..., None], torch.from_numpy(golden["dec_peak"][..., i])[..., None])
        for k,second in enumerate(golden["dec_tie"]): axis[2, k, int(second)] = float(golden["dec_peak"][2, k, i])
    bins,score = simcc_maximum(tuple(logits))
    np.testing.assert_array_equal(score, golden["dec_scores"])
    np.testing.assert_allclose(bins.float()/2, golden["dec_simcc"])
    points = bins_to_points(bins.float(), *crop_regions(torch.from_numpy(golden["dec_boxes"]))).numpy()
    np.testing.assert_allclose(points[..., :2], golden["dec_transformed"], atol=2e-4)
    np.testing.assert_allclose(points[..., 2], golden["dec_head_keypoints"][..., 2], atol=1e-6)
    np.testing.assert_allclose(points[..., 2]+rtmw3d.camera_distance, golden["dec_keypoints_3d"][..., 2], atol=1e-6)


def test_colours_in_the_wrong_order_are_noticed(net):
    pictures = torch.from_numpy(picture(240, 320, 1))[None]
    where = torch.zeros(1, dtype=torch.int),torch.tensor([[40., 20, 200, 220]])
    a,b = (rtmw3d.estimate_poses(net, x, *where)[0] for x in (pictures, pictures.flip(-1)))
    assert (a!=b).any(-1).float().mean()>.3


def test_a_batch_is_as_its_parts(net):
    pictures = torch.from_numpy(np.stack([picture(240, 320, k) for k in (1, 2)]))
    boxes = torch.tensor([[40., 20, 200, 220], [100, 30, 300, 200]])
    both = rtmw3d.estimate_poses(net, pictures, torch.tensor([0, 1], dtype=torch.int), boxes)
    for i in range(2):
        one = rtmw3d.estimate_poses(net, pictures[i:i+1], torch.zeros(1, dtype=torch.int), boxes[i:i+1])
        np.testing.assert_allclose(both[1][i], one[1][0], atol=.05)
        assert (both[0][i]==one[0][0]).float().mean()>.95


# ---- half precision
# Random weights magnify rounding from layer to layer, so little can be asked here: that nothing overflows, that the logits
# keep their shape, and that most best classes stay. It says nothing about trained weights. (Measured: bf16 keeps 68-73 % of
# the best classes and a correlation of .984, rounding the weights alone to fp16 95-96 % and .9996; chance is 0.2 %.)

@pytest.mark.parametrize("dtype,arithmetic,alike,kept", [(torch.bfloat16, True, .97, .55), (torch.float16, False, .999, .9)])
def test_half_precision_keeps_most_of_the_answer(net, dtype, arithmetic, alike, kept):
    x = golden_input("mosaic", 1, 384, 288, rtmw3d.pose_mean, rtmw3d.pose_std)
    low = copy.deepcopy(net).to(dtype)
    answers = low(x.to(dtype)) if arithmetic else low.float()(x) # Convolutions in fp16 take a CPU most of a minute
    for full,half in zip(net(x), answers):
        assert half.isfinite().all()
        assert np.corrcoef(full.flatten(), half.float().flatten())[0, 1]>alike
        assert (full.argmax(-1)==half.argmax(-1)).float().mean()>kept
