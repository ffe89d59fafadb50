"""tfdqn beside its peers. Nothing is imported here: the workers run where neither tfdqn nor TensorFlow is installed."""
