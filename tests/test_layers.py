"Imports point down: a notebook uses only notebooks with lower numbers"
import ast
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
number = {nb.stem.split("_", 1)[1]: int(nb.name[:3]) for nb in sorted(ROOT.glob("nbs/[0-9][0-9][0-9]_*.ipynb"))}
BY_HAND = {"__init__.py", "_modidx.py"} # Not made from a notebook


def source(module): return ROOT/"audio2pose"/(module.replace(".", "/")+".py")


def imports(module):
    "Modules of the package that `module` imports, wherever the import stands"
    package = f"audio2pose.{module}".rpartition(".")[0]
    for node in ast.walk(ast.parse(source(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = resolve_name("."*node.level+(node.module or ""), package) if node.level else node.module
            if base.split(".")[0]!="audio2pose": continue
            yield base.removeprefix("audio2pose").removeprefix(".")
            for alias in node.names: yield f"{base}.{alias.name}".removeprefix("audio2pose.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("audio2pose."): yield alias.name.removeprefix("audio2pose.")


@pytest.mark.parametrize("module", number)
def test_imports_point_down(module):
    up = {name: number[name] for name in imports(module) if name in number and number[name]>=number[module]}
    assert not up, f"{number[module]}_{module} imports {up}"


def test_numbers_are_unique():
    assert len(set(number.values()))==len(number)


def test_every_module_has_its_notebook():
    made = {str(file.relative_to(ROOT/"audio2pose").with_suffix("")).replace("/", ".") for file in (ROOT/"audio2pose").rglob("*.py") if file.name not in BY_HAND}
    assert made<=set(number), f"no notebook makes {sorted(made-set(number))}"


@pytest.mark.parametrize("module", number)
def test_no_notebook_tools_in_the_package(module):
    "The package runs without nbdev, fastcore, IPython and pytest; matplotlib is asked for by `core.require`"
    for node in ast.walk(ast.parse(source(module).read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        wrong = {name.split(".")[0] for name in names}&{"nbdev", "fastcore", "execnb", "IPython", "pytest", "matplotlib", "papermill"}
        assert not wrong, f"{module}, line {node.lineno}: imports {sorted(wrong)}"


@pytest.mark.parametrize("module", number)
def test_what_is_imported_is_used(module):
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    brought = {(alias.asname or alias.name).split(".")[0] for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    assert brought<=used, f"{module} imports {sorted(brought-used)} for nothing"
