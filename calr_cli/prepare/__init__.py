"""What makes a dataset ready: found, unpacked, checked, listed."""
