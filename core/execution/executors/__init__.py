"""The choices of where runs are carried out, one file each: light enough for a list, before anything of them is imported."""
