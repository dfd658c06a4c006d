"""Overlay films: what is drawn, when, with which sound, and what is refused"""
import math
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from audio2pose.core import InputError
from audio2pose.landmarks import Landmarks, layouts
from audio2pose.show.overlay import annotated_picture, draw_strokes, film_size, skeleton_lines, overlay

pytest.importorskip("PIL")


def grey(width=160, height=120, frames=20, path=None, sound=0., rate=25):
    "A grey video whose brightness tells the frame; with a tone if `sound` seconds of it are wanted"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width,stream.height,stream.pix_fmt = width,height,"yuv420p"
        track = container.add_stream("aac", rate=48000, layout="stereo") if sound else None
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 60+3*i, np.uint8), "bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track:
            part = av.AudioFrame.from_ndarray(np.tile(.4*np.sin(np.arange(round(48000*sound))*.1).astype(np.float32), (2, 1)), "fltp", "stereo")
            part.sample_rate,part.pts = 48000,0
            for packet in track.encode(part): container.mux(packet)
            for packet in track.encode(None): container.mux(packet)
    return path


def clip(frames=20, size=(160, 120), fps=25., layout="wholebody", start=0.):
    points = np.random.default_rng(0).uniform([40, 20, -1, 0], [120, 100, 1, 8], (frames, len(layouts[layout]), 4))
    return Landmarks(points, start+np.arange(frames)/fps, fps, size, "clip", layout)


def pictures(path):
    with av.open(str(path)) as film: return [frame.to_ndarray(format="bgr24") for frame in film.decode(video=0)]


# ---- drawing

@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4), st.floats(.3, 20))
def test_strokes_stay_in_the_picture_and_near_their_line(ends, radius):
    picture = np.full((40, 60, 3), 100, np.uint8)
    draw_strokes(picture, np.array([ends]), np.array([radius]), np.array([[0, 0, 255]], np.uint8))
    a,b = np.array(ends[:2]),np.array(ends[2:])
    rows,columns = np.nonzero((picture!=100).any(-1))
    places = np.stack([columns, rows], -1).astype(float)
    along = np.clip(((places-a)@(b-a))/max(((b-a)**2).sum(), 1e-300), 0, 1)
    assert (np.linalg.norm(places-a-along[:, None]*(b-a), axis=-1)<=radius+.51).all()


def test_a_stroke_is_where_it_should_be():
    picture = np.zeros((21, 41, 3), np.uint8)
    draw_strokes(picture, np.array([[10., 10, 30, 10]]), np.array([2.]), np.array([[10, 200, 30]], np.uint8))
    assert (picture[10, 10:31]==[10, 200, 30]).all() and (picture[9:12, 15:25]==[10, 200, 30]).all()
    assert not picture[14:].any() and not picture[:7].any() and not picture[:, 35:].any()


@pytest.mark.parametrize("layout", layouts)
def test_lines_are_of_the_layout(layout):
    count = len(layouts[layout])
    assert all(0<=a<count and 0<=b<count for a,b,_ in skeleton_lines(layout))


def test_left_and_right_have_colours_of_their_own():
    colours = {(a, b): colour for a,b,colour in skeleton_lines("wholebody")}
    assert colours[5, 7]==colours[11, 13]==colours[91, 92]!=colours[6, 8]==colours[112, 113]


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(list(layouts)), st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e5, 0., 17.]), min_size=1, max_size=8), st.integers(0, 9))
def test_whatever_the_points_are(layout, odd, seed):
    "No point, however broken, stops the film; pictures keep their size and are not changed in place"
    picture = np.full((72, 96, 3), 90, np.uint8)
    points = np.random.default_rng(seed).uniform(0, 90, (len(layouts[layout]), 4))
    points.ravel()[np.random.default_rng(seed).integers(0, points.size, len(odd))] = odd
    drawn = annotated_picture(picture, points, layout, "words "*seed, np.array([5, 5, 50, odd[0]]))
    assert drawn.shape==picture.shape and (picture==90).all() and (drawn!=90).any()


