"""The names by which a network is chosen. Nothing here imports TensorFlow."""

NETWORKS = ("mlp", "mlp_norm", "conv", "conv3_norm", "conv_stride4", "columns", "columns_deep", "columns_wide")
NETWORKS += ("resnet", "resnet_wide")
CONVOLUTIONS = ("patches", "native")
PRECISIONS = ("float32", "tf32", "bfloat16")
CELLS = {"lstm": 2, "gru": 1}  # and of how many vectors the state is
