//! Reads ViT and EVA02: patches, positions, pre-norm blocks.

use serde_json::{Map, Value, json};

use super::attention::{Attention, Projection};
use super::expr::{ConstId, Id, Op, Over, Part, Two};
use super::layout::{Digit, Kind, merged};
use super::probe::{self, Activation, LayerNorm};
use super::reader::{Conv, Linear, Mlp, Reader, is_features};
use super::{Head, Network};
use crate::error::{Error, Result};

/// One half of a block: `x + scale * layers(norm(x))`.
struct Half<L> {
    norm: LayerNorm,
    scale: Option<ConstId>,
    layers: L,
}

struct Attended {
    attention: Attention,
    proj: Linear,
}

/// SwiGLU: `fc2(norm(silu(gate(x)) * up(x)))`.
struct Gated {
    gate: Linear,
    up: Linear,
    norm: Option<LayerNorm>,
    fc2: Linear,
}

enum Feed {
    Plain(Mlp),
    Gated(Gated),
}

/// Patches and positions.
struct Stem {
    conv: Conv,
    patch: usize,
    positions: ConstId,
    class_token: Option<ConstId>,
}

struct Body {
    /// From the first block to the last.
    blocks: Vec<(Half<Attended>, Half<Feed>)>,
    stem: Stem,
}

impl Reader<'_, '_> {
    /// A ViT: `head(mean(norm(body)))`.
    pub(super) fn vit(&self, head: &Head) -> Option<Result<Network>> {
        let Op::Reduce { over: Over::Mean, x, along } = self.op(head.linear.x) else { return None };
        let norm = self.norm(*x)?;
        let body = self.body(norm.x)?;
        let grid = matches!(merged(along)[..], [row, column]
            if row.kind == Kind::Row && column.kind == Kind::Column);
        if !grid || body.stem.class_token.is_some() {
            return self.miss(*x, "the mean over all patches");
        }
        Some(self.put_vit(head, &norm, &body))
    }

    /// An EVA02: `head(norm(mean(body without its class token)))`.
    pub(super) fn eva(&self, head: &Head) -> Option<Result<Network>> {
        let norm = self.norm(head.linear.x)?;
        let Op::Reduce { over: Over::Mean, x, along } = self.op(norm.x) else { return None };
        let Op::Slice { x, start: 1, count, .. } = self.op(*x) else { return None };
        if !matches!(along[..], [token] if token.kind == Kind::Token && token.extent == *count) {
            return self.miss(norm.x, "the mean over all patches");
        }
        let body = self.body(*x)?;
        Some(self.put_eva(head, &norm, &body))
    }

    fn body(&self, output: Id) -> Option<Body> {
        let (mut x, mut blocks) = (output, Vec::new());
        loop {
            let halves = self.residual(x);
            let feed = halves.iter().find_map(|(short, branch)| self.feed(*short, *branch));
            let Some((middle, feed)) = feed else { break };
            let halves = self.residual(middle);
            let attended = halves.iter().find_map(|(short, branch)| self.attended(*short, *branch));
            let Some((below, attended)) = attended else {
                return self.miss(middle, "an attention block");
            };
            blocks.push((attended, feed));
            x = below;
        }
        blocks.reverse();
        let stem = self.stem(x)?;
        (!blocks.is_empty()).then_some(Body { blocks, stem })
    }

    /// The layer scale on a branch, and what is below.
    fn scaled(&self, branch: Id) -> (Option<ConstId>, Id) {
        match self.per_feature(branch, Two::Mul) {
            Some((scale, below)) => (Some(scale), below),
            None => (None, branch),
        }
    }

