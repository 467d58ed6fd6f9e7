"""A judge that learns: a vision-language model, trained on probes of the initial labels to say which masks are right and what is missing."""
