"""One round of the loop: what a run is, what verdicts do to labels, and the log of who drew and verified what."""
