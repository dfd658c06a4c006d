"From videos to landmark files: policies, sampling, whatever a file can be, and being stopped at any point"
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import av
import copies
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies

from audio2pose import cli
from audio2pose.commands.base import invoke
from audio2pose.commands.landmarks import landmarks, plan_extraction
from audio2pose.core import InputError, lock_folder
from audio2pose.data.manifest import InvalidRow, Segment, Videos, name_error, read_segments, read_table
from audio2pose.extract import clips, networks
from audio2pose.engine import notebooks
from audio2pose.engine.ledger import read_ledger
from audio2pose.engine.workers import Resources
from audio2pose.extract.landmarks import extract, throughput_summary
from audio2pose.extract.settings import ComputeConfig, LandmarkConfig, Weights, find_weights
from audio2pose.landmarks import Landmarks, Storage
from audio2pose.models import rtmdet, rtmw3d
from audio2pose.models.rtmdet import ModelSize
from audio2pose.video import Cut, Video

RANDOM = ("random", "random")


# ---- films of yellow blocks, a detector that sees yellow, a small pose network

def film(path, people, seconds=2., rate=25, size=(160, 96), codec="mpeg4", pix_fmt="yuv420p", **options):
    "A film with blocks at the boxes that `people(time)` returns"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width,stream.height,stream.pix_fmt = *size,pix_fmt
        stream.bit_rate = 4_000_000
        for moment in np.arange(round(seconds*rate))/rate:
            image = np.full((size[1], size[0], 3), 60, np.uint8)
            for x0,y0,x1,y1 in people(moment): image[max(int(y0), 0):int(y1), max(int(x0), 0):int(x1)] = 0, 220, 250
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def walker(t): return [(10+30*t, 20, 40+30*t, 84)]
def visited(t): return walker(t)+([(120, 10, 140, 80)] if 1.02<t<1.3 else [])
def leaver(t): return walker(t) if t<1.1 else []
def nobody(t): return []


@pytest.fixture
def tiny(monkeypatch):
    "A pose network of a hundredth of the size"
    monkeypatch.setitem(rtmw3d.pose_sizes, "tiny", ModelSize(.33, .0625))
    return "tiny"


@pytest.fixture
def yellow(monkeypatch):
    "In the place of the detector: the boxes of yellow blocks"
    from scipy.ndimage import find_objects, label
    looked = []
    def detect(networks, shots, low_threshold, batch):
        for shot in shots:
            looked.append(shot.time)
            picture = shot.picture_batch.pictures[shot.row].numpy()
            areas = [(x.start, y.start, x.stop, y.stop) for y,x in find_objects(label((picture[..., 2]>160) & (picture[..., 0]<120))[0]) if (x.stop-x.start)*(y.stop-y.start)>100]
            shot.detections = np.array(areas, np.float32).reshape(-1, 4),np.full(len(areas), .9, np.float32)
    monkeypatch.setattr(networks, "detect", detect)
    return looked


@pytest.fixture
def films(tmp_path):
    folder = tmp_path/"films"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path, tiny):
    "The stage on a source, with networks that are quick"
    def call(source, out="out", compute=None, weights=RANDOM, **options):
        chosen = LandmarkConfig(**(dict(detector="nano", pose=tiny)|options))
        report,bad = extract(source, tmp_path/out, chosen, compute or ComputeConfig(), weights, progress=False)
        return report, bad, tmp_path/out
    return call


def ends(out):
    "How each item ended last"
    return {line["key"]: line["outcome"] for line in read_ledger(out/"ledger.jsonl") if "key" in line}


def reasons(out): return {line["key"]: line.get("reason", "") for line in read_ledger(out/"ledger.jsonl") if "key" in line}


# ---- who is there

@pytest.mark.parametrize("people, expected", [("any", "multi_person"), ("fraction", "multi_person"), ("largest", "made")])
def test_a_visitor_is_found_between_looks_and_judged_by_policy(films, run, yellow, people, expected):
    film(films/"a.mp4", visited)
    _,_,out = run(films, detect_every=5, people=people)
    assert ends(out)=={"a": expected}
    if expected!="made": return
    clip = Landmarks.load(out/"a.npy")
    assert clip.detected.all() and len(clip)==50
    assert (clip.made["crowded"], clip.made["people"])==(7, 2)
    assert len(set(yellow))<50, "not every frame was looked at"


def test_a_fraction_of_frames_with_two_is_accepted(films, run, yellow):
    film(films/"a.mp4", visited)
    assert ends(run(films, people="fraction", max_crowded_fraction=.2)[2])=={"a": "made"}
    assert ends(run(films, people="fraction", max_crowded_fraction=.13)[2])=={"a": "multi_person"}


def test_the_largest_is_followed_and_never_exchanged(films, run, yellow):
    "She comes second and leaves first; the small one stays"
    def people(t): return [(4, 4, 24, 40)]+([(140-50*t, 20, 180-50*t, 90)] if .3<t<1.8 else [])
    film(films/"a.mp4", people, 2.4)
    clip = Landmarks.load(run(films, people="largest")[2]/"a.npy")
    there = np.arange(60)/25
    np.testing.assert_array_equal(clip.detected, (there>.3) & (there<1.8))
    middle = np.nanmean(clip.points[clip.detected, :, 0], 1) # Random points fill the crop, which is about her box
    assert np.corrcoef(middle, -there[clip.detected])[0, 1]>.9


