"Videos as people have them: turned, uneven, cut off, huge, or no videos at all"
import io
import math
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio2pose import containers, video
from audio2pose.core import InputError
from audio2pose.video import Prefetcher, Cut, decode_frames, frames, legacy_sampling_times, sampling_times, probe, merged_spans

TICKS = 24000 # Per second: a multiple of 24000/1001's and of 25's denominators


def shot(number, size=(64, 48)):
    "A picture that tells its number, in 12 squares that are black or white"
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    for bit in range(12):
        x,y = bit%4*16,bit//4*16
        image[y:y+16, x:x+16] = 255*(number>>bit & 1)
    return image


def number_of(picture):
    "What `shot` wrote"
    return sum((picture[bit//4*16+8, bit%4*16+8].mean()>127)<<bit for bit in range(12))


def film(path, sampling_times, images=None, codec="mpeg4", pix_fmt="yuv420p", gop=12, options=None, container=None, start=0., sound=False):
    "A film with a picture at each of `sampling_times`, s"
    images = (shot(i) for i in range(len(sampling_times))) if images is None else images
    with av.open(path if hasattr(path, "write") else str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        noise = file.add_stream("aac", rate=16000) if sound else None
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.codec_context.gop_size,stream.codec_context.max_b_frames = gop,0
        for moment,image in zip(sampling_times, images):
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            if stream.codec_context.width!=image.shape[1]: stream.width,stream.height,stream.pix_fmt = image.shape[1],image.shape[0],pix_fmt
            frame.pts,frame.time_base = round((moment+start)*TICKS),Fraction(1, TICKS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if noise is not None: file.mux([*noise.encode(silence()), *noise.encode(None)])
    return path


def silence(seconds=1):
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000*seconds), np.float32), "fltp", "mono")
    frame.sample_rate,frame.pts = 16000,0
    return frame


def all_of(path): return list(frames(path, [Cut("all")]))


@pytest.fixture(scope="module")
def home(tmp_path_factory): return tmp_path_factory.mktemp("video")


@pytest.fixture(scope="module")
def steady(home): return film(home/"steady.mp4", np.arange(75)/25)


# ---- how it was held

TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)} # Clockwise, as the matrix of a track says it (ISO/IEC 14496-12)

