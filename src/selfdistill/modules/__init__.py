"""Networks that exist only while training."""
