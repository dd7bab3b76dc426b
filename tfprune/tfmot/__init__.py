"""Training by tensorflow-model-optimization, through tf_keras."""