    fn feed(&self, short: Id, branch: Id) -> Option<(Id, Half<Feed>)> {
        let (scale, below) = self.scaled(branch);
        let fc2 = self.plain_linear(below)?;
        if let Some(gated) = self.gated(&fc2) {
            let norm = self.norm(gated.gate.x)?;
            let feed = Half { norm, scale, layers: Feed::Gated(gated) };
            return (feed.norm.x == short).then_some((short, feed));
        }
        let mlp = self.mlp(below).filter(|mlp| mlp.response.is_none())?;
        let norm = self.norm(mlp.fc1.x)?;
        (norm.x == short).then_some((short, Half { norm, scale, layers: Feed::Plain(mlp) }))
    }

    fn gated(&self, fc2: &Linear) -> Option<Gated> {
        let norm = self.norm(fc2.x);
        let product = norm.as_ref().map_or(fc2.x, |norm| norm.x);
        let Op::Two { op: Two::Mul, a, b } = self.op(product) else { return None };
        for (active, other) in [(*a, *b), (*b, *a)] {
            let known = probe::activation(self.arena(), self.trace.graph, active);
            let Some((Activation::Silu, gate)) = known else { continue };
            let (gate, up) = (self.plain_linear(gate)?, self.plain_linear(other)?);
            if gate.x == up.x {
                return Some(Gated { gate, up, norm, fc2: fc2.clone() });
            }
        }
        None
    }

    fn attended(&self, short: Id, branch: Id) -> Option<(Id, Half<Attended>)> {
        let (scale, below) = self.scaled(branch);
        let proj = self.plain_linear(below)?;
        let attention = self.attention(proj.x)?;
        let norm = self.norm(attention.x)?;
        let usual = self.is_usual_scale(&attention)
            && !attention.cosine
            && attention.head_scale.is_none()
            && attention.biases.is_empty()
            && attention.windows.is_empty();
        if !usual {
            return self.miss(proj.x, "plain attention with the usual scale");
        }
        let half = Half { norm, scale, layers: Attended { attention, proj } };
        (half.norm.x == short).then_some((short, half))
    }

    fn stem(&self, x: Id) -> Option<Stem> {
        let Op::Constant { op: Two::Add, x: below, constant, along, first: false } = self.op(x)
        else {
            return self.miss(x, "a transformer block or position embeddings");
        };
        let kinds: Vec<Kind> = along.iter().map(|digit| digit.kind).collect();
        let whole = along.iter().all(Digit::is_whole);
        let (patches, class_token) = match self.op(*below) {
            Op::Join { parts, .. } => match parts[..] {
                [Part::Constant(token), Part::Value(patches)] => (patches, Some(token)),
                _ => return self.miss(*below, "a class token and patches"),
            },
            _ => (*below, None),
        };
        let expected: &[Kind] = match class_token {
            Some(_) => &[Kind::Token, Kind::Feature],
            None => &[Kind::Row, Kind::Column, Kind::Feature],
        };
        if kinds != expected || !whole {
            return self.miss(x, "an embedding for each position");
        }
        let Some((conv, patch)) = self.patches(patches) else {
            return self.miss(patches, "a patch embedding");
        };
        Some(Stem { conv, patch, positions: *constant, class_token })
    }

    /// Writes the stem; returns height and width of the grid, and the number of features.
    fn put_stem(&self, stem: &Stem, network: &mut Network) -> Result<(usize, usize, usize)> {
        let scaling = self.image(stem.conv.x).ok_or_else(|| self.unknown())?;
        network.scaling = Some(scaling);
        self.put_conv("patch_embed.proj", &stem.conv, scaling.flipped)?;
        let (height, width) = self.trace.input;
        let dim = self.arena().get(stem.conv.weight).dims[0];
        let (rows, columns) = (height / stem.patch, width / stem.patch);
        let mut tokens = rows * columns;
        if let Some(token) = stem.class_token {
            self.put("cls_token".into(), &[1, 1, dim], self.take(token)?)?;
            tokens += 1;
        }
        self.put("pos_embed".into(), &[1, tokens, dim], self.take(stem.positions)?)?;
        Ok((rows, columns, dim))
    }

