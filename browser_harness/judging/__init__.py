"""The commands that judge reports.  Importing this imports nothing that judging needs."""
