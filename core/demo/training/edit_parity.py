"""Checks the forward pass of the training against the library's modules.

    python core/demo/training/edit_parity.py

Random weights everywhere, prompts of unequal lengths, unequal times, square and
wide pictures, three-dimensional positions in the text encoder."""

import torch

import edit_autoencoder as single
import edit_forward as fast
from edit_networks import autoencoder, text_encoder, transformer
from edit_words import PREFIX_TOKENS, chat, tokenizer

TOLERANCE = 1e-4


def shaken(module):
    """The module with every weight moved, so that none is at a special value."""
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn_like(p)
    return module.eval()


def library_text(model, words, prompts, frames, rows, columns):
    """Hidden states of the library, prompt by prompt."""
    pad = words.convert_tokens_to_ids("<|image_pad|>")
    found = []
    for prompt, frame in zip(prompts, frames):
        count = rows * columns // 4
        ids = words(chat(prompt).replace("<|image_pad|>", "<|image_pad|>" * count), return_tensors="pt")["input_ids"]
        pixels = frame.view(-1, 3, 1, 196).expand(-1, -1, 2, -1).reshape(rows * columns, -1)
        out = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels,
            image_grid_thw=torch.tensor([[1, rows, columns]]),
            mm_token_type_ids=(ids == pad).int(),
            output_hidden_states=True,
        )
        found.append(out.hidden_states[-1][0, PREFIX_TOKENS:])
    return found


@torch.no_grad()
def differences(rows, columns, target):
    """Largest differences for pictures of so many patches and target tokens."""
    words = tokenizer()
    model, dit, vae = shaken(text_encoder(words)), shaken(transformer()), shaken(autoencoder())
    prompts = ["make the circle red", "去掉方块", "Change the color of the square to blue."]
    frames = torch.randn(len(prompts), rows * columns, 588)
    book = fast.Chat(words, rows // 2, columns // 2, 16)
    ids, seen = book.batch([book.rest(p) for p in prompts])
    picture = fast.vision(model.model.visual, frames, rows, columns)
    hidden = fast.text(model.model.language_model, book, picture, ids)
    true = library_text(model, words, prompts, frames, rows, columns)
    worst = {"text": max((hidden[k, : len(h)] - h).abs().max().item() for k, h in enumerate(true))}
    assert [len(h) for h in true] == seen.sum(1).tolist()

    b, tokens = len(prompts), target[0] * target[1]
    x, ref, t = torch.randn(b, tokens, 32), torch.randn(b, tokens, 32), torch.tensor([0.2, 0.55, 1.0])
    angles = fast.rotations(dit, *target, seen.shape[1])
    got, _ = fast.transformer(dit, x, ref, hidden, seen, t, angles)
    shapes = [[(1, *target)] * 2] * b
    want = dit(torch.cat([x, ref], 1), hidden, seen, t, shapes, return_dict=False)[0][:, :tokens]
    worst["transformer"] = (got - want).abs().max().item()

    pictures = torch.rand(2, 3, target[0] * 16, target[1] * 16) * 2 - 1
    z, _ = single.encode(vae, pictures)
    posterior = vae.encode(pictures[:, :, None]).latent_dist
    worst["encoder"] = (z - posterior.mode()[:, :, 0]).abs().max().item()
    want = vae.decode(posterior.mode()).sample[:, :, 0]
    worst["decoder"] = (single.decode(vae, z).clamp(-1, 1) - want).abs().max().item()
    return worst


if __name__ == "__main__":
    torch.manual_seed(7)
    for case in ((4, 4, (4, 4)), (4, 6, (3, 5))):
        found = differences(*case)
        print(case, {name: f"{value:.1e}" for name, value in found.items()})
        assert max(found.values()) < TOLERANCE
