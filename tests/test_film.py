"A film is as long as its song, shows the whole dancer, says what is wrong, and leaves nothing half written"
import tracemalloc
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile

from audio2pose.show import film
from audio2pose.show.canvas import Canvas, contact_sheet, render_frame
from audio2pose.show.player import base64_text, motion_data, quantised_poses
from audio2pose.show.shading import dance_camera, framing_camera
from audio2pose.body.footing import bend_toes, motion_floor, on_floor
from audio2pose.body.skin import bone_transforms, load_body, skinned_vertices
from audio2pose.core import InputError
from audio2pose.motion import Motion
from audio2pose.skeleton import SMPL_24

SMALL = dict(width=320, height=180, progress=False)


def dancer(frames=40, fps=60., travel=0.):
    "Arms wave; the toes' joints stand 3 cm above the floor"
    beat = 2*np.pi*np.arange(frames)/60
    poses = np.zeros((frames, 24, 3))
    poses[:, [16, 17], 2] = np.sin(beat)[:, None]*[-.8, .8]-[.3, -.3]
    trans = np.stack([np.linspace(0, travel, frames), np.full(frames, .986), 0*beat], 1)
    return Motion(poses, trans, fps)


@pytest.fixture
def song(tmp_path):
    "Clicks at 0.25 s and 0.75 s of a second, louder left, in a name with spaces and quotes"
    sound = np.zeros((44100, 2), np.float32)
    sound[[11025, 33075]] = .9,.5
    path = tmp_path/"a 'song' <script>.wav"
    soundfile.write(path, sound, 44100)
    return path


def probe(path):
    "Length in s of each stream, pictures, and sound"
    with av.open(str(path)) as container:
        seconds = {stream.type: float(stream.duration*stream.time_base) for stream in container.streams}
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    sound = None
    if "audio" in seconds:
        with av.open(str(path)) as container: sound = np.concatenate([part.to_ndarray() for part in container.decode(audio=0)], axis=1)
    return seconds,pictures,sound


@pytest.mark.parametrize("frames", [1, 7, 40, 61])
def test_as_long_as_the_dance(tmp_path, song, frames):
    film.render(dancer(frames), tmp_path/"a.mp4", song, **SMALL)
    seconds,pictures,_ = probe(tmp_path/"a.mp4")
    assert len(pictures)==frames
    for kind in ("video", "audio"): assert abs(seconds[kind]-min(frames/60, 1))<=1/60+1e-6, kind
    with av.open(str(tmp_path/"a.mp4")) as container: assert abs(container.duration/1e6-frames/60)<=1/60+1e-3


def test_sound_is_in_time_and_in_stereo(tmp_path, song):
    film.render(dancer(60), tmp_path/"a.mp4", song, **SMALL)
    _,_,sound = probe(tmp_path/"a.mp4")
    assert len(sound)==2
    for start in (0, .5):
        half = np.abs(sound[:, round(start*film.RATE):round((start+.5)*film.RATE)])
        assert abs(half[0].argmax()/film.RATE-.25)<.005
        assert half[0].max()>1.3*half[1].max()


