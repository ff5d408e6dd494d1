"""The forward pass of the demo edit model for training: the same numbers as the
library's modules give, from their weights, but written out for whole batches of
one picture size and compiled block by block.

What the library does per picture is done per batch: the vision part is a plain
transformer (a picture is one attention window), and the tokens in front of the
pictures, the same for every prompt, go through the text encoder once."""

import torch
import torch.nn.functional as F

from edit_words import PREFIX, PREFIX_TOKENS

MERGE = 2  # patches of the vision part that become one token, in each direction
PATCH = 14


def linear(x, *modules):
    """One product for layers that share their input."""
    biases = [m.bias for m in modules]
    return F.linear(x, torch.cat([m.weight for m in modules]), None if biases[0] is None else torch.cat(biases))


def rms(x, weight, eps=1e-6):
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def halves(x, cos, sin):
    """Rotates pairs that are half a head apart."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(q, k, v, mask=None):
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float()
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1).to(v.dtype) @ v


# ---- vision ----


def patches(pictures, mean, std):
    """Normalised bytes (batch, height, width, 3) as rows of one frame each, in
    the order of the library: squares of MERGE x MERGE patches one after another."""
    b, h, w, _ = pictures.shape
    x = (pictures.float() / 255 - mean) / std
    x = x.view(b, h // (PATCH * MERGE), MERGE, PATCH, w // (PATCH * MERGE), MERGE, PATCH, 3)
    return x.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(b, -1, 3 * PATCH * PATCH)


def grid_order(rows, columns):
    """Row and column of every patch, in the order of `patches`."""
    at = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
    at = at.view(rows // MERGE, MERGE, columns // MERGE, MERGE, 2).permute(0, 2, 1, 3, 4)
    return at.reshape(-1, 2)


def vision_block(block, heads, x, cos, sin):
    b, n, d = x.shape
    q, k, v = block.attn.qkv(rms(x, block.norm1.weight)).view(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    mixed = attend(halves(q.float(), cos, sin), halves(k.float(), cos, sin), v)
    x = x + block.attn.proj(mixed.transpose(1, 2).reshape(b, n, d))
    h = rms(x, block.norm2.weight)
    return x + block.mlp.down_proj(F.silu(block.mlp.gate_proj(h)) * block.mlp.up_proj(h))


def vision(model, x, rows, columns):
    """The tokens of pictures that are cut into `rows` x `columns` patches."""
    embed = model.patch_embed.proj.weight  # both frames are the same picture
    x = F.linear(x, embed.sum(2).flatten(1)).float()
    angles = (grid_order(rows, columns)[:, :, None] * model.rotary_pos_emb.inv_freq).flatten(1)
    cos, sin = angles.cos(), angles.sin()
    for block in model.blocks:
        x = vision_block(block, model.config.num_heads, x, cos, sin)
    merged = rms(x, model.merger.ln_q.weight).view(len(x), -1, MERGE * MERGE * x.shape[-1])
    return model.merger.mlp(merged)


# ---- text ----


def positions(length, start, rows, columns):
    """Temporal, row and column position of a prompt's tokens whose picture
    begins at `start` and has so many tokens in each direction."""
    axes = torch.zeros(1, dtype=torch.long), torch.arange(rows), torch.arange(columns)
    picture = torch.stack(torch.meshgrid(*axes, indexing="ij")).view(3, -1)
    behind = torch.arange(length - start - rows * columns) + start + max(rows, columns)
    return torch.cat([torch.arange(start).expand(3, -1), picture + start, behind.expand(3, -1)], 1)


def text_angles(model, at):
    sections = model.rotary_emb.mrope_section
    parts = (at[:, :, None] * model.rotary_emb.inv_freq).split(sections, -1)
    angles = torch.cat([part[axis] for axis, part in enumerate(parts)], -1)
    return angles.cos(), angles.sin()


def text_layer(layer, heads, groups, x, cos, sin, mask, front):
    """One layer; `front` holds the keys and values of tokens in front."""
    b, n, d = x.shape
    attn, size = layer.self_attn, d // heads
    h = rms(x, layer.input_layernorm.weight)
    parts = linear(h, attn.q_proj, attn.k_proj, attn.v_proj).view(b, n, heads + 2 * groups, size)
    q, k, v = parts.transpose(1, 2).split([heads, groups, groups], 1)
    q, k = halves(q.float(), cos, sin), halves(k.float(), cos, sin)
    own = k, v
    if front is not None:
        k, v = (torch.cat([f.to(t.dtype).expand(b, -1, -1, -1), t], 2) for f, t in zip(front, (k, v)))
    k, v = (t.repeat_interleave(heads // groups, 1) for t in (k, v))
    x = x + attn.o_proj(attend(q, k, v, mask).transpose(1, 2).reshape(b, n, d))
    h = rms(x, layer.post_attention_layernorm.weight)
    return x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(h)) * layer.mlp.up_proj(h)), own


class Chat:
    """The tokens of a batch of prompts about one picture each."""

    def __init__(self, tokenizer, rows, columns, longest):
        self.tokenizer, self.rows, self.columns = tokenizer, rows, columns
        self.front = tokenizer(PREFIX + "Picture 1: <|vision_start|>")["input_ids"]
        self.longest = longest  # tokens of a prompt with what follows the picture

    def rest(self, prompt):
        """The tokens behind the picture's."""
        return self.tokenizer("<|vision_end|>" + prompt + "<|im_end|>\n<|im_start|>assistant\n")["input_ids"]

    def batch(self, rests):
        """Padded rows of the tokens behind the picture, and what is not padding
        of all that the transformer gets to see."""
        ids = torch.full((len(rests), self.longest), self.tokenizer.pad_token_id)
        for row, rest in zip(ids, rests):
            row[: len(rest)] = torch.as_tensor(rest)
        seen = len(self.front) - PREFIX_TOKENS + self.rows * self.columns + torch.tensor([len(r) for r in rests])
        total = len(self.front) - PREFIX_TOKENS + self.rows * self.columns + self.longest
        return ids, torch.arange(total) < seen[:, None]


