"""Makes the goldens of the edit pipeline's groundwork: sigmas, noise, pictures and
tokens, as diffusers, torch, Pillow and transformers make them.

    python core/tests/goldens/make_edit.py

Needs the versions of requirements.txt. Pictures are drawn by a formula that
the tests repeat (`picture`), and results of real sizes are stored as samples of
every so many rows and columns, so the files stay small. The tokenizer is a byte
pair encoding trained here on a few lines; it has the pre-tokenizer, normaliser
and special tokens of the published one, and enough merges for every word of the
models' fixed text to be one token, as it is there."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPipeline, QwenImageEditPlusPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions, calculate_shift, retrieve_timesteps
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2_5_VLProcessor, Qwen2Tokenizer, Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

OUT = Path(__file__).parent / "edit"


def picture(width, height):
    """Slopes with noise of a formula, so that the tests can draw the same."""
    i = np.arange(width * height * 3, dtype=np.uint64).reshape(height, width, 3)
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    noise = ((i * 2654435761) % 2**32) >> 13
    return Image.fromarray(((x * 5 + y * 3 + c * 80 + (noise % 64).astype(np.int64)) % 256).astype(np.uint8))


# --- schedule ---------------------------------------------------------------------

PUBLISHED = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.42.1",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "invert_sigmas": False,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": True,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}
CONFIGS = {
    "published": PUBLISHED,
    "lightning": PUBLISHED | {"base_shift": math.log(3), "max_shift": math.log(3), "shift_terminal": None},
    "linear": PUBLISHED | {"time_shift_type": "linear"},
    "static": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    "defaults": {"use_dynamic_shifting": True, "num_train_timesteps": 500},
}


def schedules():
    tensors = {}
    for name, config in CONFIGS.items():
        (OUT / f"scheduler_{name}.json").write_text(json.dumps(config, indent=1) + "\n")
        runs = {(steps, 4096) for steps in (range(1, 101) if name == "published" else (1, 2, 4, 8, 50))}
        runs |= {(steps, tokens) for steps in (3, 8, 40) for tokens in (1, 256, 1024, 4136, 8192, 16384)}
        for steps, tokens in sorted(runs):
            scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
            get = scheduler.config.get
            mu = calculate_shift(
                tokens,
                get("base_image_seq_len", 256),
                get("max_image_seq_len", 4096),
                get("base_shift", 0.5),
                get("max_shift", 1.15),
            )
            if steps == 1 and get("shift_terminal"):
                continue  # Not a number in the reference.
            sigmas = np.linspace(1.0, 1 / steps, steps)
            timesteps, _ = retrieve_timesteps(scheduler, steps, "cpu", sigmas=sigmas, mu=mu)
            key = f"{name}/{steps}/{tokens}"
            tensors[f"{key}/sigmas"] = scheduler.sigmas.numpy()
            if steps not in (8, 50):
                continue
            tensors[f"{key}/timesteps"] = timesteps.numpy()
            for dtype, kind in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
                # As the pipelines hand it to the transformer.
                times = torch.stack([t.expand(1).to(dtype) / 1000 for t in timesteps])
                tensors[f"{key}/times_{kind}"] = times.float().numpy()[:, 0]
                factors = []
                for t in timesteps:
                    velocity = torch.ones(1, dtype=dtype)
                    step = scheduler.step(velocity, t, torch.zeros(1, dtype=dtype), return_dict=False)[0]
                    factors.append(step.float().item())
                scheduler._step_index = None
                tensors[f"{key}/factors_{kind}"] = np.array(factors, np.float32)
    save_file(tensors, OUT / "schedule.safetensors")


# --- noise ------------------------------------------------------------------------


def noise():
    tensors = {}
    generator = lambda seed: torch.Generator("cpu").manual_seed(seed)
    for seed in (0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 2**63 + 11, 2**64 - 1):
        for count in (1, 2, 15, 16, 17, 31, 32, 33, 100):
            tensors[f"{seed}/{count}"] = torch.randn(count, generator=generator(seed)).numpy()
    tensors["-3/20"] = torch.randn(20, generator=generator(-3)).numpy()
    tensors["7/4096"] = torch.randn(4096, generator=generator(7)).numpy()
    # A noise of real size, the end of it.
    tensors["1234/262144"] = torch.randn(1, 1, 16, 128, 128, generator=generator(1234)).flatten().numpy()[-256:].copy()
    # One generator, several draws.
    shared = generator(99)
    for i, count in enumerate((3, 16, 5, 40, 1, 2, 17, 700, 4)):
        tensors[f"shared/{i}/{count}"] = torch.randn(count, generator=shared).numpy()
    save_file(tensors, OUT / "noise.safetensors")


# --- pictures ---------------------------------------------------------------------


def sampled(values, most=3000):
    """Every so many rows and columns of an array with rows and columns first."""
    step = max(1, math.isqrt(values.size // most))
    return np.ascontiguousarray(values[::step, ::step]), step


def pictures():
    tensors, sizes = {}, {"area": [], "smart": []}

    def keep(key, values):
        values, step = sampled(values)
        tensors[f"{key}/{step}"] = values

    for width, height in ((200, 150), (120, 181), (97, 211), (512, 512), (1920, 1080), (333, 1000), (3000, 41), (1, 1), (31, 900)):
        for area in (1024 * 1024, 384 * 384):
            sizes["area"].append([area, width, height, *calculate_dimensions(area, width / height)[:2]])
    limits = ((3136, 12845056), (3136, 28 * 28 * 1280), (200000, 300000))
    for height, width in ((1024, 1024), (896, 1184), (320, 448), (384, 384), (2, 3), (14, 42), (10, 1999), (4000, 5000), (98, 70)):
        for least, most in limits:
            try:
                found = smart_resize(height, width, 28, least, most)
            except ValueError:
                found = None
            sizes["smart"].append([least, most, width, height, found and found[::-1]])
    vae = VaeImageProcessor(vae_scale_factor=16)
    for source, target in (
        ((64, 48), (160, 96)),
        ((97, 61), (64, 32)),
        ((60, 300), (32, 96)),
        ((33, 33), (33, 64)),
        ((50, 40), (50, 40)),
        ((200, 150), (1184, 896)),
        ((1500, 700), (1504, 704)),
        ((2200, 1300), (1344, 800)),
    ):
        key = "x".join(map(str, (*source, *target)))
        keep(f"lanczos/{key}", np.asarray(vae.resize(picture(*source), target[1], target[0])))
    for size in ((40, 30), (97, 211)):
        width, height = calculate_dimensions(1024 * 1024, size[0] / size[1])[:2]
        pixels = vae.preprocess(picture(*size), height, width)[0].permute(1, 2, 0)
        keep(f"vae/{size[0]}x{size[1]}", pixels.numpy())

    # Both spellings of the limits; the newer library writes the second one only.
    config = json.loads(Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056).to_json_string())
    (OUT / "preprocessor_size.json").write_text(json.dumps(config, indent=1) + "\n")
    config |= {"min_pixels": config["size"]["shortest_edge"], "max_pixels": config.pop("size")["longest_edge"]}
    assert Qwen2VLImageProcessor(**config).size["longest_edge"] == 12845056
    (OUT / "preprocessor_min_pixels.json").write_text(json.dumps(config, indent=1) + "\n")
    processor = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056)
    for width, height in ((56, 56), (60, 50), (384, 384), (448, 320), (1024, 1024), (1184, 896), (100, 1500), (20, 30)):
        result = processor(images=picture(width, height), return_tensors="np")
        grid = "x".join(map(str, result["image_grid_thw"][0]))
        keep(f"patches/{width}x{height}/{grid}", result["pixel_values"].astype(np.float32))
    # The bicubic stage alone, also where it shrinks, and where Pillow would take columns first.
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    for source, target in (((64, 48), (84, 56)), ((300, 200), (112, 84)), ((40, 400), (28, 56)), ((384, 384), (392, 392)), ((640, 480), (196, 140)), ((90, 90), (84, 140))):
        tensor = torch.from_numpy(np.asarray(picture(*source)).copy()).permute(2, 0, 1)
        out = F.resize(tensor, (target[1], target[0]), interpolation=InterpolationMode.BICUBIC, antialias=True)
        keep("bicubic/" + "x".join(map(str, (*source, *target))), np.ascontiguousarray(out.permute(1, 2, 0).numpy()))
    save_file(tensors, OUT / "pictures.safetensors")
    (OUT / "sizes.json").write_text(json.dumps(sizes) + "\n")


# --- prompts ----------------------------------------------------------------------

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"]
SPECIAL += ["<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]
# Added, but not special: a prompt may contain them.
ADDED = ["<tool_call>", "</tool_call>"]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

PROMPTS = [
    "",
    " ",
    "Make the sky blue.",
    "make it  night,\n\nwith 123 stars   ",
    "把背景换成海边的日落，保持人物不变。",
    "Replace the sign with “你好” in RED — it's 50% larger",
    "cafe\u0301 \u1100\u1161 \ufb01 🙂",
    "use the <tool_call> token and <|unknown|> text",
    "\tassistant\n user",
]


def tokenizer(template):
    made = Tokenizer(models.BPE(byte_fallback=False))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=760, min_frequency=1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([template] * 20 + PROMPTS, trainer)
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    made.add_tokens([AddedToken(t, special=False, normalized=False) for t in ADDED])
    return made


class Recorder(torch.nn.Module):
    """Takes the text encoder's place and keeps what it is given."""

    dtype = torch.float32

    def forward(self, **inputs):
        self.inputs = inputs
        states = torch.zeros(*inputs["input_ids"].shape, 8)
        return type("Output", (), {"hidden_states": [states]})()


