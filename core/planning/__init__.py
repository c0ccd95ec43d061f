"""Which passes may go together, what they would gain, and what kernels ran in the end."""
