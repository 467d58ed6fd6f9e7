"""A judge that learns: a vision-language model, trained on probes of the initial labels to verify masks and completeness."""
