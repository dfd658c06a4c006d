"The glossary's names exist, and its links lead to the lessons that explain them."
import re
from importlib import import_module
from pathlib import Path

NBS = Path(__file__).parents[1]/"nbs"


def test_every_name_exists():
    rows = re.findall(r"\[`([\w.]+)`\]\(\.\./(\d+_([\w.]+)\.ipynb)\)", (NBS/"guides/glossary.md").read_text(encoding="utf-8"))
    assert len(rows)>50
    for name,file,module in rows:
        assert (NBS/file).exists(), file
        assert name==module or name.startswith(f"{module}."), f"{name} is not explained in {file}"
        if name!=module: assert hasattr(import_module(f"audio2pose.{module}"), name.removeprefix(f"{module}.")), name
