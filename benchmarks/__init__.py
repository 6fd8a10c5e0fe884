"""Measurements of fastrec that only a checkout of the repository has: baselines, long cases, records, reports.

``python -m fastrec.bench`` finds this package next to its own; README.md has the rules and the records table.
"""
