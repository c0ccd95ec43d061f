"""Pickers for model, workload, target and passes."""
