"""Trains the transformer and the text encoder of the demo edit model together.

    python core/demo/training/edit_pool.py --work WORK
    python core/demo/training/edit_autoencoder.py --work WORK --minutes 15
    python core/demo/training/edit_train.py --work WORK --minutes 75 --out core/demo/edit

Everything that has to be kept lies in WORK, and a run that was stopped goes on where
it was. The rate follows the part of the minutes that has passed; a number in
WORK/minutes overrides them at any time. The folder is written whenever the state
is saved."""

import argparse
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import edit_folder
import edit_forward as fast
from edit_lessons import SIZES, Exam, Setting, ask, prepared
from edit_muon import Muon
from edit_networks import text_encoder, transformer
from edit_pictures import SQUARE
from edit_pool import COLOUR, EDIT, SHAPE
from edit_words import COLOURS, EDITS, SHAPES, tokenizer

RATES = 3e-3, 2e-3  # of Muon and of AdamW


class Networks(nn.Module):
    """The two networks, and heads that only help them to learn: one reads the
    instruction off the text, one finds the shapes in the reference, one the
    place of the edit in both pictures."""

    def __init__(self, words):
        super().__init__()
        self.transformer, self.text_encoder = transformer(), text_encoder(words)
        text, width = self.transformer.config.joint_attention_dim, self.transformer.inner_dim
        self.read = nn.Linear(text, len(EDITS) + len(SHAPES) + len(COLOURS))
        self.find = nn.Linear(width, 4 * len(SHAPES))
        self.place = nn.Linear(width, 4)

    def optimisers(self):
        """Muon for the matrices inside the blocks, AdamW for the rest."""
        inside = lambda n: ("_blocks." in n and "_mod." not in n) or ".layers." in n or ".visual.blocks." in n
        named = [(n, p) for n, p in self.named_parameters() if "lm_head" not in n]
        matrices = [p for n, p in named if p.ndim == 2 and inside(n)]
        kept = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in kept]
        return [
            Muon(matrices, lr=RATES[0], weight_decay=0.01),
            torch.optim.AdamW(others, lr=RATES[1], betas=(0.9, 0.98), weight_decay=0.0),
        ]


def times(n, late):
    """Much noise for the most part, where the answer must come from the
    instruction; evenly spread towards the end."""
    t = torch.sigmoid(0.8 + 1.2 * torch.randn(n))
    u = torch.rand(n)
    t = torch.where(u < 0.5 * late, torch.rand(n), t)
    return torch.where(u > 0.75, 1 - 0.03 * torch.rand(n), t).clamp(0.002, 1)


def cells(cover):
    """Four numbers per token from one per square of 8 x 8 pixels."""
    return fast.pack(cover.float() / 255)


def hints(networks, pool, at, rests, words, mask, inner):
    """The losses of the heads."""
    asked = pool.asked[at]
    last = mask.sum(1) - 1
    logits = networks.read(words[torch.arange(len(words)), last]).split([len(EDITS), len(SHAPES), len(COLOURS)], 1)
    given = torch.tensor([r[1] != networks.blank for r in rests])
    goals = [torch.where(given, asked[:, k], -1) for k in (EDIT, SHAPE, COLOUR)]
    loss = sum(F.cross_entropy(a, b, ignore_index=-1, reduction="sum") / len(words) for a, b in zip(logits, goals))
    cover = pool.cover[at]
    half = inner[0].shape[1] // 2
    found = networks.find(inner[1][:, half:]).float()
    loss = loss + 2 * F.binary_cross_entropy_with_logits(found, cells(cover))
    union = cover.sum(1, dtype=torch.int32).clamp(max=255).to(torch.uint8)
    shape = cover[torch.arange(len(cover)), asked[:, SHAPE].clamp(min=0)]
    edit = asked[:, EDIT, None, None]
    change = torch.where(edit == EDITS.index("grey"), 255, shape)
    change = torch.where(edit == EDITS.index("background"), 255 - union, change)
    goal = cells(change[:, None]).repeat(1, 2, 1)
    place = F.binary_cross_entropy_with_logits(networks.place(inner[2]).float(), goal, reduction="none").mean((1, 2))
    return loss + 2 * (place * given).mean()


def loss_of(networks, setting, pool, at, rests, late, block, layer):
    before, after = pool.before[at].float(), pool.after[at].float()
    noise, t = torch.randn(after.shape), times(len(at), late)
    x = (1 - t[:, None, None]) * after + t[:, None, None] * noise
    with torch.autocast("cpu", torch.bfloat16):
        words, mask = setting.words(networks, pool.seen[at], rests, layer)
        v, inner = fast.transformer(networks.transformer, x, before, words, mask, t, setting.angles, block)
        help_ = hints(networks, pool, at, rests, words.float(), mask, inner)
    shapes = cells(pool.cover[at].sum(1, keepdim=True, dtype=torch.int32).clamp(max=255)).amax(-1, keepdim=True) > 0.02
    weight = torch.where(shapes, 1.5, 1.0)
    error = (v - (noise - after)).square()
    return (error * weight).mean() / weight.mean(), help_, error.mean().item()


