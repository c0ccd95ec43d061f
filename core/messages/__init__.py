"""Sentences for people as values: a code with its facts, which a catalogue turns into words where people see it."""
