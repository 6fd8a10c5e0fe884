"""The bench: cases that check their output before they time it, rivals in the same run, records that can be compared.

``python -m fastrec.bench`` runs it; ``fastrec.bench.harness`` tells how a case is written.
"""
