"""What the demo model that generates is taught with: encoded pictures, prompts to
them as tokens, and prompts that show how far it has come."""

import random

import numpy as np
import torch

import generate_autoencoder as single
from edit_autoencoder import pictures
from edit_words import COLOURS, SHAPES
from generate_judge import judge
from generate_networks import autoencoder, scheduler
from generate_pictures import SIDE, wanted
from generate_pool import names
from generate_words import prompt

WITHOUT = 0.08  # part of the samples with an empty prompt, for guidance
CHINESE = 0.4  # part of the prompts
EXAM = 2_000_000_000  # first seed of the prompts that show how far it has come
SCALES = 0.7, 1.6  # of the original size that the network is told


@torch.no_grad()
def prepared(work):
    """The autoencoder, the latents of the pool, and what they show."""
    kept = torch.load(work / "generate-vae.pt")
    vae = autoencoder()
    vae.load_state_dict(kept["vae"])
    path = work / "generate-latents.pt"
    if not path.exists():
        drawn, z = np.load(work / "generate-pool.npz"), []
        for part in np.split(drawn["pictures"], len(drawn["pictures"]) // 250):
            with torch.autocast("cpu", torch.bfloat16):
                z.append(single.encode(vae, pictures(part))[0].half())
        torch.save({"z": torch.cat(z), "shown": torch.from_numpy(drawn["shown"]).long()}, path)
    pool = torch.load(path)
    return vae, kept["steps"], pool["z"], pool["shown"]


class Prompts:
    """Prompts as the tokens of both text encoders."""

    def __init__(self, tokenizers):
        self.tokenizers, self.known = tokenizers, {}

    def ids(self, text):
        if text not in self.known:
            self.known[text] = [words(text, padding="max_length", truncation=True)["input_ids"] for words in self.tokenizers]
        return self.known[text]

    def batch(self, texts):
        return [torch.tensor(ids) for ids in zip(*map(self.ids, texts))]

    def ask(self, rng, shown):
        """Tokens of a prompt for each row of what is shown, and which are none."""
        texts = []
        for row in shown.tolist():
            background, shapes = names(row)
            shapes = rng.sample(shapes, len(shapes))
            language = "zh" if rng.random() < CHINESE else "en"
            texts.append("" if rng.random() < WITHOUT else prompt(rng, language, background, shapes))
        return self.batch(texts), torch.tensor([text == "" for text in texts])


def texts(small, large, ids):
    """The states of prompts and their vectors, as SDXL uses them."""
    a = small(ids[0], output_hidden_states=True)
    b = large(ids[1], output_hidden_states=True)
    return torch.cat([a.hidden_states[-2], b.hidden_states[-2]], -1), b.text_embeds


def told(n, scale=1.0):
    """Original size, crop and size, of pictures whose original is `scale` times as large."""
    sizes = torch.tensor([SIDE, SIDE, 0, 0, SIDE, SIDE], dtype=torch.float32).repeat(n, 1)
    sizes[:, :2] = (sizes[:, :2] * torch.as_tensor(scale).view(-1, 1)).floor()
    return sizes


@torch.no_grad()
def generated(networks, vae, prompts, texts_, seed, steps=12, scale=1.0):
    """Pictures of prompts, as the pipeline makes them with Euler's steps."""
    plan = scheduler()
    plan.set_timesteps(steps)
    n = len(texts_)
    words, vector = texts(networks.small, networks.large, prompts.batch([*texts_, *[""] * (n * (scale != 1))]))
    x = torch.randn(n, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(seed)) * plan.init_noise_sigma
    for t in plan.timesteps:
        into = plan.scale_model_input(x, t).repeat(len(words) // n, 1, 1, 1)
        added = {"text_embeds": vector, "time_ids": told(len(words))}
        v = networks.unet(into, t, words, added_cond_kwargs=added, return_dict=False)[0]
        if scale != 1:
            v = v[n:] + scale * (v[:n] - v[n:])
        x = plan.step(v, t, x, return_dict=False)[0]
    y = single.decode(vae, x).clamp(-1, 1)
    return ((y + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


class Exam:
    """Prompts of combinations that are trained on, with noise of their own."""

    def __init__(self, count, shapes):
        rng = random.Random(0)
        self.wanted = [wanted(EXAM + k, False, shapes) for k in range(count)]
        self.prompts = [prompt(rng, "en" if k % 2 else "zh", *what) for k, what in enumerate(self.wanted)]

    def mark(self, networks, vae, prompts, scale):
        made = generated(networks, vae, prompts, self.prompts, 0, scale=scale)
        rows = np.array([judge(picture, *what) for picture, what in zip(made, self.wanted)])
        two = np.array([len(shapes) == 2 for _, shapes in self.wanted])
        for name, part in (("one", rows[~two]), ("two", rows[two])):
            if not len(part):
                continue
            parts = " ".join(f"{name} {value:.2f}" for name, value in zip(("ground", "count", "shapes", "colours"), part.mean(0)))
            print(f"   guidance {scale} {name} {len(part):3} {parts} all {part.all(1).mean():.3f}", flush=True)
        return made


def goals(shown, blank):
    """What the heads that read the prompts are taught: the background, and which
    colour each shape has, or none. Nothing where the prompt is empty."""
    none = len(COLOURS)
    colours = torch.full((len(shown), 1 + len(SHAPES)), none)
    colours[:, 0] = shown[:, 0]
    rows = torch.arange(len(shown))
    for shape, colour in ((1, 2), (3, 4)):
        there = shown[:, shape] >= 0
        colours[rows[there], 1 + shown[there, shape]] = shown[there, colour]
    colours[blank] = -1
    return colours
