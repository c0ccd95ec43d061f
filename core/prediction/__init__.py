"""What a pass should gain: the model's work counted, the machine's ceilings measured, its layers tried."""
