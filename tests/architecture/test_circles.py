"""No knot: which files lead back to themselves, by imports of any kind; and what only one place may work out."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from test_house import ROOT, SOURCES, functions, imports, parsed, short

MOST_FILES_OF_A_CIRCLE = 3
Graph = dict[str, set[str]]


def module(path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_graph(*, with_types: bool) -> Graph:
    """From each module to those that it imports; `with_types` those under TYPE_CHECKING too."""
    names = {module(path) for path in SOURCES}
    graph: Graph = {}
    for path in SOURCES:
        tree = parsed(path) if with_types else _without_types(parsed(path))
        found = {_module_of(entry.module, names) for entry in imports(tree)}
        graph[module(path)] = {name for name in found if name and name != module(path)}
    return graph


def _without_types(tree: ast.Module) -> ast.Module:
    kept = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    return ast.Module(kept, tree.type_ignores)


def _module_of(name: str, names: set[str]) -> str:
    """lightrft.batch.Batch -> lightrft.batch; "" for other packages."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of two modules or more."""
    reached = {name: _reached(graph, name) for name in graph}
    found = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted(sorted(circle) for circle in found if len(circle) > 1)


def _reached(graph: Graph, start: str) -> set[str]:
    seen, ahead = set(), [start]
    while ahead:
        new = graph[ahead.pop()] - seen
        seen |= new
        ahead.extend(new)
    return seen


def test_no_module_imports_itself_through_others():
    assert circles(import_graph(with_types=False)) == []


def test_no_large_circle_of_types():
    """A name that is imported for its type alone has to be read all the same."""
    large = [circle for circle in circles(import_graph(with_types=True)) if len(circle) > MOST_FILES_OF_A_CIRCLE]
    assert not large


def test_the_surface_stands_on_no_file_that_knows_it():
    graph = import_graph(with_types=True)
    surface = "lightrft.args.surface"
    assert [name for name in _reached(graph, surface) if surface in graph[name]] == []
    assert "lightrft.args.groups.algorithm" in graph[surface]


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"f"}, "f": {"e"}}) == [
        ["a", "b", "c"],
        ["e", "f"],
    ]


# n_samples_per_prompt times a batch size

PER_PROMPT = "n_samples_per_prompt"


def products_with_n(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(function, line) where the samples of a prompt are a factor, under their own name or another."""
    for function in functions(tree):
        names = {PER_PROMPT, *_named_after(function)}
        for node in ast.walk(function):
            factors = (node.left, node.right) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) else ()
            if any(_last_name(factor) in names for factor in factors):
                yield function.name, node.lineno


def _named_after(function: ast.AST) -> Iterator[str]:
    """`n` in `n = a.n_samples_per_prompt` and in `prompts, n = args.x, a.n_samples_per_prompt`."""
    for node in ast.walk(function):
        if isinstance(node, (ast.Assign, ast.NamedExpr)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            several = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = zip(target.elts, node.value.elts, strict=True) if several else [(target, node.value)]
            yield from (_last_name(name) for name, value in pairs if _last_name(value) == PER_PROMPT)


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_one_function_multiplies_by_the_samples_of_a_prompt():
    found = [(short(path), name) for path in SOURCES for name, _ in products_with_n(parsed(path))]
    assert found == [("args/batching.py", "samples_of")]


def test_products_are_found():
    def lines(body: str) -> list[int]:
        return [line for _, line in products_with_n(ast.parse(f"def f(args):\n{body}"))]

    assert lines("    return args.batch.rollout_batch_size * args.algorithm.n_samples_per_prompt") == [2]
    assert lines("    prompts, n = a.rollout, a.n_samples_per_prompt\n    return f'{prompts * n}'") == [3]
    assert lines("    if (n := a.n_samples_per_prompt) > 1:\n        return n * 4") == [3]
    assert lines("    return args.rollout // args.n_samples_per_prompt * 2") == []
