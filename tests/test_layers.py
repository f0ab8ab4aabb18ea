"""The layers of the template: a module imports from its own package and from layers below, and none in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistakes import TEMPLATE

LAYERS = [
    {"core", "Project"},
    {"config"},
    {"data", "models", "losses", "metrics"},
    {"evaluation"},
    {"training"},
    {"callbacks"},
    {"insights", "deployment"},
    {"utils"},
    {path.stem for path in TEMPLATE.glob("*.py")} - {"Project", "config", "utils"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
MODULES = {
    ".".join(path.relative_to(TEMPLATE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in TEMPLATE.rglob("*.py")
    if not {"tests", "checkpoint", "dataset"} & set(path.relative_to(TEMPLATE).parts)
}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of the template that a file imports, at once or inside functions, but for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_package_and_from_layers_below(module):
    package = module.partition(".")[0]
    for name in imported(MODULES[module]):
        other = name.partition(".")[0]
        same = other == package or {package, other} <= LAYERS[0]
        assert same or LAYER[other] < LAYER[package], f"{module} imports {name}"


def test_no_modules_import_one_another_in_a_circle():
    graph = {module: {name for name in imported(path) if name != module} for module, path in MODULES.items()}
    # a module may import from its own package, which imports all of its modules
    for name, others in graph.items():
        graph[name] = {other for other in others if other != name.rpartition(".")[0]}
    while leaves := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert not graph
