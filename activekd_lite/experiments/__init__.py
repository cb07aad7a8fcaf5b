"""Runs by name: one, a grid of them, and the paper's protocol."""