    /// Sizes that all blocks must share: heads, and features of the MLP.
    fn shared(&self, body: &Body) -> Result<(usize, usize)> {
        let sizes = |(attended, feed): &(Half<Attended>, Half<Feed>)| {
            let hidden = match &feed.layers {
                Feed::Plain(mlp) => mlp.fc1.outer,
                Feed::Gated(gated) => gated.gate.outer,
            };
            (attended.layers.attention.heads, hidden)
        };
        let first = sizes(&body.blocks[0]);
        if body.blocks.iter().any(|block| sizes(block) != first) {
            return Err(Error::unsupported(
                "the blocks have different numbers of heads or features",
            ));
        }
        Ok(first)
    }

    fn put_vit(&self, head: &Head, norm: &LayerNorm, body: &Body) -> Result<Network> {
        let mut network = Network::default();
        let (_, _, dim) = self.put_stem(&body.stem, &mut network)?;
        let scaled = body.blocks[0].0.scale.is_some();
        for (i, (attended, feed)) in body.blocks.iter().enumerate() {
            let name = format!("blocks.{i}");
            if attended.scale.is_some() != scaled || feed.scale.is_some() != scaled {
                return Err(Error::unsupported("only some blocks have a layer scale"));
            }
            if attended.layers.attention.rotary.is_some() {
                return Err(Error::unsupported("a ViT with rotary positions is not known"));
            }
            let Feed::Plain(mlp) = &feed.layers else {
                return Err(Error::unsupported("a ViT with gated MLPs is not known"));
            };
            self.put_norm(&format!("{name}.norm1"), &attended.norm)?;
            self.put_qkv(&format!("{name}.attn.qkv"), &attended.layers.attention, true)?;
            self.put_linear(&format!("{name}.attn.proj"), &attended.layers.proj)?;
            self.put_norm(&format!("{name}.norm2"), &feed.norm)?;
            self.put_linear(&format!("{name}.mlp.fc1"), &mlp.fc1)?;
            self.put_linear(&format!("{name}.mlp.fc2"), &mlp.fc2)?;
            for (scale, which) in [(attended.scale, "ls1"), (feed.scale, "ls2")] {
                if let Some(scale) = scale {
                    self.put_vector(format!("{name}.{which}.gamma"), scale)?;
                }
            }
        }
        self.put_norm("norm", norm)?;
        self.put_linear("head", &head.linear)?;
        let (heads, hidden) = self.shared(body)?;
        let mut arguments = Map::new();
        arguments.insert("class_token".into(), json!(false));
        arguments.insert("fc_norm".into(), json!(false));
        arguments.insert("global_pool".into(), json!("avg"));
        let defaults = match dim {
            1024 => ("vit_large_patch16_224", 1024, 24, 16),
            _ => ("vit_base_patch16_224", 768, 12, 12),
        };
        network.architecture = defaults.0.into();
        set(&mut arguments, "patch_size", body.stem.patch, 16);
        set(&mut arguments, "embed_dim", dim, defaults.1);
        set(&mut arguments, "depth", body.blocks.len(), defaults.2);
        set(&mut arguments, "num_heads", heads, defaults.3);
        if hidden != 4 * dim {
            arguments.insert("mlp_ratio".into(), ratio(hidden, dim));
        }
        if scaled {
            // timm only asks whether there is a value; the scales themselves are in the file.
            arguments.insert("init_values".into(), json!(1e-5));
        }
        network.arguments = arguments;
        network.features = dim;
        network.default_epsilon = 1e-6;
        network.global_pool = Some("avg");
        network.classes = head.linear.outer;
        Ok(network)
    }

