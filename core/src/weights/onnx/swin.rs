//! Reads SwinV2: windows, cosine attention with position biases, post-norm blocks, merging.

use serde_json::{Map, json};

use super::attention::{Attention, Projection};
use super::constant::Data;
use super::expr::{ConstId, Id, Op, Over};
use super::layout::{Digit, Kind, extent, merged};
use super::probe::LayerNorm;
use super::reader::{Conv, Linear, Mlp, Reader};
use super::vit::{ratio, set};
use super::{Head, Network};
use crate::error::{Error, Result};
use crate::weights::windows::mask;

struct Block {
    attention: Attention,
    proj: Linear,
    norm1: LayerNorm,
    mlp: Mlp,
    norm2: LayerNorm,
    shift: usize,
}

struct Stage {
    /// Reduction and norm that lead into the stage; the first has none.
    merging: Option<(Linear, LayerNorm)>,
    blocks: Vec<Block>,
}

impl Reader<'_, '_> {
    /// A SwinV2: `head(mean(norm(stages)))`.
    pub(super) fn swin(&self, head: &Head) -> Option<Result<Network>> {
        let Op::Reduce { over: Over::Mean, x, along } = self.op(head.linear.x) else { return None };
        let grid = matches!(merged(along)[..], [row, column]
            if row.kind == Kind::Row && column.kind == Kind::Column);
        let norm = self.norm(*x).filter(|_| grid)?;
        let (mut below, mut stages) = (norm.x, Vec::new());
        let (conv, patch, stem_norm) = loop {
            let mut blocks = Vec::new();
            while let Some((next, block)) = self.swin_block(below) {
                blocks.push(block);
                below = next;
            }
            blocks.reverse();
            let Some(norm) = self.norm(below) else {
                return self.miss(below, "a SwinV2 block");
            };
            if let Some((conv, patch)) = self.patches(norm.x) {
                stages.push(Stage { merging: None, blocks });
                break (conv, patch, norm);
            }
            let Some(reduction) = self.linear(norm.x).filter(is_merging) else {
                return self.miss(norm.x, "patch merging or a patch embedding");
            };
            below = reduction.x;
            stages.push(Stage { merging: Some((reduction, norm)), blocks });
        };
        stages.reverse();
        Some(self.put_swin(head, &norm, &stages, (&conv, patch, &stem_norm)))
    }

    fn swin_block(&self, x: Id) -> Option<(Id, Block)> {
        self.residual(x).into_iter().find_map(|(middle, branch)| {
            let norm2 = self.norm(branch)?;
            let mlp = self.mlp(norm2.x).filter(|mlp| mlp.response.is_none())?;
            if mlp.fc1.x != middle {
                return None;
            }
            self.residual(middle).into_iter().find_map(|(short, branch)| {
                let norm1 = self.norm(branch)?;
                let (back, below) = self.rolls(norm1.x);
                let proj = self.plain_linear(below)?;
                let attention = self.attention(proj.x)?;
                let (forth, source) = self.rolls(attention.x);
                if source != short {
                    return self.miss(branch, "a block that starts at its shortcut");
                }
                let shift = self.shift(&forth, &back)?;
                Some((
                    short,
                    Block { attention, proj, norm1, mlp: mlp.clone(), norm2: norm2.clone(), shift },
                ))
            })
        })
    }

    /// The rolls on top of `id`, and what is below.
    fn rolls(&self, id: Id) -> (Vec<(Digit, usize)>, Id) {
        let (mut rolls, mut below) = (Vec::new(), id);
        while let Op::Roll { x, digit, by } = self.op(below) {
            rolls.push((*digit, *by));
            below = *x;
        }
        rolls.sort_unstable();
        (rolls, below)
    }

    /// By how much the windows are shifted, if both axes are, forth and back.
    fn shift(&self, forth: &[(Digit, usize)], back: &[(Digit, usize)]) -> Option<usize> {
        match (forth, back) {
            ([], []) => Some(0),
            ([(row, shift), (column, other)], [(row_back, back), (column_back, back_too)]) => {
                let fits = row.kind == Kind::Row
                    && column.kind == Kind::Column
                    && [row, column] == [row_back, column_back]
                    && shift == other
                    && back == back_too
                    && shift + back == row.size
                    && shift + back == column.size;
                fits.then_some(*shift)
            }
            _ => None,
        }
    }