def crossing(t): return [(10+60*t, 20, 34+60*t, 84)]+([] if .9<t<1.3 else [(140-60*t, 24, 164-60*t, 88)])


@pytest.mark.parametrize("rate", [2, 3, 5, 25])
def test_two_who_cross_are_not_exchanged(rate):
    "At two looks a second no boxes overlap, and one of them is not seen where they meet; she wears blue, he wears red"
    from audio2pose.extract.people import assign_tracks
    clip = clips.Clip("a", Segment("a", "a"), FILM, rate, 99)
    for number,moment in enumerate(np.arange(0, 2, 1/rate)):
        boxes,picture = np.array(crossing(moment), float),np.zeros((96, 200, 3), np.uint8)
        for (x0,_,x1,_),colour in zip(boxes, ((200, 30, 30), (30, 30, 200))): picture[:, max(int(x0), 0):int(x1)] = colour
        if number%2: boxes = boxes[::-1] # The order of the detector's boxes says nothing
        for _,_,box,track in assign_tracks(clip, number, clips.ClipFrame(moment, picture, []), boxes): track.observations[number] = box[0]
    ways = sorted((np.array(list(track.observations.values())) for track in clip.tracks), key=len)
    assert len(ways)==2 and all((np.diff(way)>0).all() or (np.diff(way)<0).all() for way in ways)


@pytest.mark.parametrize("rate", [2, 3])
def test_the_man_on_the_roof_is_not_the_walker(shared, rate):
    "The real video, in which the man is lost where the walker is seen; the walker's feet are on the ground"
    from audio2pose.extract.people import assign_tracks, main_person, person_boxes
    from audio2pose.video import frames
    detector = rtmdet.load_rtmdet("nano", shared("real/weights/rtmdet_nano_person_320.onnx"))
    settings,cut = LandmarkConfig(people="largest"),Cut("a", 0., 6.2)
    clip = clips.Clip("a", Segment("a", "a"), FILM, rate, 99)
    for number,frame in enumerate(frames(shared("real/video/walking_with_onlooker.mp4"), [cut], [np.arange(0, 6.2, 1/rate)])):
        shot = clips.ClipFrame(frame.time, frame.picture, [], rtmdet.detect(detector, torch.from_numpy(frame.picture)[None])[0])
        for _,_,box,track in assign_tracks(clip, number, shot, person_boxes(shot, settings)): track.observations[number] = box
    lowest = np.array(list(main_person(clip).values()))[:, 3]
    assert (lowest>800).all() and len(lowest)>=9*rate/2


def test_a_detector_of_eighty_classes_is_one_of_the_one_that_counts(tmp_path):
    state = rtmdet.RTMDet("nano").state_dict()
    for name in [name for name in state if "rtm_cls" in name]: state[name] = torch.randn(80, *state[name].shape[1:])
    torch.save(dict(state_dict=state), tmp_path/"coco.pth")
    for category in (0, 79):
        weights = [Weights("rtmdet_nano", str(tmp_path/"coco.pth"), None), find_weights("rtmw3d_l", "random")]
        own = rtmdet.load_rtmdet("nano", tmp_path/"coco.pth", category).state_dict()
        assert torch.equal(own["bbox_head.rtm_cls.1.weight"][0], state["bbox_head.rtm_cls.1.weight"][category])
    assert networks.load_networks(*weights, "fp32", torch.device("cpu"), category=79).detector.bbox_head.rtm_cls[0].out_channels==1
    with pytest.raises(InputError, match="there is no class 80, it tells 80 apart"): rtmdet.load_rtmdet("nano", tmp_path/"coco.pth", 80)
    with pytest.raises(InputError, match="MediaPipe finds people only"): LandmarkConfig(backend="mediapipe", pose="full", category=7)


def test_empty_frames_stay_in_time_and_never_reach_the_pose_network(films, run, yellow, monkeypatch):
    film(films/"leave.mp4", leaver)
    film(films/"empty.mp4", nobody)
    seen,pose = [],networks.pose
    monkeypatch.setattr(networks, "pose", lambda networks, crops, refine: (seen.extend(crops), pose(networks, crops, refine))[1])
    _,_,out = run(films)
    assert ends(out)=={"leave": "made", "empty": "no_person"}
    clip = Landmarks.load(out/"leave.npy")
    np.testing.assert_array_equal(clip.detected, np.arange(50)<28)
    assert np.isnan(clip.points[28:]).all() and len(seen)==28
    np.testing.assert_allclose(clip.times, np.arange(50)/25, atol=1e-3)


