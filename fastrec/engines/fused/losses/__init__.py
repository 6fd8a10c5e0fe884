"""Losses for many negatives, one file each; ``spec`` holds their numbers and options."""
