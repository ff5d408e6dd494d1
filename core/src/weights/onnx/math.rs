//! Scalar functions of the graphs, in double precision.

/// The value of the ONNX operation `op` at `x`.
pub(super) fn unary(op: &str, x: f64) -> Option<f64> {
    Some(match op {
        "Sqrt" => x.sqrt(),
        "Reciprocal" => 1.0 / x,
        "Exp" => x.exp(),
        "Log" => x.ln(),
        "Sigmoid" => sigmoid(x),
        "Relu" => x.max(0.0),
        "Neg" => -x,
        "Abs" => x.abs(),
        "Sign" if x == 0.0 => 0.0,
        "Sign" => x.signum(),
        "Erf" => erf(x),
        "Tanh" => x.tanh(),
        "Floor" => x.floor(),
        "Ceil" => x.ceil(),
        "Sin" => x.sin(),
        "Cos" => x.cos(),
        _ => return None,
    })
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function: its power series near zero, a continued fraction of `erfc` beyond.
pub(super) fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..60 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI * x.signum();
    }
    let mut fraction = 0.0;
    for n in (1..60).rev() {
        fraction = f64::from(n) / 2.0 / (a + fraction);
    }
    let erfc = (-a * a).exp() / (a + fraction) / std::f64::consts::PI.sqrt();
    (1.0 - erfc) * x.signum()
}

/// GELU with the error function.
pub(super) fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// GELU with the hyperbolic tangent.
pub(super) fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_matches_tables() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.0, 0.9953222650189527),
            (2.6, 0.9997639655834707),
            (3.5, 0.9999992569016276),
            (-1.0, -0.8427007929497149),
        ] {
            assert!((erf(x) - expected).abs() < 1e-10, "erf({x}) = {}", erf(x));
        }
        assert!((gelu(1.0) - 0.8413447460685429).abs() < 1e-10);
        assert!((gelu_tanh(1.0) - 0.8411919906082768).abs() < 1e-10);
    }
}