def shared(params, numbers, ranks):
    """Averages gradients over the processes, and numbers of the first one."""
    grads = [p.grad for p in params if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor(numbers, dtype=torch.float32) * ranks])
    if ranks > 1:
        dist.all_reduce(flat)
    flat /= ranks
    for g, part in zip(grads, flat.split([g.numel() for g in grads] + [len(numbers)])):
        g.copy_(part.view_as(g))
    return flat[-len(numbers) :].tolist()


def train(rank, args):
    torch.set_num_threads(1)
    if args.ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(args.port)}
        dist.init_process_group("gloo", rank=rank, world_size=args.ranks)
    latents, vae, pools = prepared(args.work)
    torch.manual_seed(7)
    words = tokenizer()
    networks = Networks(words)
    networks.blank = words(" ")["input_ids"][0]
    opts = networks.optimisers()
    params = [p for opt in opts for p in opt.param_groups[0]["params"]]
    settings = {size: Setting(words, networks, pool.patches, pool.grid) for size, pool in pools.items()}
    average = {k: v.detach().clone() for k, v in networks.state_dict().items()}
    step, spent, path = 0, 0.0, args.work / "train.pt"
    if path.exists():
        kept = torch.load(path)
        networks.load_state_dict(kept["raw"])
        average, step, spent = kept["average"], kept["step"], kept["spent"]
        for opt, state in zip(opts, kept["opts"]):
            opt.load_state_dict(state)
    # Sizes are the same in all processes, so that none waits for another; the pairs differ.
    sizes, own = np.random.default_rng(step), np.random.default_rng([step, rank])
    rng, cache = random.Random(f"{step} {rank}"), {}
    torch.manual_seed(step * 16 + rank)
    block, layer = (torch.compile(f, dynamic=False) for f in (fast.block_forward, fast.text_layer))
    names = [n for n in average if average[n].is_floating_point()]
    state = networks.state_dict()
    old, new = [average[n] for n in names], [state[n] for n in names]
    exam = Exam(160, vae, latents, settings[SQUARE]) if rank == 0 else None
    budget, at_once, shown, saved, marked = args.minutes * 60, time.time(), [], time.time(), time.time()

    def save():
        kept = {"raw": networks.state_dict(), "average": average, "step": step, "spent": spent}
        torch.save(kept | {"opts": [opt.state_dict() for opt in opts]}, path)
        notes = {"steps": step, "minutes": spent / 60, "batch": args.batch * args.ranks}
        notes["autoencoder_steps"] = latents["step"]
        (args.work / "notes.json").write_text(json.dumps(notes))
        edit_folder.write(args.out, latents, average_of(average))

    def mark():
        shadow = Networks(words)
        shadow.load_state_dict(average)
        exam.mark(shadow, settings[SQUARE], vae, latents)

    if rank == 0:
        save()
    while spent < budget:
        done = spent / budget
        size = list(SIZES)[sizes.choice(len(SIZES), p=[part for part, *_ in SIZES.values()])]
        pool = pools[size]
        at = pool.draw(own, args.batch)
        rests = ask(rng, pool.asked[at], settings[size].chat, cache)
        loss, help_, error = loss_of(networks, settings[size], pool, at, rests, max(0.0, done * 3 - 2), block, layer)
        for opt, rate in zip(opts, RATES):
            opt.param_groups[0]["lr"] = rate * min(1, (step + 1) / 100) * min(1, max(0.02, 2 * (1 - done)))
            opt.zero_grad(set_to_none=True)
        (loss + 0.1 * max(0.1, 1 - done / 0.7) * help_).backward()
        override = args.work / "minutes"
        if rank == 0 and step % 20 == 0 and override.exists():
            budget = float(override.read_text() or budget / 60) * 60
        passed, at_once = time.time() - at_once, time.time()
        spent, budget = shared(params, [spent + passed, budget] if rank == 0 else [0, 0], args.ranks)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for opt in opts:
            opt.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(old, new, 1 - min(0.998, (step + 1) / (step + 10)))
        if rank > 0:
            continue
        shown.append((error, help_.item(), passed))
        if step % 50 == 0:
            v, h, ms = np.mean(shown, 0) * (1, 1, 1000)
            print(f"step {step} v {v:.4f} hints {h:.3f} {ms:.0f} ms {spent / 60:.1f} min {done:.0%}", flush=True)
            shown = []
        if time.time() - marked > 600 or step == 400:
            mark()
            marked = time.time()
        if time.time() - saved > 240:
            save()
            saved = time.time()
    if rank == 0:
        save()
        mark()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True, help="the model folder to write")
    options.add_argument("--minutes", type=float, default=70)
    options.add_argument("--batch", type=int, default=64, help="pairs per step and process")
    options.add_argument("--ranks", type=int, default=2, help="processes, of one thread each, that share the work")
    options.add_argument("--port", type=int, default=29517, help="where they talk to each other")
    args = options.parse_args()
    prepared(args.work)  # once, so that no process has to wait
    if args.ranks == 1:
        train(0, args)
    else:
        torch.multiprocessing.spawn(train, (args,), args.ranks)


def average_of(average):
    return {k: v for k, v in average.items() if k.startswith(("transformer.", "text_encoder."))}


if __name__ == "__main__":
    main()
