"""How fast is this machine: cases that check their output before they time it, recorded so that they can be compared.

``python -m fastrec.bench`` runs it; ``fastrec.bench.harness`` shows how to write a case. Baselines, long cases, reports
and comparisons are in ``benchmarks/`` of the source repository and join in when the bench runs from a checkout.
"""
