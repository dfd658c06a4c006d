"Every notebook runs from top to bottom, reads well, and is what the package was made from"
import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from copies import CAN_COPY, copied, copying_shell

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(path.relative_to(ROOT) for path in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in path.parts)
EXPORT = re.compile(r"^#\s*\|\s*exports?\b", re.M)
PROOF = re.compile(r"\b(assert|test_\w+|ExceptionExpected|raises)\b")
every_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: str(path.relative_to("nbs").with_suffix("")))

# Put in front of a lesson when it is tested: shapes are checked in the package and in the lesson's own cells
# (a function that is checked cannot be sent to another process, so lessons that send theirs are left unchecked)
SEND_FUNCTIONS = {"150_engine.workers", "250_data.prepare"}
LOOK_AT_IMPORTS = {"000_core", "758_engine.notebooks", "850_commands.lab"} # They say what is imported when, so nothing is before
CHECK_SHAPES = """
import sys, warnings
sys.path.insert(0, {tests!r})
warnings.filterwarnings("ignore", "IProgress not found")
import shapes
from jaxtyping import install_import_hook
install_import_hook("audio2pose", "shapes.check")
get_ipython().run_line_magic("load_ext", "jaxtyping")
get_ipython().run_line_magic("jaxtyping.typechecker", "shapes.check")
"""


def read(notebook): return nbformat.read(ROOT/notebook, as_version=4)


def code_cells(notebook): return [cell for cell in read(notebook).cells if cell.cell_type=="code"]


def size(source):
    "Lines that say something"
    return sum(bool(line.strip()) and not line.startswith("#|") for line in source.splitlines())


def defined(source):
    "Names of the functions and classes of a cell"
    return [node.name for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


# ---- they run

@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    "A copy of the notebooks, so that whatever they write beside themselves is gone afterwards"
    folder = tmp_path_factory.mktemp("workshop")
    shutil.copytree(ROOT/"nbs", folder/"nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    if CAN_COPY: copying_shell(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@every_notebook
def test_runs(notebook, workshop):
    "From top to bottom, with its shapes checked, in a data folder of its own"
    from nbclient import NotebookClient
    lesson = read(notebook)
    if os.environ.get("AUDIO2POSE_SHAPES", "1")!="0" and notebook.stem not in SEND_FUNCTIONS: lesson.cells.insert(0, nbformat.v4.new_code_cell(CHECK_SHAPES.format(tests=str(ROOT/"tests"))))
    client = NotebookClient(lesson, timeout=600, kernel_name="python3", resources={"metadata": {"path": str((workshop/notebook).parent)}})
    if CAN_COPY and os.environ.get("AUDIO2POSE_SHAPES", "1")!="0" and notebook.stem not in LOOK_AT_IMPORTS: copied(client.create_kernel_manager(), notebook.stem not in SEND_FUNCTIONS)
    shell = {"SHELL": str(workshop/"shell")} if CAN_COPY else {} # What `!audio2pose` is given to
    client.execute(env=os.environ|shell|{"IN_TEST": "1", "AUDIO2POSE_DATA": str(workshop/"data"/notebook.stem)})


# ---- they read well

@every_notebook
def test_form(notebook):
    "Valid, with stable cell ids, small"
    lesson = read(notebook)
    nbformat.validate(lesson)
    assert (lesson.nbformat, lesson.nbformat_minor)==(4, 5)
    ids = [cell.id for cell in lesson.cells]
    assert len(set(ids))==len(ids)
    assert (ROOT/notebook).stat().st_size<=300_000, "more than 300 kB: smaller or fewer pictures"
    assert lesson.cells[0].cell_type=="markdown" and lesson.cells[0].source.startswith("# "), "a lesson begins with its title"


@every_notebook
def test_outputs_are_of_the_lesson(notebook):
    "No errors, and no word of the machine it was run on"
    for cell in code_cells(notebook):
        assert not any(output.output_type=="error" for output in cell.outputs), cell.source
        text = json.dumps(cell.outputs)
        foreign = re.search(r"(/home/|/root/|/work/|site-packages)[^\"\\ ]*", text)
        assert not foreign, f"{foreign[0]} in the output of: {cell.source[:80]}"
        assert not re.search(r"\b(Attribute|Name)Error: ", text), f"an error that the lesson did not mean: {cell.source[:80]}"


@every_notebook
def test_exported_cells_are_small(notebook):
    sizes = [size(cell.source) for cell in code_cells(notebook) if EXPORT.search(cell.source)]
    if not sizes: return
    assert statistics.median(sizes)<=12 and max(sizes)<=40, f"median {statistics.median(sizes)}, largest {max(sizes)} lines"


@every_notebook
def test_what_is_exported_is_shown(notebook):
    "After each exported cell come a value, a picture or an assertion, before the next"
    waiting = []
    for cell in code_cells(notebook):
        if EXPORT.search(cell.source): waiting += defined(cell.source)[:1]
        elif cell.outputs or PROOF.search(cell.source): waiting = []
        assert len(waiting)<=1, f"nothing is shown between {waiting[0]} and {waiting[-1]}"
    assert not waiting, f"nothing is shown after {waiting}"



@every_notebook
def test_no_leftovers(notebook):
    for cell in code_cells(notebook):
        found = re.search(r"(?<![\w.])print\(|\b(TODO|FIXME|XXX)\b|except\s*:|NotImplementedError", cell.source)
        assert not found, f"{found[0]!r} in: {cell.source[:80]}"


@every_notebook
def test_plots_have_no_size_in_pixels(notebook):
    "The folder's matplotlibrc says it: small where pictures are stored, as wide as the page in the lab; what is saved as a file may say its own"
    for cell in code_cells(notebook):
        assert not re.search(r"subplots\([^\n]*dpi|plt\.figure\([^\n]*dpi|figure\.dpi.{0,3} *=|set_dpi", cell.source), cell.source[:80]
    assert "figure.dpi: 70" in (ROOT/notebook).with_name("matplotlibrc").read_text()


# ---- the package is made from them

@pytest.mark.slow
def test_export_and_clean_change_nothing(tmp_path):
    for name in ("nbs", "audio2pose", "settings.ini", "setup.py", "README.md"):
        copy = shutil.copytree if (ROOT/name).is_dir() else shutil.copy
        copy(ROOT/name, tmp_path/name)
    def state(): return {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    before = state()
    for command in ("nbdev_export", "nbdev_clean"):
        done = subprocess.run([Path(sys.executable).with_name(command)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stdout+done.stderr
    after = state()
    changed = sorted(str(path) for path in before.keys()|after.keys() if before.get(path)!=after.get(path))
    assert not changed, f"run nbdev_export and nbdev_clean, and commit: {changed}"