def text(model, chat, picture_tokens, ids, layer=text_layer):
    """The hidden states behind the fixed prefix."""
    heads, groups = model.config.num_attention_heads, model.config.num_key_value_heads
    start, behind = len(chat.front), chat.rows * chat.columns + ids.shape[1]
    cos, sin = text_angles(model, positions(start + behind, start, chat.rows, chat.columns))
    table = model.embed_tokens.weight
    front = F.embedding(torch.tensor([chat.front]), table)
    x = torch.cat([picture_tokens, F.embedding(ids, table)], 1).float()
    causal = torch.full((start + behind, start + behind), -1e9).triu(1)
    for block in model.layers:
        before = front
        front, own = text_layer(block, heads, groups, before, cos[:start], sin[:start], causal[:start, :start], None)
        x, _ = layer(block, heads, groups, x, cos[start:], sin[start:], causal[start:], own)
    shown = front[:, PREFIX_TOKENS:].expand(len(x), -1, -1)
    return rms(torch.cat([shown, x], 1), model.norm.weight, model.norm.variance_epsilon)


# ---- transformer ----


def pack(z):
    """Latents (batch, channels, rows, columns) as tokens of 2 x 2."""
    b, c, h, w = z.shape
    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(x, rows, columns):
    b, _, c = x.shape
    return x.view(b, rows, columns, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, rows * 2, columns * 2)


def rotations(model, rows, columns, words):
    """Cosines and sines of text, target and reference tokens, in this order."""
    images, texts = model.pos_embed([[(1, rows, columns)] * 2], max_txt_seq_len=words, device=torch.device("cpu"))
    angles = torch.cat([texts, images])
    return angles.real.contiguous(), angles.imag.contiguous()


