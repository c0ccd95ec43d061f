"""The parts of a model that passes work on: linear layers, weights, blocks."""
