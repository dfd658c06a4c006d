"The editor's own front end in Chromium, joined to the Python widgets as a kernel joins them: bars are selected, danced anew, compared, and taken back"
import base64
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anywidget", reason='pip install "audio2pose[lab]"')
from audio2pose.beats import Beats # noqa: E402
from audio2pose.infilling import SongAnalysis, bar_mask # noqa: E402
from audio2pose.models.motion_flow import MotionFlow # noqa: E402
from audio2pose.models.motion_flow_sampling import dance_to_beats # noqa: E402
from audio2pose.show.editor import DanceEditor # noqa: E402

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
FLAGS = "--headless --no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --autoplay-policy=no-user-gesture-required".split()
AXE = os.environ.get("AXE", "")
MUSIC = SongAnalysis(Beats.from_bpm(120, 0., 12.), 12.)
MODEL = """
class Model { // As anywidget gives it to a front end
  constructor(name, state) { Object.assign(this, { name, state, changed: {}, listeners: {} }); }
  get(key) { return this.state[key]; }
  set(key, value) { this.state[key] = value; this.changed[key] = value; this.tell(key); }
  save_changes() { const { changed } = this; this.changed = {}; said(this.name, "state", changed); }
  send(content) { said(this.name, "message", content); }
  on(event, action) { (this.listeners[event] ??= new Set()).add(action); }
  off(event, action) { this.listeners[event]?.delete(action); }
  tell(key) { for (const action of this.listeners[`change:${key}`] ?? []) action(); }
}
const value = x => x?.bytes ? new DataView(Uint8Array.from(atob(x.bytes), c => c.charCodeAt(0)).buffer) : x;
window.models = {};
window.begin = async (name, code, style, state) => {
  for (const key in state) state[key] = value(state[key]);
  document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
  const made = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" }))), el = document.createElement("div");
  document.querySelector("main").append(el);
  await made.default.render({ model: models[name] = new Model(name, state), el });
};
window.hear = (name, key, x) => { models[name].state[key] = value(x); models[name].tell(key); };
"""


class Page:
    "Widgets on a page; what either side says is passed on by `exchange`"
    def __init__(self, page, **widgets):
        self.page,self.widgets,self.said,self.changed = page,widgets,[],[]
        page.expose_function("said", lambda *words: self.said.append(words))
        page.set_content(f"<!DOCTYPE html><html lang=en><title>Editor</title><body><main></main><script>{MODEL}</script>")
        for name,widget in widgets.items():
            keys = [key for key in widget.keys if not key.startswith("_")]
            state = {key: self.sent(getattr(widget, key)) for key in keys if key not in ("layout", "tabbable", "tooltip")}
            page.evaluate("words => begin(...words)", [name, widget._esm, widget._css, state])
            widget.observe(lambda change, name=name: self.changed.append((name, change["name"], change["new"])), [key for key in state])

    @staticmethod
    def sent(value): return dict(bytes=base64.b64encode(value).decode()) if isinstance(value, bytes) else list(value) if isinstance(value, tuple) else value

    def exchange(self):
        "Until both sides are silent"
        self.page.wait_for_timeout(50)
        while self.said or self.changed:
            said,self.said = self.said,[]
            for name,kind,content in said:
                if kind=="state": self.widgets[name].set_state(content)
                else: self.widgets[name]._handle_custom_msg(content, [])
            changed,self.changed = self.changed,[]
            for name,key,value in changed: self.page.evaluate("words => hear(...words)", [name, key, self.sent(value)])
            self.page.wait_for_timeout(50)


@pytest.fixture(scope="module")
def model(): return MotionFlow.from_pretrained()

@pytest.fixture(scope="module")
def dance(model): return dance_to_beats(model, MUSIC.beats.times, MUSIC.seconds, seed=3)

@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()

@pytest.fixture
def shown(browser, model, dance):
    "Editor and page"
    editor = DanceEditor(dance, MUSIC, model=model)
    page,wrong = browser.new_page(viewport=dict(width=1000, height=640)),[]
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield editor,Page(page, dancer=editor.dancer, ruler=editor.ruler)
    page.context.close()
    assert wrong==[]

