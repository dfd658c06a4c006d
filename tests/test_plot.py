"Panels: what is drawn is what is there, in both libraries"
import numpy as np
import pytest

from audio2pose.show import plot
from audio2pose.core import FPS, InputError
from audio2pose.motion import Motion


def walking(seconds=4., fps=60):
    time = np.arange(round(seconds*fps))/fps
    poses = np.zeros((len(time), 24, 3))
    poses[:, 1, 0],poses[:, 2, 0] = .5*np.sin(4*time),-.5*np.sin(4*time)
    return Motion(poses, np.stack([0*time, .95+0*time, time], 1), fps)


def features(frames=240):
    found = np.random.default_rng(0).random((frames, 35)).astype(np.float32)
    found[:, 33:] = 0
    found[::30, 33:] = 1
    return found


BEATS = np.arange(0, 4, .5)
PANELS = dict(waveform=lambda: plot.waveform(np.sin(np.arange(4*30_720)/50).astype(np.float32), 30_720, BEATS), onsets=lambda: plot.onsets(features()),
              audio_features=lambda: plot.audio_features(features()), joint_speeds=lambda: plot.joint_speeds(walking(), BEATS), foot_contacts=lambda: plot.foot_contacts(walking()))
each = pytest.mark.parametrize("name", PANELS)


@each
def test_both_libraries_draw_it(name):
    pytest.importorskip("plotly")
    import matplotlib.pyplot as plt
    panel = PANELS[name]()
    still,live = plot.draw(panel),plot.interactive_figure(panel)
    assert still.axes[0].get_ylabel()==panel.label==live.layout.yaxis.title.text
    assert len(live.data)==len(panel.parts)
    live.to_json()
    plt.close(still)


@each
def test_letters_can_be_read_on_white_and_on_black(name):
    "WCAG asks for a contrast of 3 for large letters and graphics"
    pytest.importorskip("plotly")
    figure = plot.interactive_figure(PANELS[name]())
    def light(colour):
        parts = [int(colour[i:i+2], 16)/255 for i in (1, 3, 5)]
        return sum(weight*(x/12.92 if x<=.03928 else ((x+.055)/1.055)**2.4) for weight,x in zip((.2126, .7152, .0722), parts))
    colours = [figure.layout.font.color]+[trace.line.color for trace in figure.data if hasattr(trace, "line") and trace.line.color]
    for colour in colours:
        assert 1.05/(light(colour)+.05)>3 and (light(colour)+.05)/(light("#111111")+.05)>3, colour
    assert figure.layout.paper_bgcolor=="rgba(0,0,0,0)"


def test_marks_are_where_the_beats_are():
    pytest.importorskip("plotly")
    figure = plot.interactive_figure(plot.joint_speeds(walking(), BEATS))
    trace = next(trace for trace in figure.data if trace.name=="music beats")
    assert np.allclose(np.unique(np.array(trace.x, float)[~np.isnan(np.array(trace.x, float))]), BEATS)


@pytest.mark.parametrize("fps", [30, 60, 120])
def test_speeds_do_not_depend_on_the_frame_rate(fps):
    curve = plot.joint_speeds(walking(fps=fps)).parts[0]
    assert curve.values.mean()==pytest.approx(plot.joint_speeds(walking()).parts[0].values.mean(), rel=.02)
    assert curve.times[-1]<=4


def test_stretches_cover_what_is_on():
    on = np.random.default_rng(0).random(200)<.5
    back = np.zeros(200, bool)
    for start,stop in np.round(plot.intervals(on, FPS)*FPS).astype(int): back[start:stop] = True
    assert np.array_equal(on, back)


def test_a_minute_weighs_less_than_half_a_megabyte():
    pytest.importorskip("plotly")
    panels = plot.onsets(features(3600)),plot.audio_features(features(3600)),plot.joint_speeds(walking(60.), np.arange(0, 60, .5)),plot.foot_contacts(walking(60.))
    assert len(plot.interactive_figure(*panels).to_json())<600_000


def test_bad_input_is_one_sentence():
    for make in (lambda: plot.draw(), lambda: plot.interactive_figure(), lambda: plot.joint_speeds(walking()[:1]), lambda: plot.foot_contacts(walking()[:0]),
                 lambda: plot.interactive_poses(walking()[:0]), lambda: plot.pose_strip(walking()[:0]), lambda: plot.metric_table({})):
        with pytest.raises(InputError): make()
