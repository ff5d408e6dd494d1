//! Weights out of ONNX graphs.
