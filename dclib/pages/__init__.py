"""What a reader clicks, reads in a browser, or saves."""
