"""The notebooks run offline from their first cell to their last, and every cell shows something."""

import base64
import functools
import html
import json
import re

import nbformat
import pytest
import tagbrush
from conftest import ROOT
from nbclient import NotebookClient

EXAMPLES = ROOT / "bindings-python/examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


@pytest.fixture(scope="module")
def run():
    """A notebook with what its cells show; each runs once."""

    @functools.cache
    def run(name):
        notebook = nbformat.read(EXAMPLES / name, as_version=4)
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}})
        return client.execute()

    return run


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def text(cells):
    return "".join(output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout")


def shown(cells, kind):
    return [output.data[kind] for cell in cells for output in cell.outputs if kind in output.get("data", {})]


def test_there_are_two():
    assert NOTEBOOKS == ["editing.ipynb", "tagging.ipynb"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_kept_without_outputs(name):
    notebook = json.loads((EXAMPLES / name).read_text())
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    nbformat.validate(notebook)


# Jupyter warns of its own next versions.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_shows_something_and_none_complains(run, name):
    for cell in code(run(name)):
        assert cell.outputs, cell.source
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result"), output
            assert output.get("name") != "stderr", output


@pytest.mark.filterwarnings("default")
def test_what_the_tagging_notebook_finds(run, expected):
    notebook = run("tagging.ipynb")
    cells = code(notebook)
    owl = expected["owl.png"]
    bars = next(table for table in shown(cells, "text/html") if "width:" in table)
    assert all(html.escape(name) in bars for name in owl["tags"] + owl["characters"])
    lines = text(cells).splitlines()
    for name, tags in expected.items():
        [line] = [line for line in lines if re.match(rf"{re.escape(name)} +\[", line)]
        assert f"[{tags['rating']}]" in line
    by_threshold = [len(line.split(",")) for line in lines if re.match(r"0\.\d+ ", line)]
    assert len(by_threshold) == 3 and by_threshold == sorted(by_threshold, reverse=True)
    assert by_threshold[0] > by_threshold[2]
    assert any(line.startswith("io {'file': 'nowhere.png'") for line in lines)
    assert len([line for line in lines if line.startswith("failed: ")]) == 2
    assert "Summary(tagged=5, skipped=0, failures=[], cancelled=True)" in lines
    assert f"Summary(tagged={len(expected) - 5}, skipped=5, failures=[], cancelled=False)" in lines
    assert f"{len(expected)}/{len(expected)}" in json.dumps(notebook.metadata), "the bar"


@pytest.mark.filterwarnings("default")
def test_what_the_editing_notebook_makes(run):
    cells = code(run("editing.ipynb"))
    first = next(table for table in shown(cells, "text/html") if table.count("<img") == 2)
    before, after = (
        tagbrush.Image(base64.b64decode(data)).to_numpy() for data in re.findall(r'base64,([^"]+)"', first)
    )
    assert abs(after[2, 2].astype(int) - [250, 214, 72]).max() < 40, "yellow"
    assert abs(before[2, 2].astype(int) - [252, 252, 252]).max() < 40, "white"
    lines = text(cells).splitlines()
    assert "the same picture: True" in lines and "[7, 8, 9, 10]" in lines
    assert {"make the circle green", "make it greyscale", "remove the circle"} < set(lines)
    strips = [tagbrush.Image(base64.b64decode(data)) for data in shown(cells, "image/png")]
    assert sum(image.width >= 4 * image.height for image in strips) == 4, "variants, a batch before and after, previews"
    assert [line for line in lines if line.startswith("failed: ") and "nowhere.png" in line]
    assert any("'request': '1'" in line for line in lines)
    assert "cancelled (request=0)" in lines and "True" in lines
