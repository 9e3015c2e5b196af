"""From a spec to a plan: which cells run, on which host, with how much memory."""