def test_nobody_is_said_and_nothing_drawn():
    picture = np.full((200, 300, 3), 90, np.uint8)
    drawn = annotated_picture(picture, np.full((133, 4), np.nan))
    changed = np.nonzero((drawn!=90).any(-1))
    assert len(changed[0])>300 and changed[0].max()<60, "words at the top, nothing else"


def test_dots_tell_the_score():
    picture = np.full((100, 100, 3), 90, np.uint8)
    points = np.full((17, 4), np.nan)
    points[9] = 50, 50, 0, -6
    low = annotated_picture(picture, points, "body")[50, 50]
    points[9, 3] = 12
    high = annotated_picture(picture, points, "body")[50, 50]
    assert low[2]>150>low[1] and high[1]>150>high[2], "red for a guess, green for sure"


# ---- films

def test_frames_belong_to_their_times(tmp_path):
    "A film of every second frame, from the middle: the brightness of each picture tells which frame it was"
    video = grey(path=tmp_path/"v.mp4", frames=30)
    found = clip(8, fps=12.5, start=.4)
    found = replace(found, points=np.full_like(found.points, np.nan))
    overlay(video, found, tmp_path/"o.mp4", progress=False)
    seen = pictures(tmp_path/"o.mp4")
    assert len(seen)==8
    middle = [float(np.median(picture[40:80])) for picture in seen]
    source = [float(np.median(picture)) for picture in pictures(video)]
    np.testing.assert_allclose(middle, source[10:26:2], atol=2.9) # Frames differ by 3


@pytest.mark.parametrize("size, expected", [((1920, 1080), (1280, 720)), ((1080, 1920), (404, 720)), ((161, 121), (160, 120)), ((7680, 4320), (1280, 720)), ((2, 2), (2, 2))])
def test_film_sizes_are_even_and_not_larger(size, expected): assert film_size(size, 720)==expected


def test_sound_is_kept_in_time(tmp_path):
    video = grey(path=tmp_path/"v.mp4", frames=50, sound=2.)
    for start in (0., .8):
        overlay(video, clip(20, start=start), tmp_path/"o.mp4", progress=False)
        with av.open(str(tmp_path/"o.mp4")) as film:
            assert {stream.type for stream in film.streams}=={"video", "audio"}
            heard = np.concatenate([part.to_ndarray()[0] for part in film.decode(audio=0)])
        assert abs(len(heard)/48000-.8)<.05 and np.abs(heard[4800:-4800]).max()>.2
    overlay(video, clip(), tmp_path/"o.mp4", sound=False, progress=False)
    with av.open(str(tmp_path/"o.mp4")) as film: assert not film.streams.audio


def test_a_video_without_sound_and_a_sound_that_ends_early(tmp_path):
    overlay(grey(path=tmp_path/"a.mp4"), clip(), tmp_path/"o.mp4", progress=False)
    with av.open(str(tmp_path/"o.mp4")) as film: assert not film.streams.audio
    overlay(grey(path=tmp_path/"b.mp4", frames=50, sound=.3), clip(40), tmp_path/"p.mp4", progress=False)
    assert len(pictures(tmp_path/"p.mp4"))==40


def test_a_video_that_ends_before_its_landmarks(tmp_path):
    "What there is, is shown"
    overlay(grey(path=tmp_path/"v.mp4", frames=10), clip(20), tmp_path/"o.mp4", progress=False)
    assert len(pictures(tmp_path/"o.mp4"))==10


@pytest.mark.parametrize("change, said", [
    (dict(path="o.avi"), "must end in .mp4"), (dict(path="v.mp4"), "is the video itself"), (dict(video="none.mp4"), "no such video"), (dict(height=10), "from 64 to 4320"),
    (dict(landmarks=clip(size=(120, 160))), "belong to another video"),
    (dict(landmarks=clip(start=100.)), "no pictures from 100.00"), (dict(landmarks=clip(0)), "no frames in the landmarks")])
def test_what_is_refused_leaves_nothing(tmp_path, change, said):
    grey(path=tmp_path/"v.mp4")
    wanted = dict(video="v.mp4", landmarks=clip(), path="o.mp4")|change
    with pytest.raises(InputError, match=said):
        overlay(tmp_path/wanted.pop("video"), wanted.pop("landmarks"), tmp_path/wanted.pop("path"), progress=False, **wanted)
    assert [path.name for path in tmp_path.iterdir()]==["v.mp4"]


