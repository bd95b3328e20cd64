"""Parts of a training run that `dclib.train` puts together."""
