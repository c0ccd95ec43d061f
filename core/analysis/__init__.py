"""What the columns of a run mean: statistics, comparison."""
