"""Makes the pixel goldens: small picture files in every mode that matters, and
what the reference preprocessing of WD14-style taggers makes of each.

    python core/tests/goldens/make_pixels.py

Needs Pillow 13.0.0, the version whose behaviour is recorded. Files that Pillow
cannot write (interlaced PNG, 16-bit RGB PNG, top-down BMP, ...) are put
together by hand in `crafted.py`. The inputs are drawn from fixed seeds, so a
second run gives the same files.

`pixels/index.json` lists every case: the input, the expected picture (plain
8-bit RGB PNG), the model side, whether the input's codec is lossy (decoders may
then differ by a few levels), and a note where Pillow does something unexpected.
`rejects/index.json` lists damaged files with what Pillow says about each, "ok"
for those it reads all the same; those have an expected picture too."""

import hashlib
import io
import json
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

import crafted

HERE = Path(__file__).parent
PIXELS, REJECTS = HERE / "pixels", HERE / "rejects"


def reference(image, side):
    """The preprocessing to be matched: any mode to RGBA, onto white, into a
    white square, bicubic unless the size is right already."""
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "WHITE")
    white.alpha_composite(rgba)
    rgb = white.convert("RGB")
    w, h = rgb.size
    longest = max(w, h)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(rgb, ((longest - w) // 2, (longest - h) // 2))
    if longest != side:
        square = square.resize((side, side), Image.BICUBIC)
    return square


def scene(w, h, seed=1):
    """A colourful test picture: slopes, edges, and a little noise."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, w), np.linspace(0, 1, h))
    rgb = np.stack([255 * x, 255 * y, 255 * (1 - x)], 2)
    rgb[(x - 0.3) ** 2 + (y - 0.4) ** 2 < 0.05] = (230, 30, 60)
    rgb[(abs(x - 0.72) < 0.16) & (abs(y - 0.66) < 0.2)] = (20, 60, 200)
    rgb[abs(y - x) < 0.04] = (255, 255, 255)
    return (rgb + rng.normal(0, 6, rgb.shape)).clip(0, 255).astype(np.uint8)


def alpha(w, h, seed=2):
    """Clear on the left, solid on the right, a slope and a hole between."""
    x, y = np.meshgrid(np.linspace(0, 1, w), np.linspace(0, 1, h))
    a = ((x - 0.25) * 2).clip(0, 1) * 255
    a[(x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.03] = 0
    return a.astype(np.uint8)


def rgb(w=57, h=41, seed=1):
    return Image.fromarray(scene(w, h, seed))


def rgba(w=57, h=41, seed=1):
    return Image.fromarray(np.dstack([scene(w, h, seed), alpha(w, h)]))


def wide(image, seed=3):
    """A 16-bit version whose low bytes differ from its high ones."""
    high = np.asarray(image).astype(np.uint16)
    low = np.random.default_rng(seed).integers(0, 256, high.shape, dtype=np.uint16)
    return high * 256 + low


def saved(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def png_cases():
    """Every PNG layout: (file, bytes, side, note)."""
    grey = np.asarray(rgb().convert("L").point(lambda v: (v - 50) * 1.3))
    colour, clear = scene(57, 41), alpha(57, 41)
    yield "rgb.png", saved(rgb(), "PNG"), 64, ""
    yield "rgba.png", saved(rgba(), "PNG"), 64, "colours lie hidden under alpha 0"
    yield "rgba-exact.png", saved(rgba(32, 32), "PNG"), 32, "no resize: shows the blending alone"
    yield "rgb-exact.png", saved(rgb(64, 64), "PNG"), 64, "no resize"
    yield "grey.png", saved(Image.fromarray(grey), "PNG"), 64, ""
    yield "grey-alpha.png", saved(Image.fromarray(np.dstack([grey, clear])), "PNG"), 64, ""
    for depth in (1, 2, 4):
        packed = (grey >> (8 - depth)).astype(np.uint8)
        yield f"grey{depth}.png", crafted.png(packed, crafted.GREY, depth), 64, ""
        yield f"grey{depth}-trns.png", crafted.png(packed, crafted.GREY, depth, before=[(b"tRNS", b"\0\0")]), 64, "level 0 is transparent"
    for depth in (2, 4):
        packed = (grey >> (8 - depth)).astype(np.uint8)
        note = "level 1 is transparent in the file; compared with levels spread to 0..255, so nothing is"
        yield f"grey{depth}-trns-missed.png", crafted.png(packed, crafted.GREY, depth, before=[(b"tRNS", b"\0\1")]), 64, note
    yield "grey-trns.png", crafted.png(grey // 16 * 16, crafted.GREY, before=[(b"tRNS", b"\0\x70")]), 64, "level 112 is transparent"
    keyed = colour.copy()
    keyed[10:30, 10:30] = (9, 200, 77)
    yield "rgb-trns.png", crafted.png(keyed, crafted.RGB, before=[(b"tRNS", bytes([0, 9, 0, 200, 0, 77]))]), 64, "one colour is transparent"
    yield "interlaced-rgb.png", crafted.png(colour, crafted.RGB, interlaced=True), 64, "Adam7"
    yield "interlaced-rgba.png", crafted.png(np.dstack([colour, clear]), crafted.RGBA, interlaced=True), 64, "Adam7"
    yield "interlaced-grey1.png", crafted.png(grey >> 7, crafted.GREY, 1, interlaced=True), 64, "Adam7"
    yield "interlaced-tiny.png", crafted.png(scene(3, 2), crafted.RGB, interlaced=True), 32, "Adam7, some passes are empty"
    yield "parts.png", crafted.png(colour, crafted.RGB, parts=5), 64, "pixels in five chunks"

    wide_rgb, wide_clear, wide_grey = wide(colour), wide(clear, 4), wide(grey, 5)
    yield "rgb16.png", crafted.png(wide_rgb, crafted.RGB, 16), 64, "the high byte is kept, without rounding"
    yield "rgba16.png", crafted.png(np.dstack([wide_rgb, wide_clear]), crafted.RGBA, 16), 64, "the high bytes are kept"
    yield "grey-alpha16.png", crafted.png(np.dstack([wide_grey, wide_clear]), crafted.GREY_ALPHA, 16), 64, "the high bytes are kept"
    clipped = "opens as I;16, whose conversion clips at 255 instead of scaling: nearly everything turns white"
    yield "grey16.png", crafted.png(wide_grey, crafted.GREY, 16), 64, clipped
    low = (grey.astype(np.uint16) * 5 // 4)
    yield "grey16-low.png", crafted.png(low, crafted.GREY, 16), 64, "samples 0 to 318 of 65535; " + clipped.replace("nearly everything turns white", "a picture is left")
    yield "grey16-trns.png", crafted.png(low // 32 * 32, crafted.GREY, 16, before=[(b"tRNS", b"\0\x60")]), 64, "samples 0 to 318 in steps of 32, level 96 is transparent and is honoured; the others clip at 255"
    wide_key = wide_rgb.copy()
    wide_key[10:30, 10:30] = (0x0901, 0xC802, 0x4D03)
    wide_key[12:20, 12:20] = (0x0911, 0xC812, 0x4D13)
    for name, key, note in (
        ("rgb16-trns", b"\x09\x01\xc8\x02\x4d\x03", "a 16-bit colour key is compared with samples cut to 8 bits, so nothing is transparent"),
        ("rgb16-trns-low", b"\0\x09\0\xc8\0\x4d", "the key (9, 200, 77) occurs nowhere in the file, but matches samples cut to 8 bits"),
    ):
        yield f"{name}.png", crafted.png(wide_key, crafted.RGB, 16, before=[(b"tRNS", key)]), 64, note

    indexed = rgb().quantize(32)
    indices, table = np.asarray(indexed), bytes(indexed.getpalette()[: 32 * 3])
    yield "palette.png", saved(indexed, "PNG"), 64, ""
    yield "palette-trns-one.png", crafted.png(indices, crafted.PALETTE, before=[(b"PLTE", table), (b"tRNS", b"\xff" * 4 + b"\0")]), 64, "one clear entry"
    yield "palette-trns.png", crafted.png(indices, crafted.PALETTE, before=[(b"PLTE", table), (b"tRNS", bytes(range(0, 256, 8)))]), 64, "an alpha for every entry"
    for depth in (1, 2, 4):
        small = rgb().quantize(2**depth)
        before = [(b"PLTE", bytes(small.getpalette()[: 3 * 2**depth])), (b"tRNS", b"\x80")]
        yield f"palette{depth}.png", crafted.png(np.asarray(small), crafted.PALETTE, depth, before=before), 64, "the first entry is half clear"
    yield "palette-short.png", crafted.png(indices, crafted.PALETTE, before=[(b"PLTE", table[: 20 * 3])]), 64, "indices beyond the 20 entries of the palette are black"

    plain = saved(rgb(), "PNG")
    yield "gamma.png", crafted.png_with(plain, [(b"gAMA", (100000).to_bytes(4, "big"))]), 64, "gAMA 1.0 is ignored"
    profile = b"none\0\0" + zlib.compress(b"\0" * 200)
    yield "profile.png", crafted.png_with(plain, [(b"iCCP", profile)]), 64, "a colour profile is ignored"
    yield "background.png", crafted.png_with(saved(rgba(), "PNG"), [(b"bKGD", bytes([0, 255, 0, 0, 0, 0]))]), 64, "the suggested background is ignored"
    frames = [rgb(40, 30), rgb(40, 30, 9)]
    yield "animated.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), 64, "the first frame counts"


def size_cases():
    """Shapes and scales."""
    noise = Image.fromarray(np.random.default_rng(6).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    yield "size-1x1.png", saved(Image.new("RGB", (1, 1), (200, 30, 60)), "PNG"), 32, ""
    yield "size-1x200.png", saved(rgb(1, 200), "PNG"), 64, "the column lies left of the middle or on it: floor((200 - 1) / 2)"
    yield "size-200x1.png", saved(rgb(200, 1), "PNG"), 64, ""
    yield "size-2x1.png", saved(rgb(2, 1), "PNG"), 96, "the padding goes below"
    yield "size-20x13.png", saved(rgb(20, 13), "PNG"), 64, "enlarged"
    yield "size-64x63.png", saved(rgb(64, 63), "PNG"), 64, "padded, not resized"
    yield "size-65x64.png", saved(rgb(65, 64), "PNG"), 64, "reduced by one pixel"
    yield "size-97x64.png", saved(rgb(97, 64), "PNG"), 96, ""
    yield "size-200x150.png", saved(rgb(200, 150), "PNG"), 32, ""
    yield "size-600x450.png", saved(rgb(600, 450).quantize(48), "PNG"), 32, "reduced much"
    yield "noise.png", saved(noise, "PNG"), 64, "every pixel different: shows the rounding between the two passes"
    yield "noise-up.png", saved(noise.crop((0, 0, 23, 31)), "PNG"), 96, "overshoot is clipped in both passes"
    binary = Image.fromarray((np.random.default_rng(8).random((50, 50)) < 0.5).astype(np.uint8) * 255)
    yield "noise-binary.png", saved(binary, "PNG"), 32, "black and white noise: strong overshoot"


def jpeg_cases():
    """Every JPEG layout."""
    for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"jpeg-{name}.jpg", saved(rgb(80, 64), "JPEG", quality=90, subsampling=sampling), 64, ""
        yield f"jpeg-{name}-odd.jpg", saved(rgb(61, 43), "JPEG", quality=85, subsampling=sampling), 64, ""
    yield "jpeg-exact.jpg", saved(rgb(64, 64), "JPEG", quality=90, subsampling=2), 64, "no resize: shows the decoder alone"
    yield "jpeg-progressive.jpg", saved(rgb(80, 64), "JPEG", quality=85, progressive=True), 64, ""
    yield "jpeg-restarts.jpg", saved(rgb(80, 64), "JPEG", quality=85, restart_marker_blocks=2), 64, "restart markers"
    yield "jpeg-low.jpg", saved(rgb(80, 64), "JPEG", quality=12), 64, ""
    yield "jpeg-1x1.jpg", saved(Image.new("RGB", (1, 1), (200, 30, 60)), "JPEG"), 32, ""
    yield "jpeg-grey.jpg", saved(rgb(61, 43).convert("L"), "JPEG", quality=85), 64, ""
    yield "jpeg-rgb.jpg", saved(rgb(61, 43), "JPEG", quality=90, keep_rgb=True), 64, "stored as RGB, Adobe transform 0"
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "jpeg-orientation.jpg", saved(rgb(80, 50), "JPEG", quality=85, exif=exif), 64, "EXIF orientation 6 is ignored"
    yield "jpeg-no-jfif.jpg", crafted.without(saved(rgb(61, 43), "JPEG", quality=85), 0xE0), 64, "no JFIF marker"

    cmyk = saved(rgb(61, 43).convert("CMYK"), "JPEG", quality=90)
    yield "jpeg-cmyk.jpg", cmyk, 64, "CMYK with an Adobe marker, stored inverted"
    yield "jpeg-cmyk-plain.jpg", crafted.without(cmyk, 0xEE), 64, "CMYK without the Adobe marker: Pillow takes it for inverted all the same"
    yield "jpeg-ycck.jpg", crafted.adobe(ycck(rgb(61, 43).convert("CMYK")), 2), 64, "YCCK: Adobe transform 2, stored inverted"


def ycck(cmyk):
    """A CMYK JPEG that holds YCCK: what the decoder turns into inverted CMYK."""
    c, m, y, k = (np.asarray(channel) for channel in cmyk.split())
    ycc = np.asarray(Image.fromarray(np.dstack([c, m, y])).convert("YCbCr"))
    return saved(Image.fromarray(np.dstack([255 - ycc, k]), "CMYK"), "JPEG", quality=90)


def other_cases():
    """WebP, BMP and GIF: (file, bytes, side, note, lossy)."""
    for size, tail in (((80, 64), ""), ((61, 43), "-odd")):
        yield f"webp-lossy{tail}.webp", saved(rgb(*size), "WEBP", quality=80), 64, "", True
    yield "webp-lossy-alpha.webp", saved(rgba(), "WEBP", quality=80), 64, "", True
    yield "webp-lossless.webp", saved(rgb(), "WEBP", lossless=True), 64, "", False
    yield "webp-lossless-alpha.webp", saved(rgba(), "WEBP", lossless=True, exact=True), 64, "", False
    frames = [rgba(50, 40), rgba(50, 40, 9)]
    yield "webp-animated.webp", saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]), 64, "the first frame counts", False
    yield "webp-animated-lossy.webp", saved(rgb(50, 40), "WEBP", quality=80, save_all=True, append_images=[rgb(50, 40, 9)]), 64, "the first frame counts", True

    colour, clear = scene(57, 41), alpha(57, 41)
    yield "bmp24.bmp", saved(rgb(), "BMP"), 64, "", False
    yield "bmp8.bmp", saved(rgb().quantize(40), "BMP"), 64, "", False
    yield "bmp8-grey.bmp", saved(rgb().convert("L"), "BMP"), 64, "", False
    yield "bmp1.bmp", saved(rgb().convert("1"), "BMP"), 64, "", False
    yield "bmp32.bmp", crafted.bmp(colour, bits=32), 64, "32 bits, the fourth byte 0: opaque", False
    yield "bmp32-spare.bmp", crafted.bmp(colour, bits=32, alpha=clear), 64, "32 bits without bit fields, the fourth byte used", False
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield "bmp32-alpha.bmp", crafted.bmp(colour, bits=32, masks=masks, alpha=clear), 64, "bit fields with alpha", False
    yield "bmp32-fields.bmp", crafted.bmp(colour, bits=32, masks=masks[:3], alpha=None), 64, "bit fields without alpha", False
    yield "bmp16-565.bmp", crafted.bmp(colour, bits=16, masks=(0xF800, 0x07E0, 0x001F)), 64, "5 and 6 bits to a channel", False
    yield "bmp16-555.bmp", crafted.bmp(colour, bits=16, masks=(0x7C00, 0x03E0, 0x001F)), 64, "5 bits to a channel", False
    yield "bmp-top-down.bmp", crafted.bmp(colour, top_down=True), 64, "", False

    indexed = rgb(50, 40).quantize(30)
    table = np.array(indexed.getpalette()[: 30 * 3]).reshape(-1, 3).tolist()
    indices = (np.asarray(indexed) + 7) % 30  # so that entry 0 is no white
    table = table[-7:] + table[:-7]
    yield "gif.gif", saved(indexed, "GIF"), 64, "", False
    yield "gif-transparent.gif", crafted.gif([(0, 0, indices)], table, (50, 40), clear_index=4), 64, "", False
    yield "gif-interlaced.gif", crafted.gif([(0, 0, indices)], table, (50, 40), interlaced=True), 64, "", False
    yield "gif-two-frames.gif", crafted.gif([(0, 0, indices), (5, 5, indices[:20, :20])], table, (50, 40), clear_index=4), 64, "the first frame counts", False
    inset = [(10, 8, indices[:24, :30])]
    yield "gif-inset.gif", crafted.gif(inset, table, (50, 40), background=3), 64, "a frame smaller than the screen: entry 0 fills the rest, not the background entry", False
    yield "gif-inset-transparent.gif", crafted.gif(inset, table, (50, 40), clear_index=4, background=3), 64, "a frame smaller than the screen: the clear entry fills the rest", False


def damaged():
    """Files that are broken in some way, or only look so."""
    whole = {
        "rgb.png": saved(rgb(), "PNG"),
        "interlaced.png": crafted.png(scene(57, 41), crafted.RGB, interlaced=True),
        "baseline.jpg": saved(rgb(80, 64), "JPEG", quality=85),
        "progressive.jpg": saved(rgb(80, 64), "JPEG", quality=85, progressive=True),
        "lossy.webp": saved(rgb(), "WEBP", quality=80),
        "lossless.webp": saved(rgb(), "WEBP", lossless=True),
        "palette.gif": saved(rgb(50, 40).quantize(30), "GIF"),
        "plain.bmp": saved(rgb(), "BMP"),
    }
    for name, data in whole.items():
        stem, _, ending = name.rpartition(".")
        for percent in (10, 50, 99):
            yield f"{stem}-{percent}.{ending}", data[: len(data) * percent // 100]
        yield f"{stem}-trailing.{ending}", data + b"left over"
    jpeg = whole["baseline.jpg"]
    yield "no-end.jpg", jpeg[:-2]
    middle = len(jpeg) * 3 // 4
    yield "scrambled.jpg", jpeg[:middle] + bytes(range(1, 41)) + jpeg[middle + 40 :]  # decoders make different pictures of it
    png = whole["rgb.png"]
    at = png.index(b"IDAT")
    yield "bad-pixels.png", png[: at + 300] + bytes([png[at + 300] ^ 0x55]) + png[at + 301 :]
    yield "bad-checksum.png", png[:-16] + bytes([png[-16] ^ 1]) + png[-15:]
    yield "bad-header-checksum.png", png[:29] + bytes([png[29] ^ 1]) + png[30:]
    note = bytearray(crafted.chunk(b"tEXt", b"Comment\0none"))
    note[-1] ^= 1
    yield "bad-note-checksum.png", png[:33] + note + png[33:]
    yield "bad-late-checksum.png", png[:-12] + note + png[-12:]
    yield "no-end.png", png[:-12]
    yield "no-pixels.png", png[: at - 4] + png[-12:]
    yield "no-width.png", crafted.png(np.zeros((4, 0, 3)), crafted.RGB)
    yield "text.png", b"This is no picture.\n"
    yield "empty.png", b""
    yield "empty.jpg", b""
    yield "signature.png", b"\x89PNG\r\n\x1a\n"
    yield "really-png.jpg", png
    yield "really-jpeg.png", jpeg
    yield "really-webp.gif", whole["lossless.webp"]


def pixels_of(path, side):
    with Image.open(path) as image:
        return reference(image, side)


def record(folder, name, picture, side):
    """Writes the expected picture next to its input; returns its entries."""
    expected = f"{name}.expected.png"
    (folder / expected).write_bytes(saved(picture, "PNG", optimize=True))
    return {"expected": expected, "side": side, "sha256": hashlib.sha256(picture.tobytes()).hexdigest()}


def fresh(folder):
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()


def main():
    assert PIL.__version__ == "13.0.0", "the goldens record Pillow 13.0.0"
    fresh(PIXELS)
    cases = [(*case, False) for case in (*png_cases(), *size_cases())]
    cases += [(*case, True) for case in jpeg_cases()]
    cases += other_cases()
    index = []
    for name, data, side, note, lossy in cases:
        (PIXELS / name).write_bytes(data)
        with Image.open(PIXELS / name) as image:
            entry = {"file": name, "mode": image.mode}
        entry |= record(PIXELS, name, pixels_of(PIXELS / name, side), side) | {"lossy": lossy}
        index.append(entry | ({"note": note} if note else {}))
    (PIXELS / "index.json").write_text(json.dumps(index, indent=1) + "\n")

    fresh(REJECTS)
    index = []
    for name, data in damaged():
        (REJECTS / name).write_bytes(data)
        try:
            entry = {"file": name, "pillow": "ok"} | record(REJECTS, name, pixels_of(REJECTS / name, 32), 32)
            entry["lossy"] = data[:3] == b"\xff\xd8\xff" or data[12:16] == b"VP8 "
        except Exception as error:  # whatever Pillow raises is the record
            entry = {"file": name, "pillow": f"{type(error).__name__}: {error}".replace(str(REJECTS) + "/", "")}
        index.append(entry)
    (REJECTS / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
