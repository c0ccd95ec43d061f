"""Runs and the file that holds them."""
