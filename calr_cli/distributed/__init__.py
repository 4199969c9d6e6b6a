"""Several devices: one process for each, and how the processes communicate."""
