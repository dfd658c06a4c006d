"The documentation site: built without a warning, searchable, and usable by everybody"
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
AXE = os.environ.get("AXE", "")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
pytest.importorskip("myst_nb", reason='pip install "audio2pose[docs]"')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The whole site; warnings are errors"
    home = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT/"nbs", home/"nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "reference"))
    (home/"audio2pose").symlink_to(ROOT/"audio2pose")
    done = subprocess.run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "nbs/site", "nbs", "site"], cwd=home, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-4000:]
    return home/"site"


def test_every_notebook_and_module_has_its_page(site):
    for notebook in ROOT.glob("nbs/**/*.ipynb"):
        if ".ipynb_checkpoints" in notebook.parts: continue
        assert (site/notebook.relative_to(ROOT/"nbs").with_suffix(".html")).is_file(), notebook
        if notebook.name[:1].isdigit() and notebook.parent.name=="nbs": assert (site/"reference"/f"{notebook.stem.split('_', 1)[1]}.html").is_file(), notebook


def test_reference_shows_parameters_with_their_comments(site):
    text = (site/"reference/metrics.beat.html").read_text()
    assert "Tolerance, s" in text and 'id="audio2pose.metrics.beat.beat_align"' in text


def test_nothing_is_fetched_by_the_front_page(site):
    assert "<iframe" in (site/"index.html").read_text() and (site/"_static/dance.html").stat().st_size>100_000


@pytest.fixture(scope="module")
def page():
    sync_api = pytest.importorskip("playwright.sync_api", reason='pip install "audio2pose[dev]"')
    if CHROMIUM is None: pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


@pytest.mark.browser
def test_search_finds_a_function(site, page):
    page.goto((site/"search.html").as_uri()+"?q=beat_align")
    page.wait_for_selector("ul.search li a", timeout=20_000)
    assert any("metrics.beat" in link.get_attribute("href") for link in page.query_selector_all("ul.search li a"))


@pytest.mark.browser
@pytest.mark.skipif(not Path(AXE).is_file(), reason="no axe: npm install axe-core, and name axe.min.js in AXE")
@pytest.mark.parametrize("name", ["index.html", "guides/your_own_song.html", "310_metrics.beat.html", "reference/metrics.beat.html"])
def test_pages_are_accessible(site, page, name):
    "No violation of WCAG level A or AA"
    page.goto((site/name).as_uri())
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")["violations"]
    assert not found, [(one["id"], one["help"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
