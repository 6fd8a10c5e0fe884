"""Exports that are folders: ONNX models, an index of nearest neighbours, TensorBoard's projector."""
