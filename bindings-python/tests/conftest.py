"""What the tests share: the demo tagger, its sample pictures, and small models that edit and generate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tagbrush

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "core/demo/images"
DEMO_SAMPLES = ROOT / "core/demo/edit/samples"
EDIT_MODEL = ROOT / "core/tests/goldens/edit-pipeline"
GENERATE_GOLDENS = ROOT / "core/tests/goldens/generate-pipeline"
GENERATE_MODEL = GENERATE_GOLDENS / "model"


@pytest.fixture(scope="session")
def tagger() -> tagbrush.Tagger:
    return tagbrush.Tagger.load("demo")


@pytest.fixture(scope="session")
def expected() -> dict[str, list[str]]:
    """The true tags of the sample pictures."""
    return json.loads((SAMPLES / "expected.json").read_text())


@pytest.fixture(scope="session")
def samples(expected) -> list[Path]:
    return sorted(SAMPLES / name for name in expected)


@pytest.fixture(scope="session")
def pipeline() -> tagbrush.EditPipeline:
    """A QwenImageEditPipeline with tiny random networks: what it makes is noise, but of the right kind."""
    return tagbrush.EditPipeline.load(EDIT_MODEL, dtype="f32")


@pytest.fixture(scope="session")
def generator() -> tagbrush.GeneratePipeline:
    """An SDXL with tiny random networks."""
    return tagbrush.GeneratePipeline.load(GENERATE_MODEL, dtype="f32")


@pytest.fixture
def plus_folder(tmp_path) -> Path:
    """The same networks as a QwenImageEditPlusPipeline, which takes several references."""
    folder = tmp_path / "plus"
    shutil.copytree(EDIT_MODEL, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "QwenImageEditPlusPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def picture() -> tagbrush.Image:
    pixels = bytes((x * 5 + y * 3 + c * 80) % 256 for y in range(48) for x in range(64) for c in range(3))
    return tagbrush.Image.from_rgb8(64, 48, pixels)
