"The native nets against the modules of MMDetection and MMPose themselves, with the same seeded weights"
import importlib
import subprocess
import sys

import copies
import numpy as np
import pytest
import torch
from test_rtmdet import LANDMARKS, golden_input, picture, ruled

from audio2pose.core import InputError
from audio2pose.models import openmmlab, rtmdet, rtmw3d
from audio2pose.models.rtmdet import RTMDet
from audio2pose.models.rtmw3d import RTMW3D

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    with torch.no_grad(): yield


@pytest.fixture(scope="module")
def mmdet():
    "MMDetection, which the extra `dev` brings"
    pytest.importorskip("mmdet", reason='pip install "audio2pose[mmpose]"')
    try: importlib.import_module("cv2")
    except ImportError as error: pytest.skip(f"OpenCV cannot be loaded: {error}")
    return openmmlab.mmdetection()


@pytest.fixture(scope="module")
def mmpose(mmdet, tmp_path_factory):
    "MMPose, in a folder of its own unless it is installed: with its dependencies it cannot be"
    if importlib.util.find_spec("mmpose") is None:
        folder = tmp_path_factory.mktemp("mmpose")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "mmpose==1.3.2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode: pytest.skip(f"mmpose could not be fetched: {done.stderr.strip()[-200:]}")
        sys.path.append(str(folder))
    return openmmlab.mmpose_package()


@pytest.fixture(scope="module")
def rtmpose3d(mmpose):
    "The project of a clone where there is one, else its wiring in our words"
    if importlib.util.find_spec("rtmpose3d") is None: sys.modules["rtmpose3d"] = importlib.import_module("rtmpose3d_blocks")
    return openmmlab.mmpose3d()


@pytest.fixture(scope="module")
def scene(): return torch.from_numpy(picture(720, 1280, 1))[None]


# ---- the detector

@pytest.fixture(scope="module", params=["nano", "m"])
def detectors(request, mmdet):
    "Ours and theirs with the same weights"
    ours,theirs = ruled(RTMDet(request.param), LANDMARKS, f"rtmdet_{request.param}"),openmmlab.build_detector(request.param)
    assert list(theirs.state_dict())==list(ours.state_dict())
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_mmdet_s_layers_answer_the_same(detectors):
    ours,theirs = detectors
    x = golden_input("mosaic", 1, ours.side, ours.side, rtmdet.detector_mean, rtmdet.detector_std)
    maps = theirs.backbone(x)
    for a,b in zip(ours.backbone(x), maps): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    pyramid = theirs.neck(maps)
    for a,b in zip(ours.neck(*maps), pyramid): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a,b in zip(ours.bbox_head(pyramid), theirs.bbox_head(pyramid)):
        for left,right in zip(a, b): torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_mmdet_finds_the_same_people(detectors, scene):
    ours,theirs = detectors
    threshold = dict(nano=.712191, m=.704979)[ours.name] # Within a gap between scores
    (boxes, scores),(expected, sure) = rtmdet.detect(ours, scene, threshold)[0],openmmlab.detect(theirs, scene, threshold)[0]
    assert len(expected)>20
    np.testing.assert_allclose(boxes, expected, atol=.1)
    np.testing.assert_allclose(scores, sure, atol=1e-3)


def test_mmdet_takes_pictures_of_any_shape(mmdet):
    ours,theirs = ruled(RTMDet("nano"), LANDMARKS, "rtmdet_nano"),openmmlab.build_detector("nano")
    theirs.load_state_dict(ours.state_dict())
    for height,width in ((641, 359), (200, 200), (90, 700)):
        shots = torch.from_numpy(np.stack([picture(height, width, k) for k in (1, 2)]))
        for (boxes, scores),(expected, sure) in zip(rtmdet.detect(ours, shots, .7), openmmlab.detect(theirs, shots, .7)):
            assert len(expected)>2 and abs(len(boxes)-len(expected))<=1, (height, width)
            best = np.abs(boxes[:, None]-expected[None]).max(-1).min(1) # Px; near ties stand in either order, and a box at the threshold may be lost
            assert (best<.1).mean()>=.95, (height, width, best)
            many = min(len(scores), len(sure))
            np.testing.assert_allclose(scores[:many], sure[:many], atol=1e-3)


