"""Serve a bundle, run it in a real browser, measure it, judge it and report.

Nothing here runs a model in Python: the page runs the same runtime module that the
bundle ships, and this room drives the page and watches its processes.
"""
