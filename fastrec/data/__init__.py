"""Loading, splitting and describing interaction data. Polars is imported on first use of what needs it."""

from fastrec.data.interactions import Interactions

__all__ = ["Interactions"]