@pytest.mark.parametrize("name,file", [("m", "rtmdet_m_640-8xb32_coco-person"), ("nano", "rtmdet_nano_320-8xb32_coco-person")])
def test_configuration_is_the_bundled_one(mmpose, name, file):
    from pathlib import Path

    from mmengine.config import Config
    theirs = Config.fromfile(Path(mmpose.__file__).parent/".mim"/"demo"/"mmdetection_cfg"/f"{file}.py")
    ours = openmmlab.detector_config(name)
    def network(config): return {key: {k: v for k,v in part.items() if k!="init_cfg"} if isinstance(part, dict) else part for key,part in config.model.to_dict().items() if key!="_scope_"}
    assert network(ours)==network(theirs)
    sides = [[step.get("scale", step.get("size")) for step in config.test_dataloader.dataset.pipeline if step.type in ("Resize", "Pad")] for config in (ours, theirs)]
    assert sides[0]==sides[1]


def test_real_weights_through_mmdet(mmdet, shared):
    pytest.importorskip("onnx")
    from audio2pose.video import Cut, frames
    weights = shared("real/weights/rtmdet_nano_person_320.onnx")
    shot = torch.from_numpy(next(frames(shared("real/video/several_people.mp4"), [Cut("all")])).picture)[None]
    (boxes, scores),(expected, sure) = (where.detect(where.load_rtmdet("nano", weights), shot, .3)[0] for where in (rtmdet, openmmlab))
    assert len(expected)>1
    np.testing.assert_allclose(boxes, expected, atol=.05)
    np.testing.assert_allclose(scores, sure, atol=1e-3)


def test_suppression_is_the_native_one():
    rng = np.random.default_rng(5)
    for count in (0, 1, 7, 90):
        corners = rng.uniform(0, 60, (count, 2)).astype(np.float32)
        boxes,scores = np.hstack([corners, corners+rng.uniform(1, 60, (count, 2)).astype(np.float32)]),-np.sort(-rng.random(count).astype(np.float32))
        assert openmmlab.nms(torch.from_numpy(boxes), torch.from_numpy(scores), .6).tolist()==rtmdet.nms(boxes)


# ---- the pose network

@pytest.fixture(scope="module")
def pose_nets(rtmpose3d):
    "Ours and theirs with the same weights"
    ours,theirs = ruled(RTMW3D("l"), LANDMARKS, "rtmw3d_l"),openmmlab.build_pose("l")
    assert list(theirs.state_dict())==list(ours.state_dict())
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_mmpose_s_layers_answer_the_same(pose_nets):
    ours,theirs = pose_nets
    x = golden_input("mosaic", 1, 384, 288, rtmw3d.pose_mean, rtmw3d.pose_std)
    maps = theirs.backbone(x)
    for a,b in zip(ours.backbone(x), maps): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    pyramid = theirs.neck(maps)
    for a,b in zip(ours.neck(*maps)[1:], pyramid): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a,b in zip(ours.head(*pyramid), theirs.head(pyramid)): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gated_attention_and_scale_norm_are_mmpose_s(mmpose):
    from mmpose.models.utils.rtmcc_block import RTMCCBlock, ScaleNorm
    torch.manual_seed(0)
    ours,theirs = rtmw3d.GatedAttentionUnit(),RTMCCBlock(133, 256, 256, s=128, expansion_factor=2, attn_type="self-attn", act_fn="SiLU", use_rel_bias=False, pos_enc=False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 133, 256)
    torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)
    for scale in (1., 1e-7): torch.testing.assert_close(rtmw3d.ScaleNorm(256)(scale*x), ScaleNorm(256)(scale*x), rtol=1e-5, atol=1e-7)


BOXES = torch.tensor([[300., 100, 700, 650], [-60, -40, 200, 300], [1100, 400, 1350, 700], [600, 300, 640, 390]])


def unique_crops(theirs, scene):
    "What MMPose cuts out"
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope
    init_default_scope("mmpose")
    prepare = Compose(theirs.cfg.test_dataloader.dataset.pipeline)
    one = dict(bbox_score=np.ones(1, np.float32), **theirs.dataset_meta)
    return torch.stack([prepare(dict(img=scene[0].numpy(), bbox=box[None].numpy(), **one))["inputs"] for box in BOXES]) # Blue, green, red


