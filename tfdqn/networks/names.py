"""The names by which a network is chosen. Nothing here imports TensorFlow."""

NETWORKS = ("mlp", "conv", "conv_stride4", "columns", "columns_deep", "columns_wide")
CONVOLUTIONS = ("patches", "native")
PRECISIONS = ("float32", "bfloat16")
