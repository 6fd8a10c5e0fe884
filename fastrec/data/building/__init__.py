"""From a Parquet log of any size to a saved CSR, in bounded memory: ``build``."""
