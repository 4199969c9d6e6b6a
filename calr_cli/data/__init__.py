"""Feeds a network: manifest, local labels, decoded images, augmentation and batches."""