def test_a_film_can_be_the_song_of_another(tmp_path, song):
    film.render(dancer(60), tmp_path/"a.mp4", song, **SMALL)
    film.render(dancer(60), tmp_path/"b.mp4", tmp_path/"a.mp4", **SMALL)
    _,_,sound = probe(tmp_path/"b.mp4")
    assert abs(np.abs(sound[0, :film.RATE//2]).argmax()/film.RATE-.25)<.006


def test_silent_film(tmp_path):
    film.render(dancer(), tmp_path/"a.mp4", **SMALL)
    assert set(probe(tmp_path/"a.mp4")[0])=={"video"}


def test_other_rates(tmp_path):
    film.render(dancer(60), tmp_path/"a.mp4", fps=24, **SMALL)
    seconds,pictures,_ = probe(tmp_path/"a.mp4")
    assert len(pictures)==24 and abs(seconds["video"]-1)<1/24


def test_plays_everywhere(tmp_path, song):
    film.render(dancer(10), tmp_path/"a.mp4", song, **SMALL)
    with av.open(str(tmp_path/"a.mp4")) as container:
        video,sound = container.streams.video[0],container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt, sound.codec_context.name)==("h264", "yuv420p", "aac")
        assert (video.codec_context.color_range, video.codec_context.colorspace)==(1, 1)
    head = (tmp_path/"a.mp4").read_bytes()
    assert head.index(b"moov")<head.index(b"mdat"), "starts to play before it is all there"


def test_film_shows_what_frame_shows(tmp_path):
    motion = dancer()
    film.render(motion, tmp_path/"a.mp4", width=640, height=360, progress=False)
    _,pictures,_ = probe(tmp_path/"a.mp4")
    camera,_ = dance_camera(motion, 640/360)
    for i in (0, 25):
        apart = np.abs(pictures[i].astype(int)-render_frame(motion, i, 640, 360, camera))
        assert apart.mean()<3 and np.quantile(apart, .99)<30


def seen(motion, camera, width, height):
    "Pixels of all vertices in all frames"
    places = skinned_vertices(load_body(), motion)-np.float32(camera.eye)
    right,up,forward = np.moveaxis(places@camera.axes().T, -1, 0)
    focal = height/2/np.tan(camera.angle/2)
    return width/2+focal*right/forward,height/2-focal*up/forward


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280)])
def test_the_whole_dancer_is_in_the_picture(size, real_motion):
    for motion in (dancer(120)[::10], real_motion[::60]):
        camera,_ = dance_camera(motion, size[0]/size[1])
        for pixel,limit in zip(seen(motion, camera, *size), size): assert pixel.min()>0 and pixel.max()<limit


def test_camera_walks_only_with_a_traveller():
    assert not dance_camera(dancer(300, travel=1), 16/9)[1].any()
    motion = dancer(300, fps=20, travel=8)
    camera,path = dance_camera(motion, 16/9)
    assert np.abs(path-motion.trans)[:, 0].max()<1.5 and not path[:, 1].any()
    for i in (0, 150, 299):
        columns,_ = seen(motion[i:i+1], camera.translated(path[i]), 1280, 720)
        assert columns.min()>0 and columns.max()<1280


def test_walking_paints_the_same_stage():
    "Drawing only what a step changes gives what drawing everything gives, but for the grain"
    camera = framing_camera(dancer().positions(), 16/9)
    walked,fresh = Canvas(320, 180),Canvas(320, 180)
    for step in (0, .11, .37): walked.set_camera(camera.translated(np.array([step, 0, -step/2])))
    fresh.set_camera(walked.camera)
    assert walked.changed>0 and fresh.changed==0
    assert np.abs(walked.background.astype(int)-fresh.background).max()<=1


def test_same_motion_same_picture():
    motion = dancer()
    assert (render_frame(motion, 5, 320, 180)==render_frame(motion, 5, 320, 180)).all()


def test_feet_touch_their_shadow():
    "The floor is darkest right beside the soles, and stays light away from the dancer"
    motion = dancer()
    camera = framing_camera(motion.positions(), 1)
    canvas = Canvas(480, 480)
    dark = canvas.render_still(camera, bone_transforms(motion)[0]).astype(int)-canvas.background
    toes = motion[:1].positions()[0, SMPL_24.index("ltoes", "rtoes")]*[1, 0, 1]+[0, 0, .11]
    places = (toes-camera.eye)@camera.axes().T
    focal = 240/np.tan(camera.angle/2)
    for right,up,forward in places:
        x,y = round(240+focal*right/forward),round(240-focal*up/forward)
        assert dark[y:y+8, x-4:x+4].min()<-20
    assert not dark[:20].any() and not dark[-8:].any()


def test_lifted_dancer_has_no_contact():
    standing,jumping = dancer(1),dancer(1)
    jumping = replace(jumping, trans=jumping.trans+[0, .6, 0])
    camera = framing_camera(np.concatenate([standing.positions(), jumping.positions()]), 1)
    canvas = Canvas(320, 320)
    darkest = []
    for motion in (standing, jumping):
        canvas.render_still(camera, bone_transforms(motion)[0])
        darkest.append(canvas.shadows[3].max())
    assert darkest[1]<.4<darkest[0]


@pytest.mark.parametrize("where", [(0, 0), (60, -40), (-300, 1000)])
def test_far_from_the_origin(where):
    motion = dancer(1)
    translated = replace(motion, trans=motion.trans+[where[0], 0, where[1]])
    here,there = (render_frame(m, 0, 320, 180).astype(int) for m in (motion, translated))
    figure = np.ptp(here, axis=2)>40
    assert figure.sum()>500 and np.abs(here-there)[figure].mean()<6


