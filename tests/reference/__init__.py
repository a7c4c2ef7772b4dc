"""Slow re-derivations and translations that the tests compare with."""