def turned(path, degrees):
    "Write into a film how it is to be turned, as a phone does"
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd")+4+40
    a,b,c,d = TURNS[degrees]
    one = 1<<16
    data[at:at+36] = struct.pack(">9i", a*one, b*one, 0, c*one, d*one, 0, 0, 0, 1<<30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("degrees", TURNS)
def test_pictures_are_upright(degrees, tmp_path):
    image = np.full((48, 64, 3), 90, np.uint8)
    image[:16, :16] = 0, 0, 255 # Red, top left as the sensor has it
    path = turned(film(tmp_path/"phone.mp4", np.arange(3)/25, [image]*3), degrees)
    seen = probe(path)
    assert (seen.width, seen.height)==((48, 64) if degrees%180 else (64, 48))
    for frame in all_of(path):
        assert frame.picture.shape==(seen.height, seen.width, 3)
        corners = {0: frame.picture[4, 4], 90: frame.picture[4, -5], 180: frame.picture[-5, -5], 270: frame.picture[-5, 4]}
        assert max(corners, key=lambda rotation: int(corners[rotation][2])-int(corners[rotation][0]))==degrees
        assert frame.picture.flags.c_contiguous


def test_portrait(tmp_path):
    path = film(tmp_path/"portrait.mp4", np.arange(3)/25, [np.zeros((1920, 1080, 3), np.uint8)]*3)
    assert (probe(path).width, probe(path).height)==(1080, 1920)
    assert all_of(path)[0].picture.shape==(1920, 1080, 3)


# ---- time

@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("start", [0., 7.3])
def test_times_are_those_of_the_file(container, start, tmp_path):
    rng = np.random.default_rng(1)
    uneven = np.cumsum(rng.integers(200, 3000, 60))/TICKS
    uneven -= uneven[0]
    path,notes = film(tmp_path/f"uneven.{container}", uneven, start=start),{}
    found = list(frames(path, [Cut("all")], None, notes))
    assert "cut_off" not in notes
    assert probe(path).seconds==pytest.approx(uneven[-1], abs=.15)
    assert [number_of(frame.picture) for frame in found]==list(range(60))
    np.testing.assert_allclose([frame.time for frame in found], uneven, atol=1.1e-3) # Matroska counts milliseconds


def test_23_976_is_told_exactly(tmp_path):
    path = film(tmp_path/"film.mp4", np.arange(240)*1001/24000)
    assert probe(path).fps==pytest.approx(24000/1001, rel=1e-3)
    found = list(frames(path, [Cut("all")], [sampling_times(Cut("all"), 24000/1001, 10.01)]))
    assert [number_of(frame.picture) for frame in found]==list(range(240))


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_longer_sound_changes_nothing(container, tmp_path):
    path = film(tmp_path/f"sound.{container}", np.arange(15)/25, sound=True)
    notes = {}
    assert len(list(frames(path, [Cut("all")], None, notes)))==15 and "cut_off" not in notes, "the sound is longer, the picture is whole"
    np.testing.assert_allclose([frame.time for frame in all_of(path)], np.arange(15)/25, atol=2e-2)


uneven_steps = st.lists(st.integers(240, 36000), min_size=5, max_size=60) # 10 ms to 1.5 s


@given(uneven_steps, st.lists(st.tuples(st.floats(0, 45), st.floats(0, 20)), min_size=1, max_size=4), st.sampled_from([5., 12., 24., 60.]))
@settings(max_examples=25, deadline=None)
def test_every_moment_gets_the_nearest_frame(tmp_path_factory, steps, parts, rate):
    "One pass over all cuts, with its skips, against the plain definition"
    times = np.r_[0, np.cumsum(steps)]/TICKS
    path = film(tmp_path_factory.mktemp("any")/"any.mp4", times)
    cuts = [Cut(str(i), start, start+length) for i,(start, length) in enumerate(parts)]
    requested = [sampling_times(cut, rate, float(times[-1])) for cut in cuts]
    got = {(i, moment): number_of(frame.picture) for frame in frames(path, cuts, requested) for i,moment in frame.requested}
    asked = [(i, float(moment)) for i,list_ in enumerate(requested) for moment in list_]
    assert sorted(got)==sorted(set(asked))
    for (_,moment),number in got.items(): assert abs(times[number]-moment)<=np.abs(times-moment).min()+1e-4


def test_a_raw_stream_has_the_times_of_its_rate(tmp_path):
    path = film(tmp_path/"camera.h264", np.arange(50)/25, codec="libx264", container="h264", options=dict(preset="ultrafast"))
    found = all_of(path)
    assert [number_of(frame.picture) for frame in found]==list(range(50))
    np.testing.assert_allclose(np.diff([frame.time for frame in found]), .04, atol=1e-3)


@pytest.mark.parametrize("kind", ["h264", "matroska"])
def test_far_cuts_of_a_file_without_an_index(kind, tmp_path):
    "A raw stream, and what is left of a broadcast: nowhere to look up where a moment lies"
    class Pipe(io.RawIOBase): # Cannot go back to write an index
        def __init__(self): self.data = b""
        def writable(self): return True
        def write(self, data):
            self.data += bytes(data)
            return len(data)
    pipe = Pipe()
    film(pipe, np.arange(1000)/25, codec="libx264" if kind=="h264" else "mpeg4", container=kind, options=dict(preset="ultrafast") if kind=="h264" else None, gop=50)
    path = tmp_path/f"pipe.{kind}"
    path.write_bytes(pipe.data)
    cuts = [Cut("early", 1, 2), Cut("late", 35, 36)]
    got = [(i, number_of(frame.picture)) for frame in frames(path, cuts, [sampling_times(cut, 5, math.inf) for cut in cuts]) for i,_ in frame.requested]
    assert got==[(0, n) for n in range(25, 50, 5)]+[(1, n) for n in range(875, 900, 5)]


# ---- every file once, and not more of it than needed

@pytest.fixture(scope="module")
def long(home):
    "Ten minutes"
    images = (shot(i%4096) for i in range(3000))
    return film(home/"long.mp4", np.arange(3000)/5, images, gop=25)


def counted(monkeypatch):
    "How often files are opened, and how many frames leave the decoder"
    seen = dict(open_video=0, decode_frames=0)
    open_video,decode = video.open_video,video.decode_frames
    def open_(path):
        seen["open_video"] += 1
        return open_video(path)
    def decode_(*args, **kwargs):
        for frame in decode(*args, **kwargs):
            seen["decode_frames"] += 1
            yield frame
    monkeypatch.setattr(video, "open_video", open_)
    monkeypatch.setattr(video, "decode_frames", decode_)
    return seen


def test_what_lies_between_far_cuts_is_skipped(long, monkeypatch):
    seen = counted(monkeypatch)
    cuts = [Cut("a", 20, 22), Cut("b", 560, 562)]
    got = [(i, number_of(frame.picture)) for frame in frames(long, cuts, [sampling_times(cut, 5, 600) for cut in cuts]) for i,_ in frame.requested]
    assert got==[(0, n) for n in range(100, 110)]+[(1, n) for n in range(2800, 2810)]
    assert seen["open_video"]==1 and seen["decode_frames"]<120


def test_many_overlapping_cuts_take_one_pass(long, monkeypatch):
    seen = counted(monkeypatch)
    cuts = [Cut(str(i), i/4, i/4+6) for i in range(200)] # 0 to 56 s, each moment in 24 of them
    count = sum(len(frame.requested) for frame in frames(long, cuts, [sampling_times(cut, 5, 600) for cut in cuts]))
    assert count==200*30
    assert seen["open_video"]==1 and seen["decode_frames"]<=5*57+5


def test_without_a_rate_a_cut_has_the_frames_within_it(steady):
    got = [[], []]
    for frame in frames(steady, [Cut("a", .4, .8), Cut("b", .6, 1)]):
        for i,_ in frame.requested: got[i].append(number_of(frame.picture))
    assert got==[list(range(10, 20)), list(range(15, 25))]


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 60)), min_size=1, max_size=12))
def test_spans_cover_the_cuts_and_lie_apart(parts):
    cuts = [Cut("", start, start+length) for start,length in parts]
    spans = merged_spans(cuts)
    for cut in cuts: assert any(begin<=cut.start and cut.end<=end for begin,end in spans)
    for (_,end),(begin,_) in zip(spans, spans[1:]): assert begin>end+10


