"""Decoder graphs without weights."""