    fn put_swin(
        &self,
        head: &Head,
        norm: &LayerNorm,
        stages: &[Stage],
        (conv, patch, stem_norm): (&Conv, usize, &LayerNorm),
    ) -> Result<Network> {
        let mut network = Network::default();
        let scaling = self.image(conv.x).ok_or_else(|| self.unknown())?;
        network.scaling = Some(scaling);
        self.put_conv("patch_embed.proj", conv, scaling.flipped)?;
        self.put_norm("patch_embed.norm", stem_norm)?;
        let dim = self.arena().get(conv.weight).dims[0];
        let (height, width) = self.trace.input;
        if height != width {
            return Err(Error::unsupported("a SwinV2 for images that are not square is not known"));
        }
        let side = |s: usize| (height / patch) >> s;
        let all = || stages.iter().flat_map(|stage| &stage.blocks);
        let window = all().filter_map(|block| window_of(&block.attention)).max().unwrap_or(0);
        let (mut depths, mut heads, mut hidden) = (Vec::new(), Vec::new(), None);
        for (s, stage) in stages.iter().enumerate() {
            let name = format!("layers.{s}");
            if let Some((reduction, norm)) = &stage.merging {
                let weight = self.matrix(reduction)?;
                let width = weight.len() / reduction.outer.max(1);
                if reduction.bias.is_some()
                    || [reduction.outer, width] != [dim << s, dim << (s + 1)]
                {
                    return Err(Error::unsupported("patch merging of this form is not known"));
                }
                let dims = [reduction.outer, width];
                self.put(format!("{name}.downsample.reduction.weight"), &dims, weight)?;
                self.put_norm(&format!("{name}.downsample.norm"), norm)?;
            }
            for (b, block) in stage.blocks.iter().enumerate() {
                let (name, side) = (format!("{name}.blocks.{b}"), side(s));
                let expected = window.min(side);
                let shift = if b % 2 == 1 && side > window { window / 2 } else { 0 };
                if window_of(&block.attention) != Some(expected) || block.shift != shift {
                    return Err(Error::unsupported(format!(
                        "windows of {:?} shifted by {} on a map of {side} are not those of SwinV2",
                        window_of(&block.attention),
                        block.shift
                    ))
                    .with("block", name));
                }
                self.put_swin_block(&name, block, side)
                    .map_err(|error| error.with("block", name))?;
                let ratio = (block.mlp.fc1.outer, dim << s);
                let first = *hidden.get_or_insert(ratio);
                if ratio.0 * first.1 != first.0 * ratio.1 {
                    return Err(Error::unsupported("the blocks have different MLP ratios"));
                }
            }
            depths.push(stage.blocks.len());
            heads.push(stage.blocks.first().map_or(0, |block| block.attention.heads));
            if stage.blocks.iter().any(|block| Some(&block.attention.heads) != heads.last()) {
                return Err(Error::unsupported("the blocks of a stage have different heads"));
            }
        }
        self.put_final_norm("norm", norm)?;
        network.final_epsilon = Some(norm.epsilon);
        self.put_linear("head.fc", &head.linear)?;
        let mut arguments = Map::new();
        arguments.insert("window_size".into(), json!(window));
        set(&mut arguments, "patch_size", patch, 4);
        set(&mut arguments, "embed_dim", dim, 128);
        if depths != [2, 2, 18, 2] {
            arguments.insert("depths".into(), json!(depths));
        }
        if heads != [4, 8, 16, 32] {
            arguments.insert("num_heads".into(), json!(heads));
        }
        if let Some((hidden, width)) = hidden.filter(|(hidden, width)| *hidden != 4 * width) {
            arguments.insert("mlp_ratio".into(), ratio(hidden, width));
        }
        network.architecture = "swinv2_base_window8_256".into();
        network.arguments = arguments;
        network.features = dim << (stages.len() - 1);
        network.default_epsilon = 1e-5;
        network.classes = head.linear.outer;
        network.global_pool = Some("avg");
        Ok(network)
    }

    fn put_swin_block(&self, name: &str, block: &Block, side: usize) -> Result<()> {
        let attention = &block.attention;
        let unknown = |what: &str| Err(Error::unsupported(format!("SwinV2 attention {what}")));
        let Projection::Fused(qkv) = &attention.projection else {
            return unknown("with separate projections is not known");
        };
        let width = attention.heads * attention.head_dim;
        let (Some(scale), true) = (attention.head_scale, attention.cosine) else {
            return unknown("without cosine similarity is not known");
        };
        if attention.scale != 1.0 || attention.rotary.is_some() {
            return unknown("with a further factor is not known");
        }
        self.put_qkv(&format!("{name}.attn.qkv"), attention, false)?;
        let bias = self.bias(qkv.bias, 3 * width)?;
        if bias[width..2 * width].iter().any(|value| *value != 0.0) {
            return unknown("with a bias of the keys is not known");
        }
        self.put(format!("{name}.attn.q_bias"), &[width], bias[..width].to_vec())?;
        self.put(format!("{name}.attn.v_bias"), &[width], bias[2 * width..].to_vec())?;
        let scale = self.logit_scale(scale, attention.heads)?;
        self.put(format!("{name}.attn.logit_scale"), &[attention.heads, 1, 1], scale)?;
        let positions = self.positions(attention);
        let table = self.position_bias(attention, side, block.shift)?;
        self.put(
            format!("{name}.attn.position_bias"),
            &[attention.heads, positions, positions],
            table,
        )?;
        self.put_linear(&format!("{name}.attn.proj"), &block.proj)?;
        self.put_norm(&format!("{name}.norm1"), &block.norm1)?;
        self.put_linear(&format!("{name}.mlp.fc1"), &block.mlp.fc1)?;
        self.put_linear(&format!("{name}.mlp.fc2"), &block.mlp.fc2)?;
        self.put_norm(&format!("{name}.norm2"), &block.norm2)
    }

