"Reads settings.ini: every NAME_requirements line becomes the extra NAME"
import configparser
import shlex
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
settings = configparser.ConfigParser(delimiters=["="])
settings.read(ROOT/"settings.ini", encoding="utf-8")
s = settings["DEFAULT"]
suffix = "_requirements"
extras = {name.removesuffix(suffix): shlex.split(line) for name,line in s.items() if name.endswith(suffix)}


class BuildWithRuns(build_py):
    "Copies runs, guides, lessons and their pictures into the package, into audio2pose/assets; a checkout uses those in nbs"
    def run(self):
        super().run()
        if self.editable_mode: return
        assets = Path(self.build_lib)/"audio2pose"/"assets"
        for name in ("runs", "guides", "images"):
            if not (ROOT/"nbs"/name).is_dir(): continue
            shutil.copytree(ROOT/"nbs"/name, assets/name, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        for lesson in (ROOT/"nbs").glob("[0-9]*_*.ipynb"):
            (assets/"lessons").mkdir(exist_ok=True)
            shutil.copy(lesson, assets/"lessons")


setup(
    name=s["lib_name"],
    version=s["version"],
    description=s["description"],
    long_description=(ROOT/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=s["author"],
    author_email=s["author_email"],
    url=s["git_url"],
    keywords=s["keywords"],
    license="Apache-2.0",
    python_requires=f">={s['min_python']}",
    packages=find_packages(include=["audio2pose", "audio2pose.*"]),
    package_data={"audio2pose": ["assets/*", "assets/*/*", "assets/*/*/*"]},
    install_requires=shlex.split(s["requirements"]),
    extras_require=extras,
    entry_points={
        "console_scripts": shlex.split(s["console_scripts"]),
        "nbdev": ["audio2pose = audio2pose._modidx:d"],
    },
    cmdclass={"build_py": BuildWithRuns},
    zip_safe=False,
)
