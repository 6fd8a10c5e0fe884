"""Fault injection: crashes, full disks, lost power, hostile input, flipped bits, threads and long runs.

``python -m scripts.torture`` tries points drawn by seed, ``--part NAME`` those of one part; each prints counts as JSON.
"""
