"""Writes `generate-prompts/`: what transformers' `CLIPTokenizer` makes of texts with the published vocabulary.

The vocabulary is counted from the merges in `core/assets/clip` as OpenAI's CLIP counts it, and has its 49,408 words.

- `golden.json` has texts and their tokens, without those around a text.

    pip install -r requirements.txt && python make_generate_prompts.py
"""

import json
import pathlib
import random
import shutil
import tempfile

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "generate-prompts"
MERGES = HERE.parents[1] / "assets/clip/merges.txt"

TEXTS = [
    "",
    " ",
    "a photo of a cat",
    "A Photo OF a CAT, 8k, (masterpiece:1.2)",
    "it's the dog's 3rd 1024x768 picture; we'll see, they've said I'd",
    "  many\tspaces\n and\r\nlines  ",
    "naïve café, Zürich, ÀÉÎ, Straße, ſ, İstanbul",
    "e\u0301 decomposed, \u1e9b\u0323",
    "日本語の絵, 한국어, русский язык, العربية, ไทย",
    "👩‍🎨 🎨 emoji ❤️ ☃",
    "snake_case kebab-case a.b.c http://example.com/?q=1&r=2",
    "½ ² ① Ⅷ ٣ 1,000.5",
    "!!! ... --- <lora:x:1> {} [] \\ | ~ `",
    "\u200bzero\u200bwidth \u00a0nbsp \u3000ideographic",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "'s 't 're 've 'm 'll 'd 'S 'LL ’s",
    "\x00\x01\x7f control",
    "𝕬𝖇𝖈 mathematical ﬁ ligature",
]


def vocabulary(merges):
    """Bytes, bytes that end a word, what merges make, and the tokens around a text."""
    letters = list(bytes_to_unicode().values())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
    return {word: i for i, word in enumerate(words + ["<|startoftext|>", "<|endoftext|>"])}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copy(MERGES, folder / "merges.txt")
        words = vocabulary(MERGES.read_text().splitlines()[1:])
        assert len(words) == 49_408
        (folder / "vocab.json").write_text(json.dumps(words))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    draw = random.Random(5)
    letters = "abcdeghilmnorstuyzABCDEÄÖéñ0123456789    ,.!?'-_()\n日本🎨"
    texts = TEXTS + ["".join(draw.choices(letters, k=draw.randint(1, 60))) for _ in range(60)]
    golden = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 49_406 and ids[-1] == 49_407
        golden.append({"text": text, "ids": ids[1:-1]})
    (OUT / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()
