"""Mutation tests: small faults are put into the code one at a time, and the tests should notice.

``make mutate`` runs this package; CONTRIBUTING.md says how to read what it prints.
"""