def test_a_look_at_every_fifth_is_a_look_at_all_on_a_straight_way(films, run, yellow):
    film(films/"a.mp4", walker, 1.)
    dense,sparse = (Landmarks.load(run(films, out=f"out{detect_every}", detect_every=detect_every)[2]/"a.npy") for detect_every in (1, 5))
    assert sparse.made["looked"]==6 and dense.made["looked"]==25
    # Points are random but their places in the crop are not: the crops must be nearly the same
    difference = np.abs(np.nanmean(sparse.points[..., :2], 1)-np.nanmean(dense.points[..., :2], 1))
    assert np.nanmax(difference)<6 and np.nanmedian(difference)<1.5


def test_a_box_of_the_table_is_believed(films, run, tmp_path):
    film(films/"1.mp4", walker, .4)
    (tmp_path/"wlasl.json").write_text(json.dumps([dict(gloss="walk", instances=[dict(video_id="1", fps=25, frame_start=1, frame_end=-1, bbox=[10, 20, 40, 84])])]))
    report,bad = extract(tmp_path/"wlasl.json", tmp_path/"out", LandmarkConfig(detector="nano", pose="tiny", use_manifest_boxes=True, min_seconds=0), ComputeConfig(), RANDOM, films, progress=False)
    clip = Landmarks.load(tmp_path/"out/1.npy")
    assert clip.detected.all() and clip.made["looked"]==0 and clip.made["video"]["fps"]==25 and not bad


# ---- batches decide about speed and nothing else

def test_batches_and_neighbours_change_nothing(films, run, tmp_path):
    "The real detector of random weights, whose boxes are as good as any"
    film(films/"a.mp4", walker, 1.2)
    film(films/"b.mp4", leaver, 1.2, size=(128, 128))
    (tmp_path/"some.tsv").write_text("VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND\na\ta-0\t0\t0.6\na\ta-1\t0.3\t1\nb\tb-0\t0.1\t0.7\n")
    (tmp_path/"one.tsv").write_text("VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND\na\ta-1\t0.3\t1\n")
    options = dict(people="largest", threshold=.05, low_threshold=.05, rate=8, detect_every=2)
    def points(table, out, compute):
        chosen = LandmarkConfig(detector="nano", pose="tiny", **options)
        extract(tmp_path/table, tmp_path/out, chosen, compute, RANDOM, films, progress=False)
        return {path.stem: Landmarks.load(path).points for path in (tmp_path/out).glob("*.npy")}
    many,single,alone = points("some.tsv", "many", ComputeConfig(detector_batch=4, pose_batch=5)),points("some.tsv", "single", ComputeConfig(chunk_frames=1, detector_batch=1, pose_batch=1)),points("one.tsv", "alone", ComputeConfig())
    assert set(many)=={"a-0", "a-1", "b-0"}, reasons(tmp_path/"many")
    for name,found in many.items(): check_close(found, single[name])
    check_close(many["a-1"], alone["a-1"])