def test_crops_are_mmpose_s(pose_nets, scene):
    import cv2
    expected = unique_crops(pose_nets[1], scene).permute(0, 2, 3, 1).int()
    crops = rtmw3d.crop_pictures(scene, torch.zeros(len(BOXES), dtype=torch.int), *rtmw3d.crop_regions(BOXES)).int()
    off = (crops-expected).abs()
    assert off.max()<=(1 if int(cv2.__version__.split(".")[0])>=5 else 8) # Older OpenCV interpolates in steps of 1/32 px
    assert off.float().mean()<.3


def test_poses_are_mmpose_s(pose_nets, scene):
    "From MMPose's crops on, since a grey level changes what random weights see"
    ours,theirs = pose_nets
    which = torch.zeros(len(BOXES), dtype=torch.int)
    expected,sure = openmmlab.estimate_poses(theirs, scene, which, BOXES)
    crops = unique_crops(theirs, scene).permute(0, 2, 3, 1).flip(-1)
    bins,score = rtmw3d.simcc_maximum(ours(rtmw3d.normalise(crops, rtmw3d.pose_mean, rtmw3d.pose_std)))
    points = rtmw3d.bins_to_points(bins.float(), *rtmw3d.crop_regions(BOXES))
    torch.testing.assert_close(score, sure, rtol=0, atol=.02)
    same = (points-expected).abs()<torch.tensor([1e-3, 1e-3, 1e-5])
    assert same.float().mean()>.995 # Random weights have near ties


def test_boxes_go_to_their_pictures(pose_nets):
    theirs = pose_nets[1]
    shots = torch.from_numpy(np.stack([picture(240, 320, k) for k in (1, 2)]))
    boxes = torch.tensor([[40., 20, 200, 220], [100, 30, 300, 200]])
    points,_ = openmmlab.estimate_poses(theirs, shots, torch.tensor([1, 0], dtype=torch.int), boxes)
    alone,_ = openmmlab.estimate_poses(theirs, shots[:1], torch.tensor([0], dtype=torch.int), boxes[1:])
    assert ((points[1]-alone[0]).abs()<1e-3).float().mean()>.99


def test_decoding_of_columns_and_rows_is_mmpose_s(mmpose):
    from mmpose.codecs import SimCCLabel
    rng = np.random.default_rng(2)
    x,y = (rng.normal(size=(2, 133, n)).astype(np.float32) for n in (576, 768))
    x[0, :9] -= 9 # Nothing seen
    codec = SimCCLabel(input_size=(288, 384), simcc_split_ratio=2.)
    bins,score = rtmw3d.simcc_maximum((torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(x)))
    for i in range(2):
        points,sure = codec.decode(x[i:i+1], y[i:i+1])
        np.testing.assert_array_equal(bins[i, :, :2].numpy()/2, points[0])
        np.testing.assert_array_equal(score[i], sure[0])
    assert (bins[0, :9]==-1).all()


def test_nobody_is_invented(pose_nets, scene):
    points,scores = openmmlab.estimate_poses(pose_nets[1], scene, torch.zeros(0, dtype=torch.int), torch.zeros(0, 4))
    assert points.shape==(0, 133, 3) and scores.shape==(0, 133)


# ---- the stage

@pytest.mark.slow
def test_the_stage_by_mmdetection_and_mmpose(rtmpose3d, tmp_path):
    "Both back ends make landmarks of a film, and the sidecar says whose they are"
    import av

    from audio2pose.extract.landmarks import ComputeConfig, LandmarkConfig, extract
    from audio2pose.landmarks import Landmarks
    with av.open(str(tmp_path/"film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width,stream.height,stream.pix_fmt = 320,192,"yuv420p"
        for k in range(2): container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(192, 320, k), "bgr24")))
        container.mux(stream.encode(None))
    found = {}
    for backend in ("native", "mmpose"):
        settings = LandmarkConfig(detector="nano", people="largest", threshold=0, low_threshold=0, min_seconds=0, backend=backend)
        report,_ = extract(tmp_path/"film.mp4", tmp_path/backend, settings, ComputeConfig(), ("random", "random"), progress=False)
        assert report.outcomes=={"made": 1}, (tmp_path/backend/"ledger.jsonl").read_text()
        found[backend] = Landmarks.load(tmp_path/backend/"film.npy")
        assert [model["backend"] for model in found[backend].made["models"]]==[backend]*2
    ours,theirs = found["native"],found["mmpose"]
    assert ours.points.shape==theirs.points.shape==(2, 133, 4) and theirs.detected.all()


