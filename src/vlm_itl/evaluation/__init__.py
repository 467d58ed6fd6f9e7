"""From predictions, verdicts and ledgers to numbers."""