    /// The logarithm of the factors of the scores: the parameter itself where the file has it.
    fn logit_scale(&self, id: ConstId, heads: usize) -> Result<Vec<f32>> {
        let scale = self.take(id)?;
        if scale.len() != heads || scale.iter().any(|v| !(v.is_finite() && *v > 0.0)) {
            return Err(Error::unsupported("the factors of the scores are not positive"));
        }
        if let [source] = self.arena().get(id).sources[..]
            && let Data::Floats(raw) =
                self.trace.graph.load(&self.trace.graph.initializers[source])?
        {
            let same = |(raw, scale): (&f32, &f32)| {
                let expected = raw.min(100f32.ln()).exp();
                (expected - scale).abs() <= 1e-5 * expected
            };
            if raw.len() == heads && raw.iter().zip(&scale).all(same) {
                return Ok(raw.to_vec());
            }
        }
        Ok(scale.iter().map(|value| value.ln()).collect())
    }

    /// What is added to the scores of each head, without the masks of shifted windows.
    fn position_bias(&self, attention: &Attention, side: usize, shift: usize) -> Result<Vec<f32>> {
        let unknown = || Error::unsupported("a position bias of this form is not known");
        let (heads, n) = (attention.heads, self.positions(attention));
        let windows = extent(&attention.windows);
        let table = heads.checked_mul(n * n).filter(|size| *size < 1 << 28).ok_or_else(unknown)?;
        let mut bias = vec![0f32; table];
        let mut masks = Vec::new();
        for (constant, along) in &attention.biases {
            let lie = |digits: &[Digit]| along.iter().any(|digit| digits.contains(digit));
            let by_window = windows > 1 && lie(&attention.windows);
            let by_head = heads > 1 && along.iter().any(|digit| digit.kind == Kind::Feature);
            let mut expected = Vec::new();
            if by_window {
                expected.extend(&attention.windows);
            }
            expected.extend(along.iter().filter(|digit| digit.kind == Kind::Feature));
            expected.extend(&attention.positions);
            expected.extend(attention.positions.iter().map(|digit| digit.with_twin(true)));
            let lead = if by_window { windows } else { 1 } * if by_head { heads } else { 1 };
            let values = self.take(*constant)?;
            if *along != expected || values.len() != lead * n * n {
                return Err(unknown());
            }
            // The first window has no mask: what it holds is the position bias.
            for (head, table) in bias.chunks_exact_mut(n * n).enumerate() {
                let from = if by_head { head * n * n } else { 0 };
                table.iter_mut().zip(&values[from..]).for_each(|(to, value)| *to += value);
            }
            if by_window {
                masks.push((values, by_head));
            }
        }
        if masks.is_empty() && shift == 0 {
            return Ok(bias);
        }
        if shift == 0 || masks.len() != 1 {
            return Err(Error::unsupported(
                "shifted windows without a mask, or a mask without them",
            ));
        }
        let (values, by_head) = &masks[0];
        let per_window = if *by_head { heads } else { 1 } * n * n;
        let window = (n as f64).sqrt() as usize;
        for (w, values) in values.chunks_exact(per_window).enumerate() {
            let mask = mask(side, window, shift, w);
            for (table, first) in values.chunks_exact(n * n).zip(masks[0].0.chunks_exact(n * n)) {
                for ((value, first), mask) in table.iter().zip(first).zip(&mask) {
                    if (value - first - mask).abs() > 1e-3 {
                        return Err(unknown());
                    }
                }
            }
        }
        Ok(bias)
    }
}

/// The side of the (square) windows.
fn window_of(attention: &Attention) -> Option<usize> {
    match attention.positions[..] {
        [row, column] if row.kind == Kind::Row && column.kind == Kind::Column => {
            let fits = row.extent == column.extent && row.stride == 1 && column.stride == 1;
            fits.then_some(row.extent)
        }
        _ => None,
    }
}

/// Whether a linear layer takes four neighbours: rows vary fastest, as SwinV2 was trained.
fn is_merging(linear: &Linear) -> bool {
    matches!(linear.inner[..], [column, row, features]
        if column.kind == Kind::Column && row.kind == Kind::Row
        && [column.stride, column.extent] == [1, 2]
        && [row.stride, row.extent] == [1, 2]
        && features.kind == Kind::Feature && features.is_whole())
}