def test_the_stage_asks_mmpose_for_each_crop(rtmpose3d):
    "Whatever the order of crops and the sizes of pictures"
    from audio2pose.extract import clips, networks
    from audio2pose.extract.settings import find_weights
    weights = [find_weights(name, "random") for name in ("rtmdet_nano", "rtmw3d_l")]
    both = networks.load_networks(*weights, "fp32", torch.device("cpu"), "mmpose")
    pictures = [picture(192, 320, 1), picture(240, 200, 2), picture(192, 320, 3)]
    shots = [clips.ClipFrame(0., one, []) for one in pictures]
    clips.batch_by_size(shots)
    boxes = np.array([[20, 10, 90, 180], [40, 30, 150, 220], [100, 20, 300, 190]], np.float32)
    points = networks.pose(both, [networks.Crop(shot, box, []) for shot,box in zip(shots, boxes)], False)
    for one,shot,box,seen,found in zip(pictures, shots, boxes, points, networks.detect_batch(both, shots, .05)):
        alone = torch.from_numpy(one)[None]
        expected,scores = openmmlab.estimate_poses(both.pose, alone, torch.zeros(1, dtype=torch.int), torch.from_numpy(box)[None])
        np.testing.assert_allclose(seen[:, 3], scores[0], rtol=1e-4, atol=1e-3)
        assert (np.abs(seen[:, :3]-expected[0].numpy())<1e-2).mean()>.98
        np.testing.assert_allclose(found[1], openmmlab.detect(both.detector, alone, .05)[0][1], atol=1e-4)


def test_the_stage_says_what_is_missing(mmpose, monkeypatch, tmp_path):
    from audio2pose.extract.landmarks import LandmarkConfig, extract
    monkeypatch.setitem(sys.modules, "rtmpose3d", None)
    with pytest.raises(InputError, match="projects/rtmpose3d on PYTHONPATH"): extract(tmp_path, tmp_path/"out", LandmarkConfig(backend="mmpose"), weights=("random", "random"))
    assert not (tmp_path/"out").exists()


# ---- what cannot be

def test_what_these_programs_cannot_do_is_refused(pose_nets, scene):
    where = torch.zeros(1, dtype=torch.int),BOXES[:1]
    with pytest.raises(InputError, match="does not refine"): openmmlab.estimate_poses(pose_nets[1], scene, *where, refine=True)
    with pytest.raises(InputError, match="float32, not in bfloat16"): openmmlab.detect(torch.nn.Linear(1, 1).bfloat16(), scene)
    with pytest.raises(InputError, match="no size is called 'huge'"): openmmlab.build_detector("huge")
    with pytest.raises(InputError, match="no size is called 'huge'"): openmmlab.build_pose("huge")


def test_weights_of_another_network_are_refused(mmdet, tmp_path):
    torch.save(RTMDet("nano").state_dict(), tmp_path/"nano.pth")
    assert openmmlab.load_rtmdet("nano", tmp_path/"nano.pth").name=="nano"
    with pytest.raises(InputError, match="nano.pth"): openmmlab.load_rtmdet("m", tmp_path/"nano.pth")


@pytest.mark.slow
def test_each_missing_part_is_named_with_its_remedy(mmdet):
    "In a process where it is as if it were not installed"
    def said(*missing, call):
        code = f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\nfrom audio2pose.core import InputError\nfrom audio2pose.models import openmmlab\ntry: openmmlab.{call}()\nexcept InputError as error: sys.stdout.write(str(error))"
        return copies.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
    assert 'pip install "audio2pose[mmpose]"' in said("mmdet", call="mmdetection")
    assert 'pip install "setuptools<81"' in said("pkg_resources", call="mmdetection")
    assert "pip install --no-deps mmpose==1.3.2" in said("mmpose", call="mmpose3d")


def test_a_missing_clone_is_named_with_its_remedy(mmpose, monkeypatch):
    monkeypatch.setitem(sys.modules, "rtmpose3d", None)
    with pytest.raises(InputError, match="projects/rtmpose3d on PYTHONPATH"): openmmlab.mmpose3d()


def test_nothing_happens_at_import():
    code = "import sys, audio2pose.models.openmmlab; sys.stdout.write(str(sorted({name.split('.')[0] for name in sys.modules}&{'mmdet', 'mmcv', 'mmengine', 'mmpose', 'cv2', 'xtcocotools'})))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout=="[]"
