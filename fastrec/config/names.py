"""Former names of options, and the map by which older records are read."""

RENAMED = {
    "lr_h": "output_lr",
    "l2_h": "output_l2",
    "init_h": "output_init",
    "test_share": "test_fraction",
    "avoid": "exclude",
}
"""Former name -> name. A former name is refused with the new one, but for the records of earlier runs."""

COLUMNS = ("user_col", "item_col", "rating_col", "time_col", "time_format", "item_table", "user_table")
"""How a log is read, as against what of it is kept."""

UPDATABLE = (
    *COLUMNS,
    *("lr", "l2", "output_l2", "output_lr", "weight_decay", "schedule", "warmup", "step_epochs", "step_factor"),
    *("epochs", "batch_size", "patience", "device", "precision", "graph", "compile", "threads"),
    *("select", "baselines", "cutoffs"),
    *("out", "checkpoint_every", "keep", "log_every", "tensorboard", "progress"),
)
"""Options that ``fastrec update`` takes; the others are those of the run that it updates."""

UPDATE_EPOCHS = 5
"""Epochs of an update unless told; docs/update.md measures it."""
