"""Figures as inline SVG: pure functions from numbers to an `Element`."""
