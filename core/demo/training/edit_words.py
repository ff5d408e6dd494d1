"""The instructions of the demo edit model, in English and Chinese, and the
tokenizer that has just the words of them.

An instruction is about one of four edits: a new background, a new colour for a
shape, no colours at all, or a shape taken away. Each edit has several phrasings
in each language, written with or without a capital and a full stop."""

import json
import re

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

COLOURS = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "white": "白色",
    "black": "黑色",
}
SHAPES = {"circle": ["圆形", "圆圈"], "square": ["方块", "正方形"], "triangle": ["三角形"]}
EDITS = ("background", "recolour", "grey", "remove")
PHRASES = {
    "en": {
        "background": [
            "make the background {c}",
            "change the background to {c}",
            "turn the background {c}",
            "set the background to {c}",
            "paint the background {c}",
            "change the background color to {c}",
            "change the background colour to {c}",
        ],
        "recolour": [
            "make the {s} {c}",
            "turn the {s} {c}",
            "paint the {s} {c}",
            "change the {s} to {c}",
            "color the {s} {c}",
            "colour the {s} {c}",
            "change the color of the {s} to {c}",
            "change the colour of the {s} to {c}",
        ],
        "grey": [
            "make it greyscale",
            "make it grayscale",
            "make it black and white",
            "make the picture grey",
            "make the picture gray",
            "make the picture black and white",
            "turn the picture grey",
            "turn it black and white",
            "convert the picture to greyscale",
            "convert the picture to grayscale",
            "turn the picture black and white",
        ],
        "remove": ["remove the {s}", "delete the {s}", "erase the {s}", "take away the {s}", "get rid of the {s}"],
    },
    "zh": {
        "background": [
            "把背景变成{c}",
            "把背景改成{c}",
            "将背景改为{c}",
            "将背景变成{c}",
            "背景换成{c}",
            "把背景换成{c}",
            "把背景涂成{c}",
        ],
        "recolour": [
            "把{s}变成{c}",
            "把{s}改成{c}",
            "将{s}改为{c}",
            "将{s}变成{c}",
            "把{s}换成{c}",
            "把{s}涂成{c}",
            "把{s}的颜色改成{c}",
        ],
        "grey": [
            "变成黑白",
            "改成黑白",
            "把图片变成黑白",
            "把图片改成黑白",
            "变成灰色",
            "把图片变成灰色",
            "变成灰度",
            "把图片变成灰度",
        ],
        "remove": ["去掉{s}", "删除{s}", "移除{s}", "擦掉{s}", "把{s}去掉", "把{s}删除", "把{s}移除"],
    },
}
# How the Chinese phrases fall into words, so that a token is never part of two.
WORDS = "把 将 背景 变成 改成 改为 换成 涂成 的 颜色 图片 黑白 灰色 灰度 去掉 删除 移除 擦掉 。".split()
PREFIX = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new "
    "image that meets the user's requirements while maintaining consistency with the original input where "
    "appropriate.<|im_end|>\n<|im_start|>user\n"
)
PICTURE = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
PREFIX_TOKENS = 64  # the reference drops so many, whatever the tokenizer
# The special tokens in the order of the published tokenizer.
SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()


def instruction(rng, language, edit, shape=None, colour=None):
    """One of the ways to ask for an edit."""
    phrase = rng.choice(PHRASES[language][edit])
    if language == "zh":
        text = phrase.format(s=rng.choice(SHAPES[shape]) if shape else "", c=COLOURS.get(colour))
        return text + "。" * (rng.random() < 0.2)
    text = phrase.format(s=shape, c=colour)
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + "." * (rng.random() < 0.25)


def chat(prompt):
    return PREFIX + PICTURE + prompt + SUFFIX


def _words():
    """Every word that has to become a token, as the tokenizer will see it."""
    plain = re.sub(r"<\|.*?\|>", "", PREFIX + PICTURE + SUFFIX)
    splitter = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
    pieces = [piece for piece, _ in splitter.pre_tokenize_str(plain)]
    for edits in PHRASES["en"].values():
        for phrase in edits:
            words = phrase.replace("{s}", " ".join(SHAPES)).replace("{c}", " ".join(COLOURS)).split()
            pieces += [words[0], words[0].capitalize()] + [" " + word for word in words[1:]]
    return pieces + WORDS + list(COLOURS.values()) + [name for names in SHAPES.values() for name in names]


def tokenizer():
    """A tokenizer of the published kind, with a token for every word above."""
    words = sorted(set(_words()))
    small = Tokenizer(models.BPE())
    small.normalizer = normalizers.NFC()
    small.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4096, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    small.train_from_iterator(words * 2, trainer)
    model = json.loads(small.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    whole = Qwen2Tokenizer(vocab=model["vocab"], merges=merges, additional_special_tokens=SPECIAL[1:])
    assert len(whole(PREFIX)["input_ids"]) == PREFIX_TOKENS
    assert all(len(whole(word)["input_ids"]) == 1 for word in words)
    return whole


if __name__ == "__main__":
    made = tokenizer()
    print(len(made), "tokens")
    for text in ("Change the color of the circle to red.", "把三角形的颜色改成蓝色。", " "):
        print(made.convert_ids_to_tokens(made(PICTURE + text + SUFFIX)["input_ids"]))
