"""Picture files put together byte by byte, for what Pillow reads but cannot
write: PNG with every colour type, depth and interlacing, odd BMP and GIF layouts,
and JPEG files with markers changed."""

import struct
import zlib

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _rows(samples, depth):
    """Scan lines of packed samples; every second one uses the filter "sub"
    where samples are whole bytes."""
    out = b""
    for k, row in enumerate(samples):
        if depth == 16:
            line, step = row.astype(">u2").tobytes(), 2 * row.shape[-1]
        elif depth == 8:
            line, step = row.astype(np.uint8).tobytes(), row.shape[-1]
        else:
            bits = np.unpackbits(row.reshape(-1, 1).astype(np.uint8), axis=1)[:, 8 - depth :]
            line, step = np.packbits(bits).tobytes(), 0
        if step and k % 2:
            data = np.frombuffer(line, np.uint8).astype(np.int16)
            data[step:] -= np.frombuffer(line, np.uint8)[:-step].astype(np.int16)
            out += b"\1" + (data % 256).astype(np.uint8).tobytes()
        else:
            out += b"\0" + line
    return out


def png(samples, colour, depth=8, interlaced=False, before=(), parts=1):
    """A PNG of samples (height x width [x channels]); `before` are chunks
    (name, data) ahead of the pixels, which come in `parts` chunks."""
    samples = np.asarray(samples)
    if samples.ndim == 2:
        samples = samples[..., None]
    h, w = samples.shape[:2]
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7]
        raw = b"".join(_rows(p, depth) for p in passes if p.size)
    else:
        raw = _rows(samples, depth)
    data = zlib.compress(raw, 9)
    cut = -(-len(data) // parts)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlaced)))
    out += b"".join(chunk(name, body) for name, body in before)
    out += b"".join(chunk(b"IDAT", data[k : k + cut]) for k in range(0, len(data), cut))
    return out + chunk(b"IEND", b"")


def png_chunks(data):
    """The chunks of a PNG as (name, body)."""
    at = 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def png_with(data, extra):
    """The PNG with chunks added right after its header."""
    out = data[:8]
    for name, body in png_chunks(data):
        out += chunk(name, body)
        if name == b"IHDR":
            out += b"".join(chunk(n, b) for n, b in extra)
    return out


def bmp(rgb, top_down=False, bits=24, masks=None, alpha=None):
    """A BMP of 24 or 32 bits, or of 16 or 32 with bit fields (`masks`)."""
    h, w = rgb.shape[:2]
    if masks:
        channels = list(np.moveaxis(rgb, 2, 0)) + ([alpha] if alpha is not None else [])
        value = np.zeros((h, w), np.uint32)
        for channel, mask in zip(channels, masks):
            low = (mask & -mask).bit_length() - 1
            width = mask.bit_length() - low
            value |= (channel.astype(np.uint32) >> (8 - width)) << low
        rows = value.astype("<u2" if bits == 16 else "<u4")
    else:
        bgr = rgb[:, :, ::-1]
        rows = np.dstack([bgr, alpha if alpha is not None else np.zeros((h, w), np.uint8)]) if bits == 32 else bgr
    lines = [r.tobytes() for r in rows]
    lines = [line + b"\0" * (-len(line) % 4) for line in lines]
    body = b"".join(lines if top_down else lines[::-1])
    extra = b"".join(struct.pack("<I", m) for m in masks or ())
    size = 40 + len(extra)
    if masks and len(masks) == 4:  # a fourth mask needs the larger header
        extra, size = extra + b"\0" * (108 - 40 - len(extra)), 108
    start = 14 + size
    head = struct.pack("<IiiHHIIiiII", size if size == 108 else 40, w, -h if top_down else h, 1, bits, 3 if masks else 0, len(body), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + extra + body


def segments(jpeg):
    """The marker segments of a JPEG up to the scan: (marker, body), and the rest."""
    at, found = 2, []
    while jpeg[at + 1] != 0xDA:
        (size,) = struct.unpack(">H", jpeg[at + 2 : at + 4])
        found.append((jpeg[at + 1], jpeg[at + 4 : at + 2 + size]))
        at += 2 + size
    return found, jpeg[at:]


def jpeg_of(found, rest):
    out = b"\xff\xd8"
    for marker, body in found:
        out += struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    return out + rest


def without(jpeg, marker):
    """The JPEG without its segments of one kind."""
    found, rest = segments(jpeg)
    return jpeg_of([s for s in found if s[0] != marker], rest)


def adobe(jpeg, transform):
    """The JPEG with an Adobe marker that names the given colour transform."""
    found, rest = segments(jpeg)
    found = [s for s in found if s[0] != 0xEE]
    return jpeg_of([(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))] + found, rest)


def gif_lzw(indices, bits):
    """GIF image data in its simplest form: every pixel a code of its own."""
    clear = 1 << bits
    width, out, held, count = bits + 1, bytearray(), 0, 0
    codes = []
    for k, index in enumerate(indices):
        if k % (clear - 2) == 0:
            codes.append(clear)
        codes.append(int(index))
    for code in codes + [clear + 1]:
        held |= code << count
        count += width
        while count >= 8:
            out.append(held & 255)
            held, count = held >> 8, count - 8
    out.append(held & 255)
    blocks = b"".join(bytes([len(out[k : k + 255])]) + bytes(out[k : k + 255]) for k in range(0, len(out), 255))
    return bytes([bits]) + blocks + b"\0"


def gif(frames, palette, screen, clear_index=None, background=0, interlaced=False):
    """A GIF of frames (x, y, index array) on a screen of the given size."""
    bits = max(2, (len(palette) - 1).bit_length())
    table = bytes(v for colour in palette for v in colour).ljust(3 << bits, b"\0")
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80 | (bits - 1), background, 0) + table
    for x, y, indices in frames:
        h, w = indices.shape
        if clear_index is not None:
            out += b"\x21\xf9\x04" + struct.pack("<BHBB", 1, 10, clear_index, 0)
        rows = indices
        if interlaced:
            rows = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
        out += b"\x2c" + struct.pack("<HHHHB", x, y, w, h, 0x40 if interlaced else 0) + gif_lzw(rows.flatten(), bits)
    return out + b"\x3b"
