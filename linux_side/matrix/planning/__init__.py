"""Makes a plan of a spec: which cells run, on which host, and with how much memory."""
