"""Rooms, floors and arrows of the house, level by level: how many things a reader of one folder meets at once.

    python benchmarks/house.py [--root CHECKOUT]

A level is a folder with an `__init__.py`. Its rooms are the modules and folders in it; an arrow leads from a room to
another of the same level that something in it imports, anywhere in the file; floors are how deep arrows stack, and a
circle is a group of rooms that lead to each other. What `__init__.py` hands on counts as an arrow to the room it is
taken from. The last line counts all levels together.
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

LAYERS = ("pipeline", "stages", "cache", "configs")
type Modules = dict[str, tuple[bool, ast.Module]]
type Arrows = dict[str, set[str]]


def modules(root: Path) -> Modules:
    """Every module of the package at `root` by name, `stages.train.stage`: whether it is a package, and its code."""
    found = {}
    for layer in LAYERS:
        for file in sorted((root / layer).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            package = parts[-1] == "__init__"
            found[".".join(parts[:-1] if package else parts)] = (package, ast.parse(file.read_text("utf-8")))
    return found


def imports(name: str, package: bool, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module imports of its own package: (module, name in it or "")."""
    here = name.split(".") if package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = here[: len(here) - node.level + 1]
            for alias in node.names:
                yield ".".join([*above, *(node.module or "").split(".")]).strip("."), alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("teachclip."):
            for alias in node.names:
                yield node.module.removeprefix("teachclip."), alias.name
        elif isinstance(node, ast.Import):
            yield from ((a.name.removeprefix("teachclip."), "") for a in node.names if a.name.startswith("teachclip."))


def targets(known: Modules) -> dict[str, set[str]]:
    """The modules that each module leads to, those behind a package's face looked up."""
    faces = {
        (name, taken): source
        for name, (package, tree) in known.items()
        if package
        for source, taken in imports(name, package, tree)
    }
    found: dict[str, set[str]] = {}
    for name, (package, tree) in known.items():
        found[name] = set()
        for source, taken in imports(name, package, tree):
            whole = f"{source}.{taken}".strip(".")
            found[name].add(whole if whole in known else faces.get((source, taken), source))
    return found


def levels(root: Path) -> dict[str, Arrows]:
    """Each level's rooms, and the rooms each of them leads to."""
    known = modules(root)
    leads = targets(known)
    packages = [name for name, (package, _) in known.items() if package]
    found: dict[str, Arrows] = {}
    for level in packages:
        inside = {name[len(level) + 1 :].split(".")[0] for name in leads if name.startswith(f"{level}.")}
        found[level] = {room: set() for room in sorted(inside)}
        for name, others in leads.items():
            if not name.startswith(f"{level}."):
                continue
            room = name[len(level) + 1 :].split(".")[0]
            there = {other[len(level) + 1 :].split(".")[0] for other in others if other.startswith(f"{level}.")}
            found[level][room] |= (there & inside) - {room}
    return found


def floors(arrows: Arrows) -> tuple[int, set[str]]:
    """How deep the arrows stack, and the rooms that lie on a circle, or above one."""
    left, depth = dict(arrows), 0
    while free := [room for room, others in left.items() if not others & left.keys()]:
        depth += 1
        for room in free:
            del left[room]
    return depth, set(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    found = levels(parser.parse_args().root)
    print(f"{'level':32} rooms floors arrows")
    for level, arrows in found.items():
        depth, circle = floors(arrows)
        note = f"  circle: {', '.join(sorted(circle))}" if circle else ""
        print(f"{level.replace('.', '/'):32} {len(arrows):5} {depth:6} {sum(map(len, arrows.values())):6}{note}")
    every = [sum(map(len, arrows.values())) for arrows in found.values()]
    print(f"{len(found)} levels: {sum(map(len, found.values()))} rooms, {sum(every)} arrows; "
          f"at most {max(map(len, found.values()))} rooms and {max(every)} arrows at one")  # fmt: skip


if __name__ == "__main__":
    main()
