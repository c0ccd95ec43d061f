"""What a carrier does for somebody who waits: one file for each kind of job, all with one life cycle."""