# ---- samplers

@given(st.floats(0, 100), st.floats(.05, 60), st.sampled_from([5., 23.976, 24., 25., 29.97, 60.]), st.floats(1, 200))
def test_moments_begin_at_the_start_and_end_before_the_end(start, length, rate, seconds):
    cut = Cut("", start, start+length)
    found = sampling_times(cut, rate, seconds)
    end = min(cut.end, seconds)
    if end<=start:
        assert len(found)==0
        return
    assert found[0]==start
    assert found[-1]<end+1e-6 and end-found[-1]<=1/rate+1e-6
    np.testing.assert_allclose(np.diff(found), 1/rate, atol=1e-9)


@pytest.mark.parametrize("fps,rate,taken", [(30, 24, [1, 2, 3, 4, 6, 7, 8, 9]), (60, 24, [2, 4, 7, 9, 12]), (50, 24, [2, 4, 6]), (30, 15, [1, 3, 5, 7]), (24, 24, [0, 1, 2, 3])])
def test_the_older_extractor_takes_these(fps, rate, taken):
    assert (legacy_sampling_times(Cut("", 0, 10), rate, fps, 10)*fps).round().astype(int).tolist()[:len(taken)]==taken


@pytest.mark.parametrize("fps,count", [(25, 72), (29.97, 72), (30, 72), (50, 72), (59.94, 72), (60, 72), (24, 73)])
def test_the_older_extractor_takes_so_many_of_three_seconds(fps, count): assert len(legacy_sampling_times(Cut("", 0, 3), 24, fps, 10))==count


@pytest.mark.parametrize("fps,count", [(30, 1440), (60, 1440), (24, 1441)])
def test_the_older_extractor_takes_so_many_of_a_minute(fps, count): assert len(legacy_sampling_times(Cut("", 0, 60), 24, fps, 100))==count


def test_the_older_extractor_takes_every_nth():
    assert (legacy_sampling_times(Cut("", 1, 2), None, 25, 10, skip_by=2)*25).round().astype(int).tolist()==list(range(25, 51, 2))


