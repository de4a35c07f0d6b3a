"""What the teacher and the inference server share: client, errors, completions, rate limit."""
