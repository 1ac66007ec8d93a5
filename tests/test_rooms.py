"""The house: rooms import only from rooms below them, in no circle, and Ray stays in its room."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ldsaug_ray"
# from the top floor down; rooms on one line stand beside each other, and know nothing of each other
FLOORS = [
    ("__main__",),
    ("cli",),
    ("commands",),
    ("api",),
    ("search",),
    ("experiment",),
    ("stages",),
    ("report",),
    ("engines",),
    ("run",),
    ("metrics",),
    ("selection",),
    ("domains", "models"),
    ("lds",),
    ("config",),
    ("common",),
    ("errors",),
]
FLOOR = {room: n for n, rooms in enumerate(FLOORS) for room in rooms}
NAMED = r"(ldsaug_ray(?:\.\w+)+)(?::\w+)?"  # a module, or something in it
# the only looks upwards, when they are first asked: settings ask a registry what a name means, and the pipeline has the
# stages declare themselves
ASKED = {*(("config", room) for room in ("lds", "selection", "models", "domains", "metrics")), ("run", "stages")}
LONG = 300  # lines; a longer module says why in its opening words: "Long, since …"


@cache
def modules() -> list[tuple[str, ast.Module]]:
    """Every module of the package: dotted name below it, and what is in it."""
    files = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [(name, ast.parse(file.read_text())) for name, file in zip(names, files, strict=True)]


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports, at its top or in a function, but for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def named(tree: ast.AST) -> Iterator[str]:
    """What a module imports by a name in a string: `room_of("lds")`, `"ldsaug_ray.engines.ray:RayEngine"`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "room_of":
            (room,) = node.args
            yield f"ldsaug_ray.{ast.literal_eval(room)}"
        elif isinstance(node, ast.Constant) and (found := re.fullmatch(NAMED, str(node.value))) is not None:
            yield found[1]


def room_of(name: str) -> str:
    return name.split(".")[0]


def goes_up(name: str, found: str) -> bool:
    """Whether a module imports from a room that is not below its own."""
    other, own = room_of(found.removeprefix("ldsaug_ray.")), room_of(name)
    return found.startswith("ldsaug_ray.") and other in FLOOR and other != own and FLOOR[other] <= FLOOR[own]


def test_every_room_has_a_floor():
    rooms = {room_of(name) for name, _ in modules()} - {"__init__"}
    assert rooms <= set(FLOOR), rooms - set(FLOOR)


def test_arrows_go_down():
    wrong = set()
    for name, tree in modules():
        if name == "__init__":
            continue  # the public face
        for found in imports(tree):
            if goes_up(name, found):
                wrong.add(f"{name} imports {found}")
    assert not wrong, "\n".join(sorted(wrong))


def test_what_looks_up_is_known():
    below_the_face = [(name, tree) for name, tree in modules() if name != "__init__"]
    found = [(name, other) for name, tree in below_the_face for other in named(tree) if goes_up(name, other)]
    assert {(room_of(name), room_of(other.removeprefix("ldsaug_ray."))) for name, other in found} == ASKED, found


def test_no_circles():
    known = {name for name, _ in modules()}
    graph: dict[str, set[str]] = {}
    for name, tree in modules():
        found = {other.removeprefix("ldsaug_ray.") for other in imports(tree) if other.startswith("ldsaug_ray.")}
        # a package's own face imports its modules, which import one another directly
        graph[name] = {other for other in found & known if other != name.rpartition(".")[0]}
    assert set(TopologicalSorter(graph).static_order()) == known  # CycleError names the circle


def test_ray_stays_in_its_room():
    wrong = [
        f"{name} imports {found}"
        for name, tree in modules()
        if not name.startswith("engines.ray")
        for found in imports(tree)
        if room_of(found) == "ray"
    ]
    assert not wrong, wrong


def test_a_long_module_says_why():
    for file in sorted(PACKAGE.rglob("*.py")):
        lines = len(file.read_text().splitlines())
        opening = (ast.get_docstring(ast.parse(file.read_text())) or "").lower()
        assert lines <= LONG or "long, since" in opening, f"{file.relative_to(PACKAGE)}: {lines} lines, and no reason"
