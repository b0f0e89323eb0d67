"""Lists the packages, since the search of setuptools knows no root that is the package; pyproject.toml has the rest."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
LAYERS = ("pipeline", "stages", "cache", "configs")
faces = [face.relative_to(ROOT) for layer in LAYERS for face in sorted((ROOT / layer).rglob("__init__.py"))]

setup(
    script_name="setup.py",  # what a package's own build leaves out of the root package
    packages=["teachclip", *(".".join(("teachclip", *face.parent.parts)) for face in faces)],
)
