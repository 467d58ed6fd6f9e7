"""One round of the loop: what verdicts and a policy do to labels and pool, and the log of who drew and verified what."""
