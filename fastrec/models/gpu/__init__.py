"""Kernels of the models in Triton, for CUDA devices: each module needs triton, and nothing imports one at start."""
