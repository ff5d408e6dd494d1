"""Pictures in every form, in and out."""

import io
import pickle

import numpy as np
import PIL.Image
import pytest
import tagbrush
from tagbrush import Image

RGB = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
RGBA = np.arange(5 * 7 * 4, dtype=np.uint8).reshape(5, 7, 4)


def png(array):
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    "form",
    [
        lambda path: str(path),
        lambda path: path,
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: memoryview(b"xx" + path.read_bytes())[2:],
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: open(path, "rb"),
        lambda path: PIL.Image.open(path),
        lambda path: np.asarray(PIL.Image.open(path)),
        lambda path: Image.open(path),
        lambda path: memoryview(Image.open(path)),
    ],
    ids=["str", "Path", "bytes", "bytearray", "memoryview", "slice", "BytesIO", "file", "PIL", "numpy", "Image", "pixels"],
)
def test_every_form_is_the_same_picture(tmp_path, form):
    path = tmp_path / "a.png"
    path.write_bytes(png(RGB))
    source = form(path)
    assert np.array_equal(Image(source), RGB)
    if hasattr(source, "close"):
        source.close()


@pytest.mark.parametrize("array", [RGB, RGBA, RGB[::2, ::-1], RGB.transpose(1, 0, 2), np.asfortranarray(RGBA)])
def test_arrays_of_any_layout(array):
    assert np.array_equal(np.asarray(Image(array)), array)


@pytest.mark.parametrize("grey", [RGB[..., 0], RGB[..., :1]])
def test_greys_become_rgb(grey):
    assert np.array_equal(Image(grey), np.repeat(grey.reshape(5, 7, 1), 3, axis=2))


@pytest.mark.parametrize(
    "array, message",
    [
        (RGB / 255, "float64"),
        (RGB.astype(np.uint16), "uint16"),
        (RGB > 3, "bool"),
        (np.zeros((5, 7), "datetime64[s]"), "datetime64"),
        (RGB.transpose(2, 0, 1), "shape"),
        (RGB[..., :2], "shape"),
        (RGB[0, 0], "shape"),
        (RGB[None], "shape"),
        (RGB[:0], "bytes"),
    ],
)
def test_nothing_is_guessed_about_arrays(array, message):
    with pytest.raises(tagbrush.InvalidInputError, match=message):
        Image(array)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_pillow_modes_are_what_pillow_makes_of_them(mode):
    alpha = mode in ("RGBA", "LA")
    image = PIL.Image.fromarray(RGBA).convert("RGBA" if alpha else "RGB").convert(mode)
    assert np.array_equal(Image(image), np.asarray(image.convert("RGBA" if alpha else "RGB")))


def test_transparent_palettes_and_deep_modes_of_pillow():
    image = PIL.Image.fromarray(RGB).convert("P")
    image.info["transparency"] = 0
    assert Image(image).mode == "RGBA"
    with pytest.raises(tagbrush.InvalidInputError, match="I;16"):
        Image(PIL.Image.new("I;16", (2, 2)))
    with pytest.raises(tagbrush.InvalidInputError, match="mode F"):
        Image(PIL.Image.new("F", (2, 2)))


def test_a_truncated_file_that_pillow_had_opened_is_our_error():
    with pytest.raises(tagbrush.ImageDecodeError) as caught:
        Image(PIL.Image.open(io.BytesIO(png(RGB)[:-30])))
    assert isinstance(caught.value.__cause__, Exception)


@pytest.mark.parametrize("wrong", [None, 3, [RGB], {"a": 1}, object()])
def test_other_objects_are_type_errors(wrong):
    with pytest.raises(TypeError, match="an image is"):
        Image(wrong)


def test_text_files_are_refused():
    with pytest.raises(TypeError, match="binary mode"):
        Image(io.StringIO("x"))


def test_a_failing_file_raises_what_it_raises():
    class Broken:
        def read(self):
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        Image(Broken())


@pytest.mark.parametrize("array", [RGB, RGBA])
def test_out_without_copies(array):
    image = Image(array)
    height, width, channels = array.shape
    assert (image.width, image.height, image.size) == (width, height, (width, height))
    assert image.shape == array.shape and image.mode == ("RGBA" if channels == 4 else "RGB")
    seen = image.to_numpy()
    assert np.array_equal(seen, array) and seen.dtype == np.uint8
    address = image.__array_interface__["data"][0]
    assert seen.__array_interface__["data"][0] == address == np.asarray(image).ctypes.data
    assert not seen.flags.writeable
    view = memoryview(image)
    assert (view.shape, view.strides, view.format, view.readonly) == (
        array.shape, (width * channels, channels, 1), "B", True
    )
    assert bytes(view) == image.tobytes() == array.tobytes()
    del image, view
    assert np.array_equal(seen, array), "the array keeps the pixels alive"


@pytest.mark.parametrize("array", [RGB, RGBA])
def test_to_pillow_both_ways(array):
    image = Image(array)
    for pillow in (image.to_pil(), PIL.Image.fromarray(image)):
        assert pillow.mode == image.mode and np.array_equal(pillow, array)


def test_encoding_and_saving(tmp_path):
    image = Image(RGBA)
    for format in ("png", "webp"):
        assert Image.decode(image.encode(format)) == image
    assert image._repr_png_() == image.encode() == image.encode("png")
    large = Image(np.tile(RGB, (20, 20, 1)))
    assert len(large.encode("jpeg", quality=100)) > len(large.encode("jpeg", quality=10))
    for name in ("a.png", "b.jpg", "c.webp"):
        image.save(tmp_path / name)
        assert Image.open(tmp_path / name).size == image.size
    for call in (
        lambda: image.save(tmp_path / "d.gif"),
        lambda: image.encode("tiff"),
        lambda: image.encode("png", quality=3),
        lambda: image.encode("jpeg", quality=0),
    ):
        with pytest.raises(tagbrush.InvalidInputError):
            call()
    with pytest.raises(tagbrush.InputOutputError):
        image.save(tmp_path / "none" / "a.png")


def test_values_of_their_own():
    image = Image(RGB)
    assert image == Image(RGB) and image != Image(RGBA) and image != 3
    assert pickle.loads(pickle.dumps(image)) == image
    assert repr(image) == "Image(7 x 5, RGB)"
    with pytest.raises(TypeError):
        hash(image)
