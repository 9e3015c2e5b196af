"""Signatures over artifacts: making them, verifying them, and the policy that asks for them."""
