"""From predictions, verdicts and ledgers to numbers, and how sure the difference of two arms is. Nothing here loads torch."""