    fn put_eva(&self, head: &Head, norm: &LayerNorm, body: &Body) -> Result<Network> {
        let mut network = Network::default();
        if body.stem.class_token.is_none() {
            return Err(Error::unsupported("an EVA02 without a class token is not known"));
        }
        let (rows, columns, dim) = self.put_stem(&body.stem, &mut network)?;
        let mut reference = None;
        for (i, (attended, feed)) in body.blocks.iter().enumerate() {
            let name = format!("blocks.{i}");
            let attention = &attended.layers.attention;
            let (Projection::Separate(parts), Feed::Gated(gated), Some(rotary)) =
                (&attention.projection, &feed.layers, &attention.rotary)
            else {
                return Err(
                    Error::unsupported("an EVA02 of this form is not known").with("block", i)
                );
            };
            if attended.scale.is_some() || feed.scale.is_some() || parts[1].bias.is_some() {
                return Err(Error::unsupported(
                    "an EVA02 with layer scales or a bias of its keys is not known",
                )
                .with("block", i));
            }
            for rotary in rotary {
                let found = super::rotary::reference(
                    &self.take(rotary.sin)?,
                    &self.take(rotary.cos)?,
                    (rows, columns),
                    attention.head_dim,
                )?;
                if *reference.get_or_insert(found) != found {
                    return Err(Error::unsupported("the layers have different rotary positions"));
                }
            }
            self.put_norm(&format!("{name}.norm1"), &attended.norm)?;
            self.put_linear(&format!("{name}.attn.q_proj"), &parts[0])?;
            let key = self.matrix(&parts[1])?;
            self.put(format!("{name}.attn.k_proj.weight"), &[dim, dim], key)?;
            self.put_linear(&format!("{name}.attn.v_proj"), &parts[2])?;
            self.put_linear(&format!("{name}.attn.proj"), &attended.layers.proj)?;
            self.put_norm(&format!("{name}.norm2"), &feed.norm)?;
            self.put_linear(&format!("{name}.mlp.fc1_g"), &gated.gate)?;
            self.put_linear(&format!("{name}.mlp.fc1_x"), &gated.up)?;
            let Some(inner) = &gated.norm else {
                return Err(Error::unsupported("an EVA02 without norms in its MLPs is not known"));
            };
            self.put_norm(&format!("{name}.mlp.norm"), inner)?;
            self.put_linear(&format!("{name}.mlp.fc2"), &gated.fc2)?;
        }
        self.put_norm("fc_norm", norm)?;
        self.put_linear("head", &head.linear)?;
        let (heads, hidden) = self.shared(body)?;
        let defaults = match dim {
            768 => ("eva02_base_patch14_448", 768, 12, 12),
            _ => ("eva02_large_patch14_448", 1024, 24, 16),
        };
        network.architecture = defaults.0.into();
        let mut arguments = Map::new();
        set(&mut arguments, "patch_size", body.stem.patch, 14);
        set(&mut arguments, "embed_dim", dim, defaults.1);
        set(&mut arguments, "depth", body.blocks.len(), defaults.2);
        set(&mut arguments, "num_heads", heads, defaults.3);
        if hidden != dim * 8 / 3 {
            arguments.insert("mlp_ratio".into(), ratio(hidden, dim));
        }
        let (height, width) = reference.unwrap_or((rows, columns));
        arguments.insert("ref_feat_shape".into(), json!([height, width]));
        network.arguments = arguments;
        network.features = dim;
        network.default_epsilon = 1e-6;
        network.global_pool = Some("avg");
        network.classes = head.linear.outer;
        // Gated MLPs have no activation function to choose.
        network.fixed_activation = true;
        debug_assert!(is_features(&norm.along));
        Ok(network)
    }
}

/// Sets an argument that differs from the architecture's own.
pub(super) fn set(arguments: &mut Map<String, Value>, name: &str, value: usize, default: usize) {
    if value != default {
        arguments.insert(name.into(), json!(value));
    }
}

/// A ratio `r` for which `floor(r * dim)`, as timm computes it, is `hidden`.
pub(super) fn ratio(hidden: usize, dim: usize) -> Value {
    if hidden.is_multiple_of(dim.max(1)) {
        return json!(hidden / dim.max(1));
    }
    let exact = hidden as f64 / dim as f64;
    let below = (exact * dim as f64) as usize != hidden;
    json!(if below { (hidden as f64 + 0.5) / dim as f64 } else { exact })
}
