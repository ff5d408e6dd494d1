"""What the demo edit model is taught with: pairs as the networks take them, the
instructions to them, and held-out pairs that show how far it has come."""

import numpy as np
import torch
from torchvision.transforms.v2 import functional as resizing

import edit_autoencoder as single
import edit_folder
import edit_forward as fast
from edit_judge import judge
from edit_networks import autoencoder, scheduler
from edit_pictures import HELD_OUT, SQUARE, TALL, WIDE, pair
from edit_words import COLOURS, EDITS, SHAPES, instruction

# Of each size: its part of the batches, its pairs, and its patches for the vision part.
SIZES = {SQUARE: (0.9, 32_000, (4, 4)), WIDE: (0.05, 3_000, (4, 6)), TALL: (0.05, 3_000, (6, 4))}
SEVERAL = 0.65  # how often a pair with two shapes is drawn, next to one with one
LONGEST = 16  # tokens behind the picture's, of any instruction
WITHOUT = 0.06  # part of the samples with an empty instruction
STEPS = 8


def vision_bytes(pictures, patches):
    """Pictures (batch, height, width, 3) at the size of the vision part."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    size = [n * fast.PATCH for n in patches]
    return resizing.resize(x, size, resizing.InterpolationMode.BICUBIC, antialias=True).permute(0, 2, 3, 1)


def whitening(latents):
    """The mean and the spread of the autoencoder's latents."""
    return (torch.tensor(latents[name])[:, None, None] for name in ("latents_mean", "latents_std"))


@torch.no_grad()
def encoded(arrays, vae, latents, patches, count):
    """Drawn pairs as tokens of latents and as bytes for the vision part."""
    pictures = arrays["pictures"][:count]
    mean, std = whitening(latents)
    encode = torch.compile(single.encode, dynamic=False)
    z = [[], []]
    for start in range(0, len(pictures), 250):
        for side in range(2):
            x = single.pictures(pictures[start : start + 250, side])
            z[side].append(fast.pack((encode(vae, x)[0] - mean) / std).half())
    return {
        "before": torch.cat(z[0]),
        "after": torch.cat(z[1]),
        "seen": torch.cat([vision_bytes(part, patches) for part in np.array_split(pictures[:, 0], 64)]),
        "cover": torch.from_numpy(arrays["cover"][:count]),
        "asked": torch.from_numpy(arrays["asked"][:count]).long(),
    }


class Pool:
    """Encoded pairs of one size."""

    def __init__(self, parts, patches):
        self.before, self.after, self.seen = parts["before"], parts["after"], parts["seen"]
        self.cover, self.asked, self.patches = parts["cover"], parts["asked"], patches
        self.grid = tuple(n // 2 for n in self.cover.shape[2:])
        several = (self.cover.amax((2, 3)) > 0).sum(1) > 1
        self.shares = torch.where(several, SEVERAL, 1.0).cumsum(0).numpy()

    def draw(self, generator, count):
        """Some pairs; those with one shape, which are easier, more often."""
        return torch.from_numpy(np.searchsorted(self.shares, generator.random(count) * self.shares[-1]))


def prepared(work):
    """The autoencoder, and the pools as it encodes them."""
    latents = torch.load(work / "vae.pt")
    vae = autoencoder()
    vae.load_state_dict(latents["vae"])
    pools = {}
    for size, (_, count, patches) in SIZES.items():
        path = work / "latents-{}x{}.pt".format(*size)
        if not path.exists():
            arrays = np.load(work / "pool-{}x{}.npz".format(*size))
            torch.save(encoded(arrays, vae, latents, patches, count), path)
        pools[size] = Pool(torch.load(path), patches)
    return latents, vae, pools


class Setting:
    """What does not change for pictures of one size."""

    def __init__(self, words, networks, patches, grid):
        self.chat = fast.Chat(words, patches[0] // 2, patches[1] // 2, LONGEST)
        self.patches, self.grid = patches, grid
        _, seen = self.chat.batch([[0]])
        self.angles = fast.rotations(networks.transformer, *grid, seen.shape[1])
        processor = edit_folder.image_processor()
        self.mean, self.std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)

    def words(self, networks, seen, rests, layer=fast.text_layer):
        model = networks.text_encoder.model
        x = fast.patches(seen, self.mean, self.std)
        picture = fast.vision(model.visual, x, *self.patches).float()
        ids, mask = self.chat.batch(rests)
        return fast.text(model.language_model, self.chat, picture, ids, layer), mask


def ask(rng, asked, chat, cache):
    """An instruction for each row, as tokens; some are empty."""
    rests = []
    for edit, shape, colour in asked.tolist():
        text = " "
        if rng.random() >= WITHOUT:
            shape, colour = (list(names)[k] if k >= 0 else None for names, k in ((SHAPES, shape), (COLOURS, colour)))
            text = instruction(rng, rng.choice(["en", "zh"]), EDITS[edit], shape, colour)
        if text not in cache:
            cache[text] = chat.rest(text)
        rests.append(cache[text])
    return rests


@torch.no_grad()
def edited(networks, setting, vae, latents, before, seen, rests, steps=STEPS):
    """The pictures behind the edits, as the pipeline makes them."""
    plan = scheduler()
    c = plan.config
    slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
    mu = c.base_shift + slope * (before.shape[1] - c.base_image_seq_len)
    plan.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu)
    words, mask = setting.words(networks, seen, rests)
    x = torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
    for t, now, then in zip(plan.timesteps, plan.sigmas, plan.sigmas[1:]):
        v, _ = fast.transformer(networks.transformer, x, before, words, mask, (t / 1000).expand(len(x)), setting.angles)
        x = x + (then - now) * v
    mean, std = whitening(latents)
    y = single.decode(vae, fast.unpack(x, *setting.grid) * std + mean).clamp(-1, 1)
    return ((y + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


class Exam:
    """Held-out pairs, to see how far the training has come."""

    def __init__(self, count, vae, latents, setting):
        self.pairs = [pair(HELD_OUT + 500_000 + k) for k in range(count)]
        arrays = np.stack([np.asarray(p.before) for p in self.pairs])
        mean, std = whitening(latents)
        with torch.no_grad():
            self.before = fast.pack((single.encode(vae, single.pictures(arrays))[0] - mean) / std)
        self.seen = vision_bytes(arrays, setting.patches)
        self.rests = [setting.chat.rest(p.prompt) for p in self.pairs]

    def mark(self, networks, setting, vae, latents):
        made = edited(networks, setting, vae, latents, self.before, self.seen, self.rests)
        rows = [(p.edit.kind, *judge(p, y)) for p, y in zip(self.pairs, made)]
        for kind in (*EDITS, None):
            part = np.array([row[1:] for row in rows if kind in (None, row[0])])
            done = part.all(1).mean()
            change, kept = part.mean(0)
            print(f"   {kind or 'all':10} {len(part):3} change {change:.2f} kept {kept:.2f} both {done:.3f}", flush=True)
