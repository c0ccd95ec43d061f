"""What a pass is: what it is asked, what it may touch, what it reports."""
