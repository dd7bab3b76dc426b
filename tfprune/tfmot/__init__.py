"""tensorflow-model-optimization, by way of tf_keras."""
