"""The benchmark suite: `benchmarks.run` measures, `benchmarks.compare` guards; README.md says how to read both."""
