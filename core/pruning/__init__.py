"""Surgery: finding the parts of a transformer that can be made smaller, cutting them, and healing what was cut."""
