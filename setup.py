"Reads settings.ini: every NAME_requirements line becomes the extra NAME"
import configparser
import shlex
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
settings = configparser.ConfigParser(delimiters=["="])
settings.read(ROOT/"settings.ini", encoding="utf-8")
s = settings["DEFAULT"]
suffix = "_requirements"
extras = {name.removesuffix(suffix): shlex.split(line) for name,line in s.items() if name.endswith(suffix)}

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
    package_data={"audio2pose": ["assets/*", "assets/*/*"]},
    install_requires=shlex.split(s["requirements"]),
    extras_require=extras,
    entry_points={
        "console_scripts": shlex.split(s["console_scripts"]),
        "nbdev": ["audio2pose = audio2pose._modidx:d"],
    },
    zip_safe=False,
)
