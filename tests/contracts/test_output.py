"""All output goes through `blogtune.common.output`, which makes hidden characters visible."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.pipeline import ROOT

ONE = "blogtune/common/output.py"
# Asked by the shell script of the setup, which reads the path that it prints.
PRINTS_A_PATH = "blogtune/common/blas.py"
OTHER_WAYS = {
    *("print", "click.echo", "click.secho", "tqdm.write"),
    *("sys.stdout.write", "sys.stderr.write", "traceback.print_exc"),
}


def calls(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.mark.parametrize("folder", ["blogtune", "commands", "stages"])
def test_nothing_is_printed_in_another_way(folder: str) -> None:
    files = [file for file in (ROOT / folder).rglob("*.py") if "__pycache__" not in file.parts]
    found = {
        (str(file.relative_to(ROOT)), call)
        for file in files
        for call in calls(file)
        if call in OTHER_WAYS
    }
    assert found <= {(ONE, "click.secho"), (PRINTS_A_PATH, "print")}
