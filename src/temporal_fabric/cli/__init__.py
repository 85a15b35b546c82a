"""The command line: parses, calls the client, prints. No logic.

Modules here import nothing heavy at the top, so that ``--help`` stays instant.
"""
