"""The report of a run: one page that shows how it trained, how well it ranks and for whom, and what it lists."""
