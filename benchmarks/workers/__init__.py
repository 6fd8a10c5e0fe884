"""Programs that the bench runs in processes of their own: one JSON argument, one line of JSON as the answer."""