@given(st.floats(0, 50), st.floats(.2, 60), st.floats(24, 60), st.sampled_from([None, 10., 24., 30.]), st.integers(1, 5))
def test_the_older_extractor_stays_within_the_cut(start, length, fps, rate, skip_by):
    found = legacy_sampling_times(Cut("", start, start+length), rate, fps, 200., skip_by)
    assert (np.diff(found)>0).all()
    if len(found): assert start-1/fps<=found[0]+1e-9 and found[-1]<=start+length+1e-9
    if rate and rate<fps: assert abs(len(found)-length*rate)<=2+rate/fps


# ---- what is wrong with a file

def test_cut_off_before_its_index(steady, tmp_path):
    data = steady.read_bytes()
    (tmp_path/"cut.mp4").write_bytes(data[:len(data)//2]) # The index of an mp4 stands at its end
    with pytest.raises(InputError, match=r"cut\.mp4.*cut off\?"): probe(tmp_path/"cut.mp4")


@pytest.mark.parametrize("name,options", [("mkv", None), ("mp4", dict(movflags="faststart"))])
@pytest.mark.parametrize("share", [.5, .7, .9])
def test_cut_off_in_the_middle(name, options, share, tmp_path):
    with av.open(str(tmp_path/f"whole.{name}"), "w", options=options or {}) as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width,stream.height,stream.pix_fmt = 64,48,"yuv420p"
        for i in range(75): file.mux(stream.encode(av.VideoFrame.from_ndarray(shot(i), "bgr24")))
        file.mux(stream.encode(None))
    data = (tmp_path/f"whole.{name}").read_bytes()
    path = tmp_path/f"cut.{name}"
    path.write_bytes(data[:int(share*len(data))])
    notes = {}
    found = list(frames(path, [Cut("all")], None, notes))
    numbers = [number_of(frame.picture) for frame in found]
    assert 0<len(numbers)<75 and numbers[:-1]==list(range(len(numbers)-1)) # The last may be half a picture
    assert "cut_off" in notes, "whoever reads on must be told"
    whole = {}
    assert len(list(frames(tmp_path/f"whole.{name}", [Cut("all")], None, whole)))==75 and "cut_off" not in whole


def test_no_video(tmp_path):
    (tmp_path/"empty.mp4").touch()
    (tmp_path/"noise.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    (tmp_path/"words.mp4").write_text("not a film")
    (tmp_path/"folder.mp4").mkdir()
    for name,why in (("empty.mp4", "empty"), ("noise.mp4", "not a video|no picture|not one frame"), ("words.mp4", "not a video|no picture|not one frame"), ("folder.mp4", "no such"), ("none.mp4", "no such")):
        with pytest.raises(InputError, match=why): probe(tmp_path/name)
        with pytest.raises(InputError, match=why): all_of(tmp_path/name)
        with pytest.raises(InputError, match=why): list(Prefetcher(frames(tmp_path/name, [Cut("all")])))


def test_sound_alone(tmp_path):
    with av.open(str(tmp_path/"song.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        file.mux([*stream.encode(silence()), *stream.encode(None)])
    with pytest.raises(InputError, match="no picture in it, only audio"): probe(tmp_path/"song.mp4")


def test_a_cover_is_no_film(tmp_path):
    cover,sound = io.BytesIO(),io.BytesIO()
    with av.open(cover, "w", format="mjpeg") as file:
        stream = file.add_stream("mjpeg", rate=1)
        stream.width,stream.height,stream.pix_fmt = 64,48,"yuvj420p"
        file.mux([*stream.encode(av.VideoFrame.from_ndarray(shot(5), "bgr24")), *stream.encode(None)])
    with av.open(sound, "w", format="mp3") as file:
        stream = file.add_stream("libmp3lame", rate=16000)
        file.mux([*stream.encode(silence()), *stream.encode(None)])
    body = b"\0image/jpeg\0\3\0"+cover.getvalue()
    frame = b"APIC"+struct.pack(">I", len(body))+b"\0\0"+body
    size = bytes(len(frame)>>shift & 127 for shift in (21, 14, 7, 0))
    (tmp_path/"song.mp3").write_bytes(b"ID3\3\0\0"+size+frame+sound.getvalue())
    with av.open(str(tmp_path/"song.mp3")) as file: assert file.streams.video, "the cover is not seen as one"
    with pytest.raises(InputError, match="no picture in it"): probe(tmp_path/"song.mp3")


def test_two_frames(tmp_path):
    path = film(tmp_path/"two.mp4", [0, .04])
    assert [number_of(frame.picture) for frame in all_of(path)]==[0, 1]
    times = sampling_times(Cut("all"), 25, .08)
    assert [number_of(frame.picture) for frame in frames(path, [Cut("all")], [times])]==[0, 1]


def test_one_frame(tmp_path):
    path = film(tmp_path/"one.mp4", [0])
    assert [number_of(frame.picture) for frame in frames(path, [Cut("all")], [np.zeros(1)])]==[0]


def test_high_dynamic_range_is_told(tmp_path, steady):
    path = film(tmp_path/"hdr.mp4", np.arange(3)/25, codec="libx264", pix_fmt="yuv420p10le",
                options={"preset": "ultrafast", "x264-params": "transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc"})
    assert probe(path).hdr and not probe(steady).hdr
    assert all_of(path)[0].picture.dtype==np.uint8


def test_8k(tmp_path):
    path = film(tmp_path/"8k.mp4", [0, .04], [np.zeros((4320, 7680, 3), np.uint8)]*2, codec="libx264", options=dict(preset="ultrafast"))
    assert (probe(path).width, probe(path).height)==(7680, 4320)
    assert sum(frame.picture.shape==(4320, 7680, 3) for frame in frames(path, [Cut("all")]))==2


def test_cuts_beyond_the_end_get_nothing(steady):
    requested = [sampling_times(Cut("late"), 5, 3.)+30]
    assert list(frames(steady, [Cut("late", 30, 33)], requested))==[]
    assert list(frames(steady, [Cut("late", 30, 33)]))==[]


# ---- the thread

def test_who_stops_early_leaves_no_thread(steady):
    ahead = Prefetcher(frames(steady, [Cut("all")]), buffer_size=2)
    for _ in ahead: break
    ahead.thread.join(10)
    assert not ahead.thread.is_alive()


def test_decoding_is_lazy(steady):
    source = decode_frames(steady)
    assert next(source).index==0
    source.close()


# ---- as a player shows it

@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip,vflip", [(False, False), (True, False), (False, True)])
def test_all_display_matrices(degrees, hflip, vflip, tmp_path):
    "Turned by libav's rule and then mirrored, as the matrix was written"
    if not hasattr(av.VideoStream, "set_display_rotation"): pytest.skip("this av cannot write display matrices")
    image = np.full((48, 64, 3), 90, np.uint8)
    image[:16, :16] = 0, 0, 255
    with av.open(str(tmp_path/"x.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width,stream.height,stream.pix_fmt = 64,48,"yuv420p"
        stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode(None))
    expected = np.rot90(image, degrees//90)
    if hflip: expected = expected[:, ::-1]
    if vflip: expected = expected[::-1]
    shown = all_of(tmp_path/"x.mp4")[0].picture
    assert shown.shape==expected.shape
    assert np.abs(shown.astype(int)-expected).mean()<6


def test_front_camera(shared):
    straight,mirrored = (all_of(shared(f"cases/video/{name}.mp4")) for name in ("upright", "hflip_matrix"))
    assert len(straight)==len(mirrored)
    assert np.abs(straight[3].picture.astype(int)-mirrored[3].picture).mean()<4


def test_pixels_that_are_not_square(tmp_path):
    with av.open(str(tmp_path/"dv.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width,stream.height,stream.pix_fmt = 64,48,"yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "bgr24")))
        container.mux(stream.encode(None))
    video = probe(tmp_path/"dv.mp4")
    assert (video.width, video.height)==(93, 48)
    assert all_of(tmp_path/"dv.mp4")[0].picture.shape==(48, 93, 3)


@pytest.mark.parametrize("name,fps", [("h264_b_frames.avi", 60), ("h264_b_frames_bar.avi", 25)])
def test_times_rise_where_the_file_has_none(shared, name, fps):
    times = [frame.time for frame in all_of(shared(f"cases/video/{name}"))]
    np.testing.assert_allclose(times, np.arange(len(times))/fps, atol=1e-6)


def test_the_bar_moves_on(shared):
    "Pictures are in the order of their times: the bright bar goes one way"
    places = [int(frame.picture.sum((0, 2)).argmax()) for frame in all_of(shared("cases/video/h264_b_frames_bar.avi"))]
    assert (np.diff(places)>=0).mean()>.95


# ---- edges that are not shown

def marked_film(path, frames=3):
    "A film whose pixel at (x, y) has the brightness x in its left, y in its right part"
    image = np.zeros((96, 160, 3), np.uint8)
    image[:, :80] = np.arange(80)[None, :, None]*3
    image[:, 80:] = np.arange(96)[:, None, None]*2
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if path.suffix==".mkv" else "mpeg4", rate=25)
        stream.width,stream.height,stream.pix_fmt = 160,96,"yuv420p"
        if path.suffix==".mp4": stream.bit_rate = 8_000_000
        for _ in range(frames): container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def with_aperture(data, clap):
    "The MP4 with a box `clap` in its sample entry; its header comes last, so nothing moves"
    file,changed,end,begin = io.BytesIO(data),bytearray(data),len(data),0
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4v"):
        _,begin,end = next(found for found in containers.mp4_boxes(file, begin, end) if found[0]==kind)
        changed[begin-8:begin-4] = struct.pack(">I", int.from_bytes(data[begin-8:begin-4], "big")+len(clap)+8)
        if kind==b"stsd": begin += 8
    return bytes(changed[:end])+struct.pack(">I4s", len(clap)+8, b"clap")+clap+bytes(changed[end:])


def with_pixel_crop(data, left, top):
    "The Matroska with two crops in the description of its pictures, and the empty element behind it as much shorter"
    video,empty = data.index(b"\xb0\x81\xa0")-2,b"\xec\x01"+(2).to_bytes(7, "big")+bytes(2)
    end = video+2+(data[video+1]&0x7f)
    crops = b"".join(containers.PIXEL_CROP_ID[side].to_bytes(2, "big")+b"\x81"+bytes([value]) for side,value in (("left", left), ("top", top)))
    assert data[video]==0xE0 and empty in data[end:]
    return data[:video+1]+bytes([data[video+1]+len(crops)])+data[video+2:end]+crops+data[end:].replace(empty, b"\xec\x81\x00", 1)


def test_clean_aperture_of_an_mp4(tmp_path):
    (tmp_path/"framed.mp4").write_bytes(with_aperture(marked_film(tmp_path/"plain.mp4"), struct.pack(">IIIIiIiI", 120, 1, 80, 1, 10, 1, 0, 1)))
    video,whole,shown = probe(tmp_path/"framed.mp4"),all_of(tmp_path/"plain.mp4"),all_of(tmp_path/"framed.mp4")
    assert (video.width, video.height)==(120, 80) and len(shown)==3
    np.testing.assert_array_equal(shown[1].picture, whole[1].picture[8:88, 30:150])


def test_pixel_crop_of_a_matroska(tmp_path):
    (tmp_path/"cropped.mkv").write_bytes(with_pixel_crop(marked_film(tmp_path/"plain.mkv"), left=24, top=6))
    video,whole,shown = probe(tmp_path/"cropped.mkv"),all_of(tmp_path/"plain.mkv"),all_of(tmp_path/"cropped.mkv")
    assert (video.width, video.height)==(136, 90) and len(shown)==3
    np.testing.assert_array_equal(shown[1].picture, whole[1].picture[6:, 24:])


@pytest.mark.parametrize("clap", [struct.pack(">IIIIiIiI", 400, 1, 80, 1, 0, 1, 0, 1), struct.pack(">IIIIiIiI", 120, 0, 80, 1, 0, 1, 0, 1), bytes(32), b"short"])
def test_an_aperture_that_cannot_be_is_not_believed(tmp_path, clap):
    (tmp_path/"framed.mp4").write_bytes(with_aperture(marked_film(tmp_path/"plain.mp4"), clap))
    assert all_of(tmp_path/"framed.mp4")[0].picture.shape==(96, 160, 3)
