"""What may be asked of a table of predictions, or of a network that is trained already."""