def test_strip_and_frame():
    motion = dancer()
    assert contact_sheet(motion, 3, 100, 160).shape==(160, 300, 3)
    assert render_frame(motion, -1, 128, 64).shape==(64, 128, 3)
    assert contact_sheet(motion[:1], 4, 100, 160).shape==(160, 400, 3)
    with pytest.raises(InputError, match="no frame 40"): render_frame(motion, 40)
    with pytest.raises(InputError, match="at least 1"): contact_sheet(motion, 0)


@pytest.mark.parametrize("change, message", [
    (dict(width=321), "width must be an even"), (dict(height=0), "height must be an even"), (dict(width=8192), "from 64 to 4096"),
    (dict(fps=0), "fps must be"), (dict(fps=float("nan")), "fps must be"), (dict(path="a.avi"), "end in .mp4"), (dict(path="."), "end in .mp4"),
    (dict(audio_path="none.wav"), "no such file"), (dict(audio_path="text.wav"), "no song or video"), (dict(audio_path="silent.mp4"), "no sound in it"),
    (dict(audio_path="folder"), "no such file"), (dict(motion=dancer(0)), "no frames"), (dict(path="text.wav/a.mp4"), "cannot write"),
    (dict(motion=replace(dancer(3), trans=np.full((3, 3), np.nan))), "frame 0 of the motion is not finite")])
def test_refuses(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"text.wav").write_text("this is no sound")
    (tmp_path/"folder").mkdir()
    if "silent" in str(change): film.render(dancer(2), "silent.mp4", **SMALL)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message): film.render(**dict(motion=dancer(3), path="a.mp4") | SMALL | change)
    assert sorted(tmp_path.rglob("*"))==before


@pytest.mark.parametrize("after", [0, 12])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_leaves_nothing(tmp_path, monkeypatch, song, after, error):
    drawn = iter(range(1000))
    draw = Canvas.draw
    def interrupted(self, transforms):
        if next(drawn)>=after: raise error
        return draw(self, transforms)
    monkeypatch.setattr(Canvas, "draw", interrupted)
    with pytest.raises(error): film.render(dancer(60), tmp_path/"a.mp4", song, **SMALL)
    assert list(tmp_path.iterdir())==[song]


def test_an_older_film_survives_a_failure(tmp_path, monkeypatch):
    film.render(dancer(5), tmp_path/"a.mp4", **SMALL)
    old = (tmp_path/"a.mp4").read_bytes()
    monkeypatch.setattr(Canvas, "video_frame", lambda self: 1/0)
    with pytest.raises(ZeroDivisionError): film.render(dancer(5), tmp_path/"a.mp4", **SMALL)
    assert (tmp_path/"a.mp4").read_bytes()==old


def test_memory_does_not_grow_with_length(tmp_path):
    peaks = []
    for frames in (60, 900):
        motion = dancer(frames)
        tracemalloc.start()
        film.render(motion, tmp_path/"a.mp4", width=64, height=64, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1]<peaks[0]+20e6, peaks


def test_a_recorded_floor_is_the_films_floor(real_motion):
    "A dance of AIST++ stands 0.9 m above zero, and on the floor of its pictures"
    down = replace(real_motion, trans=real_motion.trans-[0, motion_floor(real_motion), 0])
    assert motion_floor(real_motion)>.5
    pictures = [render_frame(motion, 100, 320, 180).astype(int) for motion in (real_motion, down)]
    assert np.abs(pictures[0]-pictures[1]).mean()<.5


def test_toes_bend_where_they_would_go_through_the_floor(real_motion):
    "Nobody captured them: flat, they are up to 4 cm under it while the heel is lifted. The motion's joints stay where they are"
    clip = on_floor(real_motion)[::4]
    soles = lambda motion: skinned_vertices(load_body(), motion)[...,1].min(1)
    bent = bend_toes(clip)
    assert soles(clip).min()<-.03 and soles(bent).min()>-.01 and abs(np.percentile(soles(bent), 20))<.01
    np.testing.assert_allclose(bent.positions(), clip.positions(), atol=1e-9)
    assert motion_data(real_motion)["poses"]==base64_text(quantised_poses(bend_toes(real_motion, motion_floor(real_motion)).poses)), "the page's toes are the film's"
