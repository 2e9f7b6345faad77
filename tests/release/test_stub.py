"""`hw3tf/_core.pyi`: the types of a module in C++ are what the module says."""

import ast
import pathlib
import re

import pytest

from hw3tf import _core

STUB = pathlib.Path(__file__).parents[2] / "hw3tf/_core.pyi"
FUNCTIONS = {
    node.name: node
    for node in ast.parse(STUB.read_text()).body
    if isinstance(node, ast.FunctionDef)
}


def parameters_of(function):
    """Name, kind and default of each parameter, from the tree of a definition."""
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    missing = [None] * (len(positional) - len(args.defaults))
    groups = (
        ("positional", positional, missing + args.defaults),
        ("keyword", args.kwonlyargs, args.kw_defaults),
    )
    return [
        (x.arg, kind, None if default is None else ast.literal_eval(default))
        for kind, names, defaults in groups
        for x, default in zip(names, defaults, strict=True)
    ]


def definition_in(docstring):
    """The signature that pybind11 writes into the first line, as a tree."""
    first = docstring.strip().splitlines()[0]
    return ast.parse(f"def {first}: ...").body[0]


def plain(annotation):
    """A type as both write it, as far as both know it; empty if they do not."""
    text = ast.unparse(annotation)
    supports = re.fullmatch(r"typing\.Supports(Int|Float)\b.*", text)
    text = supports[1].lower() if supports else text
    return text if text in ("int", "float", "bool", "str", "list[str]", "None") else ""


def test_stub_has_the_names_of_the_module():
    public = {name for name in vars(_core) if not name.startswith("_")}
    assert public == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stub_has_the_signature_of_the_function(name):
    ours, theirs = FUNCTIONS[name], definition_in(getattr(_core, name).__doc__)
    assert parameters_of(ours) == parameters_of(theirs)
    types = {
        x.arg: plain(x.annotation) for x in (*theirs.args.args, *theirs.args.kwonlyargs)
    }
    for x in (*ours.args.args, *ours.args.kwonlyargs):
        if types[x.arg]:
            assert plain(x.annotation) == types[x.arg], x.arg
    if plain(theirs.returns):
        assert plain(ours.returns) == plain(theirs.returns)
