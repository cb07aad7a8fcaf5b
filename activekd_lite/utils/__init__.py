"""Helpers that know nothing about active learning: files, devices, seeds, images, views."""