def test_an_interrupted_film_is_no_film(tmp_path, monkeypatch):
    import audio2pose.show.overlay as module
    def stop(*_): raise KeyboardInterrupt
    monkeypatch.setattr(module, "to_video_frame", stop)
    with pytest.raises(KeyboardInterrupt): overlay(grey(path=tmp_path/"v.mp4"), clip(), tmp_path/"o.mp4", progress=False)
    assert [path.name for path in tmp_path.iterdir()]==["v.mp4"]


@pytest.mark.slow
def test_real_video(shared, tmp_path):
    "Real detector weights on a real video: the sidecar's box is around the person, and is drawn"
    from audio2pose.extract.landmarks import LandmarkConfig, extract
    video = shared("real/video/one_person.mp4")
    settings = LandmarkConfig(detector="nano", people="largest", rate=2, max_seconds=math.inf)
    extract(video, tmp_path, settings, weights=(str(shared("real/weights/rtmdet_nano_person_320.onnx")), "random"), progress=False)
    found = Landmarks.load(tmp_path/"one_person.npy")
    assert np.isfinite(found.boxes).all() and (found.boxes[0, :2]<[620, 900]).all() and (found.boxes[0, 2:]>[620, 900]).all()
    overlay(video, found, tmp_path/"o.mp4", progress=False)
    film = pictures(tmp_path/"o.mp4")
    assert film[0].shape==(720, 408, 3)
    x,y = (found.boxes[0].reshape(2, 2).mean(0)*[0, .375]+found.boxes[0, :2]*[.375, 0]).round().astype(int) # The middle of the box's left side
    assert film[0][y, x].min()>180, "a white line"


# ---- commands

def test_commands(tmp_path):
    "A folder of landmarks becomes films and motions; what cannot is said in a sentence, without a traceback, and stops nothing else"
    from audio2pose.cli import app
    from audio2pose.commands.base import invoke
    from audio2pose.body.landmark_fit import projected_landmarks
    from audio2pose.motion import Motion
    still = Motion(np.zeros((20, 24, 3)), np.tile([0, .98, 0.], (20, 1)), 25)
    good = replace(projected_landmarks(still, size=(160, 120), focal=160., name="good"), source="v.mp4")
    good.save(tmp_path/"in/sub/good.npy")
    replace(good, points=good.points*np.nan).save(tmp_path/"in/nobody.npy")
    (tmp_path/"in/bad.npy").write_bytes(b"no array")
    (tmp_path/"in/bad.json").write_text("{}")
    grey(path=tmp_path/"v.mp4")
    code,said = invoke(app, f"motion {tmp_path/'in'} --out {tmp_path/'motions'} --focal 160 --tilt 0 --smooth butterworth:6")
    assert code==0 and "make it again" in said and "no dancer to fit" in said
    assert [path.name for path in (tmp_path/"motions").rglob("*.*")]==["good.npz"] and len(Motion.load(tmp_path/"motions/sub/good.npz"))==20
    code,said = invoke(app, f"overlay {tmp_path/'in'} {tmp_path} --out {tmp_path/'films'}")
    assert code==0 and sorted(path.name for path in (tmp_path/"films").rglob("*.mp4"))==["good.mp4", "nobody.mp4"]
    for line,reason in ((f"motion {tmp_path/'none'}", "no such file or folder"), (f"motion {tmp_path/'films'}", "no landmarks in it"), (f"motion {tmp_path/'in'} --formats fbx", "give npz or pkl"), (f"motion {tmp_path/'in'} --focal -3", "greater than or equal to 1"),
                        (f"motion {tmp_path/'in/sub/good.npy'} --begin 50", "holds 0 frames"), (f"overlay {tmp_path/'in'} {tmp_path/'films'}", "v.mp4 is not there"), (f"overlay {tmp_path/'in/sub'} {tmp_path/'v.mp4'} --height 3", "from 64 to 4320")):
        code,said = invoke(app, f"{line} --out {tmp_path/'other'}")
        assert code==2 and reason in said and "Traceback" not in said, said
    assert not list((tmp_path/"other").rglob("*.*"))
