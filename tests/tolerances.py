"""Every tolerance of the numerical tests, with its reason. Relative unless said otherwise."""

import torch

# An identity evaluated in one precision: a few hundred roundings of numbers of order one.
IDENTITY = {torch.float64: 2e-13, torch.float32: 2e-4}
# Frames are a handful of products of unit vectors.
FRAME = {torch.float64: 2e-15, torch.float32: 1e-6}
# Network fed with the stored graph and frames against the stored float64 numbers.
NETWORK_PARITY = {torch.float64: 1e-11, torch.float32: 2e-5}
# Calculator with its own graph and frames against stored numbers of an edge grid so fine that frames do not matter.
CALCULATOR_PARITY = {"float64": 1e-7, "float32": 1e-5}
# The same network summed in another order: permuted atoms, other batches, other thread counts.
REORDERED = {"float64": 1e-12, "float32": 2e-5}
# Gradient forces in float32 against float64, relative to the largest: a backward pass doubles the roundings.
GRADIENT_FLOAT32 = 5e-5
# Analytic forces against Richardson finite differences in float64, relative to the largest force.
FORCES_OF_FINITE_DIFFERENCES = 1e-6
# The same for components of the stress, absolute, eV/Å³.
STRESS_OF_FINITE_DIFFERENCES = 1e-7
# SO(2) maps against the explicit tensor product, float64, largest difference over largest entry, up to lmax 6.
TENSOR_PRODUCT = 1e-12