def _queries_keys_values(x, to_q, to_k, to_v, norm_q, norm_k, order, heads):
    """Queries, keys and values with the pairs of each head moved half a head
    apart, which the products of queries and keys do not notice."""
    b, n, d = x.shape
    size = d // heads
    weight = torch.cat([to_q.weight[order], to_k.weight[order], to_v.weight])
    bias = torch.cat([to_q.bias[order], to_k.bias[order], to_v.bias])
    q, k, v = F.linear(x, weight, bias).view(b, n, 3, heads, size).permute(2, 0, 3, 1, 4)
    within = order[:size]
    return rms(q, norm_q.weight[within]), rms(k, norm_k.weight[within]), v


def _modulated(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _feed(mlp, x):
    return mlp.net[2](F.gelu(mlp.net[0].proj(x), approximate="tanh"))


def block_forward(block, heads, order, last, img, txt, temb, clean, cos, sin, mask):
    """One block. `temb` and `clean` are the embedded time of the target and that
    of the reference, which is always without noise."""
    n, half = txt.shape[1], img.shape[1] // 2
    target, reference = block.img_mod(temb)[:, None], block.img_mod(clean)[:, None]
    i = torch.cat([target.expand(-1, half, -1), reference.expand(len(img), half, -1)], 1).float().chunk(6, -1)
    t = block.txt_mod(temb)[:, None].float().chunk(6, -1)
    a = block.attn
    own = a.to_q, a.to_k, a.to_v, a.norm_q, a.norm_k
    iq, ik, iv = _queries_keys_values(_modulated(img, i[0], i[1]), *own, order, heads)
    own = a.add_q_proj, a.add_k_proj, a.add_v_proj, a.norm_added_q, a.norm_added_k
    tq, tk, tv = _queries_keys_values(_modulated(txt, t[0], t[1]), *own, order, heads)
    q, k = (halves(torch.cat(pair, 2), cos, sin) for pair in ((tq, iq), (tk, ik)))
    mixed = attend(q, k, torch.cat([tv, iv], 2), mask).transpose(1, 2).flatten(2)
    img = img + i[2] * a.to_out[0](mixed[:, n:])
    img = img + i[5] * _feed(block.img_mlp, _modulated(img, i[3], i[4]))
    if not last:  # nobody sees the text behind the last block
        txt = txt + t[2] * a.to_add_out(mixed[:, :n])
        txt = txt + t[5] * _feed(block.txt_mlp, _modulated(txt, t[3], t[4]))
    return img, txt


def transformer(model, x, reference, words, seen, t, angles, block=block_forward):
    """The velocity of target tokens, and the tokens behind each block."""
    heads, size = model.config.num_attention_heads, model.config.attention_head_dim
    pairs = torch.arange(size).view(-1, 2).t().flatten()
    order = (torch.arange(heads)[:, None] * size + pairs).flatten()
    img = model.img_in(torch.cat([x, reference], 1)).float()
    txt = model.txt_in(rms(words, model.txt_norm.weight)).float()
    embed = model.time_text_embed
    times = torch.cat([t, torch.zeros(1)])
    temb = embed.timestep_embedder(embed.time_proj(times)).float()
    temb, clean = temb[:-1], temb[-1:]
    open_ = torch.cat([seen, torch.ones(len(seen), img.shape[1], dtype=torch.bool)], 1)
    mask = torch.zeros(open_.shape).masked_fill(~open_, -1e9)[:, None, None]
    inner = []
    for k, part in enumerate(model.transformer_blocks):
        last = k + 1 == len(model.transformer_blocks)
        img, txt = block(part, heads, order, last, img, txt, temb, clean, *angles, mask)
        inner.append(img)
    scale, shift = model.norm_out.linear(F.silu(temb)).float()[:, None].chunk(2, -1)
    target = img[:, : x.shape[1]]
    return model.proj_out(_modulated(target, shift, scale)).float(), inner