def test_the_stage_computes_what_the_models_do(tiny):
    "Fused, in batches of several sizes of pictures, against picture by picture as the models' own rooms do it"
    both = networks.load_networks(find_weights("rtmdet_nano", "random"), Weights("rtmw3d_tiny", None, None), "fp32", torch.device("cpu"))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (h//8, w//8, 3), np.uint8).repeat(8, 0).repeat(8, 1) for h,w in ((120, 160), (200, 96), (120, 160))]
    shots = [clips.ClipFrame(0., picture, []) for picture in pictures]
    clips.batch_by_size(shots)
    boxes = np.array([[10, 20, 60, 110], [-5, 0, 90, 200], [100, 50, 180, 130]], np.float32)
    points = networks.pose(both, [networks.Crop(shot, box, []) for shot,box in zip(shots, boxes)], False)
    detector,pose = networks.random_network(rtmdet.RTMDet, "nano"),networks.random_network(rtmw3d.RTMW3D, tiny)
    for shot,found,picture,box,ours in zip(shots, networks.detect_batch(both, shots, .05), pictures, boxes, points):
        alone = torch.from_numpy(picture)[None]
        (wanted,scores), = rtmdet.detect(detector, alone)
        assert len(found[0])==len(wanted)>0
        np.testing.assert_allclose(found[1], scores, atol=1e-3)
        xyz,raw = rtmw3d.estimate_poses(pose, alone, torch.zeros(1, dtype=torch.int), torch.from_numpy(box)[None])
        theirs = torch.cat([xyz, raw[..., None]], -1)[0].numpy()
        theirs[theirs[:, 3]<=0, :3] = np.nan
        check_close(ours, theirs)


def check_close(a, b):
    "Equal but for points between whose best two classes the last digit decides"
    assert a.shape==b.shape
    same = np.isclose(a, b, rtol=1e-3, atol=.05, equal_nan=True).all(-1)
    assert same.mean()>.98, f"{1-same.mean():.1%} differ"


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_is_beyond_the_picture_and_beyond_one_survives(films, run, yellow, precision):
    "Scores are raw and points may lie outside of the picture"
    film(films/"a.mp4", lambda t: [(0, 0, 30, 96)], .4)
    _,_,out = run(films, precision=precision, storage=Storage("fraction"))
    clip,raw = Landmarks.load(out/"a.npy"),np.load(out/"a.npy")
    assert clip.points.shape==(10, 133, 4) and np.isfinite(raw).all()
    assert (raw[..., 0]<0).any() and (raw[..., 1]>1).any(), "no point outside of the picture is kept"
    if precision=="fp32": assert clip.points[..., 3].max()!=1
    assert clip.made["settings"]["precision"]==precision


def test_raw_scores_above_one_are_kept(films, run, yellow, monkeypatch):
    film(films/"a.mp4", walker, .4)
    pose = networks.pose
    monkeypatch.setattr(networks, "pose", lambda *args: pose(*args)*np.float32([1, 1, 1, 0])+np.float32([-500, 0, 0, 9.5]))
    clip = Landmarks.load(run(films)[2]/"a.npy")
    assert (clip.points[..., 3]==9.5).all() and (clip.points[..., 0]<0).all()


# ---- which frames

FILM = Video(Path("a.mp4"), 640, 480, 30., 10.)

@pytest.mark.parametrize("fps, taken", [(24000/1001, True), (60.03, True), (24., True), (23., False), (62., False), (0., False)])
def test_rates_have_some_tolerance(fps, taken):
    assert (clips.rejection_reason(Segment("a", "a"), replace(FILM, fps=fps), LandmarkConfig(fps=(24, 60)), 10.) is None)==taken


def test_moments_begin_with_the_first_frame_and_the_counter_does_not():
    cut = Cut("a", 0, 3)
    wanted,rate = clips.sample_times(cut, FILM, 10., LandmarkConfig(rate=24))
    assert (len(wanted), wanted[0], rate)==(72, 0, 24)
    with_progress,_ = clips.sample_times(cut, FILM, 10., LandmarkConfig(rate=24, sampler="counting"))
    assert (with_progress[:7]*30).round().tolist()==[1, 2, 3, 4, 6, 7, 8] and len(with_progress)==72
    assert clips.sample_times(cut, FILM, 10., LandmarkConfig(rate=60)) == (None, 30.), "frames are not invented"
    skipped,rate = clips.sample_times(cut, FILM, 10., LandmarkConfig(sampler="counting", skip_by=2))
    assert (skipped[:3]*30).round().tolist()==[0, 2, 4] and rate==15


def test_segments_share_frames_and_end_where_they_end(films, run, yellow, tmp_path):
    film(films/"a.mp4", walker)
    (tmp_path/"some.tsv").write_text("VIDEO_NAME\tSENTENCE_NAME\tSTART_REALIGNED\tEND_REALIGNED\tSENTENCE\na\ta-0\t0\t1\tx\na\ta-1\t0.52\t1.2\ty\na\ta-2\t1.6\t9\tz\n")
    extract(tmp_path/"some.tsv", tmp_path/"out", LandmarkConfig(detector="nano", pose="tiny"), ComputeConfig(), RANDOM, films, progress=False)
    clips = {name: Landmarks.load(tmp_path/"out"/f"{name}.npy") for name in ("a-0", "a-1", "a-2")}
    assert {name: len(clip) for name,clip in clips.items()}=={"a-0": 25, "a-1": 17, "a-2": 10}
    np.testing.assert_array_equal(clips["a-0"].points[13:], clips["a-1"].points[:12])
    assert len(yellow)==len(set(yellow)), "a frame is looked at once"
    assert clips["a-1"].made["segment"]["text"]=="y" and clips["a-1"].made["video_frames"][0]==13


# ---- whatever a file can be

@pytest.fixture
def strange(films):
    "Videos as they come"
    whole = film(films/"good.mp4", walker, .6)
    (films/"noise.mp4").write_bytes(random.Random(0).randbytes(5000))
    (films/"empty.mp4").touch()
    (films/"cut.mp4").write_bytes(whole.read_bytes()[:300])
    film(films/"two_frames.mp4", walker, 2/25)
    film(films/"large.mp4", lambda t: [(1000, 400, 3000, 4000)], 2/25, size=(7680, 4320))
    transfer = {"preset": "ultrafast", "x264-params": "transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc"}
    film(films/"hdr.mp4", walker, .4, codec="libx264", pix_fmt="yuv420p10le", **transfer)
    with av.open(str(films/"sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    film(films/"truncated.mkv", walker, 2.)
    content = (films/"truncated.mkv").read_bytes()
    (films/"truncated.mkv").write_bytes(content[:len(content)//2])
    return films


def test_every_file_ends_in_one_state_and_costs_the_others_nothing(strange, run, yellow):
    _,_,out = run(strange, min_seconds=0)
    assert ends(out)==dict(good="made", noise="bad_video", empty="bad_video", cut="bad_video", sound="bad_video", two_frames="made", large="made", hdr="made", truncated="made")
    assert all(reason or key in ("good", "two_frames", "large", "hdr", "truncated") for key,reason in reasons(out).items())
    assert "only audio" in reasons(out)["sound"] and "empty" in reasons(out)["empty"]
    assert Landmarks.load(out/"large.npy").size==(7680, 4320) and len(Landmarks.load(out/"two_frames.npy"))==2
    assert Landmarks.load(out/"hdr.npy").made["video"]["hdr"] and not Landmarks.load(out/"good.npy").made["video"]["hdr"]
    cut = Landmarks.load(out/"truncated.npy")
    assert 0<len(cut)<50 and cut.made["cut_off"]
    assert not list(out.rglob(".part-*"))


def test_a_phone_held_upright_gives_upright_points(films, run, yellow):
    film(films/"flat.mp4", lambda t: [(10, 20, 150, 40)], .4)
    with av.open(str(films/"flat.mp4")) as old, av.open(str(films/"phone.mp4"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is None: continue
            packet.stream = stream
            new.mux(packet)
    turned = (films/"phone.mp4").read_bytes()
    place = turned.index(b"tkhd")+4+40 # The matrix of the track header
    quarter = b"".join(value.to_bytes(4, "big", signed=True) for value in (0, 65536, 0, -65536, 0, 0, 0, 0, 1<<30))
    (films/"phone.mp4").write_bytes(turned[:place]+quarter+turned[place+36:])
    _,_,out = run(films)
    flat,phone = Landmarks.load(out/"flat.npy"),Landmarks.load(out/"phone.npy")
    assert (flat.size, phone.size)==((160, 96), (96, 160)) and phone.made["video"]["turned"] in (90, 270)
    spread = np.nanmax(phone.points[..., :2], (0, 1))-np.nanmin(phone.points[..., :2], (0, 1))
    assert spread[1]>spread[0], "a block that lay stands"


def test_segments_that_cannot_be(films, run, yellow, tmp_path):
    film(films/"a.mp4", walker)
    rows = ["a\tgood\t0\t1", "a\tlate\t5\t6", "a\tbackwards\t2\t1", "a\tearly\t-3\t1", "a\t../escaped\t0\t1", "../a\tescaped2\t0\t1", f"{tmp_path}/films/a\tescaped3\t0\t1",
            "a\t/tmp/absolute\t0\t1", "a\tgood\t0\t1", "a\tnan\tnan\t1", "a\tshort\t0\t0.1", "lost\tlost\t0\t1", "a\thalf", "\tnameless\t0\t1", "a\tlong\t0\t90", "a\tinf\t0\tinf"]
    (tmp_path/"some.tsv").write_text("\n".join(["VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND", *rows]))
    _,bad = extract(tmp_path/"some.tsv", tmp_path/"out", LandmarkConfig(detector="nano", pose="tiny"), ComputeConfig(), RANDOM, films, progress=False)
    assert ends(tmp_path/"out")==dict(good="made", late="too_short", short="too_short", lost="bad_video", long="made", inf="made")
    assert len(bad)==10 and "begins at 5 s, and the video ends" in reasons(tmp_path/"out")["late"]
    assert len((tmp_path/"out/bad_rows.tsv").read_text().splitlines())==10
    assert not [path for path in tmp_path.rglob("*escaped*")] and not Path("/tmp/absolute.npy").exists()


@settings(max_examples=60, deadline=None)
@given(strategies.text(alphabet=strategies.characters(codec="utf-8"), max_size=300))
def test_tables_of_any_text_are_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("table")/"any.tsv"
    path.write_text("VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND\n"+text, encoding="utf-8", newline="")
    for found in read_table(path):
        assert isinstance(found, InvalidRow) or (not name_error(found.name) and 0<=found.start<found.end)


@given(strategies.text(max_size=40))
def test_no_name_leads_out(name):
    if name_error(name): return
    out = Path("/out").resolve()
    assert out in (out/f"{name}.npy").resolve().parents


# ---- what is missing is said

def test_missing_weights_are_named_with_address_and_hash(films, tmp_path, data_folder, monkeypatch):
    film(films/"a.mp4", walker, .2)
    monkeypatch.setattr("audio2pose.models.weights.torch.hub.download_url_to_file", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(InputError, match=r"rtmdet_m are not here: fetch https://download.*235e8209.pth \(its SHA-256 begins with 235e8209\) into .*weights"):
        extract(films, tmp_path/"out", LandmarkConfig(), weights=(None, "random"))
    with pytest.raises(InputError, match=r"none.pth: no such file of weights for rtmw3d_l; the published ones are https.*794dbc78"):
        extract(films, tmp_path/"out", LandmarkConfig(), weights=("random", str(tmp_path/"none.pth")))
    assert not (tmp_path/"out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(films, tmp_path):
    film(films/"a.mp4", walker, .2)
    code,said = invoke(cli.app, f"landmarks {films} --out {tmp_path/'out'} --device cuda --detector-weights random --pose-weights random")
    assert code==2 and "cuda was asked for, but there are 0 CUDA devices" in said
    assert not (tmp_path/"out").exists()


def test_weights_of_something_else_are_refused(films, tmp_path):
    film(films/"a.mp4", walker, .2)
    torch.save({"state_dict": {"a": torch.ones(3)}}, tmp_path/"other.pth")
    code,said = invoke(cli.app, f"landmarks {films} --out {tmp_path/'out'} --detector nano --detector-weights {tmp_path/'other.pth'} --pose-weights random")
    assert code==2 and "do not fit RTMDet" in said


# ---- being stopped, and going on

def test_a_second_call_does_only_what_is_left_and_trusts_no_cut_file(films, run, yellow):
    for name in "abc": film(films/f"{name}.mp4", walker, .4)
    film(films/"two.mp4", lambda t: walker(t)+[(120, 10, 140, 80)], .4)
    first,_,out = run(films)
    assert dict(first.outcomes)==dict(made=3, multi_person=1)
    again,_,_ = run(films)
    assert not again.outcomes and dict(again.kept)==dict(made=3, multi_person=1)
    whole = (out/"a.npy").read_bytes()
    (out/"a.npy").write_bytes(whole[:200])
    with pytest.raises(InputError, match="cut off or changed"): Landmarks.load(out/"a.npy")
    (out/"b.json").unlink()
    mended,_,_ = run(films)
    assert dict(mended.outcomes)==dict(made=2) and (out/"a.npy").read_bytes()==whole
    film(films/"c.mp4", walker, .6)
    assert dict(run(films)[0].outcomes)==dict(made=1), "the video changed"
    assert dict(run(films, layout="body")[0].outcomes)==dict(made=3, multi_person=1), "the settings changed"


SCRIPT = """
import sys
from audio2pose.models import rtmdet, rtmw3d
from audio2pose.models.rtmdet import ModelSize
rtmw3d.pose_sizes["tiny"] = ModelSize(.33, .0625)
from audio2pose.extract.landmarks import ComputeConfig, LandmarkConfig, extract
chosen = LandmarkConfig(detector="nano", pose="tiny", people="largest", threshold=0, low_threshold=0, rate=5, extra_formats=("pose",))
report,_ = extract(sys.argv[1], sys.argv[2], chosen, ComputeConfig(), ("random", "random"), progress=False)
print(dict(report.outcomes), dict(report.kept))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_any_point_nothing_is_lost_or_taken_for_whole(films, tmp_path):
    for i in range(6): film(films/f"{i}.mp4", walker, .8)
    (tmp_path/"script.py").write_text(SCRIPT)
    def start(out): return copies.Popen([sys.executable, tmp_path/"script.py", films, tmp_path/out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ|dict(OMP_NUM_THREADS="1"))
    whole = start("whole")
    assert b"'made': 6" in whole.communicate(timeout=200)[0]
    chance,kept = random.Random(3),set()
    for _ in range(3):
        process = start("killed")
        deadline = time.monotonic()+100
        aim = chance.randint(1, 5) # Files that are there when it is killed, at some moment of the next
        while process.poll() is None and len(list((tmp_path/"killed").glob("*.npy")))<aim and time.monotonic()<deadline: time.sleep(.01)
        time.sleep(chance.random()*.1)
        process.kill()
        process.wait()
        for path in (tmp_path/"killed").glob("*.json"): # A sidecar is written last
            assert len(Landmarks.load(path.with_suffix(".npy")))==4
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path/"killed").glob("*.npy") if ends(tmp_path/"killed").get(path.stem)=="made"}
    last = start("killed")
    said,complaint = last.communicate(timeout=200)
    assert last.returncode==0, complaint
    for path in (tmp_path/"whole").glob("*.npy"):
        np.testing.assert_array_equal(Landmarks.load(tmp_path/"killed"/path.name).points, Landmarks.load(path).points)
        if path.name in stamps: assert (tmp_path/"killed"/path.name).stat().st_mtime_ns==stamps[path.name], "a decided clip was made again"
    assert not list((tmp_path/"killed").rglob(".part-*"))


@pytest.mark.slow
def test_two_processes_on_one_folder_and_ctrl_c(films, tmp_path):
    for i in range(3): film(films/f"{i}.mp4", walker, .4)
    line = f"landmarks {films} --out {tmp_path/'out'} --detector nano --detector-weights random --pose-weights random --threshold 0 --people largest"
    process = copies.Popen([sys.executable, "-c", "from audio2pose.cli import main; main()", *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ|dict(OMP_NUM_THREADS="1"))
    deadline = time.monotonic()+100
    while process.poll() is None and not (tmp_path/"out/ledger.jsonl").exists() and time.monotonic()<deadline: time.sleep(.05)
    with pytest.raises(InputError, match=f"process {process.pid} on .* is at work there"): extract(films, tmp_path/"out", LandmarkConfig(detector="nano"), weights=RANDOM, progress=False)
    process.send_signal(signal.SIGINT)
    _,complaint = process.communicate(timeout=100)
    assert process.returncode==130 and b"stopped; nothing half-written was left" in complaint, complaint
    assert not list((tmp_path/"out").rglob(".part-*"))
    assert set(ends(tmp_path/"out").values())<={"made", "stopped"}


def test_one_folder_is_held_by_one(films, tmp_path, run, yellow):
    film(films/"a.mp4", walker, .4)
    with lock_folder(tmp_path/"out"), pytest.raises(InputError, match=f"process {os.getpid()} on .* is at work there"): run(films)
    assert dict(run(films)[0].outcomes)==dict(made=1)


SHARED_WORK = dict(settings=LandmarkConfig(detector="nano", people="largest", threshold=0, low_threshold=0, rate=5), weights=RANDOM, progress=False)


@pytest.fixture(scope="module")
def serial_work(tmp_path_factory):
    "Two films, and what comes out in this process"
    home = tmp_path_factory.mktemp("serial")
    (home/"films").mkdir()
    for name in "ab": film(home/"films"/f"{name}.mp4", walker, .2)
    extract(home/"films", home/"out", **SHARED_WORK)
    return home


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_two_workers_share_the_work(serial_work, tmp_path, monkeypatch, engine):
    "On every engine the same numbers come out"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    report,_ = extract(serial_work/"films", tmp_path/"out", **SHARED_WORK, engine=engine, resources=Resources(2))
    assert dict(report.outcomes)==dict(made=2)
    assert "the networks" in throughput_summary(tmp_path/"out", report)
    for name in "ab": np.testing.assert_allclose(Landmarks.load(tmp_path/f"out/{name}.npy").points, Landmarks.load(serial_work/f"out/{name}.npy").points, atol=1e-3)
    again,_ = extract(serial_work/"films", tmp_path/"out", **SHARED_WORK, engine=engine, resources=Resources(2))
    assert again.kept["made"]==2 and not again.outcomes


# ---- many and long

def test_ten_thousand_segments_start_and_resume(films, run, tmp_path, tiny):
    film(films/"v0000.mp4", walker, .4)
    rows = [f"v{i//10:04d}\tv{i//10:04d}-{i%10:03d}\t{i%10*5}\t{i%10*5+4.5}" for i in range(10_000)]
    (tmp_path/"many.tsv").write_text("\n".join(["VIDEO_NAME\tSENTENCE_NAME\tSTART\tEND", *rows]))
    call = dict(settings=LandmarkConfig(detector="nano", pose=tiny, rate=5), compute=ComputeConfig(), weights=RANDOM, videos=films, progress=False)
    report,bad = extract(tmp_path/"many.tsv", tmp_path/"out", **call)
    assert report.items==10_000 and report.outcomes["bad_video"]==9990 and not bad
    again,_ = extract(tmp_path/"many.tsv", tmp_path/"out", **call)
    assert again.kept.total()==10_000 and not again.outcomes


def test_memory_is_flat(films, run, yellow, monkeypatch):
    "However long a video is, few of its pictures are held at a time"
    alive,most = weakref.WeakSet(),[]
    class Counted(clips.PictureBatch):
        def __init__(self, pictures):
            super().__init__(pictures)
            alive.add(self)
            most.append(sum(len(group.pictures) for group in list(alive)))
    monkeypatch.setattr(clips, "PictureBatch", Counted)
    film(films/"a.mp4", walker, 4.)
    for name in "bcde": film(films/f"{name}.mp4", leaver, 1.6)
    gc.collect()
    gc.disable() # Pictures must go when they are no longer needed, not when somebody tidies up
    try: run(films, compute=ComputeConfig(chunk_frames=8), detect_every=3)
    finally: gc.enable()
    assert len(most)>=25 and max(most)<=5*8, max(most)
    assert not alive


def test_a_video_of_8k_is_looked_at_whole(films, run, yellow):
    "Two frames of 7680x4320: somebody in the far corner is found, and her points lie there"
    film(films/"a.mp4", lambda t: [(6000, 2000, 7000, 4200)], .08, size=(7680, 4320), codec="libx264", preset="ultrafast")
    out = run(films, min_seconds=0)[2]
    assert ends(out)=={"a": "made"}, reasons(out)
    clip = Landmarks.load(out/"a.npy")
    assert clip.size==(7680, 4320) and clip.detected.all()
    assert np.abs(clip.boxes-[6000, 2000, 7000, 4200]).max()<=16 and np.nanmin(clip.points[..., 0])>4000


def test_pictures_that_change_their_size(films, run, yellow):
    "Half-way the stream goes on in another size, as recorded calls do: every frame is looked at as it is, or the clip is refused in a sentence"
    parts = [film(films/f"{i}.h264", walker, .6, size=size, codec="libx264", pix_fmt="yuv420p") for i,size in enumerate(((160, 96), (320, 192)))]
    (films/"a.mpg").write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts: part.unlink()
    report,_,out = run(films/"a.mpg")
    assert ends(out)=={"a": "made"}, reasons(out)
    clip = Landmarks.load(out/"a.npy")
    assert clip.detected.all() and len(clip)==30


def test_pictures_of_8k_make_small_bundles():
    shots = [clips.ClipFrame(0., np.zeros((400, 500, 3), np.uint8), []) for _ in range(10)]
    assert [len(chunk.events) for chunk in clips.chunked(iter(shots), 16, 1_500_000)]==[3, 3, 3, 1]


# ---- the command, and real people

def test_random_weights_are_said(films, tmp_path):
    film(films/"a.mp4", walker, .2)
    code,said = invoke(cli.app, f"landmarks {films/'a.mp4'} --out {tmp_path/'out'} --detector nano --detector-weights random --pose-weights random --threshold 0 --people largest --rate 5 --compat seed --extra-format pose")
    assert code==0 and "weights: random; the numbers mean nothing" in said and "the decoder was busy" in said
    sidecar = json.loads((tmp_path/"out/a.json").read_text(), parse_constant=pytest.fail)
    assert [model["random"] for model in sidecar["made"]["models"]]==["these numbers mean nothing"]*2
    assert (sidecar["shape"], sidecar["coordinates"], sidecar["depth"], sidecar["layout"])==([1, 85, 4], "fraction", "camera", "seed")
    assert (tmp_path/"out/a.pose").stat().st_size>1000


def test_what_cannot_be_meant_is_one_sentence(films, tmp_path):
    film(films/"a.mp4", walker, .2)
    for line in ("--detector xl", "--pose q", "--rate 0", "--threshold 2", "--precision fp8", "--people all", "--seconds-range 5-1", "--fps-range x", "--extra-format bvh"):
        code,said = invoke(cli.app, f"landmarks {films} --out {tmp_path/'out'} --detector-weights random --pose-weights random {line}")
        assert code==2 and said.count("\n")==0 and said.startswith("error: "), (line, said)
    assert not (tmp_path/"out").exists()


def run_settings(parameters):
    "What run 2_landmarks makes of its parameters, without a kernel and without looking at anything"
    cells = [cell for cell in nbformat.read(notebooks.notebooks_folder()/"2_landmarks.ipynb", 4).cells if cell.cell_type=="code"]
    names = {}
    exec(next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), names)
    assert parameters.keys()<=names.keys()
    names |= parameters
    for cell in cells[1:]:
        exec(cell.source, names)
        if "settings" in names: return names["settings"],names["weights"],names["compute"]


def test_the_run_takes_whatever_the_command_takes(films):
    "Every option is a parameter, and both make the same settings of it"
    known = notebooks.notebook_parameters(notebooks.notebooks_folder()/"2_landmarks.ipynb")
    assert signature(landmarks).parameters.keys()<=known.keys()
    asked = dict(source=str(films), backend="mediapipe", detector_weights="zoo", pose_weights="a.task", rate=0., skip=3, kpt_threshold=.3, threshold=-1., max_people=1, people="any", seconds="0.2-60", fps="24-60", points="0-16,91-132", visibility=True, extra_formats=["coco"])
    found,weights,_ = run_settings(asked)
    assert weights==(None, "a.task") and found.backend=="mediapipe" and found.threshold==.5
    given = {name: parameter.default for name,parameter in signature(landmarks).parameters.items()}|asked|dict(source=films, rate=None, detector_weights=None, threshold=None, detector="nano", device="cpu")
    assert found==plan_extraction(SimpleNamespace(**given))[0]


@pytest.mark.parametrize("name,value,line", [("people", "all", "--people all"), ("points", "legs", "--points legs"), ("sampler", "every", "--sampler every"), ("pose", "q", "--pose q"), ("seconds", "5-1", "--seconds-range 5-1"), ("compat", "v1", "--compat v1"), ("kpt_threshold", 3., "--kpt-threshold 3"), ("extra_formats", ["bvh"], "--extra-format bvh")])
def test_a_typo_in_a_parameter_gets_the_sentence_of_the_command(films, tmp_path, name, value, line):
    film(films/"a.mp4", walker, .2)
    with pytest.raises(InputError) as refused: run_settings({"source": str(films), name: value})
    code,said = invoke(cli.app, f"landmarks {films} --out {tmp_path/'out'} --detector nano --detector-weights random --pose-weights random {line}")
    assert (code, said)==(2, f"error: {refused.value}")


def test_the_walker_is_followed_and_the_onlooker_is_noticed(shared, tmp_path, run):
    pytest.importorskip("onnx")
    weights = str(shared("real/weights/rtmdet_nano_person_320.onnx")),"random"
    video = shared("real/video/walking_with_onlooker.mp4")
    def clip(people): return run(video, out=people, weights=weights, rate=6, detect_every=2, people=people, compute=ComputeConfig(detector_batch=8))[2]
    assert ends(clip("any"))=={"walking_with_onlooker": "multi_person"}
    found = Landmarks.load(clip("largest")/"walking_with_onlooker.npy")
    assert len(found)==46 and .6<found.detected.mean()<.85, "she walks in and out of the picture"
    assert not found.detected[:6].any() and found.detected[9:40].all()
    assert found.made["models"][0]["sha256"] and found.made["crowded"]>10


def test_videos_are_found_whatever_their_format(films):
    for name in ("a.webm", "a.mkv", "sub/b.MOV"):
        (films/name).parent.mkdir(exist_ok=True)
        (films/name).touch()
    videos,found = read_segments(films)
    assert sorted(segment.name for segment in found if isinstance(segment, Segment))==["a", "sub/b"]
    assert videos.find("a").name=="a.webm" and Videos(films).find("sub/b").name=="b.MOV" and videos.find("../a") is None
