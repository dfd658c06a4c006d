"The documentation site: whole, searchable, and without a link that leads nowhere"
import json
import shutil
from pathlib import Path

import pytest

from audio2pose import site
from audio2pose.core import InputError

ROOT = Path(__file__).parents[1]
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytest.importorskip("latex2mathml", reason='pip install "audio2pose[docs]"')


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "A site of some notebooks"
    home = tmp_path_factory.mktemp("site")
    for name in ("030_motion", "310_metrics.beat", "guides/add_a_metric"):
        (home/"nbs"/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/"nbs"/f"{name}.ipynb", home/"nbs"/f"{name}.ipynb")
    return home/"site",site.build(home/"site", home/"nbs")


def test_every_page_is_there(small):
    out,_ = small
    assert all((out/name).is_file() for name in ("index.html", "030_motion.html", "guides/add_a_metric.html", "reference/metrics.beat.html", "search.js", "style.css"))
    assert "030_motion.html" in (out/"index.html").read_text()


def test_only_links_to_notebooks_that_were_left_out_are_broken(small):
    out,broken = small
    for line in broken:
        target = line.split(": ", 1)[1]
        assert target.split("#")[0].endswith(".html") and not (ROOT/"nbs"/target.split("#")[0]).is_file(), line
        assert (ROOT/"nbs"/Path(line.split(": ", 1)[0]).parent/target.split("#")[0]).with_suffix(".ipynb").resolve().is_file() or "bring_aist" in target, line


def test_formulas_are_mathml_and_nothing_is_fetched(small):
    out,_ = small
    text = (out/"310_metrics.beat.html").read_text()
    assert "<math" in text and r"\frac" not in text
    for path in out.rglob("*.html"):
        assert "<script src=\"http" not in path.read_text() and "<link rel=\"stylesheet\" href=\"http" not in path.read_text()


def test_the_reference_has_every_parameter_with_its_comment(small):
    text = (small[0]/"reference"/"metrics.beat.html").read_text()
    assert "sigma:float=.05, # Tolerance, s" in text and 'id="kinematic_beats"' in text


def test_a_broken_link_is_found(small, tmp_path):
    shutil.copytree(small[0], tmp_path/"copy")
    page = tmp_path/"copy"/"index.html"
    page.write_text(page.read_text().replace("</main>", '<a href="nowhere.html">x</a><a href="030_motion.html#nothing">y</a></main>'))
    found = site.broken_links(tmp_path/"copy")
    assert {"index.html: nowhere.html", "index.html: 030_motion.html#nothing"}<=set(found)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path/"thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="choose another folder"): site.build(tmp_path)
    assert (tmp_path/"thesis.txt").read_text()=="mine"


def test_the_index_is_json(small):
    text = (small[0]/"search-index.js").read_text()
    entries = json.loads(text.removeprefix("const INDEX = ").removesuffix(";\n"))
    assert any(entry["title"]=="beat_align" for entry in entries) and all((small[0]/entry["url"].split("#")[0]).is_file() for entry in entries)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_search_in_a_browser(small):
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto((small[0]/"guides"/"add_a_metric.html").as_uri())
        page.fill_template("input[type=search]", "beat_align")
        page.wait_for_selector(".found li a")
        assert page.inner_text(".found li a >> nth=0")=="beat_align"
        page.click(".found li a >> nth=0")
        page.wait_for_url("**/reference/metrics.beat.html#beat_align")
        browser.close()


@pytest.mark.parametrize("words,code", [(["--help"], 0), (["--fast"], 2), (["a", "b"], 2)])
def test_words_it_does_not_know(words, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert site.main(words)==code and not list(tmp_path.iterdir())
    assert "usage" in capsys.readouterr().err
