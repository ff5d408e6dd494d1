//! The keys of LoRA files. Every program that trains them has its own spelling.

use crate::error::{Error, Result};

/// What a tensor is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Alpha,
    /// Of a product of two matrices: the one that is applied first, the other one, and the kernel that
    /// convolutions may have between them.
    Down,
    Up,
    Mid,
    /// Of a LoHa.
    Hada(Half),
    /// Of a LoKr.
    Lokr(Half),
}

/// A piece of one of the two matrices whose product of some kind a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    /// The first or second matrix as it is.
    Whole(u8),
    /// Its two factors.
    A(u8),
    B(u8),
    /// The kernel between them.
    Core(u8),
}

use Half::{A, B, Core, Whole};
use Part::{Alpha, Down, Hada, Lokr, Mid, Up};

const PARTS: [(&str, Part); 29] = [
    (".alpha", Alpha),
    (".lora_down.weight", Down),
    (".lora_down.default.weight", Down),
    (".lora_A.weight", Down),
    (".lora_A.default.weight", Down),
    (".lora.down.weight", Down),
    (".lora_linear_layer.down.weight", Down),
    ("_lora.down.weight", Down),
    (".lora_up.weight", Up),
    (".lora_up.default.weight", Up),
    (".lora_B.weight", Up),
    (".lora_B.default.weight", Up),
    (".lora.up.weight", Up),
    (".lora_linear_layer.up.weight", Up),
    ("_lora.up.weight", Up),
    (".lora_mid.weight", Mid),
    (".hada_w1_a", Hada(A(1))),
    (".hada_w1_b", Hada(B(1))),
    (".hada_t1", Hada(Core(1))),
    (".hada_w2_a", Hada(A(2))),
    (".hada_w2_b", Hada(B(2))),
    (".hada_t2", Hada(Core(2))),
    (".lokr_w1", Lokr(Whole(1))),
    (".lokr_w1_a", Lokr(A(1))),
    (".lokr_w1_b", Lokr(B(1))),
    (".lokr_w2", Lokr(Whole(2))),
    (".lokr_w2_a", Lokr(A(2))),
    (".lokr_w2_b", Lokr(B(2))),
    (".lokr_t2", Lokr(Core(2))),
];

/// Other changes, by a part of their keys.
const OTHERS: [(&str, &str); 11] = [
    ("oft_", "OFT"),
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("lora_embedding_", "LoRA of embeddings"),
    ("lora_A.bias", "LoRA with biases"),
    ("lora_B.bias", "LoRA with biases"),
    (".a1.weight", "GLoRA"),
    (".b1.weight", "GLoRA"),
    (".diff", "a full difference"),
    (".w_norm", "a full difference"),
    (".b_norm", "a full difference"),
];

/// The layer and the part of it that a key names.
pub(super) fn split(key: &str) -> Result<(&str, Part)> {
    let part = PARTS.iter().find_map(|(end, part)| Some((key.strip_suffix(end)?, *part)));
    if let Some(part) = part {
        return Ok(part);
    }
    match OTHERS.iter().find(|(sign, _)| key.contains(sign)) {
        Some((_, what)) => Err(Error::unsupported(format!(
            "the file is {what}; only LoRA, LoCon, LoHa and LoKr are read"
        ))),
        None => Err(Error::model_invalid("the key is none of a LoRA")),
    }
}
