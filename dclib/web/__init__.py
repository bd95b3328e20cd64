"""What is read in a browser without a kernel, or saved: HTML of regions, photos and films."""
