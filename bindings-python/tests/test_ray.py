"""The class for Ray Data and Spark, called as they call it. Neither of them is needed."""

import pickle

import numpy as np
import pytest
import tagbrush
from tagbrush.ray import TagImages, labels


def column(values):
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def test_columns_say_what_tag_batch_says(tagger, samples):
    batch = {"bytes": column([path.read_bytes() for path in samples]), "path": np.array([str(p) for p in samples])}
    # Ray passes all of them by name.
    out = TagImages(model="demo", keep=["path"], threshold=0.2)(batch)
    assert out.keys() == {"path", "tag_index", "tag_score", "rating", "error"}
    assert out["path"] is batch["path"]
    names = [label.name for label in labels()]
    for i, tags in enumerate(tagger.tag_batch(samples, threshold=0.2)):
        assert [names[n] for n in out["tag_index"][i]] == [tag.name for tag in tags]
        assert [np.float32(tag.score) for tag in tags] == list(out["tag_score"][i])
        assert (out["rating"][i], out["error"][i]) == (tags.rating.name, "")
        assert out["tag_index"][i].dtype == np.int32 and out["tag_score"][i].dtype == np.float32


def test_rows_fail_alone(samples):
    good = samples[0].read_bytes()
    out = TagImages()({"bytes": column([good, None, b"", b"junk", good])})
    codes = [error.split(":")[0] for error in out["error"]]
    assert codes == ["", "invalid_input", "image_decode", "image_decode", ""]
    assert [len(row) > 0 for row in out["tag_index"]] == [True, False, False, False, True]
    assert out["rating"][1] == ""
    assert np.array_equal(out["tag_index"][0], out["tag_index"][4])


def test_other_columns_and_kinds_of_pictures(samples, picture):
    out = TagImages(column="photo")({"photo": np.array([str(samples[0]), "none.png"])})
    assert out["error"][0] == "" and out["error"][1].startswith("io:")
    stack = np.stack([picture.to_numpy()] * 2)
    assert list(TagImages(column="image")({"image": stack})["error"]) == ["", ""]
    assert len(TagImages()({"bytes": column([])})["error"]) == 0


def test_mistakes_are_found_by_the_constructor():
    with pytest.raises(TypeError, match="treshold"):
        TagImages(treshold=0.3)
    with pytest.raises(tagbrush.InvalidInputError):
        TagImages(order="size")
    with pytest.raises(tagbrush.ModelNotFoundError):
        TagImages("/no/such/model")
    with pytest.raises(tagbrush.InvalidInputError, match="error"):
        TagImages(keep=["error"])
    with pytest.raises(TypeError):
        TagImages(keep="path")
    with pytest.raises(tagbrush.InvalidInputError, match="no column 'bytes'; it has"):
        TagImages()({"image": column([])})


def test_the_object_travels_too(samples):
    batch = {"bytes": column([samples[0].read_bytes()])}
    made = TagImages(threshold=0.2, batch_size=3)
    again = pickle.loads(pickle.dumps(made))
    assert np.array_equal(again(batch)["tag_index"][0], made(batch)["tag_index"][0])
