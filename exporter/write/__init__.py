"""Shards, staging, sealing, verifying."""
