"""What people look at: the table of runs, the figures, the galleries and the page."""
