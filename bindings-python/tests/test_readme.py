"""The first thing that people try."""

import re
from pathlib import Path

from conftest import ROOT


def test_the_first_lines_of_the_readme_run_offline(capsys, monkeypatch):
    text = (ROOT / "bindings-python/README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    exec(compile(code, str(Path("README.md")), "exec"), {})
    rating, caption = capsys.readouterr().out.strip().split(" | ")
    assert rating == "general" and "circle" in caption
