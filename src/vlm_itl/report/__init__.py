"""What people look at: the table of runs, figures, galleries, the page, and the table of all experiments."""
