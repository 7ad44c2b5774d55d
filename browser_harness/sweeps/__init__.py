"""Measurements along one axis at a time, on request: ``measure --sweep``."""
