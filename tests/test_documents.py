"""The documents' examples fit the code."""

import ast
import inspect
import pathlib
import re

import pytest

import sact_tf

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, code in enumerate(
        re.findall(
            r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S
        )
    )
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_names_and_arguments_are_there(code):
    tree = ast.parse(code)
    imports = [
        node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {"sact_tf": sact_tf}
    exec(compile(ast.Module(imports, []), "imports", "exec"), names)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        root = call.func
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or root.id not in names:
            continue
        called = eval(ast.unparse(call.func), names)
        if not getattr(called, "__module__", "").startswith("sact_tf"):
            continue
        inspect.signature(called).bind(
            *call.args, **{keyword.arg: keyword.value for keyword in call.keywords}
        )
        if called is sact_tf.ResNet:
            eval(ast.unparse(call), names)


def test_examples_are_found():
    assert len(EXAMPLES) > 5
