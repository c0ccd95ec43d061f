"""Engines: what runtimes other than torch share when one runs a model in its place."""
