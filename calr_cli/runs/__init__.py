"""Runs on disk: their folders, how they are found, listed and resumed."""
