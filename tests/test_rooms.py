"""The house: rooms import only from rooms below them, in no circle, and Ray stays in its room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
LONG = 300  # lines; a longer module says why in its opening words: "Long, since …"


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package: dotted name below it, and what is in it."""
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(file.read_text())


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


def room_of(name: str) -> str:
    return name.split(".")[0]


def test_every_room_has_a_floor():
    rooms = {room_of(name) for name, _ in modules()} - {"__init__"}
    assert rooms <= set(FLOOR), rooms - set(FLOOR)


def test_arrows_go_down():
    wrong = set()
    for name, tree in modules():
        if name == "__init__":
            continue  # the public face
        for found in imports(tree):
            other, own = room_of(found.removeprefix("ldsaug_ray.")), room_of(name)
            if found.startswith("ldsaug_ray.") and other in FLOOR and other != own and FLOOR[other] <= FLOOR[own]:
                wrong.add(f"{name} imports {found}")
    assert not wrong, "\n".join(sorted(wrong))


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
