"""Questions that need more than one training."""
