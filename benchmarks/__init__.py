"""The benchmark suite: `benchmarks.run` measures, `benchmarks.compare` guards; README.md says how to read both."""

import os

# Read when TensorFlow starts a GPU, nearly all of whose memory it otherwise takes at once: the two sides of a
# comparison share the device, and so does a run with the processes that it starts.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
