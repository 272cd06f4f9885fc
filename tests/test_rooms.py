"""Who imports whom: no circles, and no room knows more than CONTRIBUTING allows."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "antehoc_hf": ROOT / "antehoc_hf",
    "antehoc_hf.modeling": ROOT / "modeling",
    "antehoc_hf.training": ROOT / "training",
    "antehoc_hf.model_cards": ROOT / "model_cards",
}
# Room → the rooms it may import; what is not listed may import every room.
ALLOWED = {
    "modeling": set(),
    "model_cards": set(),
    "shapes": {"modeling"},
    "evaluation": {"modeling", "shapes", "visualization", "passes"},
    "explainers": {"modeling", "evaluation", "passes", "lazy"},
    "visualization": {"modeling", "evaluation"},
    "pipelines": {"modeling", "visualization", "commands.errors"},
    "baselines": {"modeling", "model_push", "evaluation"},
    "training": {
        *("modeling", "model_cards", "evaluation", "visualization", "shapes", "graph", "lazy"),
        *("commands.errors", "commands.options", "commands.output", "model_weights", "model_push", "baselines"),
    },
}
# The one that is run as a script, and starts the command line.
DOOR = "antehoc_hf.training.run"


def modules() -> dict[str, Path]:
    found = {}
    for name, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = [part for part in path.relative_to(folder).with_suffix("").parts if part != "__init__"]
            found[".".join([name, *parts])] = path
    return found


def imported(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that the code imports, within functions as well, but not for types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
            base = ".".join([*above, *([child.module] if child.module else [])])
            yield from (f"{base}.{alias.name}" for alias in child.names)
            yield base
        yield from imported(child, package)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module → the modules of ours that it imports."""
    paths = modules()
    graph = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        names = set(imported(ast.parse(path.read_text(encoding="utf-8")), package))
        graph[name] = (names & paths.keys()) - {name}
    assert len(graph) > 150
    return graph


def test_nothing_imports_in_a_circle(graph: dict[str, set[str]]) -> None:
    # A package that is named only on the way to one of its modules is no import of its own.
    edges = {
        name: {other for other in others if not any(third.startswith(f"{other}.") for third in others)}
        for name, others in graph.items()
    }
    try:
        tuple(TopologicalSorter(edges).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_knows_only_what_it_may(room: str, graph: dict[str, set[str]]) -> None:
    own = f"antehoc_hf.{room}"
    allowed = [own, *(f"antehoc_hf.{name}" for name in ALLOWED[room])]
    for name, others in graph.items():
        if name == DOOR or not f"{name}.".startswith(f"{own}."):
            continue
        for other in others - {"antehoc_hf", "antehoc_hf.commands"}:
            assert any(f"{other}.".startswith(f"{place}.") for place in allowed), f"{name} imports {other}"


def test_explaining_does_not_load_the_trainer(graph: dict[str, set[str]]) -> None:
    explainers = [name for name in graph if name.startswith("antehoc_hf.explainers.")]  # imported by name
    reached, waiting = set(), ["antehoc_hf.commands.explain", "antehoc_hf.commands.regions", *explainers]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += graph[name]
    assert "antehoc_hf.explainers.cam" in reached
    assert not {name for name in reached if "trainer" in name or name.startswith("antehoc_hf.training.tasks")}
