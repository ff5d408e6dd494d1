"""The prompts of the demo model that generates, in English and Chinese, and the
tokenizer that has just the words of them.

A prompt names one or two shapes with their colours and, unless it is white, the
background. A tokenizer of CLIP cuts a text into runs of letters, and Chinese has no
spaces, so Chinese words have tokens both for the middle and for the end of a run."""

import json

from transformers import CLIPTokenizer

from edit_words import COLOURS, SHAPES

LENGTH = 24  # tokens of a prompt, those around it counted
END = "</w>"
AROUND = ["<|startoftext|>", "<|endoftext|>"]
ONE = {
    "en": ["{x} on {b}", "{x} on a {b} background", "{x}, {b} background", "a {b} background with {x}"],
    "zh": ["{b}背景上的{x}", "{x}，{b}背景", "{b}背景，{x}"],
}
ON_WHITE = "white"  # what a background is that is not named
JOINED = {"en": "{x} and {y}", "zh": "{x}和{y}"}
# How the Chinese phrases fall into words, so that a token is never part of two.
WORDS = "一个 背景 上 的 和".split()


def article(rest):
    return ("an " if rest[0] in "aeiou" else "a ") + rest


def named(rng, language, shape, colour):
    """A shape in words."""
    if language == "en":
        return article(f"{colour} {shape}")
    return "一个" * (rng.random() < 0.4) + COLOURS[colour] + "的" * (rng.random() < 0.2) + rng.choice(SHAPES[shape])


def prompt(rng, language, background, shapes):
    """One of the ways to ask for shapes, pairs of kind and colour, in their order."""
    x = named(rng, language, *shapes[0])
    if len(shapes) == 2:
        x = JOINED[language].format(x=x, y=named(rng, language, *shapes[1]))
    if background == ON_WHITE and rng.random() < 0.4:
        text = x
    else:
        text = rng.choice(ONE[language]).format(x=x, b=background if language == "en" else COLOURS[background])
        text = text.replace("a orange", "an orange")
    return text + ("." if language == "en" else "。") * (rng.random() < 0.15)


def _byte_letters():
    """The characters that stand for bytes, in the order of CLIP's vocabulary."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in seen}
    letters |= {byte: chr(256 + k) for k, byte in enumerate(b for b in range(256) if b not in letters)}
    return letters


LETTERS = _byte_letters()


def symbols(word, ends):
    found = [LETTERS[byte] for byte in word.encode()]
    return found[:-1] + [found[-1] + END * ends]


def joined(items, merges, pair):
    """The items with every occurrence of the pair as one symbol."""
    merges.append(pair)
    for item in items:
        k = 0
        while k + 1 < len(item):
            if (item[k], item[k + 1]) == pair:
                item[k : k + 2] = ["".join(pair)]
            k += 1


def learn(items, merges):
    """Merges the most frequent pair until every item is one symbol."""
    for pair in list(merges):
        joined(items, [], pair)
    while any(len(item) > 1 for item in items):
        counts = {}
        for item in items:
            for pair in zip(item, item[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        joined(items, merges, max(sorted(counts), key=counts.get))


def vocabulary():
    """Words with their numbers, and merges, as CLIP counts them."""
    merges, chinese = [], [*WORDS, *COLOURS.values(), *(name for names in SHAPES.values() for name in names)]
    # Characters first, so that no merge goes from one into the next.
    characters = sorted(set("".join(chinese)) | set("，。"))
    learn([symbols(c, ends) for c in characters for ends in (False, True)], merges)
    learn([symbols(word, ends) for word in chinese for ends in (False, True)], merges)
    english = {"a", "an", "on", "and", "with", "background", *COLOURS, *SHAPES}
    learn([symbols(word, True) for word in sorted(english)], merges)
    bytes_ = list(LETTERS.values())
    words = [*bytes_, *(b + END for b in bytes_), *("".join(pair) for pair in merges), *AROUND]
    return {word: k for k, word in enumerate(words)}, merges


def write(folder, pad):
    """The files of a tokenizer as published with SDXL; `pad` is behind a prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    words, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(words, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": AROUND[0], "eos_token": AROUND[1], "unk_token": AROUND[1], "pad_token": pad}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")


PADS = {"tokenizer": AROUND[1], "tokenizer_2": "!"}


def tokenizers(folder):
    """The tokenizers of both text encoders, out of files that are written to `folder`."""
    for name, pad in PADS.items():
        write(folder / name, pad)
    return [CLIPTokenizer.from_pretrained(folder / name) for name in PADS]


if __name__ == "__main__":
    import random
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        small, large = tokenizers(Path(folder))
        print(len(vocabulary()[0]), "tokens")
        rng, longest = random.Random(0), 0
        for k in range(4000):
            shapes = list(zip(rng.sample(list(SHAPES), 2), rng.sample(list(COLOURS), 2)))[: 1 + k % 2]
            text = prompt(rng, ("en", "zh")[k // 2 % 2], rng.choice(list(COLOURS)), shapes)
            ids = small(text)["input_ids"]
            if k < 12:
                print(text, small.convert_ids_to_tokens(ids))
            longest = max(longest, len(ids))
            words = [w for w in small.convert_ids_to_tokens(ids)[1:-1]]
            assert all(len(w.replace(END, "")) > 1 or w in (",</w>", ".</w>", "a</w>") for w in words), (text, words)
        print("longest", longest, small.pad_token_id, large.pad_token_id, small.eos_token_id)
        print(large("a red circle", padding="max_length")["input_ids"])
