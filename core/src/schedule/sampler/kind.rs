//! The names of the samplers.

use super::super::names::named;

named! {
    /// How a run goes from one sigma to the next. The names are those of the Fooocus API.
    SamplerKind, "sampler";
    Euler = "euler",
    EulerAncestral = "euler_ancestral",
    Heun = "heun",
    HeunPp2 = "heunpp2",
    Dpm2 = "dpm_2",
    Dpm2Ancestral = "dpm_2_ancestral",
    Lms = "lms",
    DpmFast = "dpm_fast",
    DpmAdaptive = "dpm_adaptive",
    DpmPp2sAncestral = "dpmpp_2s_ancestral",
    DpmPpSde = "dpmpp_sde",
    DpmPpSdeGpu = "dpmpp_sde_gpu",
    DpmPp2m = "dpmpp_2m",
    DpmPp2mSde = "dpmpp_2m_sde",
    DpmPp2mSdeGpu = "dpmpp_2m_sde_gpu",
    DpmPp3mSde = "dpmpp_3m_sde",
    DpmPp3mSdeGpu = "dpmpp_3m_sde_gpu",
    Ddpm = "ddpm",
    Lcm = "lcm",
    Tcd = "tcd",
    Restart = "restart",
    Ddim = "ddim",
    UniPc = "uni_pc",
    UniPcBh2 = "uni_pc_bh2",
}

impl SamplerKind {
    /// Whether the last sigma above 0 is left out of its schedules: a step over two of them there is
    /// better with these samplers.
    pub(crate) fn discards_penultimate_sigma(self) -> bool {
        use SamplerKind::{Dpm2, Dpm2Ancestral, UniPc, UniPcBh2};
        matches!(self, Dpm2 | Dpm2Ancestral | UniPc | UniPcBh2)
    }
}
