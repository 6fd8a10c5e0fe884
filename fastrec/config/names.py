"""Former names of options, and the map by which older records are read."""

RENAMED = {
    "lr_h": "output_lr",
    "l2_h": "output_l2",
    "init_h": "output_init",
    "test_share": "test_fraction",
    "avoid": "exclude",
}
"""Former name -> name. A former name is refused with the new one, but for the records of earlier runs."""