def prompts():
    template = QwenImageEditPipeline(None, None, None, None, None, None).prompt_template_encode
    system = template.split("<|im_start|>system\n")[1].split("<|im_end|>")[0]
    made = tokenizer(system + " user\nassistant\nsystem\nuser\nPicture 1: Picture 2: ")
    made.save(str(OUT / "tokenizer.json"))
    fast = Qwen2Tokenizer(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None)
    # A processor needs some chat template; the pipelines never use it.
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056),
        tokenizer=fast,
        video_processor=__import__("transformers").Qwen2VLVideoProcessor(),
        chat_template="",
    )
    cases = []
    for name, kind in (("edit", QwenImageEditPipeline), ("plus", QwenImageEditPlusPipeline)):
        pipe = kind(None, None, None, fast, processor, None)
        pipe.text_encoder = Recorder()
        for prompt in PROMPTS:
            for sizes in ([(56, 84)],) if name == "edit" else ([(56, 84)], [(56, 56), (84, 112)], [(56, 28)] * 3):
                images = [picture(*size) for size in sizes]
                if prompt != PROMPTS[2] and len(images) == 3:
                    continue
                embeds, _ = pipe._get_qwen_prompt_embeds(
                    prompt, images if name == "plus" else images[0], device="cpu", dtype=torch.float32
                )
                inputs = pipe.text_encoder.inputs
                ids = inputs["input_ids"][0].tolist()
                cases.append(
                    {
                        "template": name,
                        "prompt": prompt,
                        "vectors": (inputs["image_grid_thw"].prod(1) // 4).tolist(),
                        "ids": ids,
                        "dropped": len(ids) - embeds.shape[1],
                    }
                )
    (OUT / "prompts.json").write_text(json.dumps(cases) + "\n")


def vocabulary():
    """The same tokenizer in the older form: words and merges, and beside them what was added."""
    made = json.loads((OUT / "tokenizer.json").read_text())
    folder = OUT / "tokenizer"
    folder.mkdir(exist_ok=True)

    def write(file, value):
        (folder / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    write("vocab.json", made["model"]["vocab"])
    merges = [" ".join(pair) for pair in made["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    added = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in made["added_tokens"]}
    write("added_tokens.json", {token["content"]: int(number) for number, token in added.items()})
    special = {"eos_token": dict(content="<|im_end|>"), "pad_token": "<|endoftext|>", "additional_special_tokens": SPECIAL[1:]}
    write("special_tokens_map.json", special)
    config = dict(add_prefix_space=False, added_tokens_decoder=added, tokenizer_class="Qwen2Tokenizer", unk_token=None)
    config |= dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=SPECIAL[1:])
    write("tokenizer_config.json", config)
    older, newer = Qwen2Tokenizer.from_pretrained(folder), Tokenizer.from_file(str(OUT / "tokenizer.json"))
    for prompt in [*PROMPTS, "<|im_start|>user\n<|image_pad|>x<|im_end|>"]:
        assert older(prompt)["input_ids"] == newer.encode(prompt).ids, prompt


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    schedules()
    noise()
    pictures()
    prompts()
    vocabulary()
    for file in OUT.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