@needs_browser
def test_bars_are_selected_danced_anew_compared_and_taken_back(shown, dance):
    editor,page = shown
    on_page = page.page
    assert on_page.locator(".bar").count()==6 and on_page.is_disabled(".reroll") and on_page.is_disabled(".undo")
    on_page.click(".bar >> nth=2")
    on_page.click(".bar >> nth=3", modifiers=["Shift"])
    page.exchange()
    assert editor.ruler.selected==[3, 4]
    assert on_page.locator(".bar[aria-pressed=true]").all_inner_texts()==["3", "4"]
    on_page.click(".reroll")
    page.exchange()
    anew = bar_mask(MUSIC, (3, 4), len(dance))
    assert np.array_equal(editor.motion.poses[~anew], dance.poses[~anew]) and np.abs(editor.motion.poses-dance.poses)[anew].max()>.2
    assert "3 to 4 were danced anew" in on_page.inner_text(".a2p-editor .status")
    assert on_page.locator(".bar.edited").all_inner_texts()==["3", "4"]
    on_page.click(".compare")
    page.exchange()
    on_page.wait_for_function("document.querySelector('.a2p-view').player.dances.length === 2")
    assert on_page.locator(".names span").all_inner_texts()==["before", "after"]
    on_page.click(".undo")
    page.exchange()
    assert editor.motion is dance and on_page.is_disabled(".undo") and not editor.ruler.compared
    on_page.wait_for_function("document.querySelector('.a2p-view').player.dances.length === 1")

@needs_browser
def test_keyboard_drag_and_playhead(shown):
    editor,page = shown
    on_page = page.page
    on_page.focus(".bar >> nth=1")
    on_page.keyboard.press("Enter")
    on_page.keyboard.press("Shift+ArrowRight")
    on_page.keyboard.press("Shift+ArrowRight")
    page.exchange()
    assert editor.ruler.selected==[2, 4]
    on_page.keyboard.press("Escape")
    page.exchange()
    assert editor.ruler.selected==[]
    boxes = [on_page.locator(".bar").nth(k).bounding_box() for k in (4, 1)]
    middle = lambda box: (box["x"]+box["width"]/2, box["y"]+box["height"]/2)
    on_page.mouse.move(*middle(boxes[0]))
    on_page.mouse.down()
    on_page.mouse.move(*middle(boxes[1]), steps=12)
    on_page.mouse.up()
    page.exchange()
    assert editor.ruler.selected==[2, 5]
    editor.dancer.time = 3.
    page.exchange()
    head = on_page.evaluate("(() => { const box = document.querySelector('.head').getBoundingClientRect(); return (box.left + box.right) / 2; })()")
    bar = on_page.locator(".bar").nth(1).bounding_box()
    assert abs(head-middle(bar)[0])<3 # In the middle of the second bar

@needs_browser
@pytest.mark.skipif(not Path(AXE).is_file(), reason="no axe: npm install axe-core, and name axe.min.js in AXE")
def test_everybody_can_use_it(shown):
    editor,page = shown
    editor.ruler.selected = [2, 3]
    page.exchange()
    page.page.add_script_tag(path=AXE)
    found = page.page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa'] })")["violations"]
    assert found==[], [(issue["id"], [node["html"] for node in issue["nodes"]][:3]) for issue in found]

def test_what_cannot_be_done_is_said(model, dance):
    editor = DanceEditor(dance, MUSIC, model=model)
    editor.receive(editor.ruler, dict(kind="reroll"))
    assert "select bars first" in editor.ruler.status and editor.motion is dance and not editor.ruler.busy
    editor.receive(editor.ruler, dict(kind="undo"))
    assert "nothing to be undone" in editor.ruler.status
    editor.ruler.selected,editor.ruler.style = [1, 2],"polka"
    editor.receive(editor.ruler, dict(kind="reroll"))
    assert "polka" in editor.ruler.status and editor.motion is dance and not editor.ruler.busy
