"""Every kind of error of the core is a class that also is the builtin people expect."""

import pickle

import pytest
import tagbrush
from tagbrush import _core, errors

BUILTINS = {
    "invalid_input": ValueError,
    "image_decode": ValueError,
    "image_too_large": ValueError,
    "model_not_found": FileNotFoundError,
    "model_invalid": ValueError,
    "download": OSError,
    "unsupported": NotImplementedError,
    "device_unavailable": RuntimeError,
    "out_of_memory": MemoryError,
    "cancelled": Exception,
    "io": OSError,
    "internal": RuntimeError,
}


def test_every_kind_has_a_class_of_its_own():
    kinds = dict(_core.error_classes())
    assert kinds.keys() == BUILTINS.keys()
    assert len(set(kinds.values())) == len(kinds), "kinds share a class"
    for code, name in kinds.items():
        kind = getattr(errors, name)
        assert kind is not errors.TagbrushError, code
        assert issubclass(kind, errors.TagbrushError) and issubclass(kind, BUILTINS[code])
        assert kind.code == code
        assert getattr(tagbrush, name) is kind


def test_message_code_and_context(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        tagbrush.Tagger.load("owner/name", offline=True, cache_dir=tmp_path)
    error = caught.value
    assert isinstance(error, tagbrush.ModelNotFoundError)
    assert error.code == "model_not_found"
    assert error.context["model"] == "owner/name"
    assert "owner/name" in str(error) and "\n" not in str(error)


def test_causes_are_notes_unless_told_already(tagger, tmp_path):
    with pytest.raises(OSError) as caught:
        tagger.tag(tmp_path / "none.png")
    assert caught.value.code == "io"
    assert caught.value.context["file"].endswith("none.png")
    assert "No such file" in str(caught.value)
    assert not getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("name", [name for _, name in _core.error_classes()])
def test_exceptions_travel_between_processes(name):
    error = getattr(errors, name)("broken", {"file": "a.png"})
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.context, again.code) == ("broken", {"file": "a.png"}, error.code)


def test_a_device_is_never_replaced():
    with pytest.raises(tagbrush.DeviceUnavailableError):
        tagbrush.Tagger.load(device="metal")
    with pytest.raises(tagbrush.InvalidInputError, match="gpu"):
        tagbrush.Tagger.load(device="gpu")
