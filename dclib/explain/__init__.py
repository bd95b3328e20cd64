"""What the network looked at, and whether maps of it can be trusted."""
